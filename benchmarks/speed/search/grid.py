"""Exact search at every size, code length, batch and number of threads, beside raw Faiss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bittern.benchmarks.speed.report import Table, say
from bittern.benchmarks.speed.search.codes import METRICS, Collection
from bittern.benchmarks.speed.search.contestants import Ask
from bittern.benchmarks.speed.search.engines import ask, flat_engine
from bittern.benchmarks.speed.search.peers import faiss_flat
from bittern.benchmarks.speed.search.settings import K
from bittern.benchmarks.speed.timing import Rounds, interleaved
from bittern.index.engines.queries import Queries
from bittern.index.engines.threads import usable_cores

FAISS = "faiss"
_MOST_SECONDS = 3.0
"""A turn of raw Faiss that would take longer than this is left out."""
_CODES_PER_SECOND = 3e8
"""What raw Faiss scans at the least, of 256 bits on one thread."""


@dataclass(frozen=True)
class Cell:
    """One batch at one number of threads over one collection.

    Attributes:
        rows: codes.
        bits: their length.
        batch: queries handed over at once.
        threads: given to each contestant.
        times: by metric, and of raw Faiss by Hamming distance.
    """

    rows: int
    bits: int
    batch: int
    threads: int
    times: Rounds

    def line(self) -> list[str]:
        """As a row of the table."""
        cells = [f"{self.rows:,}", str(self.bits), str(self.batch), str(self.threads)]
        for name in self.times.seconds:
            cells.append(f"{self.times.time(name, 1e3 / self.batch).median:.3f}")
        cells += [f"{self.times.ratio(metric, FAISS).median:.2f}" for metric in METRICS]
        return cells

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "rows": self.rows,
            "bits": self.bits,
            "batch": self.batch,
            "threads": self.threads,
            "seconds_per_batch": self.times.to_json(),
            "ratios_to_faiss": {m: self.times.ratio(m, FAISS).to_json() for m in METRICS},
        }


def measure_grid(collection: Collection, batches: tuple[int, ...], rounds: int) -> list[Cell]:
    """All batches and numbers of threads over one collection."""
    from pathlib import Path

    rows, bits = len(collection.codes), collection.bits
    say(f"exact search of {rows:,} x {bits} bits, batches of {', '.join(map(str, batches))}")
    cells = []
    for threads in sorted({1, usable_cores()}):
        ours = ask(flat_engine(collection, threads))
        theirs = faiss_flat(collection, threads, Path())(0)
        for batch in batches:
            seconds = batch * rows * bits / 256 / _CODES_PER_SECOND / threads
            if seconds > _MOST_SECONDS:
                say(f"left out: batches of {batch} on {threads} threads, {seconds:.0f} s a turn")
                continue
            turns = {
                metric: _turn(ours, collection.queries(metric, batch)) for metric in METRICS
            } | {FAISS: _turn(theirs, collection.queries("hamming", batch))}
            cells.append(Cell(rows, bits, batch, threads, interleaved(turns, rounds=rounds)))
    return cells


def grid_table(cells: list[Cell]) -> Table:
    """All of them."""
    return Table(
        "Exact search: milliseconds per query, and times as long as raw Faiss",
        ["rows", "bits", "batch", "threads", *METRICS, FAISS, *(f"{m} ratio" for m in METRICS)],
        [cell.line() for cell in cells],
        [
            f"Top {K}; medians. {FAISS}: IndexBinaryFlat, by Hamming distance, given as many",
            "threads; one query keeps it to one. Both ratios are to it.",
        ],
    )


def _turn(search: Ask, queries: Queries) -> Callable[[], object]:
    return lambda: search(queries, K)
