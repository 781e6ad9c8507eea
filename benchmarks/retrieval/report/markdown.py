"""`results.md`: the same tables for a README or an issue, as GitHub's Markdown has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.retrieval.report.plots.style import Plot
from benchmarks.retrieval.report.wording import (
    NONE,
    amount,
    distance,
    flat,
    interval,
    parts,
    plain,
    probability,
    signed,
    small,
    ties,
    value,
)
from benchmarks.retrieval.results import Comparison, Figure, Results, Row, TaskSummary

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
    yield from (f"- {_text(note)}" for note in results.notes)
    yield ""
    yield (
        "Values are means over queries, ties counted by their expectation over random orders; "
        "in brackets the 95% bootstrap interval over queries, then the worst and the best order "
        "of ties where they differ."
    )
    yield ""
    yield from _tasks(results.tasks)
    for (task, group), rows in parts(results.rows).items():
        yield f"## {_text(task)}: {_text(group)}"
        yield ""
        yield from _systems(rows, results.measures)
        some = [c for c in results.comparisons if (c.task, c.group) == (task, group)]
        yield from _comparisons(some)
        if group == "all":
            yield from _pictures(task, plots)
    yield from _repeat(results)


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
            *(amount(n) for n in (g.queries, g.clusters, t.items, t.rows)),
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


def _systems(rows: Sequence[Row], measures: Sequence[str]) -> Iterator[str]:
    several = len({row.model for row in rows}) > 1
    head = (["model"] if several else []) + ["system", "bits", "distance", "bytes", "ms/query"]
    yield from _table(
        [*head, *(_text(name) for name in measures)],
        [
            [
                *([_text(row.model)] if several else []),
                _text(row.system) + (f" (mean of {row.draws})" if row.draws > 1 else ""),
                str(row.bits or NONE),
                _text(distance(row)),
                amount(row.bytes_per_item),
                small(row.search_ms),
                *(_cell(row.figures.get(name)) for name in measures),
            ]
            for row in rows
        ],
        ("l" if several else "") + "lrlrr" + "r" * len(measures),
    )


def _cell(figure: Figure | None) -> str:
    if figure is None or value(figure.expected) == NONE:
        return NONE
    tied = f"; ties {ties(figure)}" if figure.worst != figure.best else ""
    return f"{value(figure.expected)} [{interval(figure.low, figure.high)}]{tied}"


def _comparisons(comparisons: Sequence[Comparison]) -> Iterator[str]:
    if not comparisons:
        return
    yield "Paired over the same queries, randomisation test, Holm's correction:"
    yield ""
    yield from _table(
        ("measure", "a", "b", "a − b", "95% interval", "p", "p, corrected"),
        [
            (
                _text(c.measure),
                _text(c.a),
                _text(c.b),
                signed(c.difference),
                interval(c.low, c.high, sign=True),
                _text(probability(c.p)),
                _text(probability(c.p_adjusted)),
            )
            for c in comparisons
        ],
        "lllrrrr",
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
