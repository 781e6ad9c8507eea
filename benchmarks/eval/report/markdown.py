"""`results.md`: the same tables for a README or an issue, in GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from bittern.benchmarks.eval.report import wording
from bittern.benchmarks.eval.report.abstract import Abstract, abstract, measures_of
from bittern.benchmarks.eval.report.plots import Plot
from bittern.benchmarks.eval.report.wording import NONE, by_task_and_group, plain, value
from bittern.benchmarks.eval.results import Results, Row, Score
from bittern.text import counted

_ACTIVE = re.compile(r"([\\`*_\[\]<>|#~&$@!])")


def results_markdown(results: Results, plots: Sequence[tuple[str, Plot]] = ()) -> str:
    """The text of `results.md`.

    Args:
        results: a run.
        plots: with their paths in the report's folder.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),  # not for Markdown: there, `text` escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(text=_text, plain=plain)
    found = abstract(results)
    head, lines, sides = _abstract(found)
    names = list(dict.fromkeys(name for model in results.models for name in model))
    text = environment.get_template("results.md.jinja").render(
        results=results,
        plots=plots,
        wording=wording,
        abstract=found,
        abstract_head=head,
        abstract_lines=lines,
        abstract_sides=sides,
        task_lines=list(_task_lines(results)),
        tasks=list(_tasks(results)),
        models={row.model for row in results.rows},
        model_head=[_text(name) for name in names],
        model_lines=[[_text(m.get(name, NONE)) for name in names] for m in results.models],
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _abstract(found: Abstract) -> tuple[list[str], list[list[str]], str]:
    """Head, lines and sides of the table at the top."""
    head = ("task", "model", "queries for", "measure", "queries", "independent", "chance")
    grouped = {block.group for block in found.blocks} != {"all"}
    several = len({block.model for block in found.blocks}) > 1
    kept = [True, several, grouped, True, True, True, True]
    lines = []
    for block in found.blocks:
        about = [
            *(_text(words) for words in (block.task, block.model, block.group, block.measure)),
            *(
                f"{block.queries:,}",
                _text(wording.independent(block.clusters)),
                value(block.chance),
            ),
        ]
        floats = _short(block.floats)
        for name, scores in block.systems or [(NONE, [])]:
            cells = [_short(score) for score in scores] or [""] * len(found.lengths)
            shown = [cell for cell, keep in zip(about, kept, strict=True) if keep]
            lines.append([*shown, floats, _text(name), *cells])
            about, floats = [""] * len(about), ""
    names = [name for name, keep in zip(head, kept, strict=True) if keep]
    sides = "l" * sum(kept[:4]) + "rrrrl" + "r" * len(found.lengths)
    return [*names, "float32", "system", *(f"{bits} bits" for bits in found.lengths)], lines, sides


def _task_lines(results: Results) -> Iterator[tuple[str, ...]]:
    for task in results.tasks:
        for group in task.groups:
            yield (
                _text(task.name),
                _text(task.model),
                _text(group.name),
                wording.amount(group.queries),
                _text(wording.independent(group.clusters)),
                wording.amount(task.items),
                wording.amount(task.rows),
                wording.small(group.relevant),
                "all" if task.depth is None else wording.amount(task.depth),
                value(group.chance),
            )


def _tasks(results: Results) -> Iterator[dict[str, Any]]:
    """Each task with a table of all systems per group."""
    tables = by_task_and_group(results.rows)
    for task in dict.fromkeys(task for task, _ in tables):
        splits = {s.model: s.splits for s in results.tasks if s.name == task}
        groups = {group: rows for (name, group), rows in tables.items() if name == task}
        alone = list(groups) == ["all"]
        shown = []
        for group, rows in groups.items():
            title = "All systems" + ("" if alone else f", {group}")
            queries = counted(max(row.queries for row in rows), "query", "queries")
            some = [c for c in results.comparisons if (c.task, c.group) == (task, group)]
            families = dict.fromkeys(c.family for c in some)
            shown.append(
                {
                    "name": title,
                    "title": f"{title}: {queries}",
                    "comparisons": [
                        (wording.question(family), [c for c in some if c.family == family])
                        for family in families
                    ],
                    **_systems(rows, measures_of(results, task), splits),
                }
            )
        yield {"name": task, "groups": shown}


def _systems(
    rows: Sequence[Row], measures: Sequence[str], splits: Mapping[str, int]
) -> dict[str, Any]:
    """Head, lines and sides of a table of systems."""
    columns: list[tuple[str, str, list[str]]] = [
        ("system", "l", [_text(row.system) for row in rows]),
        ("bits", "r", [str(row.bits or NONE) for row in rows]),
        ("distance", "l", [_text(wording.distance(row)) for row in rows]),
        ("bytes", "r", [wording.amount(row.bytes_per_item) for row in rows]),
    ]
    if len({row.model for row in rows}) > 1:
        columns.insert(0, ("model", "l", [_text(row.model) for row in rows]))
    if any(row.search_ms is not None for row in rows):
        columns.append(("ms/search", "r", [wording.small(row.search_ms) for row in rows]))
    for name in measures:
        cells = [_cell(row.figures.get(name), row.draws, splits.get(row.model, 1)) for row in rows]
        columns.append((_text(name), "r", cells))
    return {
        "head": [name for name, _, _ in columns],
        "sides": "".join(side for _, side, _ in columns),
        "lines": list(zip(*(cells for _, _, cells in columns), strict=True)),
    }


def _short(score: Score | None) -> str:
    if score is None or value(score.expected) == NONE:
        return NONE
    return f"{value(score.expected)} [{wording.interval(score.low, score.high)}]"


def _cell(score: Score | None, draws: int, splits: int) -> str:
    if score is None or value(score.expected) == NONE:
        return NONE
    tied = f"; ties {wording.ties(score)}" if wording.ties(score) != NONE else ""
    deviations = wording.deviations(score, draws, splits)
    return f"{_short(score)}{tied}{f'; {deviations}' if deviations else ''}"


def _text(text: object) -> str:
    """A text that Markdown leaves as it is: no markup, no cell's end, no link."""
    shown = _ACTIVE.sub(r"\\\1", plain(text))
    return re.sub(r"(?i)\b(https?|ftp|www)(?=[:.])", "\\1\u2060", shown)
