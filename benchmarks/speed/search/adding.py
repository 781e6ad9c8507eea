"""What adding rows costs in a large archive and in a small one.

A turn searches, adds rows, and searches again. The second search is the first that sees the
new rows; what it takes longer than the one before belongs to the adding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.report import say
from bittern.benchmarks.speed.search.archives import coded, model_of
from bittern.benchmarks.speed.search.codes import Collection
from bittern.benchmarks.speed.search.engines import blocks_of, warmed
from bittern.benchmarks.speed.search.ratio import Ratio, once, short
from bittern.benchmarks.speed.search.settings import K
from bittern.benchmarks.speed.timing import Spread
from bittern.index.archive import Archive
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine

ADDED_ROWS = 10_000
WANTED = 1.5
_WARMING = 8
_MOST_TURNS = 5
"""Of archives, whose files grow with every turn."""


@dataclass(frozen=True)
class Turn:
    """Seconds of one turn."""

    before: float
    added: float
    first: float


@dataclass(frozen=True)
class Adding:
    """Turns at each size, in the same order.

    Attributes:
        what: where rows were added.
        turns: by number of rows there were, the smaller first.
    """

    what: str
    turns: Mapping[int, list[Turn]]

    def ratios(self) -> list[Ratio]:
        """At the larger size to the smaller."""
        small, large = self.turns
        what = f"add {short(ADDED_ROWS)} rows {self.what}, at {short(large)}"
        against = f"at {short(small)}"
        cost = once(self.cost(large) / self.cost(small))
        alone = Spread.of(self._seconds(large, "added") / self._seconds(small, "added"))
        return [
            Ratio(what, against, cost, WANTED),
            Ratio(f"  without the search after it, at {short(large)}", against, alone),
        ]

    def cost(self, rows: int) -> float:
        """Seconds of adding, and of what it costs the next search, if that is anything."""
        added, first, before = (
            float(np.median(self._seconds(rows, part))) for part in ("added", "first", "before")
        )
        return added + max(0.0, first - before)

    def lines(self) -> list[str]:
        """Milliseconds behind them."""
        return [
            f"{self.what}, at {short(rows)}: adding {self._text(rows, 'added')} ms, first search "
            f"{self._text(rows, 'first')} ms, one before {self._text(rows, 'before')} ms"
            for rows in self.turns
        ]

    def to_json(self) -> dict[str, Any]:
        """Every turn's seconds."""
        return {
            "what": self.what,
            "turns": {str(rows): [t.__dict__ for t in turns] for rows, turns in self.turns.items()},
        }

    def _seconds(self, rows: int, part: str) -> NDArray[np.float64]:
        return np.array([getattr(turn, part) for turn in self.turns[rows]])

    def _text(self, rows: int, part: str) -> str:
        return f"{float(np.median(self._seconds(rows, part))) * 1e3:.2f}"


def adding_in_memory(collection: Collection, rows: tuple[int, int], rounds: int) -> Adding:
    """Append to the codes that engines have searched, and search the next generation."""
    say(f"adding {short(ADDED_ROWS)} rows to engines of {short(rows[0])} and {short(rows[1])}")
    query = collection.queries("asymmetric", 1)
    more = np.ascontiguousarray(collection.codes[:ADDED_ROWS])

    def turn(blocks: CodeBlocks, engine: FlatEngine) -> Turn:
        numbers = np.arange(blocks.last_row + 1, blocks.last_row + 1 + len(more))
        later: list[FlatEngine] = []
        return Turn(
            _seconds(lambda: engine.search(query, K)),
            _seconds(lambda: later.append(FlatEngine(blocks.appended(numbers, more)))),
            _seconds(lambda: later[0].search(query, K)),
        )

    engines = {}
    for count in rows:
        blocks = blocks_of(collection.first(count))
        engines[count] = (blocks, warmed(FlatEngine(blocks), collection))
    turns: dict[int, list[Turn]] = {count: [] for count in rows}
    for _ in range(2 * rounds + 1):
        for count, (blocks, engine) in engines.items():
            turns[count].append(turn(blocks, engine))
    return Adding("in memory", {count: taken[1:] for count, taken in turns.items()})


def adding_to_archives(paths: Mapping[int, Path], collection: Collection, rounds: int) -> Adding:
    """Add rows to open archives, in turns: commit, see the new generation, search."""
    rounds = min(rounds, _MOST_TURNS)
    say(f"adding {short(ADDED_ROWS)} rows to archives, {rounds} times")
    turns: dict[int, list[Turn]] = {count: [] for count in paths}
    with ExitStack() as stack:
        archives = {
            count: stack.enter_context(Archive.open(path, write=True))
            for count, path in paths.items()
        }
        for archive in archives.values():
            for _ in range(_WARMING):
                _search(archive, collection)
        for number in range(rounds + 1):
            for count, archive in archives.items():
                turns[count].append(_archive_turn(archive, collection, number))
    return Adding("to an archive", {count: taken[1:] for count, taken in turns.items()})


def _archive_turn(archive: Archive, collection: Collection, number: int) -> Turn:
    items = coded(collection.codes[:ADDED_ROWS], f"added {number}")
    model = model_of(collection.bits).digest

    def add() -> None:
        archive.add(items, model=model)
        archive.refresh()

    return Turn(
        _seconds(lambda: _search(archive, collection)),
        _seconds(add),
        _seconds(lambda: _search(archive, collection)),
    )


def _search(archive: Archive, collection: Collection) -> object:
    model = model_of(collection.bits).digest
    return archive.search(collection.logits[0], model=model, k=K, metric="asymmetric")


def _seconds(work: Callable[[], object]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun
