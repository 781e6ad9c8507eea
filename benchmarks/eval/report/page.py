"""`index.html` and `results.md`, by templates.

`index.html` has tables, plots and chosen queries in one file that makes no request. A policy
inside the page (Content-Security-Policy) forbids scripts and requests. Every word of the results
is escaped by Jinja. The limits below bound the page's size, and the page says where they cut.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bittern.benchmarks.eval.report import media, wording
from bittern.benchmarks.eval.report.abstract import abstract
from bittern.benchmarks.eval.report.media import Shown
from bittern.benchmarks.eval.report.plots import Plot
from bittern.benchmarks.eval.report.svg import inline
from bittern.benchmarks.eval.report.wording import by_task_and_group, plain
from bittern.benchmarks.eval.results import Results, Row
from bittern.text import counted

MOST_ROWS, MOST_COMPARISONS = 400, 100
MOST_QUERIES, MOST_HITS = 24, 12
MOST_MEDIA_BYTES = 8 * 2**20
"""All pictures of a page, as they are written into it."""
OPEN_QUERIES = 2
FIRST = ("bytes", "groups")
"""Kinds of plots that a reader sees first; the others are folded."""
_HERE = Path(__file__).parent
_ACTIVE = re.compile(r"([\\`*_\[\]|#~$@!])")
_FULL = Shown(why_not="The page's room for pictures is used up.")


def results_markdown(results: Results, plots: Sequence[tuple[str, Plot]] = ()) -> str:
    """The text of `results.md`, for a README or an issue, in GitHub's Markdown.

    Args:
        results: a run.
        plots: with their paths in the report's folder.
    """
    environment = _environment(autoescape=False)  # the filter `text` escapes for Markdown
    environment.filters["text"] = _text
    tables = by_task_and_group(results.rows)
    text = environment.get_template("results.md.jinja").render(
        results=results,
        plots=plots,
        wording=wording,
        abstract=abstract(results),
        tasks={
            task: [_table("", rows, results) for (name, _), rows in tables.items() if name == task]
            for task in dict.fromkeys(name for name, _ in tables)
        },
        models={row.model for row in results.rows},
        model_names=list(dict.fromkeys(name for model in results.models for name in model)),
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _text(text: object) -> str:
    """A text that Markdown leaves as it is: no markup, no cell's end, no link."""
    shown = html.escape(_ACTIVE.sub(r"\\\1", plain(text)), quote=False)
    return re.sub(r"(?i)\b(https?|ftp|www)(?=[:.])", "\\1\u2060", shown)


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=autoescape,  # noqa: S701 - on for HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    return environment


def page(results: Results, plots: Sequence[Plot]) -> str:
    """The text of `index.html`.

    Args:
        results: a run.
        plots: drawn from the same run.
    """
    mains = {s.name: s.measures[0] for s in results.tasks if s.measures}
    css = Markup((_HERE / "page.css").read_text(encoding="utf-8"))  # noqa: S704 - our own file
    return (
        _environment(autoescape=True)
        .get_template("page.html")
        .render(
            results=results,
            css=css,
            wording=wording,
            counted=counted,
            limits={
                "queries": MOST_QUERIES,
                "hits": MOST_HITS,
                "rows": MOST_ROWS,
                "media_bytes": MOST_MEDIA_BYTES,
                "open_queries": OPEN_QUERIES,
            },
            all_models={row.model for row in results.rows},
            abstract=abstract(results),
            methods=wording.methods(results),
            sections=_sections(results, plots),
            mains=mains,
            pictures=_Pictures(),
            facts=list(_facts(results, mains)),
            repeat=[
                ("Protocol", "protocol", wording.flat(results.protocol)),
                ("Digests", "digests", wording.flat(results.digests)),
                ("Machine and versions", "machine", wording.flat(results.machine)),
            ],
            models=[wording.flat(model) for model in results.models],
        )
    )


class _Pictures:
    """Pictures of queries and hits, until the page's room for them is used up."""

    def __init__(self) -> None:
        self._left = MOST_MEDIA_BYTES

    def __call__(
        self,
        path: str,
        modality: str,
        name: str,
        start_s: float | None = None,
        end_s: float | None = None,
    ) -> Shown:
        """A thumbnail or spectrogram; of an empty modality, by what the file is."""
        if self._left <= 0:
            return _FULL
        picture = media.shown(path, modality or media.kind_of(path), name, start_s, end_s)
        if len(picture.source) > self._left:
            self._left = 0
            return _FULL
        self._left -= len(picture.source)
        return picture


def _sections(results: Results, plots: Sequence[Plot]) -> list[dict[str, Any]]:
    """Tasks in the run's order, with their tables and plots."""
    tables = by_task_and_group(results.rows)
    names = dict.fromkeys([*(s.name for s in results.tasks), *(task for task, _ in tables)])
    sections: dict[str, dict[str, Any]] = {
        name: {
            "anchor": f"task-{number}",
            "name": name,
            "summaries": [s for s in results.tasks if s.name == name],
            "first_plots": [],
            "folded_plots": [],
            "tables": [],
        }
        for number, name in enumerate(names, 1)
    }
    for number, ((task, _), rows) in enumerate(tables.items(), 1):
        table = _table(f"table-{number}", rows, results, MOST_COMPARISONS)
        sections[task]["tables"].append(table)
    for number, plot in enumerate(plots, 1):
        if plot.task in sections:
            label = str(escape(f"Plot: {plot.title}. {plot.caption}"))
            # Markup: drawn by us; names inside it were escaped when it was written.
            svg = Markup(inline(plot.svg, f"p{number}", label))  # noqa: S704
            kind = "first_plots" if plot.kind in FIRST else "folded_plots"
            sections[plot.task][kind].append({"plot": plot, "svg": svg})
    return list(sections.values())


def _table(
    anchor: str, rows: Sequence[Row], results: Results, most: int | None = None
) -> dict[str, Any]:
    """One task and group: all systems, and comparisons (`most`) by the question of their family."""
    task, group = rows[0].task, rows[0].group
    alone = all(row.group == group for row in results.rows if row.task == task)
    measures = results.measures_of(task)
    splits = {s.model: s.splits for s in results.tasks if s.name == task}
    main = [row.figures[measures[0]] for row in rows if measures and measures[0] in row.figures]
    compared = [c for c in results.comparisons if (c.task, c.group) == (task, group)]
    shown = compared[:most]
    name = "All systems" + ("" if alone else f", {plain(group, 80)}")
    queries = counted(max(row.queries for row in rows), "query", "queries")
    return {
        "anchor": anchor,
        "name": name,
        "title": f"{name}: {queries}",
        "measures": measures,
        "rows": rows,
        "splits": splits,
        "several_models": len({row.model for row in rows}) > 1,
        "timed": any(wording.small(row.search_ms) != wording.NONE for row in rows),
        "tied": any(wording.ties(score) != wording.NONE for score in main),
        "varied": any(wording.deviations(score, 1, 1) for score in main),
        "comparisons": [
            (wording.question(family), [c for c in shown if c.family == family])
            for family in dict.fromkeys(c.family for c in shown)
        ],
        "compared": len(compared),
        "compared_cut": len(compared) - len(shown),
    }


def _facts(results: Results, mains: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Facts for the top of the page."""
    yield "Tasks", wording.amount(len(results.tasks))
    yield "Systems", wording.amount(len({(row.model, row.system) for row in results.rows}))
    yield "Models", ", ".join(plain(m.get("name", ""), 60) for m in results.models) or wording.NONE
    if mains:
        names = dict.fromkeys(mains.values())
        yield "Main measure", ", ".join(plain(name, 60) for name in names)
    if date := results.machine.get("date"):
        yield "Date", plain(date, 40)
    if results.shown:
        yield "Queries shown", wording.amount(min(len(results.shown), MOST_QUERIES))
