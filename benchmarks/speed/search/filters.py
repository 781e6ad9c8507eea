"""What a filter costs: any share of the rows, related to the query or not, new or known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.report import Table, say
from bittern.benchmarks.speed.search.codes import METRICS, SEED, Collection
from bittern.benchmarks.speed.search.engines import flat_engine
from bittern.benchmarks.speed.search.exact import described
from bittern.benchmarks.speed.search.exactness import all_distances
from bittern.benchmarks.speed.search.ratio import Ratio
from bittern.benchmarks.speed.search.settings import K
from bittern.benchmarks.speed.timing import Rounds, Spread, interleaved
from bittern.index.engines.engine import SearchEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowSet
from bittern.types import Metric

SHARES = (0.0001, 0.001, 0.01, 0.03, 0.1, 0.2, 0.5, 0.9, 1.0)
KINDS = ("independent", "farthest")
USES = ("first", "again")
WANTED = 1.3
UNFILTERED = "unfiltered"


@dataclass(frozen=True)
class Filter:
    """Rows that may be found.

    Attributes:
        metric: what is searched by.
        kind: ``independent`` of the query, or the rows ``farthest`` from it.
        share: of all rows.
        rows: int64, ascending.
    """

    metric: Metric
    kind: str
    share: float
    rows: NDArray[np.int64]

    def name(self, use: str) -> str:
        """What its times are called."""
        return f"{self.metric}, {self.kind}, {self.share * 100:g}%, {use}"


@dataclass(frozen=True)
class Filtered:
    """What filtered searches of one collection took, as one query on one thread.

    Attributes:
        collection: name, size and code length.
        filters: what was searched with.
        times: of every filter and use, and unfiltered by metric.
        right: share of the answers that had min(k, matches) rows at the right distances.
    """

    collection: str
    filters: list[Filter]
    times: Rounds
    right: float

    def ratio(self, one: Filter, use: str) -> Spread:
        """To the unfiltered search by the same metric."""
        return self.times.ratio(one.name(use), _unfiltered(one.metric))

    def ratios(self) -> list[Ratio]:
        """Of each metric and use the filter that costs most."""
        found = []
        for metric in METRICS:
            for use in USES:
                some = [one for one in self.filters if one.metric == metric]
                worst = max(some, key=lambda one: self.ratio(one, use).median)
                what = f"filter: {worst.name(use)}"
                found.append(Ratio(what, UNFILTERED, self.ratio(worst, use), WANTED))
        return found

    def table(self) -> Table:
        """A line per metric, kind and use; a column per share."""
        lines = [
            [
                f"{metric}, {kind}, {use}",
                *(
                    f"{self.ratio(one, use).median:.2f}"
                    for one in self.filters
                    if (one.metric, one.kind) == (metric, kind)
                ),
            ]
            for metric in METRICS
            for kind in KINDS
            for use in USES
        ]
        notes = [
            f"One query, top {K}, one thread; medians. Wanted everywhere: <= {WANTED:g}.",
            "independent: rows drawn at random; farthest: those farthest from the query, the",
            "nearest left out. first: with what has to be worked out for rows that were never",
            "searched before; again: with rows that were.",
            f"{self.right:.0%} of the answers had min(k, matches) rows at the right distances.",
            *(
                f"unfiltered {metric}: {self.times.time(_unfiltered(metric), 1e3).text()} ms"
                for metric in METRICS
            ),
        ]
        title = f"Filtered / unfiltered, by share of the rows: {self.collection}"
        return Table(title, ["", *(f"{share * 100:g}%" for share in SHARES)], lines, notes)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "collection": self.collection,
            "k": K,
            "wanted": WANTED,
            "seconds": self.times.to_json(),
            "ratios": {
                one.name(use): self.ratio(one, use).to_json()
                for one in self.filters
                for use in USES
            },
            "right": self.right,
        }


def measure_filters(collection: Collection, rounds: int) -> Filtered:
    """Search with every filter, and without."""
    say(f"filtered searches of {described(collection)}")
    engine = flat_engine(collection, 1)
    turns: dict[str, Callable[[], object]] = {}
    filters: list[Filter] = []
    right: list[bool] = []
    for metric in METRICS:
        query = collection.queries(metric, 1)
        distances = all_distances(query, collection.codes)
        turns[_unfiltered(metric)] = _turn(engine, query)
        for one in drawn_filters(metric, distances):
            filters.append(one)
            turns[one.name("first")] = _first(engine, query, one.rows)
            turns[one.name("again")] = _turn(engine, query, RowSet(one.rows))
            right.append(is_right(engine, query, one.rows, distances))
    return Filtered(
        described(collection), filters, interleaved(turns, rounds=rounds), float(np.mean(right))
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
    """Whether a filtered search finds min(k, matches) rows at the right distances."""
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


def _turn(engine: SearchEngine, query: Queries, rows: RowSet | None = None) -> Callable[[], object]:
    return lambda: engine.search(query, K, rows)


def _first(engine: SearchEngine, query: Queries, rows: NDArray[np.int64]) -> Callable[[], object]:
    return lambda: engine.search(query, K, RowSet(rows))
