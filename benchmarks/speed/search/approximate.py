"""Latency and recall of every approximate search at every setting, beside exact search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from bittern.benchmarks.speed.codes import METRICS, Collection
from bittern.benchmarks.speed.harness import (
    Cell,
    Ratio,
    Report,
    Spread,
    Table,
    interleaved,
    ratio_table,
    say,
)
from bittern.benchmarks.speed.search.engines import (
    APPROXIMATE,
    Contestant,
    K,
    built,
    described,
    flat_engine,
    recall,
    search_of,
)
from bittern.benchmarks.speed.search.exact import one_by_one, ours

GOOD_RECALL = 0.95
TARGET = "<= 0.1"
_TIMED = 8
"""Queries of one turn, searched one by one."""


@dataclass(frozen=True)
class Point:
    """One contestant at one setting.

    Attributes:
        contestant: which.
        setting: value of its parameter.
        recall: share of the k nearest that it found, ties included.
        milliseconds: per query.
        ratio: its time divided by that of exact search with the same metric.
    """

    contestant: Contestant
    setting: int
    recall: float
    milliseconds: Spread
    ratio: Spread

    @property
    def label(self) -> str:
        """Parameter and value for tables."""
        return f"{self.contestant.parameter} {self.setting}"


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
    recalls: dict[tuple[Contestant, int], float] = {}
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
                search = tuned(setting)
                found = search(queries, K)
                recalls[one, setting] = recall(found, queries, collection.codes, truths[one.metric])
                turns[f"{one.name} {setting}"] = one_by_one(search, queries[:_TIMED])
        say(f"timing {len(turns)} settings")
        times = interleaved(turns, rounds=rounds)
    points = [
        Point(
            one,
            setting,
            share,
            times.time(f"{one.name} {setting}", 1e3 / _TIMED),
            times.ratio(f"{one.name} {setting}", ours(one.metric, 1)),
        )
        for (one, setting), share in recalls.items()
    ]
    lines: list[list[Cell]] = [
        [ours(metric, 1), "", 1.0, times.time(ours(metric, 1), 1e3 / _TIMED)] for metric in METRICS
    ]
    for point in points:
        name = point.contestant.name
        seconds = building[name] if point.setting == point.contestant.settings[0] else None
        lines.append([name, point.label, point.recall, point.milliseconds, point.ratio, seconds])
    table = Table(
        f"Latency against recall: {described(collection)}",
        {"": "", "setting": "", "recall": ".3f", "ms": ".3f", "ratio": ".2f", "built": ".0f"},
        lines,
        [
            f"One query at a time, top {K}, one thread (LanceDB: as many as it likes). recall:",
            "share of the k that lie no farther than the true k-th. ratio: to Bittern's exact",
            "search by the same metric. built: seconds, on all cores, on the first line of each.",
            *skipped,
        ],
    )
    best = best_ratios(points)
    title = f"Fastest with a recall of {GOOD_RECALL:g} or more: {described(collection)}"
    report.add("curves", table, ratio_table(title, best), seconds=times, skipped=skipped)
    report.add_targets(described(collection), best)


def best_ratios(points: Sequence[Point]) -> list[Ratio]:
    """Each approximate search at its fastest setting with good recall, relative to exact search."""
    ratios = []
    for one in dict.fromkeys(point.contestant for point in points):
        good = [p for p in points if p.contestant == one and p.recall >= GOOD_RECALL]
        if good:
            best = min(good, key=lambda point: point.milliseconds.median)
            what = f"{one.name}, {best.label}, recall {best.recall:.3f}"
            target = TARGET if one.name.startswith("bittern") else ""
            ratios.append(Ratio(what, f"exact {one.metric}", best.ratio, target))
    return ratios
