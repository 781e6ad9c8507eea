"""`index.html`: tables, plots and chosen queries in one file that asks the network for nothing.

A policy inside the page (Content-Security-Policy) forbids scripts and every request; there is
nothing on it that needs either. Every word of the results is written through Jinja's escaping.
Its size is bounded by the limits below, and the page says what they left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from bittern.benchmarks.eval.report import cards, wording
from bittern.benchmarks.eval.report.abstract import abstract
from bittern.benchmarks.eval.report.cards import QueryCard, query_cards
from bittern.benchmarks.eval.report.meanings import meaning
from bittern.benchmarks.eval.report.methods import FEWEST, independent, methods
from bittern.benchmarks.eval.report.plots.style import Plot
from bittern.benchmarks.eval.report.sections import left_out, sections_of
from bittern.benchmarks.eval.report.wording import plain
from bittern.benchmarks.eval.results import Results

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
        limits=cards,
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
