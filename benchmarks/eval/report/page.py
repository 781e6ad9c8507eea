"""Tables and plots of a page, task by task, and what its limits leave out.

Chosen queries and their hits as cards: what is shown, and within which limits.

`index.html`: tables, plots and chosen queries in one file that asks the network for nothing.

A policy inside the page (Content-Security-Policy) forbids scripts and every request; there is
nothing on it that needs either. Every word of the results is written through Jinja's escaping.
Its size is bounded by the limits below, and the page says what they left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup, escape

from bittern.benchmarks.eval.report import media, wording
from bittern.benchmarks.eval.report.abstract import abstract, measures_of
from bittern.benchmarks.eval.report.media import Shown
from bittern.benchmarks.eval.report.plots import Plot, inline
from bittern.benchmarks.eval.report.wording import (
    FEWEST,
    independent,
    meaning,
    methods,
    parts,
    plain,
    question,
    small,
    value,
)
from bittern.benchmarks.eval.results import (
    Comparison,
    Results,
    Row,
    Score,
    ShownHit,
    ShownQuery,
    TaskSummary,
)

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


def _cell(figure: Score | None, draws: int, splits: int) -> Cell:
    if figure is None:
        return Cell(wording.NONE, wording.NONE, wording.NONE, "")
    return Cell(
        wording.value(figure.expected),
        wording.interval(figure.low, figure.high),
        wording.ties(figure),
        wording.deviations(figure, draws, splits),
    )


MOST_QUERIES, MOST_HITS = 24, 12
MOST_MEDIA_BYTES = 8 * 2**20
"""Of all pictures of a page, as they are written into it."""
LONGEST_TEXT = 600
NO_CREDIT = "Rights holder and licence are not in the metadata."
_FULL = Shown(why_not="The page's room for pictures is used up.")


@dataclass(frozen=True)
class HitCard:
    """One hit.

    Attributes:
        rank: from 1.
        right: whether it is right.
        distance: as it is shown.
        id, caption, credit, text: words of others; `text` is empty for media.
        shown: its picture, or why there is none; None for a text.
    """

    rank: int
    right: bool
    distance: str
    id: str
    caption: str
    credit: str
    text: str
    shown: Shown | None


@dataclass(frozen=True)
class QueryCard:
    """A query with its hits.

    Attributes:
        anchor: its id on the page.
        task, title, label: of what, what was asked, by which system.
        measure: name of its task's main measure.
        value: that of this query.
        relevant: how many items are right.
        shown: the picture that was asked with; None for a text.
        hits: the nearest.
        hits_left: how many more hits the run gave.
    """

    anchor: str
    task: str
    title: str
    label: str
    measure: str
    value: str
    relevant: int
    shown: Shown | None
    hits: Sequence[HitCard]
    hits_left: int


def query_cards(
    queries: Sequence[ShownQuery], measures: Mapping[str, str]
) -> tuple[list[QueryCard], int]:
    """Cards of the first queries, and how many queries were left out.

    Args:
        queries: as they were chosen.
        measures: the main measure of each task.
    """
    room = _Room()
    cards = [
        _query(query, f"query-{n}", measures.get(query.task, ""), room)
        for n, query in enumerate(queries[:MOST_QUERIES], 1)
    ]
    return cards, max(0, len(queries) - MOST_QUERIES)


class _Room:
    """What pictures may still take."""

    def __init__(self) -> None:
        self._left = MOST_MEDIA_BYTES

    def shown(
        self, path: str, modality: str, name: str, start_s: float | None, end_s: float | None
    ) -> Shown:
        if self._left <= 0:
            return _FULL
        picture = media.shown(path, modality, name, start_s, end_s)
        if len(picture.source) > self._left:
            self._left = 0
            return _FULL
        self._left -= len(picture.source)
        return picture


def _query(query: ShownQuery, anchor: str, measure: str, room: _Room) -> QueryCard:
    shown = None
    if query.media:
        shown = room.shown(query.media, media.kind_of(query.media), query.query, None, None)
    return QueryCard(
        anchor,
        plain(query.task, 120),
        plain(query.text or query.query, 300),
        plain(query.label, 120),
        plain(measure, 40),
        value(query.value),
        query.relevant,
        shown,
        [_hit(hit, room) for hit in query.hits[:MOST_HITS]],
        max(0, len(query.hits) - MOST_HITS),
    )


def _hit(hit: ShownHit, room: _Room) -> HitCard:
    text = plain(hit.text, LONGEST_TEXT) if hit.modality == "text" else ""
    shown = None
    if hit.modality != "text":
        name = hit.caption or hit.id
        shown = room.shown(hit.media, hit.modality, name, hit.start_s, hit.end_s)
    credit = plain(hit.credit, 300)
    return HitCard(
        hit.rank,
        hit.relevant,
        small(hit.distance) if math.isfinite(hit.distance) else plain(hit.distance),
        plain(hit.id, 120),
        plain(hit.caption, 200),
        credit or ("" if hit.modality == "text" else NO_CREDIT),
        text,
        shown,
    )


MOST_NOTES, MOST_MODELS, MOST_LINES = 100, 50, 1000
"""Of notes of the run or of a task; of models; of lines in a table of versions or options."""
OPEN_QUERIES = 2
"""So many of the chosen queries are unfolded."""


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
    queries, left = query_cards(results.shown, _mains(results))
    return environment.get_template(
        "page.html"
    ).render(
        results=results,
        css=Markup((here / "page.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        wording=wording,
        limits={"queries": MOST_QUERIES, "hits": MOST_HITS, "media_bytes": MOST_MEDIA_BYTES},
        models_asked={row.model for row in results.rows},
        abstract=abstract(results),
        methods=methods(results),
        independent=independent,
        fewest=FEWEST,
        left_out=[*left_out(results, plots), *_left_out(results)],
        most_notes=MOST_NOTES,
        open_queries=OPEN_QUERIES,
        meanings=[(name, meaning(name)) for name in results.measures],
        sections=sections_of(results, plots),
        queries=queries,
        queries_left=left,
        about=_about(results, queries),
        repeat=_repeat(results),
        models=[wording.flat(model)[:MOST_LINES] for model in results.models[:MOST_MODELS]],
    )


def _about(results: Results, queries: Sequence[QueryCard]) -> Iterator[tuple[str, str]]:
    """Facts for the top of the page."""
    systems = {(row.model, row.system) for row in results.rows}
    yield "Tasks", wording.amount(len(results.tasks))
    yield "Systems", wording.amount(len(systems))
    yield "Models", ", ".join(plain(m.get("name", ""), 60) for m in results.models) or wording.NONE
    if main := dict.fromkeys(_mains(results).values()):
        yield "Main measure", ", ".join(plain(name, 60) for name in main)
    if date := results.machine.get("date"):
        yield "Date", plain(date, 40)
    if queries:
        yield "Queries shown", wording.amount(len(queries))


def _mains(results: Results) -> dict[str, str]:
    return {s.name: s.measures[0] for s in results.tasks if s.measures}


def _left_out(results: Results) -> Iterator[str]:
    """Sentences for the limits of this module."""
    for shown, there, things in (
        (MOST_NOTES, len(results.notes), "notes of the run"),
        (MOST_NOTES, max((len(s.notes) for s in results.tasks), default=0), "notes of a task"),
        (
            MOST_NOTES,
            max((len(s.left_out) for s in results.tasks), default=0),
            "sentences on what a task leaves out",
        ),
        (MOST_MODELS, len(results.models), "models"),
        (
            MOST_LINES,
            max(len(wording.flat(v)) for v in (results.protocol, results.digests, results.machine)),
            "lines of a table on how to repeat it",
        ),
    ):
        if there > shown:
            yield f"This page shows {shown:,} of {there:,} {things}; all are in results.json."


def _repeat(results: Results) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Titles, anchors and rows of the tables that a repetition needs."""
    tables = (
        ("Protocol", "protocol", results.protocol),
        ("Digests", "digests", results.digests),
        ("Machine and versions", "machine", results.machine),
    )
    return [(title, name, wording.flat(values)[:MOST_LINES]) for title, name, values in tables]
