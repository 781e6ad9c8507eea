from __future__ import annotations

import numpy as np

from bittern.benchmarks.speed.codes import clustered
from bittern.benchmarks.speed.harness import Report
from bittern.benchmarks.speed.search.engines import flat_engine
from bittern.benchmarks.speed.search.exactness import all_distances
from bittern.benchmarks.speed.search.filters import (
    KINDS,
    SHARES,
    USES,
    drawn_filters,
    is_right,
    measure_filters,
)
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest, RowSet, SearchEngine


class ForgetsTheNearest:
    """An engine that leaves out the best row of every answer."""

    kind, exact, nbytes = "flat", True, 0

    def __init__(self, engine: SearchEngine) -> None:
        self._engine = engine

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        found = self._engine.search(queries, k + 1, rows)
        return [Nearest(one.distances[1:], one.rows[1:]) for one in found]


def test_filters_leave_rows_at_random_or_the_farthest() -> None:
    distances = np.arange(10_000, dtype=np.float64)
    filters = {(one.kind, one.share): one.rows for one in drawn_filters("hamming", distances)}
    assert len(filters) == len(KINDS) * len(SHARES)
    assert filters["farthest", 0.01].tolist() == list(range(9_900, 10_000))
    independent = filters["independent", 0.5]
    assert len(independent) == 5_000
    assert (np.diff(independent) > 0).all()
    assert np.count_nonzero(independent < 5_000) > 2_000
    assert len(filters["farthest", 1.0]) == 10_000


def test_an_answer_that_lacks_a_row_is_not_right() -> None:
    collection = clustered(1_000, 64)
    query = collection.queries("hamming", 1)
    distances = all_distances(query, collection.codes)
    engine, rows = flat_engine(collection), np.arange(0, 1_000, 3)
    assert is_right(engine, query, rows, distances)
    assert not is_right(ForgetsTheNearest(engine), query, rows, distances)


def test_every_filter_is_timed_and_right() -> None:
    report = Report("search", "")
    measure_filters(clustered(2_000, 64), 1, report)
    (found,) = report.values["filters"]
    assert found["right"] == 1.0
    assert len(found["ratios"]) == 2 * len(KINDS) * len(SHARES) * len(USES)
    (table,) = report.tables
    assert {len(row) for row in table.rows} == {len(table.columns)} == {1 + len(SHARES)}
    assert len(report.targets) == 4
