"""The search benchmark, table by table; a failed table does not stop the others.

All times of one table are measured in one process, in turns, on the same codes; memory and the
opening of archives in fresh processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from bittern.benchmarks.speed.codes import (
    NOISE,
    SPECIES_APART,
    SPECIES_PER_GENUS,
    Collection,
    clustered,
    real,
)
from bittern.benchmarks.speed.harness import Options, Report
from bittern.benchmarks.speed.search.approximate import measure_approximate
from bittern.benchmarks.speed.search.disk import measure_disk, measure_memory
from bittern.benchmarks.speed.search.exact import measure_exact, measure_grid
from bittern.benchmarks.speed.search.filters import measure_filters
from bittern.index.engines.threads import usable_cores

QUICK_ROWS = 100_000


@dataclass(frozen=True)
class Settings:
    """Sizes of one run.

    Attributes:
        grid_rows: sizes of the grid of exact searches.
        grid_bits: code lengths of the grid.
        batches: queries in one call.
        rounds: timed turns of each contestant.
        rows: size of all other tables in memory.
        bits: their code length.
        curve_rows: sizes of the curves of approximate search.
        archive_rows: the smaller and the larger archive.
        real_rows: size of the curves over real codes; 0 for no real codes at all.
    """

    grid_rows: tuple[int, ...] = (100_000, 1_000_000, 2_000_000, 10_000_000)
    grid_bits: tuple[int, ...] = (64, 256)
    batches: tuple[int, ...] = (1, 8, 64)
    rounds: int = 7
    rows: int = 2_000_000
    bits: int = 256
    curve_rows: tuple[int, ...] = (500_000, 2_000_000)
    archive_rows: tuple[int, int] = (100_000, 10_000_000)
    real_rows: int = 200_000

    @classmethod
    def of(cls, options: Options) -> Settings:
        """Settings for the options of the command line."""
        settings = cls()
        if options.quick:
            settings = replace(settings.at_size(QUICK_ROWS), batches=(1, 8), rounds=1)
        elif options.rows:
            settings = settings.at_size(options.rows)
        elif options.full:
            settings = replace(settings, curve_rows=(1_000_000, 10_000_000), real_rows=500_000)
        if options.bits:
            settings = replace(settings, grid_bits=tuple(options.bits), bits=max(options.bits))
        return replace(settings, rounds=options.rounds or settings.rounds)

    def at_size(self, rows: int) -> Settings:
        """Every table at one size, without real codes."""
        return replace(
            self,
            grid_rows=(rows,),
            grid_bits=(256,),
            rows=rows,
            curve_rows=(rows,),
            archive_rows=(max(1, rows // 10), rows),
            real_rows=0,
        )

    def collections(self) -> Iterator[Collection]:
        """Drawn and real codes of the usual size."""
        yield clustered(self.rows, self.bits)
        if self.real_rows:
            yield real(self.rows, self.bits)


def run(options: Options) -> Report:
    """Measure every table that the options name.

    Raises:
        InvalidInputError: an unknown table.
    """
    chosen = options.chosen_tables(tuple(TABLES))
    os.environ.setdefault("LANCEDB_LOG", "error")
    settings = Settings.of(options)
    report = Report(
        "search",
        f"drawn codes: {SPECIES_PER_GENUS} species to a genus, {SPECIES_APART:.0%} of their bits "
        f"flipped, and {NOISE:.0%} of an observation's; {settings.rounds} rounds",
        values={
            "settings": settings,
            "threads": usable_cores(),
            "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        },
    )
    for name in chosen:
        report.attempt(name, partial(TABLES[name], settings, report))
    return report.finish()


def _exact(settings: Settings, report: Report) -> None:
    for collection in settings.collections():
        measure_exact(collection, settings.rounds, report)


def _filters(settings: Settings, report: Report) -> None:
    for collection in settings.collections():
        measure_filters(collection, settings.rounds, report)


def _curves(settings: Settings, report: Report) -> None:
    for rows in settings.curve_rows:
        measure_approximate(clustered(rows, settings.bits), settings.rounds, report)
    if settings.real_rows:
        measure_approximate(real(settings.real_rows, settings.bits), settings.rounds, report)


def _grid(settings: Settings, report: Report) -> None:
    largest = [clustered(max(settings.grid_rows), bits) for bits in settings.grid_bits]
    collections = [one.first(rows) for one in largest for rows in settings.grid_rows]
    measure_grid(collections, settings.batches, settings.rounds, report)


def _memory(settings: Settings, report: Report) -> None:
    measure_memory(clustered(settings.rows, settings.bits), report)


def _disk(settings: Settings, report: Report) -> None:
    collection = clustered(max(settings.archive_rows), settings.bits)
    measure_disk(collection, settings.archive_rows, settings.rounds, report)


TABLES: dict[str, Callable[[Settings, Report], None]] = {
    "exact": _exact,
    "filters": _filters,
    "curves": _curves,
    "grid": _grid,
    "memory": _memory,
    "disk": _disk,
}
