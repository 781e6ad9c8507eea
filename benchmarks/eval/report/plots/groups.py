"""Queries for classes that were seen in training beside those for novel classes.

The two groups ask for different numbers of items among different ones, so their values cannot be
compared as they are: beside them stands each system's value relative to float32's on the same
queries.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bittern.benchmarks.eval.report.plots.style import (
    COLOURS,
    MUTED,
    NARROW,
    WIDE,
    Plot,
    paper,
    written,
)
from bittern.benchmarks.eval.report.wording import plain
from bittern.benchmarks.eval.results import Figure, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SYSTEMS = 14
FLOAT = "float32"
_PAIR = ("seen", "novel")
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": COLOURS[0], "marker": "o", "markeredgewidth": 0},
    {"color": COLOURS[1], "marker": "D", "markerfacecolor": "none", "markeredgewidth": 1.4},
)


def draw_groups(
    groups: Mapping[str, Sequence[Row]],
    measure: str,
    chances: Mapping[str, float | None],
    model: str = "",
) -> Iterator[Plot]:
    """At most one plot: each system at its longest code, seen and novel on one line.

    Args:
        groups: rows of one task and model by group.
        measure: the main one.
        chances: of a random order, by group.
        model: named in the title, where there are several.
    """
    if not all(groups.get(name) for name in _PAIR):
        return
    seen, novel = (_longest(groups[name], measure) for name in _PAIR)
    labels = [label for label in seen if label in novel]
    if not labels:
        return
    drawn = labels[:MOST_SYSTEMS]
    pairs = [(plain(label, 60), seen[label], novel[label]) for label in drawn]
    more = len(labels) - len(drawn)
    caption = (
        "Each system at its longest code, asymmetric. Groups differ in what is searched and in how "
        "many items are right, so the second panel has values relative to float32 on the same "
        "queries. Bars are 95% intervals; dotted lines are chance in each group."
        + (f" {more} more systems are in the tables only." if more else "")
    )
    title = f"{plain(measure, 60)}: seen against novel classes"
    if model:
        title += f", {plain(model, 60)}"
    wide, narrow = (_drawn(pairs, measure, chances, small=small) for small in (False, True))
    yield Plot(groups["seen"][0].task, "groups", title, caption, wide, narrow)


def _drawn(
    pairs: Sequence[tuple[str, Figure, Figure]],
    measure: str,
    chances: Mapping[str, float | None],
    *,
    small: bool,
) -> str:
    height = 0.27 * len(pairs) + 1.1
    total = 2 * height if small else height
    floats = next(((seen, novel) for label, seen, novel in pairs if label == FLOAT), None)
    relative = floats is not None and all(f.expected > 0 for f in floats) and len(pairs) > 1
    if small and not relative:
        total = height
    with paper(NARROW if small else WIDE, total) as figure:
        panels = figure.subplots(*((2, 1) if small else (1, 2)) if relative else (1, 1))
        first, second = panels.ravel() if relative else (panels, None)
        figure.subplots_adjust(
            left=0.42 if small else 0.25, right=0.975, bottom=0.55 / total, top=1 - 0.42 / total,
            wspace=0.06, hspace=1.0 / (0.27 * len(pairs) + 0.1),
        )  # fmt: skip
        for number, (name, look) in enumerate(zip(_PAIR, _LOOKS, strict=True)):
            values = [(seen, novel)[number] for _, seen, novel in pairs]
            _points(first, values, look, name, 0.14 * (2 * number - 1))
            chance = chances.get(name)
            if chance is not None and math.isfinite(chance):
                first.axvline(chance, color=look["color"], linewidth=1, linestyle=(0, (1, 2)))
            if second is not None and floats is not None:
                second.plot(
                    [100 * f.expected / floats[number].expected for f in values],
                    [place + 0.14 * (2 * number - 1) for place in range(len(values))],
                    linestyle="none", **look,
                )  # fmt: skip
        names = [plain(label, 26) for label, *_ in pairs]
        _finish(first, names, plain(measure, 60), shown=True)
        first.set_xlim(left=0)
        if second is not None:
            _finish(second, names, "% of float32's value", shown=small)
            second.axvline(100, color=MUTED, linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
        first.legend(
            loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False, fontsize=9
        )
        return written(figure)


def _points(
    axes: Axes, figures: Sequence[Figure], look: Mapping[str, Any], name: str, aside: float
) -> None:
    errors = [_errors(figure) for figure in figures]
    axes.errorbar(
        [figure.expected for figure in figures],
        [place + aside for place in range(len(figures))],
        xerr=[[low for low, _ in errors], [high for _, high in errors]],
        linestyle="none", elinewidth=0.8, zorder=3, label=name, **look,
    )  # fmt: skip


def _finish(axes: Axes, names: Sequence[str], label: str, *, shown: bool) -> None:
    axes.set_yticks(range(len(names)), names if shown else [""] * len(names))
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=True, axis="x")
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)


def _longest(rows: Sequence[Row], measure: str) -> dict[str, Figure]:
    """By system and length, its figure at the longest code."""
    best: dict[str, Row] = {}
    for row in rows:
        figure = row.figures.get(measure)
        if figure is None or not math.isfinite(figure.expected) or row.rerank:
            continue
        if row.metric == "symmetric" or (row.bits is None and row.system != FLOAT):
            continue
        if row.system not in best or (row.bits or 0) > (best[row.system].bits or 0):
            best[row.system] = row
    return {
        f"{name} {row.bits}" if row.bits else name: row.figures[measure]
        for name, row in best.items()
    }


def _errors(figure: Figure) -> tuple[float, float]:
    low = max(0.0, figure.expected - figure.low) if math.isfinite(figure.low) else 0.0
    high = max(0.0, figure.high - figure.expected) if math.isfinite(figure.high) else 0.0
    return low, high
