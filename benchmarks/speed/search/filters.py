"""Cost of filters: any share of the rows, related to the query or not, new or repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.codes import METRICS, SEED, Collection
from bittern.benchmarks.speed.harness import Ratio, Report, Rounds, Table, interleaved, say
from bittern.benchmarks.speed.search.engines import K, flat_engine
from bittern.benchmarks.speed.search.exact import described
from bittern.benchmarks.speed.search.exactness import all_distances
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import RowSet, SearchEngine
from bittern.types import Metric

SHARES = (0.0001, 0.001, 0.01, 0.03, 0.1, 0.2, 0.5, 0.9, 1.0)
KINDS = ("independent", "farthest")
USES = ("first", "again")
TARGET = 1.3
UNFILTERED = "unfiltered"


@dataclass(frozen=True, eq=False)
class Filter:
    """Rows that may be found.

    Attributes:
        metric: of the query.
        kind: ``independent`` of the query, or the rows ``farthest`` from it.
        share: of all rows.
        rows: int64, ascending.
    """

    metric: Metric
    kind: str
    share: float
    rows: NDArray[np.int64]

    def name(self, use: str) -> str:
        """Name of its times."""
        return f"{self.metric}, {self.kind}, {self.share * 100:g}%, {use}"


def measure_filters(collection: Collection, rounds: int, report: Report) -> None:
    """Search with every filter, and without: one query on one thread."""
    say(f"filtered searches of {described(collection)}")
    engine = flat_engine(collection, 1)
    turns: dict[str, Callable[[], object]] = {}
    filters: list[Filter] = []
    right: list[bool] = []
    for metric in METRICS:
        query = collection.queries(metric, 1)
        distances = all_distances(query, collection.codes)
        turns[_unfiltered(metric)] = _again(engine, query, None)
        for one in drawn_filters(metric, distances):
            filters.append(one)
            turns[one.name("first")] = _first(engine, query, one.rows)
            turns[one.name("again")] = _again(engine, query, RowSet(one.rows))
            right.append(is_right(engine, query, one.rows, distances))
    times = interleaved(turns, rounds=rounds)
    ratios = {
        (one, use): times.ratio(one.name(use), _unfiltered(one.metric))
        for one in filters
        for use in USES
    }
    worst = []
    for metric in METRICS:
        for use in USES:
            some = [one for one in filters if one.metric == metric]
            slowest = max(some, key=lambda one: ratios[one, use].median)
            what = f"filter: {slowest.name(use)}"
            worst.append(Ratio(what, UNFILTERED, ratios[slowest, use], TARGET))
    lines = [
        [
            f"{metric}, {kind}, {use}",
            *(
                f"{ratios[one, use].median:.2f}"
                for one in filters
                if (one.metric, one.kind) == (metric, kind)
            ),
        ]
        for metric in METRICS
        for kind in KINDS
        for use in USES
    ]
    value = {
        "collection": described(collection),
        "k": K,
        "target": TARGET,
        "seconds": times.to_json(),
        "ratios": {one.name(use): ratio.to_json() for (one, use), ratio in ratios.items()},
        "right": float(np.mean(right)),
    }
    report.add("filters", _table(collection, lines, times, float(np.mean(right))), value)
    report.add_targets(described(collection), worst)


def _table(collection: Collection, lines: list[list[str]], times: Rounds, right: float) -> Table:
    return Table(
        f"Filtered / unfiltered, by share of the rows: {described(collection)}",
        ["", *(f"{share * 100:g}%" for share in SHARES)],
        lines,
        [
            f"One query, top {K}, one thread; medians. Target everywhere: <= {TARGET:g}.",
            "independent: rows drawn at random; farthest: those farthest from the query, the",
            "nearest left out. first: rows that were never searched before, with what has to be",
            "worked out for them; again: rows that were.",
            f"{right:.0%} of the answers had min(k, matches) rows at the right distances.",
            *(
                f"unfiltered {metric}: {times.time(_unfiltered(metric), 1e3).text()} ms"
                for metric in METRICS
            ),
        ],
    )


def drawn_filters(metric: Metric, distances: NDArray[np.float64]) -> list[Filter]:
    """Filters of every kind and share over rows at these distances from the query."""
    rng = np.random.default_rng(SEED)
    shuffled = rng.permutation(len(distances))
    farthest = np.argsort(-distances, kind="stable")
    found = []
    for kind, order in zip(KINDS, (shuffled, farthest), strict=True):
        for share in SHARES:
            count = max(1, round(share * len(distances)))
            found.append(Filter(metric, kind, share, np.sort(order[:count])))
    return found


def is_right(
    engine: SearchEngine, query: Queries, rows: NDArray[np.int64], distances: NDArray[np.float64]
) -> bool:
    """Whether a filtered search finds min(k, matching) rows at the right distances."""
    k = min(K, len(rows))
    found = engine.search(query, K, RowSet(rows))[0]
    truth = np.sort(np.partition(distances[rows], k - 1)[:k])
    return (
        len(found) == k
        and bool(np.isin(found.rows, rows).all())
        and bool(np.allclose(found.distances, truth, atol=1e-9))
    )


def _unfiltered(metric: Metric) -> str:
    return f"{metric}, {UNFILTERED}"


def _again(engine: SearchEngine, query: Queries, rows: RowSet | None) -> Callable[[], object]:
    return lambda: engine.search(query, K, rows)


def _first(engine: SearchEngine, query: Queries, rows: NDArray[np.int64]) -> Callable[[], object]:
    return lambda: engine.search(query, K, RowSet(rows))
