"""The search benchmark, part after part; what fails is said, and the rest goes on.

All times of one table are taken in one process, in turns, from the same codes. Memory and the
opening of archives are measured in processes of their own, because they have to be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from bittern.benchmarks.speed.report import Report, Table, say
from bittern.benchmarks.speed.search.codes import (
    NOISE,
    SPECIES_APART,
    SPECIES_PER_GENUS,
    Collection,
    clustered,
    words,
)
from bittern.benchmarks.speed.search.curves import Curves, measure_curves
from bittern.benchmarks.speed.search.disk import measure_disk
from bittern.benchmarks.speed.search.engines import ENGINES
from bittern.benchmarks.speed.search.exact import described, measure_exact
from bittern.benchmarks.speed.search.filters import measure_filters
from bittern.benchmarks.speed.search.grid import Cell, grid_table, measure_grid
from bittern.benchmarks.speed.search.ratio import HEADS, Ratio
from bittern.benchmarks.speed.search.resident import measure_resident, resident_table
from bittern.benchmarks.speed.search.settings import GRAPH_MEMORY_ROWS, GRAPH_ROWS, Settings
from bittern.errors import BitternError
from bittern.index.engines.threads import usable_cores


@dataclass
class _Results:
    """What was measured so far."""

    tables: list[Table] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    wanted: list[tuple[str, Ratio]] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def attempt(self, what: str, part: Callable[[], None]) -> None:
        """Do one part; what goes wrong in it does not cost the others."""
        begun = perf_counter()
        try:
            part()
        except Exception as error:
            self.failed.append(f"{what} failed: {type(error).__name__}: {error}")
            say(self.failed[-1])
        self.seconds[what] = perf_counter() - begun
        say(f"{what}: {self.seconds[what]:.0f} s")

    def keep(self, part: str, where: str, value: Any, ratios: Sequence[Ratio]) -> None:
        """Keep a part's numbers, and those of its ratios that something is wanted of."""
        self.values.setdefault(part, []).append(value)
        self.wanted += [(where, ratio) for ratio in ratios if ratio.wanted is not None]


def run(settings: Settings, plot: Path | None = None) -> Report:
    """Measure everything that the settings name.

    Args:
        settings: sizes.
        plot: where to draw latency against recall; nowhere if None.
    """
    os.environ.setdefault("LANCEDB_LOG", "error")
    results = _Results()
    asks_real = {"exact", "filters", "curves"} & set(settings.parts)
    real = _real(settings, results) if settings.real and asks_real else None
    parts = {
        "exact": lambda: _exact(settings, results, real),
        "filters": lambda: _filters(settings, results, real),
        "curves": lambda: _curves(settings, results, real),
        "grid": lambda: _grid(settings, results),
        "memory": lambda: _memory(settings, results),
        "disk": lambda: _disk(settings, results),
    }
    for name in settings.parts:
        results.attempt(name, parts[name])
    if plot and results.curves:
        from bittern.benchmarks.speed.search.plot import draw

        results.attempt("plot", lambda: draw(results.curves, plot))
    if results.wanted:
        results.tables.append(_summary(results.wanted))
    if results.failed:
        results.tables.append(Table("Not measured", [""], [[why] for why in results.failed]))
    values = {
        "settings": asdict(settings),
        "threads": usable_cores(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "seconds": results.seconds,
        "failed": results.failed,
        **results.values,
    }
    return Report("search", _size(settings), results.tables, values)


def _real(settings: Settings, results: _Results) -> Collection | None:
    """The words benchmark's codes, if they can be had."""
    say("coding the words benchmark")
    try:
        return words(settings.ratio_rows, settings.ratio_bits)
    except (BitternError, OSError) as error:
        results.failed.append(f"the words benchmark's codes are left out: {error}")
        say(results.failed[-1])
        return None


def _collections(settings: Settings, real: Collection | None) -> list[Collection]:
    drawn = clustered(settings.ratio_rows, settings.ratio_bits)
    return [drawn, real] if real else [drawn]


def _exact(settings: Settings, results: _Results, real: Collection | None) -> None:
    for collection in _collections(settings, real):
        found = measure_exact(collection, settings.rounds)
        results.tables += found.tables()
        results.keep("exact", found.collection, found.to_json(), found.ratios())


def _filters(settings: Settings, results: _Results, real: Collection | None) -> None:
    for collection in _collections(settings, real):
        found = measure_filters(collection, settings.rounds)
        results.tables.append(found.table())
        results.keep("filters", found.collection, found.to_json(), found.ratios())


def _curves(settings: Settings, results: _Results, real: Collection | None) -> None:
    for bits in settings.curve_bits:
        graphs = settings.curve_rows <= GRAPH_ROWS
        _one_curve(clustered(settings.curve_rows, bits), settings, results, graphs=graphs)
        if settings.list_rows:
            _one_curve(clustered(settings.list_rows, bits), settings, results, graphs=False)
    if real:
        _one_curve(real.first(settings.real_rows), settings, results, graphs=True)


def _one_curve(
    collection: Collection, settings: Settings, results: _Results, *, graphs: bool
) -> None:
    found = measure_curves(collection, settings.rounds, graphs=graphs)
    results.curves.append(found)
    results.tables += found.tables()
    results.keep("curves", found.collection, found.to_json(), found.ratios())


def _grid(settings: Settings, results: _Results) -> None:
    cells: list[Cell] = []
    for bits in settings.bits:
        largest = clustered(max(settings.rows), bits)
        for rows in settings.rows:
            cells += measure_grid(largest.first(rows), settings.batches, settings.rounds)
    results.tables.append(grid_table(cells))
    results.values["grid"] = [cell.to_json() for cell in cells]


def _memory(settings: Settings, results: _Results) -> None:
    collection = clustered(settings.ratio_rows, settings.ratio_bits)
    found = []
    for kind in ENGINES:
        most = GRAPH_MEMORY_ROWS if kind == "graph" else len(collection.codes)
        found.append(measure_resident(collection.first(most), kind))
    results.tables.append(resident_table(found))
    for one in found:
        where = described(collection.first(one.rows))
        results.keep("memory", where, one.ratio().to_json(), [one.ratio()])


def _disk(settings: Settings, results: _Results) -> None:
    collection = clustered(max(settings.archive_rows), settings.ratio_bits)
    found = measure_disk(collection, settings.archive_rows, settings.rounds)
    results.tables.append(found.table())
    results.keep("disk", f"archives, {found.bits} bits", found.to_json(), found.ratios())


def _summary(wanted: Sequence[tuple[str, Ratio]]) -> Table:
    """Everything that something is wanted of, by what it was measured on."""
    lines: list[list[str]] = []
    for where in dict.fromkeys(where for where, _ in wanted):
        lines.append([where, "", "", ""])
        for other, ratio in wanted:
            if other == where:
                median = f"{ratio.value.median:.2f}"
                lines.append([f"  {ratio.what}", ratio.against, median, ratio.target])
    return Table("What is wanted, and what was measured", list(HEADS), lines)


def _size(settings: Settings) -> str:
    return (
        f"drawn codes: {SPECIES_PER_GENUS} species to a genus, {SPECIES_APART:.0%} of their bits "
        f"flipped, and {NOISE:.0%} of an observation's; {settings.rounds} rounds"
    )
