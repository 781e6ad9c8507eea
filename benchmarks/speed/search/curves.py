"""Latency against recall: every approximate search at every setting, beside exact search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from bittern.benchmarks.speed.report import Table, say
from bittern.benchmarks.speed.search.codes import METRICS, Collection
from bittern.benchmarks.speed.search.contestants import Contestant, Tuned, built
from bittern.benchmarks.speed.search.engines import APPROXIMATE, ask, flat_engine
from bittern.benchmarks.speed.search.exact import described, one_by_one, ours
from bittern.benchmarks.speed.search.exactness import recall
from bittern.benchmarks.speed.search.peers import PEERS
from bittern.benchmarks.speed.search.ratio import Ratio, ratio_table
from bittern.benchmarks.speed.search.settings import K
from bittern.benchmarks.speed.timing import Rounds, Spread, interleaved
from bittern.types import Metric

GOOD_RECALL = 0.95
WANTED = 0.1
_TIMED = 8
"""Queries of one turn, asked one by one."""


@dataclass(frozen=True)
class Point:
    """One contestant at one setting.

    Attributes:
        contestant: its name.
        metric: what it was asked by.
        parameter: what trades time for recall, empty for exact search.
        setting: its value.
        recall: share of the k nearest that it found, ties counted fairly.
        milliseconds: per query.
        ratio: of its time to that of exact search by the same metric.
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
        """As it is printed."""
        return f"{self.parameter} {self.setting}" if self.parameter else ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **self.__dict__,
            "milliseconds": self.milliseconds.to_json(),
            "ratio": self.ratio.to_json(),
        }


@dataclass(frozen=True)
class Curves:
    """Curves over one collection.

    Attributes:
        collection: name, size and code length.
        points: all contestants at all settings.
        times: behind them.
        building: seconds that each took to build.
        left_out: what could not take part, and why.
    """

    collection: str
    points: Sequence[Point]
    times: Rounds
    building: dict[str, float]
    left_out: Sequence[str]

    def best(self, contestant: str) -> Point | None:
        """The fastest of its points whose recall is good; None where none is."""
        good = [p for p in self.points if p.contestant == contestant and p.recall >= GOOD_RECALL]
        return min(good, key=lambda point: point.milliseconds.median, default=None)

    def ratios(self) -> list[Ratio]:
        """Each approximate search at its fastest setting with good recall, to exact search."""
        rows = []
        for name in dict.fromkeys(p.contestant for p in self.points if p.parameter):
            best = self.best(name)
            if best is None:
                continue
            what = f"{name}, {best.label}, recall {best.recall:.3f}"
            wanted = WANTED if name.startswith("bittern") else None
            rows.append(Ratio(what, f"exact {best.metric}", best.ratio, wanted))
        return rows

    def tables(self) -> list[Table]:
        """All points, and the best of each contestant."""
        lines: list[list[str]] = []
        for point in self.points:
            first = not lines or lines[-1][0] != point.contestant
            seconds = self.building.get(point.contestant)
            built = f"{seconds:.0f}" if first and seconds is not None else ""
            lines.append(
                [
                    point.contestant,
                    point.label,
                    f"{point.recall:.3f}",
                    point.milliseconds.text(".3f"),
                    point.ratio.text(),
                    built,
                ]
            )
        notes = [
            f"One query at a time, top {K}, one thread (LanceDB and Milvus Lite: as many as they",
            "like). recall: share of the k that lie no farther than the true k-th. ratio: to",
            "Bittern's exact search by the same metric. built: seconds, on all cores, on the",
            "first line of each.",
            *self.left_out,
        ]
        heads = ["", "setting", "recall", "ms", "ratio", "built"]
        good = f"Approximate, recall {GOOD_RECALL:g} or more, at its fastest: {self.collection}"
        return [
            Table(f"Latency against recall: {self.collection}", heads, lines, notes),
            ratio_table(good, self.ratios()),
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "collection": self.collection,
            "k": K,
            "queries_per_turn": _TIMED,
            "points": [point.to_json() for point in self.points],
            "seconds_per_turn": self.times.to_json(),
            "seconds_to_build": self.building,
            "left_out": list(self.left_out),
        }


@dataclass(frozen=True)
class _Ready:
    """A contestant that is built."""

    contestant: Contestant
    tuned: Tuned

    def key(self, setting: int) -> str:
        return f"{self.contestant.name}, {self.contestant.parameter} {setting}"


def measure_curves(collection: Collection, rounds: int, *, graphs: bool) -> Curves:
    """Every approximate search of one collection.

    Args:
        collection: what is searched.
        rounds: timed turns of each setting.
        graphs: whether graphs take part, which take long to build.
    """
    say(f"latency against recall: {described(collection)}")
    exact = flat_engine(collection, 1)
    truths = {metric: exact.search(collection.queries(metric), K) for metric in METRICS}
    turns: dict[str, Callable[[], object]] = {
        ours(metric, 1): one_by_one(ask(exact), collection.queries(metric, _TIMED))
        for metric in METRICS
    }
    with ExitStack() as stack:
        ready, building, left_out = [], {}, []
        for contestant in (*APPROXIMATE, *PEERS):
            if contestant.exact or (contestant.graph and not graphs):
                continue
            begun = perf_counter()
            folder = Path(stack.enter_context(TemporaryDirectory()))
            tuned, why = built(contestant, collection, 1, folder)
            building[contestant.name] = perf_counter() - begun
            if tuned:
                ready.append(_Ready(contestant, tuned))
            else:
                left_out.append(why)
        recalls = {}
        for one in ready:
            queries = collection.queries(one.contestant.metric)
            for setting in one.contestant.settings:
                search = one.tuned(setting)
                turns[one.key(setting)] = one_by_one(search, queries[:_TIMED])
                found = search(queries, K)
                truth = truths[one.contestant.metric]
                recalls[one.key(setting)] = recall(found, queries, collection.codes, truth)
        say(f"timing {len(turns)} settings")
        times = interleaved(turns, rounds=rounds)
    points = [
        Point(ours(metric, 1), metric, "", 0, 1.0, *_timed(times, ours(metric, 1), metric))
        for metric in METRICS
    ]
    points += [
        _point(one, setting, recalls[one.key(setting)], times)
        for one in ready
        for setting in one.contestant.settings
    ]
    return Curves(described(collection), points, times, building, left_out)


def _point(one: _Ready, setting: int, found: float, times: Rounds) -> Point:
    it = one.contestant
    timed = _timed(times, one.key(setting), it.metric)
    return Point(it.name, it.metric, it.parameter, setting, found, *timed)


def _timed(times: Rounds, name: str, metric: Metric) -> tuple[Spread, Spread]:
    """Milliseconds per query, and the ratio to exact search."""
    return times.time(name, 1e3 / _TIMED), times.ratio(name, ours(metric, 1))
