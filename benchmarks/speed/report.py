"""What a benchmark hands back, and how it is printed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

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

NARROWEST = 100
"""Characters that every table may count on; a narrower terminal wraps its lines."""

out = Console(highlight=False)
out.width = max(out.width, NARROWEST)
err = Console(stderr=True, highlight=False)


@dataclass(frozen=True)
class Table:
    """Rows of cells under a title; an empty row draws a line.

    Attributes:
        title: what is measured.
        columns: their heads; the first is left-justified, the others right.
        rows: cells as they are printed.
        notes: what one must know to read the numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """One benchmark's results.

    Attributes:
        part: its name on the command line.
        size: the size of the problem, in a sentence.
        tables: for people.
        values: for programs, as JSON values.
    """

    part: str
    size: str
    tables: Sequence[Table]
    values: dict[str, Any] = field(default_factory=dict)


def show(report: Report, machine_lines: Sequence[str]) -> None:
    """Print a report."""
    out.print()
    out.rule(Text(report.part, style="bold"), align="left")
    for line in (*machine_lines, report.size):
        out.print(Text(line, style="dim"), soft_wrap=True)
    for table in report.tables:
        _show_table(table)


def say(progress: str) -> None:
    """What is going on, on standard error."""
    err.print(Text(f"{progress} …", style="dim"))


@contextmanager
def bar(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal, drawn anew only when it is advanced: it never runs beside
    what is timed.

    Yields:
        What advances it by one.
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


def _show_table(table: Table) -> None:
    drawn = RichTable(box=None, pad_edge=False)
    for number, column in enumerate(table.columns):
        drawn.add_column(Text(column), justify="right" if number else "left", no_wrap=True)
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    out.print()
    out.print(Text(table.title, style="bold"), soft_wrap=True)
    out.print(drawn)
    for note in table.notes:
        out.print(Text(f"  {note}", style="dim"), soft_wrap=True)
