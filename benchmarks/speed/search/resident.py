"""How much memory codes take: in a process of its own, before they are there and after.

    python -m bittern.benchmarks.speed.search.resident FILE BITS ENGINE

The libraries are loaded and have answered a search before the first look. FILE holds the codes
and nothing else. The second look comes after searches by both metrics, so that everything that
is laid out for them is there. Resident pages are counted, mapped files included.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from bittern.benchmarks.speed.memory import resident_memory
from bittern.benchmarks.speed.report import Table, say
from bittern.benchmarks.speed.search.codes import Collection, clustered
from bittern.benchmarks.speed.search.engines import engine_of
from bittern.benchmarks.speed.search.ratio import Ratio, once
from bittern.benchmarks.speed.search.settings import K

ROOT = Path(__file__).parents[3]
_FEW_ROWS = 5_000
_TIMEOUT_S = 1_800


@dataclass(frozen=True)
class Resident:
    """Memory of one engine.

    Attributes:
        engine: its kind.
        rows: codes.
        bits: their length.
        before: bytes that were resident with the libraries loaded.
        after: bytes with the codes searched.
        counted: bytes besides the codes that the engine itself counts.
    """

    engine: str
    rows: int
    bits: int
    before: int
    after: int
    counted: int

    @property
    def per_row(self) -> float:
        """Bytes per row, the code included."""
        return (self.after - self.before) / self.rows

    @property
    def wanted(self) -> float:
        """Twice the code and 16 bytes, as times the code."""
        return 2 + 16 / (self.bits / 8)

    def ratio(self) -> Ratio:
        """Memory per row to that of the code alone."""
        return Ratio(
            f"memory per row, {self.engine} engine",
            "bits / 8",
            once(self.per_row / (self.bits / 8)),
            round(self.wanted, 2),
            raw=asdict(self),
        )


def measure_resident(collection: Collection, kind: str) -> Resident:
    """One engine over a collection, in a process of its own."""
    say(f"memory of {len(collection.codes):,} x {collection.bits} bits, {kind}")
    with TemporaryDirectory() as folder:
        file = Path(folder) / "codes.bin"
        collection.codes.tofile(file)
        arguments = [str(file), str(collection.bits), kind]
        return Resident(**in_process("bittern.benchmarks.speed.search.resident", arguments))


def resident_table(found: list[Resident]) -> Table:
    """Bytes per row."""
    lines = [
        [
            one.engine,
            f"{one.rows:,}",
            str(one.bits),
            f"{one.per_row:.1f}",
            f"<= {2 * one.bits / 8 + 16:g}",
            f"{(one.after - one.before) / 2**20:.0f}",
            f"{one.before / 2**20:.0f}",
        ]
        for one in found
    ]
    heads = ["engine", "rows", "bits", "bytes per row", "wanted", "MiB grown", "MiB before"]
    notes = [
        "Resident pages (VmRSS) of a fresh process: before the codes were loaded, the libraries",
        "loaded and used; and after searches by both metrics. Wanted: twice the code + 16 bytes.",
    ]
    return Table("Resident memory", heads, lines, notes)


def in_process(module: str, arguments: list[str]) -> dict[str, Any]:
    """Run a module of this package in a fresh process; returns the JSON that it prints last."""
    done = subprocess.run(  # noqa: S603  the words are ours
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr.strip()[-2000:]}")
    value: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return value


def main(file: str, bits: str, kind: str) -> None:
    """Build one engine over the codes in a file, and print what it takes."""
    few = clustered(_FEW_ROWS, int(bits))
    engine_of(few, kind).search(few.queries("asymmetric"), K)
    gc.collect()
    before = resident_memory()
    codes = np.fromfile(file, dtype=np.uint8).reshape(-1, int(bits) // 8)
    collection = Collection("file", codes, few.logits)
    engine = engine_of(collection, kind)
    for metric in ("asymmetric", "hamming"):
        engine.search(collection.queries(metric), K)
    rows = len(codes)
    del collection, codes
    gc.collect()
    counted = int(engine.nbytes)
    print(json.dumps(asdict(Resident(kind, rows, int(bits), before, resident_memory(), counted))))


if __name__ == "__main__":
    main(*sys.argv[1:])
