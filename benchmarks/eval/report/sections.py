"""Tables and plots of a page, task by task, and what its limits leave out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from bittern.benchmarks.eval.report import wording
from bittern.benchmarks.eval.report.abstract import measures_of
from bittern.benchmarks.eval.report.methods import question
from bittern.benchmarks.eval.report.plots.style import Plot, inline
from bittern.benchmarks.eval.report.wording import parts, plain
from bittern.benchmarks.eval.results import Comparison, Figure, Results, Row, TaskSummary

MOST_TABLES, MOST_ROWS, MOST_COMPARISONS, MOST_TASKS, MOST_PLOTS = 100, 400, 100, 50, 60
FIRST = ("bytes", "groups")
"""Kinds of plots that a reader sees first; the others are folded."""


@dataclass(frozen=True)
class Cell:
    """A measure of a row, in words.

    Attributes:
        expected, interval, ties, deviations: as they are shown.
    """

    expected: str
    interval: str
    ties: str
    deviations: str


@dataclass(frozen=True)
class Line:
    """A row of a table of systems."""

    model: str
    system: str
    bits: str
    distance: str
    bytes_per_item: str
    milliseconds: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """One task and group.

    Attributes:
        anchor: its id on the page.
        title: of the fold.
        measures: names, the main one first.
        lines: the systems, in the run's order.
        several_models, timed, tied, varied: whether these columns say anything.
        cut: how many lines are left out.
        comparisons: paired tests by the question of their family.
        compared: how many there are.
        compared_cut: how many of them are left out.
    """

    anchor: str
    title: str
    measures: Sequence[str]
    lines: Sequence[Line]
    several_models: bool
    timed: bool
    tied: bool
    varied: bool
    cut: int
    comparisons: Sequence[tuple[str, Sequence[Comparison]]]
    compared: int
    compared_cut: int


@dataclass(frozen=True)
class Drawn:
    """A plot on the page."""

    kind: str
    title: str
    caption: str
    svg: Markup
    narrow: Markup


@dataclass
class Section:
    """All of one task; its summaries are by model."""

    anchor: str
    name: str
    summaries: list[TaskSummary]
    plots: list[Drawn] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)

    def drawn(self, *, first: bool) -> list[Drawn]:
        """Plots that are seen at once, or the folded ones."""
        return [plot for plot in self.plots if (plot.kind in FIRST) == first]


def sections_of(results: Results, plots: Sequence[Plot]) -> list[Section]:
    """Tasks in the run's order, within the limits of this module."""
    tables = parts(results.rows)
    names = _names(results)[:MOST_TASKS]
    sections = {
        name: Section(f"task-{number}", name, [s for s in results.tasks if s.name == name])
        for number, name in enumerate(names, 1)
    }
    for number, ((task, group), rows) in enumerate(list(tables.items())[:MOST_TABLES], 1):
        if task in sections:
            alone = sum(name == task for name, _ in tables) == 1
            sections[task].tables.append(_table(f"table-{number}", group, alone, rows, results))
    for number, plot in enumerate(plots[:MOST_PLOTS], 1):
        if plot.task in sections:
            label = str(escape(f"Plot: {plot.title}. {plot.caption}"))
            # Markup: drawn by us; names inside it were escaped when it was written.
            svg = Markup(inline(plot.svg, f"p{number}", label))  # noqa: S704
            narrow = Markup(inline(plot.narrow, f"n{number}", label))  # noqa: S704
            drawn = Drawn(plot.kind, plot.title, plot.caption, svg, narrow)
            sections[plot.task].plots.append(drawn)
    return list(sections.values())


def left_out(results: Results, plots: Sequence[Plot]) -> Iterator[str]:
    """Sentences for every limit of this module that was reached."""
    for shown, there, things, where in (
        (MOST_TASKS, len(_names(results)), "tasks", "results.md and results.csv"),
        (MOST_TABLES, len(parts(results.rows)), "tables", "results.md and results.csv"),
        (MOST_PLOTS, len(plots), "plots", "plots/"),
    ):
        if there > shown:
            yield f"This page shows {shown:,} of {there:,} {things}; all are in {where}."


def _names(results: Results) -> list[str]:
    return list(
        dict.fromkeys([*(s.name for s in results.tasks), *(row.task for row in results.rows)])
    )


def _table(anchor: str, group: str, alone: bool, rows: Sequence[Row], results: Results) -> Table:
    task = rows[0].task
    measures = measures_of(results, task)
    splits = {s.model: s.splits for s in results.tasks if s.name == task}
    compared = [c for c in results.comparisons if (c.task, c.group) == (task, group)]
    shown = compared[:MOST_COMPARISONS]
    lines = [_line(row, measures, splits.get(row.model, 1)) for row in rows[:MOST_ROWS]]
    main = [line.cells[0] for line in lines if line.cells]
    queries = wording.counted(max(row.queries for row in rows), "query", "queries")
    return Table(
        anchor,
        ("All systems" if alone else f"All systems, {plain(group, 80)}") + f": {queries}",
        measures,
        lines,
        len({row.model for row in rows}) > 1,
        any(line.milliseconds != wording.NONE for line in lines),
        any(cell.ties != wording.NONE for cell in main),
        any(cell.deviations for cell in main),
        max(0, len(rows) - MOST_ROWS),
        [
            (question(family), [c for c in shown if c.family == family])
            for family in dict.fromkeys(c.family for c in shown)
        ],
        len(compared),
        len(compared) - len(shown),
    )


def _line(row: Row, measures: Sequence[str], splits: int) -> Line:
    return Line(
        row.model,
        row.system,
        str(row.bits or wording.NONE),
        wording.distance(row),
        wording.amount(row.bytes_per_item),
        wording.small(row.search_ms),
        [_cell(row.figures.get(name), row.draws, splits) for name in measures],
    )


def _cell(figure: Figure | None, draws: int, splits: int) -> Cell:
    if figure is None:
        return Cell(wording.NONE, wording.NONE, wording.NONE, "")
    return Cell(
        wording.value(figure.expected),
        wording.interval(figure.low, figure.high),
        wording.ties(figure),
        wording.deviations(figure, draws, splits),
    )
