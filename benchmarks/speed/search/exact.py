"""Exact search against raw Faiss, against reading memory, and against its peers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bittern.benchmarks.speed.report import Table, say
from bittern.benchmarks.speed.search.codes import METRICS, Collection
from bittern.benchmarks.speed.search.contestants import Ask, built
from bittern.benchmarks.speed.search.engines import flat_engine
from bittern.benchmarks.speed.search.exactness import Exactness, brute_force, exactness
from bittern.benchmarks.speed.search.peers import PEERS
from bittern.benchmarks.speed.search.ratio import Ratio, ratio_table, short
from bittern.benchmarks.speed.search.settings import K
from bittern.benchmarks.speed.timing import Rounds, interleaved
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.threads import usable_cores
from bittern.types import Metric

READ = "plain read"
FAISS = "faiss IndexBinaryFlat"
_WANTED_OF_PEERS = {"LanceDB scan": 0.1, "usearch exact": 0.1}
_QUERIES = 4
"""Asked one by one in every turn."""
_CHECKED = 3
"""Queries whose answers are compared with brute force."""


@dataclass(frozen=True)
class Exact:
    """What exact searches of one collection took.

    Attributes:
        collection: name, size and code length.
        times: of each contestant, for as many queries one by one.
        peers: names of those that took all cores.
        right: Bittern's answers against brute force, by metric.
        left_out: what could not take part, and why.
    """

    collection: str
    times: Rounds
    peers: Sequence[str]
    right: Mapping[Metric, Exactness]
    left_out: Sequence[str]

    def ratios(self) -> list[Ratio]:
        """Rows of the table of ratios."""
        cores = usable_cores()
        rows = [
            self._to(ours("asymmetric", 1), FAISS, 1.2),
            self._to(ours("hamming", 1), FAISS),
            self._to(ours("asymmetric", cores), FAISS),
            self._to(ours("hamming", cores), FAISS, 0.6),
        ]
        for metric in METRICS:
            name = ours(metric, 1)
            speed = self.times.ratio(READ, name)
            rows.append(Ratio(f"{name}: bytes/s", READ, speed, 0.7, at_least=True))
        for peer in self.peers:
            for metric in METRICS:
                rows.append(self._to(ours(metric, cores), peer, _WANTED_OF_PEERS.get(peer)))
        return rows

    def _to(self, name: str, against: str, wanted: float | None = None) -> Ratio:
        return Ratio(name, against, self.times.ratio(name, against), wanted)

    def tables(self) -> list[Table]:
        """Ratios, and the milliseconds behind them."""
        milliseconds = [
            [name, self.times.time(name, 1e3 / _QUERIES).text()] for name in self.times.seconds
        ]
        notes = [
            f"One query at a time, top {K}: medians over the rounds, with quartiles.",
            f"{FAISS} and {READ}: one thread, which is all that they use for one query.",
            f"{READ}: numpy looks for the largest 8-byte word of the same codes. Both go over the",
            "same bytes of codes, so the ratio of bytes per second is that of the times.",
            "The other peers take all cores, and so does Bittern beside them.",
        ]
        right = [
            f"{metric}: of {_CHECKED} queries {found.distances:.0%} have the distances of brute "
            f"force, {found.order:.0%} its rows in its order."
            for metric, found in self.right.items()
        ]
        title = "The same in milliseconds per query"
        return [
            ratio_table(f"Exact search: {self.collection}", self.ratios(), notes),
            Table(
                title,
                ["", "ms"],
                milliseconds,
                [*right, *self.left_out],
            ),
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "collection": self.collection,
            "k": K,
            "queries_per_turn": _QUERIES,
            "seconds_per_turn": self.times.to_json(),
            "ratios": [ratio.to_json() for ratio in self.ratios()],
            "exactness": {metric: asdict(right) for metric, right in self.right.items()},
            "left_out": list(self.left_out),
        }


def ours(metric: Metric, threads: int) -> str:
    """How Bittern's exact search is called in the tables."""
    return f"bittern {metric}, {threads} thread{'s' if threads > 1 else ''}"


def measure_exact(collection: Collection, rounds: int) -> Exact:
    """Time exact searches of one collection, and check Bittern's."""
    cores = usable_cores()
    engines = {threads: flat_engine(collection, threads) for threads in sorted({1, cores})}
    turns: dict[str, Callable[[], object]] = {READ: reading(collection)}
    with ExitStack() as stack:
        peers, left_out = {}, []
        for peer in PEERS:
            if peer.exact:
                folder = Path(stack.enter_context(TemporaryDirectory()))
                threads = 1 if peer.name == FAISS else cores
                tuned, why = built(peer, collection, threads, folder)
                if tuned:
                    peers[peer.name] = tuned(0)
                else:
                    left_out.append(why)
        for name, ask in peers.items():
            turns[name] = one_by_one(ask, collection.queries("hamming", _QUERIES))
            if name == FAISS:
                for threads, engine in engines.items():
                    turns |= _turns(engine, collection, threads)
        say(f"timing {len(turns)} exact searches of {described(collection)}")
        times = interleaved(turns, rounds=rounds)
    right = {metric: checked(engines[1], collection, metric) for metric in METRICS}
    others = [name for name in peers if name != FAISS]
    return Exact(described(collection), times, others, right, left_out)


def _turns(
    engine: FlatEngine, collection: Collection, threads: int
) -> dict[str, Callable[[], object]]:
    def ask(queries: Queries) -> object:
        return engine.search(queries, K)

    found: dict[str, Callable[[], object]] = {}
    for metric in METRICS:
        found[ours(metric, threads)] = _each(ask, collection.queries(metric, _QUERIES))
    return found


def _each(ask: Callable[[Queries], object], queries: Queries) -> Callable[[], object]:
    alone = list(queries)
    return lambda: [ask(query) for query in alone]


def one_by_one(ask: Ask, queries: Queries) -> Callable[[], object]:
    """A turn: every query alone."""
    return _each(lambda query: ask(query, K), queries)


def reading(collection: Collection) -> Callable[[], object]:
    """A turn: reading all codes as often as there are queries, with numpy on one thread."""
    flat = collection.codes.reshape(-1)
    words = flat[: len(flat) // 8 * 8].view(np.uint64)
    return lambda: [words.max() for _ in range(_QUERIES)]


def checked(engine: FlatEngine, collection: Collection, metric: Metric) -> Exactness:
    """Answers to a few queries against brute force."""
    queries = collection.queries(metric, _CHECKED)
    truths = [brute_force(query, collection.codes, K) for query in queries]
    return exactness(engine.search(queries, K), truths)


def described(collection: Collection) -> str:
    """Name, size and code length."""
    return f"{collection.name}, {short(len(collection.codes))} x {collection.bits} bits"
