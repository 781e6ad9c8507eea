"""Archives on disk: how soon one answers after it is opened, and what adding to it costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.report import Table, say
from benchmarks.search.archives import coded, forget, model_of, read_once, write_archive
from benchmarks.search.codes import Collection
from benchmarks.search.engines import blocks_of, warmed
from benchmarks.search.opening import Opened
from benchmarks.search.ratio import Ratio, once, ratio_table, short
from benchmarks.search.resident import in_process
from benchmarks.search.settings import K
from benchmarks.timing import Rounds, Spread, interleaved
from index.archive import Archive
from index.engines.blocks import CodeBlocks
from index.engines.flat import FlatEngine

ADDED_ROWS = 10_000
_OPENINGS = 3
_ADDINGS = 3
CACHES = ("cold", "warm")


@dataclass(frozen=True)
class Disk:
    """What archives on disk took.

    Attributes:
        rows: of the smaller and the larger archive.
        bits: code length.
        written: seconds to write the larger one in bulk.
        first_ever: the first opening of the larger one, which may build what is derived from it.
        openings: later ones, in fresh processes, by whether its files were cached.
        codes_read: seconds to read a file of its codes and nothing else, likewise.
        all_read: seconds to read all files of the archive, likewise, and their bytes.
        adding: seconds to add rows, to see them and to search, by archive; and the same in
            memory, without a store.
    """

    rows: tuple[int, int]
    bits: int
    written: float
    first_ever: Opened
    openings: dict[str, list[Opened]]
    codes_read: dict[str, list[float]]
    all_read: dict[str, list[float]]
    all_bytes: int
    adding: Rounds
    in_memory: Rounds
    parts: dict[str, list[float]] = field(default_factory=dict)

    def ratios(self) -> list[Ratio]:
        """Rows of the table of ratios."""
        small, large = map(short, self.rows)
        found = []
        for cache in CACHES:
            seconds = np.array([one.to_first_answer for one in self.openings[cache]])
            what = f"open {large} codes to first answer, {cache}"
            codes, everything = np.array(self.codes_read[cache]), np.array(self.all_read[cache])
            found.append(Ratio(what, "reading the codes", Spread.of(seconds / codes), 2.0))
            found.append(Ratio(what, "reading all files", Spread.of(seconds / everything)))
        what = f"add {short(ADDED_ROWS)} rows and search, at {large}"
        found.append(Ratio(what, f"at {small}", self.adding.ratio(large, small), 1.5))
        what = f"the same without a store, at {large}"
        found.append(Ratio(what, f"at {small}", self.in_memory.ratio(large, small), 1.5))
        warm = self.openings["warm"][-1]
        code = self.bits / 8
        found.append(
            Ratio(
                f"memory per row, open archive of {large}",
                "bits / 8",
                once((warm.after - warm.before) / warm.rows / code),
                round(2 + 16 / code, 2),
            )
        )
        return found

    def table(self) -> Table:
        """Ratios and the seconds behind them."""
        notes = [
            "Cold files: dropped from the system's cache (posix_fadvise); warm: read just before.",
            "Opening: a fresh process, from loaded libraries to the first answer (asymmetric, top "
            f"{K}).",
            f"All files: {self.all_bytes / 2**20:,.0f} MiB, metadata and all; codes alone: "
            f"{self.rows[1] * self.bits / 8 / 2**20:,.0f} MiB.",
            f"First opening after a bulk write: {self.first_ever.to_first_answer:.2f} s.",
        ]
        for cache in CACHES:
            opened = self.openings[cache]
            notes.append(
                f"{cache}: open {_median([o.opened for o in opened])} s, first search "
                f"{_median([o.first for o in opened])} s, again "
                f"{_median([o.second for o in opened])} s; reading codes "
                f"{_median(self.codes_read[cache])} s, all files {_median(self.all_read[cache])} s"
            )
        for name in self.adding.seconds:
            notes.append(
                f"add to {name}: {self.adding.time(name).text()} s, of it "
                f"{_median(self.parts[name])} s for the first search; "
                f"in memory {self.in_memory.time(name, 1e3).text()} ms"
            )
        title = f"Archives on disk, {self.bits} bits"
        return ratio_table(title, self.ratios(), notes)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **asdict(self),
            "adding": self.adding.to_json(),
            "in_memory": self.in_memory.to_json(),
            "ratios": [ratio.to_json() for ratio in self.ratios()],
        }


def measure_disk(collection: Collection, rows: tuple[int, int], rounds: int) -> Disk:
    """Archives of the first `rows` codes of a collection, in a temporary folder."""
    large = collection.first(rows[1])
    in_memory = adding_in_memory(collection, rows, rounds)
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = {count: folder / f"archive-{count}" for count in rows}
        for count in rows:
            say(f"writing an archive of {count:,} x {collection.bits} bits")
            begun = perf_counter()
            write_archive(paths[count], collection.first(count))
            written = perf_counter() - begun
        codes, queries = folder / "codes.bin", folder / "queries.npy"
        large.codes.tofile(codes)
        np.save(queries, large.logits)
        arguments = [str(paths[rows[1]]), str(queries)]
        say("opening it in fresh processes")
        first_ever = _opened(arguments)
        openings: dict[str, list[Opened]] = {cache: [] for cache in CACHES}
        codes_read: dict[str, list[float]] = {cache: [] for cache in CACHES}
        all_read: dict[str, list[float]] = {cache: [] for cache in CACHES}
        for _ in range(min(rounds, _OPENINGS)):
            for cache in CACHES:
                _prepare(cache, codes)
                codes_read[cache].append(_seconds(lambda: read_once(codes)))
                _prepare(cache, paths[rows[1]])
                all_read[cache].append(_seconds(lambda: read_once(paths[rows[1]])))
                _prepare(cache, paths[rows[1]])
                openings[cache].append(_opened(arguments))
        total = read_once(paths[rows[1]])
        adding, parts = adding_to_archives(paths, collection, min(rounds, _ADDINGS))
    return Disk(
        rows,
        collection.bits,
        written,
        first_ever,
        openings,
        codes_read,
        all_read,
        total,
        adding,
        in_memory,
        parts,
    )


def adding_to_archives(
    paths: dict[int, Path], collection: Collection, rounds: int
) -> tuple[Rounds, dict[str, list[float]]]:
    """Add rows to open archives, in turns, and search at once.

    Returns:
        seconds of all of it, and of its search alone.
    """
    record = model_of(collection.bits)
    searching: dict[str, list[float]] = {short(count): [] for count in paths}
    turns: dict[str, Callable[[], object]] = {}
    say(f"adding {ADDED_ROWS:,} rows to each, {rounds} times")
    with ExitStack() as stack:
        for count, path in paths.items():
            archive = stack.enter_context(Archive.open(path, write=True))
            archive.register_model(record, {"model.json": b"{}"})
            turns[short(count)] = _adding(archive, collection, searching[short(count)], rounds + 1)
        times = interleaved(turns, rounds=rounds)
    return times, {name: seconds[1:] for name, seconds in searching.items()}


def _adding(
    archive: Archive, collection: Collection, searching: list[float], turns: int
) -> Callable[[], object]:
    record = model_of(collection.bits)
    logits = collection.logits[0]

    def search() -> object:
        return archive.search(logits, model=record.digest, k=K, metric="asymmetric")

    batches = iter([coded(collection.codes[:ADDED_ROWS], f"added {n}") for n in range(turns)])
    for _ in range(_WARMING):
        search()

    def turn() -> object:
        archive.add(next(batches), model=record.digest)
        archive.refresh()
        begun = perf_counter()
        found = search()
        searching.append(perf_counter() - begun)
        return found

    return turn


_WARMING = 8


def adding_in_memory(collection: Collection, rows: tuple[int, int], rounds: int) -> Rounds:
    """Append to the codes of a searched engine, and search the next generation at once."""
    turns: dict[str, Callable[[], object]] = {}
    query = collection.queries("asymmetric", 1)
    more = np.ascontiguousarray(collection.codes[:ADDED_ROWS])
    for count in rows:
        blocks = blocks_of(collection.first(count))
        warmed(FlatEngine(blocks), collection)
        turns[short(count)] = _appending(blocks, np.arange(count, count + len(more)), more, query)
    return interleaved(turns, rounds=rounds)


def _appending(blocks: CodeBlocks, rows: Any, codes: Any, query: Any) -> Callable[[], object]:
    return lambda: FlatEngine(blocks.appended(rows, codes)).search(query, K)


def _opened(arguments: list[str]) -> Opened:
    return Opened(**in_process("benchmarks.search.opening", arguments))


def _prepare(cache: str, path: Path) -> None:
    if cache == "cold":
        forget(path)
    else:
        read_once(path)


def _seconds(work: Callable[[], object]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def _median(values: list[float]) -> str:
    return f"{float(np.median(values)):.3f}"
