"""What an archive of some size costs: a commit, opening it, its bytes on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bittern.benchmarks.speed.report import Table, say
from bittern.benchmarks.speed.search.archives import coded, files_of, model_of, write_archive
from bittern.benchmarks.speed.search.codes import clustered
from bittern.benchmarks.speed.search.ratio import Ratio, short
from bittern.benchmarks.speed.timing import Spread
from bittern.index.archive import Archive

COMMIT_ROWS = 1_000
BITS = 256
_WANTED_COMMIT = 1.5
_OPENINGS = 3
_PARTS = ("store", "derived", "models")


@dataclass(frozen=True)
class Sizes:
    """Archives of several sizes.

    Attributes:
        commits: seconds of each commit of `COMMIT_ROWS` rows, by the rows that were there.
        opened: seconds from an archive on disk to open, in fresh processes, libraries loaded.
        answered: seconds from open to the first answer, likewise.
        disk: bytes per observation, by part of the archive's folder.
    """

    commits: Mapping[int, list[float]]
    opened: Mapping[int, list[float]]
    answered: Mapping[int, list[float]]
    disk: Mapping[int, Mapping[str, float]]

    def ratios(self) -> list[Ratio]:
        """Commits of the larger archives against the smallest."""
        smallest, *larger = self.commits
        found = []
        for rows in larger:
            pairs = np.array(self.commits[rows]) / np.array(self.commits[smallest])
            wanted = _WANTED_COMMIT if rows == max(larger) else None
            found.append(
                Ratio(
                    f"commit {short(COMMIT_ROWS)} rows at {short(rows)}",
                    f"at {short(smallest)}",
                    Spread.of(pairs),
                    wanted,
                )
            )
        return found

    def table(self) -> Table:
        """The seconds and bytes behind them."""
        rows = []
        for size in self.commits:
            disk = self.disk[size]
            rows.append(
                [
                    short(size),
                    _ms(self.commits[size]),
                    f"{max(self.commits[size]) * 1e3:.0f}",
                    _ms(self.opened[size]),
                    _ms(self.answered[size]),
                    *(f"{disk[part]:.0f}" for part in (*_PARTS, "all")),
                ]
            )
        return Table(
            f"Archives of photographs, {BITS} bits",
            ["rows", "commit, ms", "slowest", "open, ms", "answer, ms", *_PARTS, "all"],
            rows,
            [
                f"commit: {COMMIT_ROWS} new rows, durable. open, answer: in a fresh process whose "
                "libraries are loaded.",
                f"{', '.join(_PARTS)}, all: bytes on disk per observation, of which "
                f"{BITS // 8} are its code.",
            ],
        )

    def to_json(self) -> dict[str, Any]:
        """Every single time."""
        return {
            name: {str(rows): value for rows, value in getattr(self, name).items()}
            for name in ("commits", "opened", "answered", "disk")
        }


def measure_sizes(folder: Path, sizes: Sequence[int], rounds: int) -> Sizes:
    """Measure archives of these sizes, written into `folder`."""
    paths = {}
    collection = clustered(max(sizes), BITS)
    for rows in sizes:
        say(f"writing an archive of {short(rows)}")
        paths[rows] = folder / f"archive-{rows}"
        write_archive(paths[rows], collection.first(rows))
    disk = {rows: _bytes_per_row(path, rows) for rows, path in paths.items()}
    queries = folder / "queries.npy"
    np.save(queries, collection.logits[:1])
    opened: dict[int, list[float]] = {rows: [] for rows in sizes}
    answered: dict[int, list[float]] = {rows: [] for rows in sizes}
    for turn in range(1 + _OPENINGS):
        for rows, path in paths.items():
            one = _opening(path, queries)
            if turn:  # the first may keep what it has derived
                opened[rows].append(one["opened"])
                answered[rows].append(one["first"])
    say(f"committing {short(COMMIT_ROWS)} rows, {rounds} times each")
    commits: dict[int, list[float]] = {rows: [] for rows in sizes}
    with ExitStack() as stack:
        archives = {
            rows: stack.enter_context(Archive.open(path, write=True))
            for rows, path in paths.items()
        }
        for turn in range(1 + rounds):
            items = coded(collection.codes[:COMMIT_ROWS], f"commit {turn}")
            for rows, archive in archives.items():
                begun = perf_counter()
                archive.add(items, model=model_of(BITS).digest)
                if turn:
                    commits[rows].append(perf_counter() - begun)
    return Sizes(commits, opened, answered, disk)


def _opening(path: Path, queries: Path) -> dict[str, float]:
    command = [
        sys.executable,
        "-m",
        "bittern.benchmarks.speed.search.opening",
        str(path),
        str(queries),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    values: dict[str, float] = json.loads(done.stdout)
    return values


def _bytes_per_row(path: Path, rows: int) -> dict[str, float]:
    parts = {part: sum(f.stat().st_size for f in files_of(path / part)) for part in _PARTS}
    everything = sum(file.stat().st_size for file in files_of(path))
    return {**{part: size / rows for part, size in parts.items()}, "all": everything / rows}


def _ms(seconds: Sequence[float]) -> str:
    return f"{float(np.median(seconds)) * 1e3:.0f}"
