"""Many small commits: whether their time and their bytes stay bounded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from bittern.benchmarks.speed.jobs.archives import BITS
from bittern.benchmarks.speed.report import Table, bar
from bittern.benchmarks.speed.search.archives import coded, files_of, model_of
from bittern.benchmarks.speed.search.codes import clustered
from bittern.benchmarks.speed.search.ratio import Ratio, once
from bittern.index.archive import Archive

ROWS_PER_COMMIT = 4
_STEPS = 10


@dataclass(frozen=True)
class Upkeep:
    """What commits cost as they add up.

    Attributes:
        commits: how many there were.
        seconds: of every commit.
        files: files in the archive after each tenth of them.
        bytes: bytes likewise.
        closed: bytes after the archive was closed.
    """

    commits: int
    seconds: list[float]
    files: list[int]
    bytes: list[int]
    closed: int

    def ratios(self) -> list[Ratio]:
        """The last tenth against the second."""
        second, last = self._tenth(1), self._tenth(_STEPS - 1)
        return [
            Ratio("a commit in the last tenth", "in the second tenth", once(last / second)),
            Ratio("files after the last tenth", "the second", once(self.files[-1] / self.files[1])),
        ]

    def _tenth(self, number: int) -> float:
        size = self.commits // _STEPS
        return float(np.mean(self.seconds[number * size : (number + 1) * size]))

    def table(self) -> Table:
        """Each tenth."""
        rows = [
            [
                str((number + 1) * self.commits // _STEPS),
                f"{self._tenth(number) * 1e3:.1f}",
                str(self.files[number]),
                f"{self.bytes[number] / 2**20:.1f}",
            ]
            for number in range(_STEPS)
        ]
        return Table(
            f"{self.commits} commits of {ROWS_PER_COMMIT} rows",
            ["commits", "ms, mean", "files", "MiB"],
            rows,
            [
                "Compaction included. Versions that a compaction has replaced stay for readers, "
                f"up to a bound. After closing: {self.closed / 2**20:.1f} MiB."
            ],
        )

    def to_json(self) -> dict[str, Any]:
        """Means of each tenth."""
        return {
            "commits": self.commits,
            "mean_ms": [self._tenth(number) * 1e3 for number in range(_STEPS)],
            "files": self.files,
            "bytes": self.bytes,
            "closed": self.closed,
        }


def measure_upkeep(folder: Path, commits: int) -> Upkeep:
    """Commit again and again into an archive in `folder`."""
    codes = clustered(ROWS_PER_COMMIT, BITS).codes
    record = model_of(BITS)
    path = folder / "upkeep"
    seconds: list[float] = []
    files: list[int] = []
    sizes: list[int] = []
    with Archive.create(path) as archive, bar(commits) as advance:
        archive.register_model(record, {"model.json": b"{}"})
        for number in range(commits):
            items = coded(codes, f"commit {number}")
            begun = perf_counter()
            archive.add(items, model=record.digest)
            seconds.append(perf_counter() - begun)
            if (number + 1) % (commits // _STEPS) == 0:
                found = [file.stat().st_size for file in files_of(path)]
                files.append(len(found))
                sizes.append(sum(found))
            advance()
    closed = sum(file.stat().st_size for file in files_of(path))
    return Upkeep(commits, seconds, files, sizes, closed)
