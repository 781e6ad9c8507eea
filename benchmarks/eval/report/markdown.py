"""`results.md`: the same tables for a README or an issue, as GitHub's Markdown has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from bittern.benchmarks.eval.report.abstract import abstract, measures_of
from bittern.benchmarks.eval.report.plots import Plot
from bittern.benchmarks.eval.report.wording import (
    FEWEST,
    NONE,
    amount,
    counted,
    deviations,
    distance,
    flat,
    independent,
    interval,
    meaning,
    methods,
    parts,
    plain,
    probability,
    question,
    signed,
    small,
    ties,
    value,
    without_model,
)
from bittern.benchmarks.eval.results import Comparison, Results, Row, Score, TaskSummary

_ACTIVE = re.compile(r"([\\`*_\[\]<>|#~&$@!])")


def results_markdown(results: Results, plots: Sequence[tuple[str, Plot]] = ()) -> str:
    """The text of `results.md`.

    Args:
        results: a run.
        plots: with their paths in the report's folder.
    """
    return "\n".join(_lines(results, plots)).rstrip() + "\n"


def _lines(results: Results, plots: Sequence[tuple[str, Plot]]) -> Iterator[str]:
    yield f"# {_text(results.suite)}"
    yield ""
    yield _text(results.about)
    yield ""
    yield from _abstract(results)
    yield from (f"- {_text(note)}" for note in results.notes)
    yield ""
    yield "## How to read the numbers"
    yield ""
    for words in methods(results):
        yield _text(words)
        yield ""
    yield (
        "In a cell: the value, in brackets its interval, then the worst and the best order of "
        "ties, then deviations, where there are any."
    )
    yield ""
    yield from (f"- {_text(name)}: {_text(meaning(name) or NONE)}" for name in results.measures)
    yield ""
    yield from _tasks(results.tasks)
    models = {row.model for row in results.rows}
    tables = parts(results.rows)
    for task in dict.fromkeys(task for task, _ in tables):
        yield f"## {_text(task)}"
        yield ""
        yield from _pictures(task, plots)
        splits = {s.model: s.splits for s in results.tasks if s.name == task}
        groups = {group: rows for (name, group), rows in tables.items() if name == task}
        for group, rows in groups.items():
            title = "All systems" + (f", {group}" if list(groups) != ["all"] else "")
            queries = counted(max(row.queries for row in rows), "query", "queries")
            yield from _folded(
                f"{title}: {queries}", _systems(rows, measures_of(results, task), splits)
            )
            some = [c for c in results.comparisons if (c.task, c.group) == (task, group)]
            if some:
                yield from _folded(f"{title}: paired comparisons", _comparisons(some, models))
    yield from _repeat(results)


def _folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    """What a reader opens where HTML is shown, and finds in the text anyway."""
    yield f"<details><summary>{escape(plain(title))}</summary>"
    yield ""
    yield from lines
    yield "</details>"
    yield ""


def _abstract(results: Results) -> Iterator[str]:
    found = abstract(results)
    if not found.parts:
        return
    yield "The main measure with its 95% interval, codes by asymmetric distance:"
    yield ""
    lengths = [f"{bits} bits" for bits in found.lengths]
    head = ("task", "model", "queries for", "measure", "queries", "independent", "chance")
    grouped = {part.group for part in found.parts} != {"all"}
    several = len({part.model for part in found.parts}) > 1
    kept = [True, several, grouped, True, True, True, True]
    lines = []
    for part in found.parts:
        about = [
            *(_text(words) for words in (part.task, part.model, part.group, part.measure)),
            *(f"{part.queries:,}", _text(independent(part.clusters)), value(part.chance)),
        ]
        floats = _short(part.floats)
        for name, figures in part.systems or [(NONE, [])]:
            cells = [_short(figure) for figure in figures] or [""] * len(lengths)
            shown = [cell for cell, keep in zip(about, kept, strict=True) if keep]
            lines.append([*shown, floats, _text(name), *cells])
            about, floats = [""] * len(about), ""
    names = [name for name, keep in zip(head, kept, strict=True) if keep]
    sides = "l" * sum(kept[:4]) + "rrrrl" + "r" * len(lengths)
    yield from _table([*names, "float32", "system", *lengths], lines, sides)
    if any(part.clusters < FEWEST for part in found.parts):
        yield "\\* Few independent queries: intervals are rough."
        yield ""
    if any(more > 0 for more in found.cut):
        yield "There are more tasks, or systems, below."
        yield ""


def _short(figure: Score | None) -> str:
    if figure is None or value(figure.expected) == NONE:
        return NONE
    return f"{value(figure.expected)} [{interval(figure.low, figure.high)}]"


def _tasks(tasks: Sequence[TaskSummary]) -> Iterator[str]:
    head = (
        *("task", "model", "queries for", "queries", "independent", "items", "observations"),
        *("right items per query", "depth", "chance"),
    )
    lines = [
        (
            _text(t.name),
            _text(t.model),
            _text(g.name),
            amount(g.queries),
            _text(independent(g.clusters)),
            amount(t.items),
            amount(t.rows),
            small(g.relevant),
            "all" if t.depth is None else amount(t.depth),
            value(g.chance),
        )
        for t in tasks
        for g in t.groups
    ]
    yield from _table(head, lines, "lll" + "r" * 7)
    for task in tasks:
        yield from (f"- {_text(task.name)}: left out: {_text(words)}" for words in task.left_out)
        yield from (f"- {_text(task.name)}: {_text(words)}" for words in task.notes)
    yield ""


def _systems(
    rows: Sequence[Row], measures: Sequence[str], splits: Mapping[str, int]
) -> Iterator[str]:
    several = len({row.model for row in rows}) > 1
    timed = any(row.search_ms is not None for row in rows)
    head = (
        *(["model"] if several else []),
        *("system", "bits", "distance", "bytes"),
        *(["ms/search"] if timed else []),
    )
    yield from _table(
        [*head, *(_text(name) for name in measures)],
        [
            [
                *([_text(row.model)] if several else []),
                _text(row.system),
                str(row.bits or NONE),
                _text(distance(row)),
                amount(row.bytes_per_item),
                *([small(row.search_ms)] if timed else []),
                *(
                    _cell(row.figures.get(name), row.draws, splits.get(row.model, 1))
                    for name in measures
                ),
            ]
            for row in rows
        ],
        ("l" if several else "") + "lrlr" + ("r" if timed else "") + "r" * len(measures),
    )


def _cell(figure: Score | None, draws: int, splits: int) -> str:
    if figure is None or value(figure.expected) == NONE:
        return NONE
    tied = f"; ties {ties(figure)}" if ties(figure) != NONE else ""
    drawn = deviations(figure, draws, splits)
    return f"{_short(figure)}{tied}{f'; {drawn}' if drawn else ''}"


def _comparisons(comparisons: Sequence[Comparison], models: set[str]) -> Iterator[str]:
    for family in dict.fromkeys(c.family for c in comparisons):
        some = [c for c in comparisons if c.family == family]
        yield f"Family: {_text(question(family))}"
        yield ""
        yield from _table(
            ("a", "b", f"a − b, {_text(some[0].measure)}", "95% interval", "p", "p, corrected"),
            [
                (
                    _text(without_model(c.a, models)),
                    _text(without_model(c.b, models)),
                    signed(c.difference),
                    interval(c.low, c.high, sign=True),
                    _text(probability(c.p)),
                    _text(probability(c.p_adjusted)),
                )
                for c in some
            ],
            "llrrrr",
        )


def _pictures(task: str, plots: Sequence[tuple[str, Plot]]) -> Iterator[str]:
    for path, plot in plots:
        if plot.task == task:
            yield f"![{_text(plot.title)}]({path})"
            yield ""


def _repeat(results: Results) -> Iterator[str]:
    yield "## To repeat it"
    yield ""
    yield from ("    " + line for line in plain(results.command, 20_000).splitlines() or [""])
    yield ""
    for title, values in (
        ("protocol", results.protocol),
        ("digest of", results.digests),
        ("machine", results.machine),
    ):
        yield from _table((title, ""), [(_text(k), _text(v)) for k, v in flat(values)], "ll")
    names = list(dict.fromkeys(name for model in results.models for name in model))
    if names:
        yield from _table(
            [_text(name) for name in names],
            [[_text(model.get(name, NONE)) for name in names] for model in results.models],
            "l" * len(names),
        )


def _table(head: Sequence[str], lines: Iterable[Sequence[str]], sides: str) -> Iterator[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    yield line(head)
    yield line(["--:" if side == "r" else "---" for side in sides])
    yield from (line(cells) for cells in lines)
    yield ""


def _text(text: object) -> str:
    """A text that Markdown leaves as it is: no markup, no cell's end, no link."""
    shown = _ACTIVE.sub(r"\\\1", plain(text))
    return re.sub(r"(?i)\b(https?|ftp|www)(?=[:.])", "\\1\u2060", shown)
