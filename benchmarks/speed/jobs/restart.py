"""What a kill costs: a job that is killed halfway and run again, against one left alone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import sleep
from typing import IO, Any

from bittern.benchmarks.speed.report import Table, say
from bittern.index.archive import Archive

_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Restart:
    """Seconds and items, networks loaded.

    Attributes:
        alone_s: of the job that was left alone.
        kept: items that were in the archive when the other was killed.
        rest_s: of the same job run again.
        repeated: items that were coded before the kill and were coded again.
        again_s: of the job run once more, when nothing is missing.
        same: whether all rows and codes are those of the job that was left alone.
    """

    alone_s: float
    items: int
    kept: int
    rest_s: float
    repeated: int
    again_s: float
    same: bool

    def table(self) -> Table:
        """For people."""
        share = self.kept / self.items
        rows = [
            ["left alone", str(self.items), f"{self.alone_s:.1f}", "1.00"],
            [
                "run again after a kill",
                str(self.items - self.kept),
                f"{self.rest_s:.1f}",
                f"{self.rest_s / (self.alone_s * (1 - share)):.2f}" if share < 1 else "",
            ],
            ["run again, nothing missing", "0", f"{self.again_s:.2f}", ""],
        ]
        return Table(
            "A job that is killed (SIGKILL) and run again",
            ["", "items coded", "seconds", "against its share"],
            rows,
            [
                f"Killed with {self.kept} of {self.items} items committed. Rows, codes and "
                f"metadata afterwards {'are' if self.same else 'ARE NOT'} those of the job that "
                "was left alone.",
                "against its share: seconds, divided by those that as many items took alone.",
            ],
        )

    def to_json(self) -> dict[str, Any]:
        """Every number."""
        return asdict(self)


def measure_restart(source: Path, items: int, folder: Path, weights: Path) -> Restart:
    """Measure with `field` and a folder of photographs."""
    alone, killed = folder / "left-alone", folder / "killed"
    say("a job that is left alone")
    whole = _finished(_started(source, alone, weights))
    say("the same, killed halfway")
    process = _started(source, killed, weights)
    _line(process.stdout)
    while _rows(killed) < items // 2 and process.poll() is None:
        sleep(_LOOK_EVERY_S)
    process.kill()
    process.communicate()
    kept = _rows(killed)
    say("run again")
    rest = _finished(_started(source, killed, weights))
    again = _finished(_started(source, killed, weights))
    coded = rest["items"]["added"] + rest["items"]["overwritten"]
    return Restart(
        alone_s=whole["seconds"],
        items=items,
        kept=kept,
        rest_s=rest["seconds"],
        repeated=coded - (items - kept),
        again_s=again["seconds"],
        same=_content(alone) == _content(killed),
    )


def _started(source: Path, place: Path, weights: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bittern.benchmarks.speed.jobs.alone", "field"]
    return subprocess.Popen(  # noqa: S603
        [*command, str(weights), str(source), str(place)], stdout=subprocess.PIPE, text=True
    )


def _line(stream: IO[str] | None) -> dict[str, Any]:
    assert stream is not None
    value: dict[str, Any] = json.loads(stream.readline())
    return value


def _finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    _line(process.stdout)
    done = _line(process.stdout)
    process.communicate()
    return done


def _rows(place: Path) -> int:
    if not (place / "archive.json").is_file():
        return 0
    with Archive.open(place) as archive:
        return sum(archive.stats().observations.values())


def _content(place: Path) -> list[dict[str, Any]]:
    with Archive.open(place) as archive:
        digest = archive.models()[0].digest
        batches = list(archive.iter_batches(model=digest))
    return [row for batch in batches for row in batch.to_pylist()]
