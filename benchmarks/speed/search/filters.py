"""Cost of filters: any share of the rows, related to the query or not, new or repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.codes import METRICS, SEED, Collection
from bittern.benchmarks.speed.harness import Cell, Ratio, Report, Table, interleaved, say
from bittern.benchmarks.speed.search.engines import (
    K,
    all_distances,
    described,
    flat_engine,
    is_right,
)
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest, RowSet, SearchEngine
from bittern.types import Metric

SHARES = (0.0001, 0.001, 0.01, 0.03, 0.1, 0.2, 0.5, 0.9, 1.0)
KINDS = ("independent", "farthest")
USES = ("first", "again")
TARGET = "<= 1.3"


@dataclass(frozen=True, eq=False)
class Filter:
    """Rows that may be found.

    Attributes:
        kind: ``independent`` of the query, or the rows ``farthest`` from it.
        share: of all rows.
        rows: int64, ascending.
    """

    kind: str
    share: float
    rows: NDArray[np.int64]


def measure_filters(collection: Collection, rounds: int, report: Report) -> None:
    """Search with every filter, and without: one query on one thread."""
    say(f"filtered searches of {described(collection)}")
    engine = flat_engine(collection, 1)
    turns: dict[str, Callable[[], object]] = {}
    right: list[bool] = []
    for metric in METRICS:
        query = collection.queries(metric, 1)
        distances = all_distances(query, collection.codes)
        turns[f"unfiltered {metric}"] = _again(engine, query, None)
        for one in drawn_filters(distances):
            turns[_name(metric, one.kind, "first", one.share)] = _first(engine, query, one.rows)
            again = _again(engine, query, RowSet(one.rows))
            turns[_name(metric, one.kind, "again", one.share)] = again
            truth = Nearest.of(distances[one.rows], one.rows, K)
            right.append(is_right(engine.search(query, K, RowSet(one.rows))[0], truth))
    times = interleaved(turns, rounds=rounds)
    lines: list[list[Cell]] = []
    worst: list[Ratio] = []
    for metric in METRICS:
        plain = f"unfiltered {metric}"
        for use in USES:
            for kind in KINDS:
                names = [_name(metric, kind, use, share) for share in SHARES]
                medians = [times.ratio(name, plain).median for name in names]
                lines.append([f"{metric}, {kind}, {use}", *medians])
            all_of_use = [_name(metric, kind, use, share) for kind in KINDS for share in SHARES]
            slowest = max(all_of_use, key=lambda name: times.ratio(name, plain).median)
            worst.append(Ratio(f"filter: {slowest}", plain, times.ratio(slowest, plain), TARGET))
    table = Table(
        f"Filtered / unfiltered, by share of the rows: {described(collection)}",
        {"": "", **{f"{share * 100:g}%": ".2f" for share in SHARES}},
        lines,
        [
            f"One query, top {K}, one thread; medians. Target everywhere: {TARGET}.",
            "independent: rows drawn at random; farthest: those farthest from the query, the",
            "nearest left out. first: rows that were never searched before, with what has to be",
            "worked out for them; again: rows that were.",
            f"{np.mean(right):.0%} of the results are those of brute force.",
            *(
                f"unfiltered {metric}: {times.time(f'unfiltered {metric}', 1e3):.2f} ms"
                for metric in METRICS
            ),
        ],
    )
    report.add("filters", table, seconds=times, right=float(np.mean(right)))
    report.add_targets(described(collection), worst)


def drawn_filters(distances: NDArray[np.float64]) -> list[Filter]:
    """Filters of every kind and share over rows at these distances from the query."""
    shuffled = np.random.default_rng(SEED).permutation(len(distances))
    farthest = np.argsort(-distances, kind="stable")
    found = []
    for kind, order in zip(KINDS, (shuffled, farthest), strict=True):
        for share in SHARES:
            count = max(1, round(share * len(distances)))
            found.append(Filter(kind, share, np.sort(order[:count])))
    return found


def _name(metric: Metric, kind: str, use: str, share: float) -> str:
    return f"{metric}, {kind}, {use}, {share * 100:g}%"


def _again(engine: SearchEngine, query: Queries, rows: RowSet | None) -> Callable[[], object]:
    return lambda: engine.search(query, K, rows)


def _first(engine: SearchEngine, query: Queries, rows: NDArray[np.int64]) -> Callable[[], object]:
    return lambda: engine.search(query, K, RowSet(rows))
