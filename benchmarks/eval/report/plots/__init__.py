"""Plots of a run, as SVG whose text can be selected: the same results give the same bytes."""

from __future__ import annotations

from collections.abc import Iterator

from bittern.benchmarks.eval.report.abstract import by_model, group_of, measures_of
from bittern.benchmarks.eval.report.plots.classes import draw_classes
from bittern.benchmarks.eval.report.plots.groups import draw_groups
from bittern.benchmarks.eval.report.plots.quality import draw_quality
from bittern.benchmarks.eval.report.plots.style import Plot
from bittern.benchmarks.eval.report.wording import parts
from bittern.benchmarks.eval.results import Results

__all__ = ["Plot", "draw"]


def draw(results: Results) -> list[Plot]:
    """Per task: quality against bytes and against time, classes, and groups, where there are any.

    Raises:
        nothing of its own: what cannot be drawn (no number at all) is left out.
    """
    return list(_drawn(results))


def _drawn(results: Results) -> Iterator[Plot]:
    tables = parts(results.rows)
    for task in dict.fromkeys(name for name, _ in tables):
        measures = measures_of(results, task)
        if not measures:
            continue
        group = "all" if (task, "all") in tables else next(g for t, g in tables if t == task)
        models = by_model(tables[task, group])
        for model, rows in models.items():
            summary = group_of(results, task, model, group)
            chance = summary.chance if summary else None
            for against in ("bytes", "time"):
                shown = model if len(models) > 1 else ""
                yield from draw_quality(rows, measures[0], against, chance, shown)
        for model in models:
            own = {
                g: [row for row in rows if row.model == model]
                for (t, g), rows in tables.items()
                if t == task
            }
            chances = {g: found.chance for g in own if (found := group_of(results, task, model, g))}
            yield from draw_groups(own, measures[0], chances, model if len(models) > 1 else "")
        classes = [c for c in results.classes if c.task == task]
        yield from draw_classes(classes, measures[0], {row.model for row in results.rows})
