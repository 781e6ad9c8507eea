"""Archives on disk, time to the first result and cost of adding rows; memory of engines.

A turn of adding searches, adds rows, and searches again. The extra time of the second search, the
first one with the new rows, is part of the cost of adding.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.codes import (
    METRICS,
    Collection,
    clustered,
    coded,
    record_of,
    write_archive,
)
from bittern.benchmarks.speed.harness import (
    Cell,
    Ratio,
    Report,
    Spread,
    Table,
    ratio_table,
    say,
    seconds_of,
    short,
)
from bittern.benchmarks.speed.opening import Opened, opened_once
from bittern.benchmarks.speed.process import (
    MIB,
    bytes_of,
    drop_cache,
    in_fresh_process,
    read_once,
    resident_memory,
)
from bittern.benchmarks.speed.search.engines import ENGINES, K, described, flat_engine
from bittern.index.archive import Archive
from bittern.index.engines.flat import FlatEngine
from bittern.index.observation import CodedObservation

ADDED_ROWS = 10_000
_ADDING_TARGET = "<= 1.5"
_OPENING_TARGET = "<= 2"
_OPENINGS = 3
_WARMING = 8
_MOST_TURNS = 5
"""Of archives, whose files grow with every turn."""
_FEW_ROWS = 5_000


@dataclass(frozen=True)
class Turn:
    """Seconds of one turn of adding."""

    before: float
    added: float
    first: float

    @classmethod
    def timed(cls, search: Callable[[], object], add: Callable[[], object]) -> Turn:
        """Search, add, search again."""
        return cls(seconds_of(search), seconds_of(add), seconds_of(search))


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
            Ratio(what, against, self.cost(large) / self.cost(small), _ADDING_TARGET),
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

    def _seconds(self, rows: int, name: str) -> NDArray[np.float64]:
        return np.array([getattr(turn, name) for turn in self.turns[rows]])

    def _median(self, rows: int, name: str) -> float:
        return float(np.median(self._seconds(rows, name)))


def adding_in_memory(collection: Collection, rows: tuple[int, int], rounds: int) -> Adding:
    """Append to the codes of engines, and search the next generation."""
    say(f"adding {short(ADDED_ROWS)} rows to engines of {short(rows[0])} and {short(rows[1])}")
    query = collection.queries("asymmetric", 1)
    more = np.ascontiguousarray(collection.codes[:ADDED_ROWS])

    def turn(engine: FlatEngine) -> Turn:
        current = [engine]
        numbers = np.arange(len(more)) + engine.blocks.last_row + 1

        def add() -> None:
            current.append(FlatEngine(engine.blocks.appended(numbers, more)))

        return Turn.timed(lambda: current[-1].search(query, K), add)

    engines = {count: flat_engine(collection.first(count)) for count in rows}
    turns: dict[int, list[Turn]] = {count: [] for count in rows}
    for _ in range(2 * rounds + 1):
        for count, engine in engines.items():
            turns[count].append(turn(engine))
    return Adding("in memory", {count: taken[1:] for count, taken in turns.items()})


def adding_to_archives(paths: Mapping[int, Path], collection: Collection, rounds: int) -> Adding:
    """Add rows to open archives, in turns: commit, refresh, search."""
    rounds = min(rounds, _MOST_TURNS)
    say(f"adding {short(ADDED_ROWS)} rows to archives, {rounds} times")
    model = record_of(collection.bits).digest
    turns: dict[int, list[Turn]] = {count: [] for count in paths}

    def search(archive: Archive) -> object:
        return archive.search(collection.logits[0], model=model, k=K, metric="asymmetric").hits

    with ExitStack() as stack:
        archives = {
            count: stack.enter_context(Archive.open(path, write=True))
            for count, path in paths.items()
        }
        for archive in archives.values():
            for _ in range(_WARMING):
                search(archive)
        for number in range(rounds + 1):
            items = coded(collection.codes[:ADDED_ROWS], f"added {number}")
            for count, archive in archives.items():
                add = partial(_add, archive, items, model)
                turns[count].append(Turn.timed(partial(search, archive), add))
    return Adding("to an archive", {count: taken[1:] for count, taken in turns.items()})


def _add(archive: Archive, items: list[list[CodedObservation]], model: str) -> None:
    archive.add(items, model=model)
    assert archive.generation  # loads the commit, as the next search would


@dataclass
class Openings:
    """Turns with cold or warm files: openings, seconds to read the codes and all files."""

    opened: list[Opened] = field(default_factory=list)
    codes_read: list[float] = field(default_factory=list)
    all_read: list[float] = field(default_factory=list)


def measure_disk(
    collection: Collection, rows: tuple[int, int], rounds: int, report: Report
) -> None:
    """Archives of the first `rows` codes of a collection, in a temporary folder."""
    large = collection.first(rows[1])
    adding = [adding_in_memory(collection, rows, rounds)]
    caches = {"cold": Openings(), "warm": Openings()}
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
                turns.opened.append(opened_once(archive, queries))
        total = bytes_of(archive)
        adding.insert(0, adding_to_archives(paths, collection, rounds))
    ratios = _opening_ratios(caches, rows[1], collection.bits)
    ratios += [ratio for one in adding for ratio in one.ratios()]
    title = f"Archives on disk, {collection.bits} bits"
    table = ratio_table(
        title,
        ratios,
        [
            "Cold files: dropped from the system's cache (posix_fadvise); warm: read just before.",
            f"Opening: a fresh process, from loaded libraries to the first answer, top {K}.",
            f"All files: {total / MIB:,.0f} MiB, metadata and all; codes alone: "
            f"{large.codes.nbytes / MIB:,.0f} MiB.",
            f"First opening after a bulk write: {first_ever.to_first_answer:.2f} s.",
            *(line for one in adding for line in one.lines()),
        ],
    )
    report.add("disk", table, first_ever=first_ever, caches=caches, adding=adding)
    report.add_targets(title, ratios)


def _opening_ratios(caches: Mapping[str, Openings], rows: int, bits: int) -> list[Ratio]:
    ratios = []
    for cache, turns in caches.items():
        seconds = np.array([one.to_first_answer for one in turns.opened])
        what = f"open {short(rows)} codes to first answer, {cache}"
        to_codes = Spread.of(seconds / np.array(turns.codes_read))
        ratios.append(Ratio(what, "reading the codes", to_codes, _OPENING_TARGET))
        to_all = Spread.of(seconds / np.array(turns.all_read))
        ratios.append(Ratio(what, "reading all files", to_all))
    warm, code = caches["warm"].opened[-1], bits / 8
    per_row = (warm.after - warm.before) / warm.rows
    what = f"memory per row, open archive of {short(rows)}"
    ratios.append(Ratio(what, "bits / 8", per_row / code, f"<= {2 + 16 / code:.2g}"))
    return ratios


def measure_memory(collection: Collection, report: Report) -> None:
    """Resident memory of every engine over a collection, each in a fresh process."""
    rows, code = len(collection.codes), collection.bits / 8
    target = 2 * code + 16
    lines: list[list[Cell]] = []
    ratios = []
    with TemporaryDirectory() as folder:
        file = Path(folder) / "codes.bin"
        collection.codes.tofile(file)
        for kind in ENGINES:
            say(f"memory of {described(collection)}, {kind}")
            found = in_fresh_process(__name__, file, collection.bits, kind)
            grown = found["after"] - found["before"]
            lines.append([kind, rows, grown / rows, target, grown / MIB, found["before"] / MIB])
            what, limit = f"memory per row, {kind} engine", f"<= {target / code:.3g}"
            ratios.append(Ratio(what, "bits / 8", grown / rows / code, limit))
    table = Table(
        f"Resident memory, {collection.bits} bits",
        {
            "engine": "",
            "rows": ",",
            "bytes per row": ".1f",
            "at most": "g",
            "MiB grown": ".0f",
            "MiB before": ".0f",
        },
        lines,
        [
            "Resident pages (VmRSS) of a fresh process: with the libraries loaded and used, before",
            "the codes were loaded; and after searches by both metrics. Target: twice the code and",
            "16 bytes.",
        ],
    )
    report.add("memory", table)
    report.add_targets(described(collection), ratios)


def main(file: str, bits: str, kind: str) -> None:
    """Build one engine over the codes in a file, and print its memory before and after.

    The libraries are loaded and used before the first measurement. Mapped files count.
    """
    few = clustered(_FEW_ROWS, int(bits))
    ENGINES[kind](few).search(few.queries("asymmetric"), K)
    gc.collect()
    before = resident_memory()
    codes = np.fromfile(file, dtype=np.uint8).reshape(-1, int(bits) // 8)
    collection = Collection("file", codes, few.logits)
    engine = ENGINES[kind](collection)
    for metric in METRICS:
        engine.search(collection.queries(metric), K)
    del collection, codes
    gc.collect()
    print(json.dumps({"before": before, "after": resident_memory()}))
