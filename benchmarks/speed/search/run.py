"""The search benchmark, table by table; a failed table does not stop the others.

All times of one table are measured in one process, in turns, on the same codes; memory and the
opening of archives in fresh processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

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
from bittern.benchmarks.speed.search.disk import measure_disk
from bittern.benchmarks.speed.search.exact import measure_exact, measure_grid
from bittern.benchmarks.speed.search.filters import measure_filters
from bittern.benchmarks.speed.search.memory import measure_memory
from bittern.index.engines.threads import usable_cores

TABLES = ("exact", "filters", "curves", "grid", "memory", "disk")
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
        tables: which tables.
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
    tables: Sequence[str] = TABLES

    @classmethod
    def of(cls, options: Options) -> Settings:
        """Settings for the options of the command line.

        Raises:
            InvalidInputError: an unknown table.
        """
        settings = cls(tables=options.chosen_tables(TABLES))
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


def run(options: Options) -> Report:
    """Measure every table that the options name."""
    os.environ.setdefault("LANCEDB_LOG", "error")
    settings = Settings.of(options)
    report = Report(
        "search",
        f"drawn codes: {SPECIES_PER_GENUS} species to a genus, {SPECIES_APART:.0%} of their bits "
        f"flipped, and {NOISE:.0%} of an observation's; {settings.rounds} rounds",
        values={"settings": asdict(settings), "threads": usable_cores()},
    )
    report.values["omp_wait_policy"] = os.environ.get("OMP_WAIT_POLICY", "not set")
    rounds = settings.rounds

    def exact() -> None:
        for collection in _collections(settings):
            measure_exact(collection, rounds, report)

    def filters() -> None:
        for collection in _collections(settings):
            measure_filters(collection, rounds, report)

    def curves() -> None:
        for rows in settings.curve_rows:
            measure_approximate(clustered(rows, settings.bits), rounds, report)
        if settings.real_rows:
            measure_approximate(real(settings.real_rows, settings.bits), rounds, report)

    def grid() -> None:
        largest = [clustered(max(settings.grid_rows), bits) for bits in settings.grid_bits]
        collections = [one.first(rows) for one in largest for rows in settings.grid_rows]
        measure_grid(collections, settings.batches, rounds, report)

    def memory() -> None:
        measure_memory(clustered(settings.rows, settings.bits), report)

    def disk() -> None:
        collection = clustered(max(settings.archive_rows), settings.bits)
        measure_disk(collection, settings.archive_rows, rounds, report)

    tables: dict[str, Callable[[], None]] = {
        "exact": exact,
        "filters": filters,
        "curves": curves,
        "grid": grid,
        "memory": memory,
        "disk": disk,
    }
    for name in settings.tables:
        report.attempt(name, tables[name])
    return report.finish()


def _collections(settings: Settings) -> list[Collection]:
    drawn = clustered(settings.rows, settings.bits)
    return [drawn, real(settings.rows, settings.bits)] if settings.real_rows else [drawn]
