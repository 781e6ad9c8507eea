"""Latency and recall of every approximate search at every setting, beside exact search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from bittern.benchmarks.speed.codes import METRICS, Collection
from bittern.benchmarks.speed.harness import Ratio, Report, Rounds, Spread, Table, interleaved, say
from bittern.benchmarks.speed.search.engines import (
    APPROXIMATE,
    Contestant,
    K,
    built,
    flat_engine,
    search_of,
)
from bittern.benchmarks.speed.search.exact import described, one_by_one, ours
from bittern.benchmarks.speed.search.exactness import recall
from bittern.types import Metric

GOOD_RECALL = 0.95
TARGET = 0.1
_TIMED = 8
"""Queries of one turn, searched one by one."""


@dataclass(frozen=True)
class Point:
    """One contestant at one setting.

    Attributes:
        contestant: its name.
        metric: of its queries.
        parameter: the parameter that trades time for recall; empty for exact search.
        setting: its value.
        recall: share of the k nearest that it found, ties included.
        milliseconds: per query.
        ratio: its time divided by that of exact search with the same metric.
    """

    contestant: str
    metric: Metric
    parameter: str
    setting: int
    recall: float
    milliseconds: Spread
    ratio: Spread

    @property
    def label(self) -> str:
        """Parameter and value for tables."""
        return f"{self.parameter} {self.setting}" if self.parameter else ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        spreads = {"milliseconds": self.milliseconds, "ratio": self.ratio}
        return asdict(self) | {name: spread.to_json() for name, spread in spreads.items()}


def measure_approximate(
    collection: Collection,
    rounds: int,
    report: Report,
    contestants: Sequence[Contestant] = APPROXIMATE,
) -> None:
    """Every approximate search of one collection."""
    say(f"latency against recall: {described(collection)}")
    exact = flat_engine(collection, 1)
    truths = {metric: exact.search(collection.queries(metric), K) for metric in METRICS}
    turns: dict[str, Callable[[], object]] = {
        ours(metric, 1): one_by_one(search_of(exact), collection.queries(metric, _TIMED))
        for metric in METRICS
    }
    building: dict[str, float] = {}
    skipped: list[str] = []
    measured: dict[str, tuple[Contestant, int, float]] = {}
    with ExitStack() as stack:
        for one in contestants:
            begun = perf_counter()
            folder = Path(stack.enter_context(TemporaryDirectory()))
            tuned, why = built(one, collection, 1, folder)
            building[one.name] = perf_counter() - begun
            if tuned is None:
                skipped.append(why)
                continue
            queries = collection.queries(one.metric)
            for setting in one.settings:
                search, name = tuned(setting), f"{one.name}, {one.parameter} {setting}"
                found = search(queries, K)
                share = recall(found, queries, collection.codes, truths[one.metric])
                measured[name] = one, setting, share
                turns[name] = one_by_one(search, queries[:_TIMED])
        say(f"timing {len(turns)} settings")
        times = interleaved(turns, rounds=rounds)
    points = [Point(ours(m, 1), m, "", 0, 1.0, *_timed(times, ours(m, 1), m)) for m in METRICS] + [
        Point(one.name, one.metric, one.parameter, n, share, *_timed(times, name, one.metric))
        for name, (one, n, share) in measured.items()
    ]
    ratios = best_ratios(points)
    value = {
        "collection": described(collection),
        "k": K,
        "queries_per_turn": _TIMED,
        "points": [point.to_json() for point in points],
        "seconds_per_turn": times.to_json(),
        "seconds_to_build": building,
        "skipped": skipped,
    }
    report.add("curves", _tables(collection, points, ratios, building, skipped), value)
    report.add_targets(described(collection), ratios)


def _timed(times: Rounds, name: str, metric: Metric) -> tuple[Spread, Spread]:
    """Milliseconds per query, and the ratio to exact search."""
    return times.time(name, 1e3 / _TIMED), times.ratio(name, ours(metric, 1))


def best_ratios(points: Sequence[Point]) -> list[Ratio]:
    """Each approximate search at its fastest setting with good recall, relative to exact search."""
    ratios = []
    for name in dict.fromkeys(point.contestant for point in points if point.parameter):
        good = [p for p in points if p.contestant == name and p.recall >= GOOD_RECALL]
        if good:
            best = min(good, key=lambda point: point.milliseconds.median)
            what = f"{name}, {best.label}, recall {best.recall:.3f}"
            target = TARGET if name.startswith("bittern") else None
            ratios.append(Ratio(what, f"exact {best.metric}", best.ratio, target))
    return ratios


def _tables(
    collection: Collection,
    points: Sequence[Point],
    ratios: Sequence[Ratio],
    building: dict[str, float],
    skipped: Sequence[str],
) -> list[Table]:
    lines: list[list[str]] = []
    for point in points:
        first = not lines or lines[-1][0] != point.contestant
        seconds = building.get(point.contestant) if first else None
        lines.append(
            [
                point.contestant,
                point.label,
                f"{point.recall:.3f}",
                point.milliseconds.text(".3f"),
                point.ratio.text(),
                "" if seconds is None else f"{seconds:.0f}",
            ]
        )
    notes = [
        f"One query at a time, top {K}, one thread (LanceDB: as many as it likes). recall: share",
        "of the k that lie no farther than the true k-th. ratio: to Bittern's exact search by the",
        "same metric. built: seconds, on all cores, on the first line of each.",
        *skipped,
    ]
    heads = ["", "setting", "recall", "ms", "ratio", "built"]
    name = described(collection)
    return [
        Table(f"Latency against recall: {name}", heads, lines, notes),
        Table.of_ratios(f"Fastest with a recall of {GOOD_RECALL:g} or more: {name}", ratios),
    ]
