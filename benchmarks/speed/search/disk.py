"""Archives on disk: how soon one answers after it is opened, what it takes, what adding costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from bittern.benchmarks.speed.report import Table, say
from bittern.benchmarks.speed.search.adding import Adding, adding_in_memory, adding_to_archives
from bittern.benchmarks.speed.search.archives import forget, read_once, write_archive
from bittern.benchmarks.speed.search.codes import Collection
from bittern.benchmarks.speed.search.opening import Opened
from bittern.benchmarks.speed.search.ratio import Ratio, once, ratio_table, short
from bittern.benchmarks.speed.search.resident import in_process
from bittern.benchmarks.speed.search.settings import K
from bittern.benchmarks.speed.timing import Spread

_OPENINGS = 3
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
        adding: to the archives, and in memory without a store.
    """

    rows: tuple[int, int]
    bits: int
    written: float
    first_ever: Opened
    openings: dict[str, list[Opened]]
    codes_read: dict[str, list[float]]
    all_read: dict[str, list[float]]
    all_bytes: int
    adding: tuple[Adding, ...]

    def ratios(self) -> list[Ratio]:
        """Rows of the table of ratios."""
        large = short(self.rows[1])
        found = []
        for cache in CACHES:
            seconds = np.array([one.to_first_answer for one in self.openings[cache]])
            what = f"open {large} codes to first answer, {cache}"
            codes, everything = np.array(self.codes_read[cache]), np.array(self.all_read[cache])
            found.append(Ratio(what, "reading the codes", Spread.of(seconds / codes), 2.0))
            found.append(Ratio(what, "reading all files", Spread.of(seconds / everything)))
        found += [ratio for adding in self.adding for ratio in adding.ratios()]
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
        notes += [line for adding in self.adding for line in adding.lines()]
        title = f"Archives on disk, {self.bits} bits"
        return ratio_table(title, self.ratios(), notes)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **asdict(self),
            "adding": [adding.to_json() for adding in self.adding],
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
        on_disk = adding_to_archives(paths, collection, rounds)
    return Disk(
        rows,
        collection.bits,
        written,
        first_ever,
        openings,
        codes_read,
        all_read,
        total,
        (on_disk, in_memory),
    )


def _opened(arguments: list[str]) -> Opened:
    return Opened(**in_process("bittern.benchmarks.speed.search.opening", arguments))


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
