"""Plots of a run, as SVG whose text can be selected: the same results give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.retrieval.report.plots.classes import draw_classes
from benchmarks.retrieval.report.plots.groups import draw_groups
from benchmarks.retrieval.report.plots.quality import draw_quality
from benchmarks.retrieval.report.plots.style import Plot
from benchmarks.retrieval.report.wording import parts
from benchmarks.retrieval.results import Results

__all__ = ["Plot", "draw"]


def draw(results: Results) -> list[Plot]:
    """Per task: quality against bytes and against time, classes, and groups, where there are any.

    Raises:
        nothing of its own: what cannot be drawn (no number at all) is left out.
    """
    return list(_drawn(results))


def _drawn(results: Results) -> Iterator[Plot]:
    if not results.measures:
        return
    tables = parts(results.rows)
    for task in dict.fromkeys(name for name, _ in tables):
        group = "all" if (task, "all") in tables else next(g for t, g in tables if t == task)
        chance = next(
            (
                g.chance
                for s in results.tasks
                if s.name == task
                for g in s.groups
                if g.name == group
            ),
            None,
        )
        for against in ("bytes", "time"):
            yield from draw_quality(tables[task, group], results.measures[0], against, chance)
        groups = {g: rows for (t, g), rows in tables.items() if t == task}
        yield from draw_groups(groups, results.measures[0])
        classes = [c for c in results.classes if c.task == task]
        yield from draw_classes(classes, results.measures[0])
