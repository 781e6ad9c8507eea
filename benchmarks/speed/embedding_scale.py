"""How fast, and in how much memory, embeddings in shards are read: what ranking begins with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from time import perf_counter

import numpy as np

from bittern.benchmarks.eval.embeddings.encoding import SHARD_ITEMS
from bittern.benchmarks.eval.embeddings.shards import (
    Content,
    Shard,
    ShardedRows,
    check_room,
    read_shard,
    write_shard,
)
from bittern.benchmarks.speed.memory import MIB, peak_memory
from bittern.benchmarks.speed.report import Report, Table, say
from bittern.encoders.base import Modality

ROWS, DIM = 1_000_000, 768
TILE_ROWS = 65_536
DRAWN = 100_000
"""Rows that are read here and there: what systems are fitted on."""


def run(rows: int = ROWS, dim: int = DIM, folder: Path | None = None) -> Report:
    """Write random embeddings, check them, and read them in tiles and here and there.

    Args:
        rows: photographs, one embedding each.
        dim: length of an embedding.
        folder: where they are kept meanwhile; a temporary one by default. They are removed.

    Raises:
        LimitExceededError: the disk has no room.
    """
    place = Path(tempfile.mkdtemp(prefix="bittern-embeddings-", dir=folder))
    try:
        check_room(place, rows * dim * 4, rows, dim)
        say(f"writing {rows * dim * 4 / 1e9:.1f} GB of embeddings")
        measured = _measure(place, rows, dim)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return _report(rows, dim, measured)


Figures = dict[str, dict[str, float]]


def _measure(place: Path, rows: int, dim: int) -> Figures:
    """Seconds, gigabytes per second and peak memory of each step."""
    found: Figures = {}
    firsts = range(0, rows, SHARD_ITEMS[Modality.IMAGE])
    sizes = [min(SHARD_ITEMS[Modality.IMAGE], rows - first) for first in firsts]
    names = [sha256(f"{number}".encode()).hexdigest() for number in range(len(sizes))]
    shards: list[Shard] = []

    def write() -> int:
        random = np.random.default_rng(0)
        for name, size in zip(names, sizes, strict=True):
            write_shard(place, name, _content(random, size, dim))
        return rows

    def check() -> int:
        for name, size in zip(names, sizes, strict=True):
            if (shard := read_shard(place, name, size, dim)) is not None:
                shards.append(shard)
        return rows

    def stream() -> int:
        return sum(len(tile) for _, tile in opened.tiles(TILE_ROWS))

    def draw() -> int:
        chosen = np.random.default_rng(1).integers(0, rows, min(DRAWN, rows))
        return len(opened.read(chosen))

    found["write"] = _timed(write, dim)
    found["open"] = _timed(check, dim)
    opened = ShardedRows(shards, dim, "")
    found["tiles"] = _timed(stream, dim)
    found["drawn"] = _timed(draw, dim)
    return found


def _content(random: np.random.Generator, rows: int, dim: int) -> Content:
    embeddings = random.standard_normal((rows, dim), dtype=np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    spans = np.full((rows, 2), np.nan, np.float32)
    return Content(rows, embeddings, np.arange(rows), spans, ())


def _timed(step: Callable[[], int], dim: int) -> dict[str, float]:
    """What a step over some rows took."""
    with peak_memory() as peak:
        begun = perf_counter()
        rows = step()
        seconds = perf_counter() - begun
    size = rows * dim * 4
    return {
        "rows": rows,
        "seconds": seconds,
        "gb_per_s": size / 1e9 / seconds,
        "growth_mib": peak.growth / MIB,
        "peak_mib": peak.most / MIB,
    }


_STEPS = {
    "write": "write, random numbers included",
    "open": "open: every checksum and value",
    "tiles": f"all rows, {TILE_ROWS:,} at a time",
    "drawn": "rows drawn at random",
}


def _report(rows: int, dim: int, measured: Figures) -> Report:
    cells = [
        [
            _STEPS[step],
            f"{m['rows']:,.0f}",
            f"{m['seconds']:.2f}",
            f"{m['gb_per_s']:.2f}",
            f"{m['growth_mib']:,.0f}",
        ]
        for step, m in measured.items()
    ]
    table = Table(
        "Embeddings in shards",
        ["step", "rows", "s", "GB/s", "memory +MiB"],
        cells,
        notes=[
            f"One tile is {TILE_ROWS * dim * 4 / MIB:,.0f} MiB. Files that were just written are "
            "in the system's cache: a disk that is slower than the figures sets the pace."
        ],
    )
    size = f"{rows:,} embeddings of {dim} float32, {rows * dim * 4 / 1e9:.2f} GB"
    return Report("embeddings", size, [table], dict(measured))
