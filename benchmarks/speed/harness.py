"""The base of all speed benchmarks: options, timing in turns, ratios, tables and reports.

Contestants take turns, A B A B, in one process, so that a temporary slowdown of the machine affects
all of them. A ratio is the median of the ratios of each round, with its quartiles; a
time is the median over the rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable
from rich.text import Text

import bittern
from bittern.errors import InvalidInputError

SAMPLE = Path(bittern.__file__).parent / "sample" / "manifest.csv"
"""The sample media that ship with Bittern."""
NARROWEST = 100
"""Least width of tables in characters; a narrower terminal wraps the lines."""

out = Console(highlight=False)
out.width = max(out.width, NARROWEST)
err = Console(stderr=True, highlight=False)

Contestants = Mapping[str, Callable[[], object]]
"""Timed functions by name."""


@dataclass(frozen=True)
class Options:
    """Options of the command line; each benchmark uses those that apply to it.

    Attributes:
        manifest: CSV with a media column, of ``encode`` and ``service``.
        encoder: of the catalogue, likewise.
        rows: codes or items; None for the benchmark's own sizes.
        rounds: timed turns of each contestant; None for the benchmark's own number.
        bits: code lengths of ``search`` and ``gpu``.
        tables: which tables of ``search`` and ``jobs``; empty for all of them.
        quick: a small run to check that everything works.
        full: larger sizes of ``search``.
    """

    manifest: Path = SAMPLE
    encoder: str = "field"
    rows: int | None = None
    rounds: int | None = None
    bits: Sequence[int] = ()
    tables: Sequence[str] = ()
    quick: bool = False
    full: bool = False

    def chosen_tables(self, known: Sequence[str]) -> Sequence[str]:
        """The tables to measure.

        Raises:
            InvalidInputError: an unknown table.
        """
        for name in self.tables:
            if name not in known:
                raise InvalidInputError(f"unknown table {name!r}; known tables: {', '.join(known)}")
        return self.tables or known


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a number measured several times."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.floating] | Sequence[float]) -> Spread:
        """Of float [rounds]."""
        low, median, high = np.percentile(values, [25, 50, 75])
        return cls(float(median), float(low), float(high))

    def __format__(self, form: str) -> str:
        """``median (low-high)``, each in the format `form`."""
        form = form or ".2f"
        return f"{self.median:{form}} ({self.low:{form}}-{self.high:{form}})"


@dataclass(frozen=True)
class Rounds:
    """Times measured by `interleaved`.

    Attributes:
        seconds: per contestant, float64 [rounds].
    """

    seconds: Mapping[str, NDArray[np.float64]]

    def time(self, name: str, scale: float = 1.0) -> Spread:
        """One contestant's time in seconds, times `scale` (1e3 for milliseconds)."""
        return Spread.of(self.seconds[name] * scale)

    def ratio(self, name: str, to: str) -> Spread:
        """Its time divided by that of `to`, round by round."""
        return Spread.of(self.seconds[name] / self.seconds[to])


def interleaved(contestants: Contestants, *, rounds: int, warmup: int = 1) -> Rounds:
    """Time contestants in turns.

    Args:
        contestants: functions to time, by name.
        rounds: timed turns of each.
        warmup: untimed turns before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    with bar((warmup + rounds) * len(contestants)) as advance:
        for turn in range(warmup + rounds):
            for name, contestant in contestants.items():
                took = seconds_of(contestant)
                if turn >= warmup:
                    seconds[name].append(took)
                advance()
    return Rounds({name: np.array(times) for name, times in seconds.items()})


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun = perf_counter()
    work()
    return perf_counter() - begun


Cell = str | float | Spread | None


@dataclass(frozen=True)
class Table:
    """Numbers under a title; printed, and written to the JSON file.

    Attributes:
        title: what is measured.
        columns: format of the numbers of each column, by its heading.
        rows: numbers, texts, and None for an empty cell; an empty row draws a line.
        notes: explanations below the table.
    """

    title: str
    columns: Mapping[str, str]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()

    def cells(self) -> Iterator[list[str]]:
        """The rows as they are printed."""
        for row in self.rows:
            pairs = zip(row, self.columns.values(), strict=False)
            yield [_printed(cell, form) for cell, form in pairs]

    def to_json(self) -> dict[str, Any]:
        """Title and rows, by heading and to the last digit."""
        rows = [dict(zip(self.columns, row, strict=False)) for row in self.rows if row]
        return {"title": self.title, "rows": rows}


def _printed(cell: Cell, form: str) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    return format(cell, form)


@dataclass(frozen=True)
class Ratio:
    """One row of a table of ratios.

    Attributes:
        what: the measured quantity.
        against: the quantity that it is divided by.
        value: the ratio, over the rounds; a number where it was measured once.
        target: such as ``<= 1.2``; empty for no target.
    """

    what: str
    against: str
    value: Spread | float
    target: str = ""


RATIO_COLUMNS = {"": "", "against": "", "ratio": ".2f", "target": ""}


def ratio_table(title: str, ratios: Sequence[Ratio], notes: Sequence[str] = ()) -> Table:
    """One row per ratio."""
    return Table(
        title, RATIO_COLUMNS, [[r.what, r.against, r.value, r.target] for r in ratios], notes
    )


@dataclass
class Report:
    """One benchmark's results.

    Attributes:
        name: on the command line.
        size: the size of the problem, in a sentence.
        tables: to print.
        values: for the JSON file: per measured table, what `add` was given.
        targets: ratios with a target, each with its collection.
    """

    name: str
    size: str
    tables: list[Table] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    targets: list[tuple[str, Ratio]] = field(default_factory=list)

    def add(self, name: str, *tables: Table, **values: Any) -> None:
        """Add tables, and more numbers for the JSON file (such as `Rounds`), under a name."""
        self.tables += tables
        written = [table.to_json() for table in tables]
        self.values.setdefault(name, []).append({"tables": written, **values})

    def add_targets(self, where: str, ratios: Sequence[Ratio]) -> None:
        """Add the ratios that have a target."""
        self.targets += [(where, ratio) for ratio in ratios if ratio.target]

    def attempt(self, name: str, measure: Callable[[], None]) -> None:
        """Call `measure`; report a failure without raising it."""
        failed = self.values.setdefault("failed", [])
        try:
            measure()
        except Exception as error:
            failed.append(f"{name} failed: {type(error).__name__}: {error}")
            say(failed[-1])

    def finish(self) -> Report:
        """Add the last tables: all targets, and failures."""
        if self.targets:
            rows: list[Sequence[Cell]] = []
            for where in dict.fromkeys(where for where, _ in self.targets):
                rows.append([where])
                rows += [
                    [f"  {r.what}", r.against, r.value, r.target]
                    for each, r in self.targets
                    if each == where
                ]
            self.tables.append(Table("Targets", RATIO_COLUMNS, rows))
        if failed := self.values.get("failed"):
            self.tables.append(Table("Not measured", {"": ""}, [[why] for why in failed]))
        return self


def to_json(value: object) -> Any:
    """What the standard library's writer of JSON does not know: for its argument ``default``.

    Raises:
        TypeError: a value of another kind.
    """
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Rounds):
        return dict(value.seconds)
    if is_dataclass(value) and not isinstance(value, type):
        return vars(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def show(report: Report, machine_lines: Sequence[str]) -> None:
    """Print a report."""
    out.print()
    out.rule(Text(report.name, style="bold"), align="left")
    for line in (*machine_lines, report.size):
        out.print(Text(line, style="dim"), soft_wrap=True)
    for table in report.tables:
        drawn = RichTable(box=None, pad_edge=False)
        for number, heading in enumerate(table.columns):
            justify: Literal["left", "right"] = "right" if number else "left"
            drawn.add_column(Text(heading), justify=justify, no_wrap=True)
        for row in table.cells():
            drawn.add_row(*map(Text, row))
        out.print()
        out.print(Text(table.title, style="bold"), soft_wrap=True)
        out.print(drawn)
        for note in table.notes:
            out.print(Text(f"  {note}", style="dim"), soft_wrap=True)


def say(progress: str) -> None:
    """Report progress on standard error."""
    err.print(Text(f"{progress} …", style="dim"))


@contextmanager
def bar(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, redrawn only between timed calls.

    Yields:
        A function that advances it by one.
    """
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=err, auto_refresh=False, transient=True, disable=not err.is_terminal
    ) as progress:
        task = progress.add_task("", total=total)

        def advance() -> None:
            progress.advance(task)
            progress.refresh()

        yield advance


def short(rows: int) -> str:
    """100k, 2M: a number of rows."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if rows >= size and rows % (size // 10) == 0:
            return f"{rows / size:g}{letter}"
    return str(rows)
