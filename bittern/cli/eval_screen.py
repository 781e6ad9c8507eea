"""What `bittern eval` shows: how far it is, and the main measure of what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bittern.cli.screen import counted, err, out, plain, progress

if TYPE_CHECKING:
    from rich.progress import Progress

    from benchmarks.retrieval.results import Results, Row


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
    """The main measure: one table per task and group, systems by code lengths."""
    main = results.measures[0]
    for name, group in dict.fromkeys((row.task, row.group) for row in results.rows):
        rows = [row for row in results.rows if (row.task, row.group) == (name, group)]
        out.print()
        about = name if group == "all" else f"{name}, {group} classes"
        out.print(plain(f"{about}: {main}, {_queries(rows[0].queries)}"), style="bold")
        out.print(_table(rows, main))
    for task in results.tasks:
        chance = "" if task.chance is None else f"; a random order gets {_figure(task.chance)}"
        told = f"{task.name}: {_queries(task.queries)}, {task.items:,} items{chance}"
        out.print(plain(told), style="dim", soft_wrap=True)
        for sentence in task.left_out:
            out.print(plain(f"  {sentence}"), style="dim", soft_wrap=True)
    for note in results.notes:
        out.print(plain(note), style="dim", soft_wrap=True)


def _table(rows: list[Row], main: str) -> Any:
    from rich.table import Table

    columns: list[int | None] = [None] if any(row.bits is None for row in rows) else []
    columns += sorted({row.bits for row in rows if row.bits})
    table = Table(box=None, pad_edge=False)
    table.add_column("system", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    for length in columns:
        table.add_column(f"{length} bits" if length else "float", justify="right", no_wrap=True)
    several = len({row.model for row in rows}) > 1
    found: dict[tuple[str, str], dict[int | None, float]] = {}
    for row in rows:
        if main in row.figures:
            system = f"{row.model}: {row.system}" if several else row.system
            metric = f"{row.metric}, top {row.rerank} by cosine" if row.rerank else row.metric
            found.setdefault((system, metric), {})[row.bits] = row.figures[main].expected
    for (system, metric), by_length in found.items():
        cells = [_figure(by_length[n]) if n in by_length else "" for n in columns]
        table.add_row(plain(system), plain(metric), *cells)
    return table


def _queries(number: int) -> str:
    return counted(number, "query", "queries")


def _figure(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
