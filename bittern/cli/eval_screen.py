"""What `bittern eval` shows: how far it is, and the main measure of what it found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bittern.cli.output import err, out, plain, progress
from bittern.text import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from bittern.benchmarks.eval.results import Results, Row


class Bar:
    """How far a run is: a bar on a terminal, a line per stage elsewhere."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def stage(self, what: str, total: int | None) -> None:
        """Something begins that has so many steps."""
        self._end()
        if not err.is_terminal:
            err.print(plain(what), soft_wrap=True)
            return
        self._bar, self._task = progress(what, total or 0)
        self._bar.start()
        if total is None:
            self._bar.update(self._task, total=None)

    def advance(self, done: int | None = None) -> None:
        """One more step is done, or so many in all."""
        if self._bar is None:
            return
        if done is None:
            self._bar.advance(self._task)
        else:
            self._bar.update(self._task, completed=done)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def print_results(results: Results) -> None:
    """The main measure: one table per task and group, systems by code lengths.

    Ranking anew is left to the report, as are all other measures.
    """
    models = {row.model for row in results.rows}
    out.print(plain(results.command), style="dim", soft_wrap=True)
    for task in results.tasks:
        for group in task.groups:
            rows = [
                row
                for row in results.rows
                if (row.task, row.model, row.group) == (task.name, task.model, group.name)
            ]
            of = f" ({task.model})" if len(models) > 1 else ""
            part = "" if group.name == "all" else f", {group.name}"
            known = "" if group.chance is None else f"; a random order gets {_figure(group.chance)}"
            out.print()
            heading = f"{task.name}{of}{part}: {task.measures[0]}, {_queries(group.queries)}"
            out.print(plain(heading), style="bold", soft_wrap=True)
            deep = f"; ranked to depth {task.depth:,}" if task.depth else ""
            out.print(plain(f"{task.items:,} items{deep}{known}"), style="dim", soft_wrap=True)
            out.print(_table(rows, task.measures[0]))
        for sentence in task.left_out:
            out.print(plain(sentence), style="dim", soft_wrap=True)
    for note in results.notes:
        out.print(plain(note), style="dim", soft_wrap=True)


def _table(rows: Sequence[Row], main: str) -> Any:
    from rich.table import Table

    rows = [row for row in rows if main in row.figures and not row.rerank]
    columns: list[int | None] = [None] if any(row.bits is None for row in rows) else []
    columns += sorted({row.bits for row in rows if row.bits})
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("bits", overflow="fold")
    table.add_column("", no_wrap=True)
    for length in columns:
        table.add_column(str(length or "float"), justify="right", no_wrap=True)
    found: dict[tuple[str, str], dict[int | None, float]] = {}
    for row in rows:
        metric = "" if row.metric == "cosine" else row.metric
        found.setdefault((row.system, metric), {})[row.bits] = row.figures[main].expected
    for (system, metric), by_length in found.items():
        cells = [_figure(by_length[n]) if n in by_length else "" for n in columns]
        table.add_row(plain(system), plain(metric), *cells)
    return table


def _queries(number: int) -> str:
    return counted(number, "query", "queries")


def _figure(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
