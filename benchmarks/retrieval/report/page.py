"""`index.html`: tables, plots and chosen queries in one file that asks the network for nothing.

A policy inside the page (Content-Security-Policy) forbids scripts and every request; there is
nothing on it that needs either. Every word of the results is written through Jinja's escaping.
Its size is bounded by the limits below, and the page says what they left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup, escape

from benchmarks.retrieval.report import cards, wording
from benchmarks.retrieval.report.cards import QueryCard, query_cards
from benchmarks.retrieval.report.meanings import meaning
from benchmarks.retrieval.report.plots.style import Plot, inline
from benchmarks.retrieval.report.wording import parts, plain
from benchmarks.retrieval.results import Comparison, Figure, Results, Row, TaskSummary

MOST_TABLES, MOST_ROWS, MOST_COMPARISONS, MOST_TASKS, MOST_PLOTS = 100, 400, 100, 50, 60
MOST_LINES = 1000
"""Of a table of versions, digests or options."""


@dataclass(frozen=True)
class Cell:
    """A measure of a row, in words.

    Attributes:
        expected, interval, ties, deviation: as they are shown.
        best: whether no row of the table has a higher value.
    """

    expected: str
    interval: str
    ties: str
    deviation: str
    best: bool


@dataclass(frozen=True)
class Line:
    """A row of a table of systems."""

    model: str
    system: str
    draws: int
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
        group: name of the group.
        queries: how many.
        lines: the systems, in the run's order.
        varied: whether some have a deviation over draws.
        cut: how many lines are left out.
        comparisons: paired tests.
        compared_cut: how many comparisons are left out.
    """

    anchor: str
    group: str
    queries: str
    lines: Sequence[Line]
    varied: bool
    cut: int
    comparisons: Sequence[Comparison]
    compared_cut: int


@dataclass(frozen=True)
class Drawn:
    """A plot on the page."""

    title: str
    caption: str
    svg: Markup
    narrow: Markup


@dataclass
class Section:
    """All of one task."""

    anchor: str
    name: str
    summary: TaskSummary | None
    plots: list[Drawn] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def page(results: Results, plots: Sequence[Plot]) -> str:
    """The text of `index.html`.

    Args:
        results: a run; media of `results.shown` are read from this machine.
        plots: of `plots.draw`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    queries, left = query_cards(results.shown)
    return environment.get_template(
        "page.html"
    ).render(
        results=results,
        css=Markup((here / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        wording=wording,
        limits=cards,
        several_models=len({row.model for row in results.rows}) > 1,
        meanings=[(name, meaning(name)) for name in results.measures],
        sections=_sections(results, plots),
        queries=queries,
        queries_left=left,
        about=_about(results, queries),
        repeat=_repeat(results),
        models=[wording.flat(model)[:MOST_LINES] for model in results.models[:MOST_TASKS]],
    )


def _sections(results: Results, plots: Sequence[Plot]) -> list[Section]:
    tables = parts(results.rows)
    summaries = {summary.name: summary for summary in results.tasks}
    names = list(dict.fromkeys([*summaries, *(task for task, _ in tables)]))[:MOST_TASKS]
    sections = {
        name: Section(f"task-{number}", name, summaries.get(name))
        for number, name in enumerate(names, 1)
    }
    for number, ((task, group), rows) in enumerate(list(tables.items())[:MOST_TABLES], 1):
        if task in sections:
            sections[task].tables.append(_table(f"table-{number}", group, rows, results))
    for number, plot in enumerate(plots[:MOST_PLOTS], 1):
        if plot.task in sections:
            label = str(escape(f"Plot: {plot.title}. {plot.caption}"))
            # Markup: drawn by us; names inside it were escaped when it was written.
            svg = Markup(inline(plot.svg, f"p{number}", label))  # noqa: S704
            narrow = Markup(inline(plot.narrow, f"n{number}", label))  # noqa: S704
            sections[plot.task].plots.append(Drawn(plot.title, plot.caption, svg, narrow))
    return list(sections.values())


def _table(anchor: str, group: str, rows: Sequence[Row], results: Results) -> Table:
    best = {
        name: max(
            (round(r.figures[name].expected, 3) for r in rows if _is_number(r.figures.get(name))),
            default=None,
        )
        for name in results.measures
    }
    compared = [c for c in results.comparisons if (c.task, c.group) == (rows[0].task, group)]
    lines = [_line(row, results.measures, best) for row in rows[:MOST_ROWS]]
    return Table(
        anchor,
        group,
        wording.amount(max(row.queries for row in rows)),
        lines,
        any(line.cells and line.cells[0].deviation for line in lines),
        max(0, len(rows) - MOST_ROWS),
        compared[:MOST_COMPARISONS],
        max(0, len(compared) - MOST_COMPARISONS),
    )


def _is_number(figure: Figure | None) -> bool:
    return figure is not None and wording.value(figure.expected) != wording.NONE


def _line(row: Row, measures: Sequence[str], best: Mapping[str, float | None]) -> Line:
    return Line(
        row.model,
        row.system,
        row.draws,
        str(row.bits or wording.NONE),
        wording.distance(row),
        wording.amount(row.bytes_per_item),
        wording.small(row.search_ms),
        [_cell(row.figures.get(name), best[name]) for name in measures],
    )


def _cell(figure: Figure | None, best: float | None) -> Cell:
    if figure is None:
        return Cell(wording.NONE, wording.NONE, wording.NONE, "", best=False)
    return Cell(
        wording.value(figure.expected),
        wording.interval(figure.low, figure.high),
        wording.ties(figure),
        "" if figure.deviation is None else f"± {wording.value(figure.deviation)}",
        best=best is not None and round(figure.expected, 3) == best,
    )


def _about(results: Results, queries: Sequence[QueryCard]) -> Iterator[tuple[str, str]]:
    """Facts for the top of the page."""
    systems = {(row.model, row.system) for row in results.rows}
    yield "Tasks", wording.amount(len(results.tasks))
    yield "Systems", wording.amount(len(systems))
    yield "Models", ", ".join(plain(m.get("name", ""), 60) for m in results.models) or wording.NONE
    yield "Main measure", plain(results.measures[0], 60) if results.measures else wording.NONE
    if date := results.machine.get("date"):
        yield "Date", plain(date, 40)
    if queries:
        yield "Queries shown", wording.amount(len(queries))


def _repeat(results: Results) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Titles, anchors and rows of the tables that a repetition needs."""
    tables = (
        ("Protocol", "protocol", results.protocol),
        ("Digests", "digests", results.digests),
        ("Machine and versions", "machine", results.machine),
    )
    return [(title, name, wording.flat(values)[:MOST_LINES]) for title, name, values in tables]
