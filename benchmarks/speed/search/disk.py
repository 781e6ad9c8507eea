"""Archives on disk: time from opening to the first result, and cost of adding rows.

A turn of adding searches, adds rows, and searches again. The extra time of the second search, the
first one with the new rows, is part of the cost of adding.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.codes import Collection, coded, record_of, write_archive
from bittern.benchmarks.speed.harness import Ratio, Report, Spread, Table, say, seconds_of, short
from bittern.benchmarks.speed.opening import Opened, opened_once
from bittern.benchmarks.speed.process import MIB, bytes_of, drop_cache, read_once
from bittern.benchmarks.speed.search.engines import K, blocks_of, warmed
from bittern.index.archive import Archive
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine

ADDED_ROWS = 10_000
CACHES = ("cold", "warm")
_ADDING_TARGET = 1.5
_OPENING_TARGET = 2.0
_OPENINGS = 3
_WARMING = 8
_MOST_TURNS = 5
"""Of archives, whose files grow with every turn."""


@dataclass(frozen=True)
class Turn:
    """Seconds of one turn of adding."""

    before: float
    added: float
    first: float


@dataclass(frozen=True)
class Adding:
    """Turns at each size, in the same order.

    Attributes:
        what: target of the added rows.
        turns: by number of rows before, the smaller first.
    """

    what: str
    turns: Mapping[int, list[Turn]]

    def ratios(self) -> list[Ratio]:
        """Times at the larger size relative to the smaller."""
        small, large = self.turns
        what = f"add {short(ADDED_ROWS)} rows {self.what}, at {short(large)}"
        against = f"at {short(small)}"
        alone = Spread.of(self._seconds(large, "added") / self._seconds(small, "added"))
        return [
            Ratio.once(what, against, self.cost(large) / self.cost(small), _ADDING_TARGET),
            Ratio(f"  without the search after it, at {short(large)}", against, alone),
        ]

    def cost(self, rows: int) -> float:
        """Seconds of adding, with the extra time of the next search."""
        added, first, before = (self._median(rows, name) for name in ("added", "first", "before"))
        return added + max(0.0, first - before)

    def lines(self) -> list[str]:
        """The times as text."""
        return [
            f"{self.what}, at {short(rows)}: adding {self._median(rows, 'added') * 1e3:.2f} ms, "
            f"first search {self._median(rows, 'first') * 1e3:.2f} ms, one before "
            f"{self._median(rows, 'before') * 1e3:.2f} ms"
            for rows in self.turns
        ]

    def to_json(self) -> dict[str, Any]:
        """Seconds of every turn."""
        turns = {str(rows): [asdict(one) for one in turns] for rows, turns in self.turns.items()}
        return {"what": self.what, "turns": turns}

    def _seconds(self, rows: int, name: str) -> NDArray[np.float64]:
        return np.array([getattr(turn, name) for turn in self.turns[rows]])

    def _median(self, rows: int, name: str) -> float:
        return float(np.median(self._seconds(rows, name)))


def adding_in_memory(collection: Collection, rows: tuple[int, int], rounds: int) -> Adding:
    """Append to the codes of engines, and search the next generation."""
    say(f"adding {short(ADDED_ROWS)} rows to engines of {short(rows[0])} and {short(rows[1])}")
    query = collection.queries("asymmetric", 1)
    more = np.ascontiguousarray(collection.codes[:ADDED_ROWS])

    def turn(blocks: CodeBlocks, engine: FlatEngine) -> Turn:
        numbers = np.arange(blocks.last_row + 1, blocks.last_row + 1 + len(more))
        later: list[FlatEngine] = []
        return Turn(
            seconds_of(lambda: engine.search(query, K)),
            seconds_of(lambda: later.append(FlatEngine(blocks.appended(numbers, more)))),
            seconds_of(lambda: later[0].search(query, K)),
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
    """Add rows to open archives, in turns: commit, refresh, search."""
    rounds = min(rounds, _MOST_TURNS)
    say(f"adding {short(ADDED_ROWS)} rows to archives, {rounds} times")
    model = record_of(collection.bits).digest
    turns: dict[int, list[Turn]] = {count: [] for count in paths}

    def search(archive: Archive) -> object:
        return archive.search(collection.logits[0], model=model, k=K, metric="asymmetric").hits

    def turn(archive: Archive, number: int) -> Turn:
        items = coded(collection.codes[:ADDED_ROWS], f"added {number}")

        def add() -> None:
            archive.add(items, model=model)
            assert archive.generation  # loads the commit, as the next search would

        before = seconds_of(lambda: search(archive))
        return Turn(before, seconds_of(add), seconds_of(lambda: search(archive)))

    with ExitStack() as stack:
        archives = {
            count: stack.enter_context(Archive.open(path, write=True))
            for count, path in paths.items()
        }
        for archive in archives.values():
            for _ in range(_WARMING):
                search(archive)
        for number in range(rounds + 1):
            for count, archive in archives.items():
                turns[count].append(turn(archive, number))
    return Adding("to an archive", {count: taken[1:] for count, taken in turns.items()})


@dataclass
class _Cached:
    """Turns with cached or uncached files: openings, seconds to read codes and all files."""

    openings: list[Opened]
    codes_read: list[float]
    all_read: list[float]


def measure_disk(
    collection: Collection, rows: tuple[int, int], rounds: int, report: Report
) -> None:
    """Archives of the first `rows` codes of a collection, in a temporary folder."""
    large = collection.first(rows[1])
    in_memory = adding_in_memory(collection, rows, rounds)
    caches = {cache: _Cached([], [], []) for cache in CACHES}
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = {count: folder / f"archive-{count}" for count in rows}
        for count in rows:
            say(f"writing an archive of {count:,} x {collection.bits} bits")
            write_archive(paths[count], collection.first(count))
        codes, queries, archive = folder / "codes.bin", folder / "queries.npy", paths[rows[1]]
        large.codes.tofile(codes)
        np.save(queries, large.logits)
        say("opening it in fresh processes")
        first_ever = opened_once(archive, queries)
        for _ in range(min(rounds, _OPENINGS)):
            for cache, turns in caches.items():
                prepare = drop_cache if cache == "cold" else read_once
                prepare(codes)
                turns.codes_read.append(seconds_of(lambda: read_once(codes)))
                prepare(archive)
                turns.all_read.append(seconds_of(lambda: read_once(archive)))
                prepare(archive)
                turns.openings.append(opened_once(archive, queries))
        total = bytes_of(archive)
        adding = (adding_to_archives(paths, collection, rounds), in_memory)
    ratios = [*_opening_ratios(caches, rows[1], collection.bits)]
    ratios += [ratio for one in adding for ratio in one.ratios()]
    notes = [
        "Cold files: dropped from the system's cache (posix_fadvise); warm: read just before.",
        f"Opening: a fresh process, from loaded libraries to the first answer, top {K}.",
        f"All files: {total / MIB:,.0f} MiB, metadata and all; codes alone: "
        f"{large.codes.nbytes / MIB:,.0f} MiB.",
        f"First opening after a bulk write: {first_ever.to_first_answer:.2f} s.",
        *(_cache_line(cache, turns) for cache, turns in caches.items()),
        *(line for one in adding for line in one.lines()),
    ]
    title = f"Archives on disk, {collection.bits} bits"
    value = {
        "rows": rows,
        "bits": collection.bits,
        "first_ever": asdict(first_ever),
        "all_bytes": total,
        "caches": {cache: asdict(turns) for cache, turns in caches.items()},
        "adding": [one.to_json() for one in adding],
        "ratios": [ratio.to_json() for ratio in ratios],
    }
    report.add("disk", Table.of_ratios(title, ratios, notes), value)
    report.add_targets(title, ratios)


def _opening_ratios(caches: Mapping[str, _Cached], rows: int, bits: int) -> list[Ratio]:
    ratios = []
    for cache, turns in caches.items():
        seconds = np.array([one.to_first_answer for one in turns.openings])
        what = f"open {short(rows)} codes to first answer, {cache}"
        to_codes = Spread.of(seconds / np.array(turns.codes_read))
        ratios.append(Ratio(what, "reading the codes", to_codes, _OPENING_TARGET))
        to_all = Spread.of(seconds / np.array(turns.all_read))
        ratios.append(Ratio(what, "reading all files", to_all))
    warm, code = caches["warm"].openings[-1], bits / 8
    per_row = (warm.after - warm.before) / warm.rows
    what, target = f"memory per row, open archive of {short(rows)}", round(2 + 16 / code, 2)
    ratios.append(Ratio.once(what, "bits / 8", per_row / code, target))
    return ratios


def _cache_line(cache: str, turns: _Cached) -> str:
    def median(values: list[float]) -> str:
        return f"{float(np.median(values)):.3f}"

    opened = turns.openings
    return (
        f"{cache}: open {median([o.opened for o in opened])} s, first search "
        f"{median([o.first for o in opened])} s, again {median([o.second for o in opened])} s; "
        f"reading codes {median(turns.codes_read)} s, all files {median(turns.all_read)} s"
    )
