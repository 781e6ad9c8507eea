"""Queries for classes that were seen in training beside those for novel classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.retrieval.report.plots.style import (
    COLOURS,
    MUTED,
    NARROW,
    WIDE,
    Plot,
    sheet,
    written,
)
from benchmarks.retrieval.report.wording import plain, series
from benchmarks.retrieval.results import Figure, Row

MOST_SYSTEMS = 24
_PAIR = ("seen", "novel")
_LOOKS = (
    {"color": COLOURS[0], "marker": "o", "markeredgewidth": 0},
    {"color": COLOURS[1], "marker": "D", "markerfacecolor": "none", "markeredgewidth": 1.4},
)


def draw_groups(groups: Mapping[str, Sequence[Row]], measure: str) -> Iterator[Plot]:
    """At most one plot: each system at its longest code, seen and novel on one line.

    Args:
        groups: rows of one task by group.
        measure: the main one.
    """
    if not all(name in groups for name in _PAIR):
        return
    seen, novel = (_longest(groups[name], measure) for name in _PAIR)
    labels = [label for label in seen if label in novel]
    if not labels:
        return
    drawn = labels[:MOST_SYSTEMS]
    pairs = [(plain(label, 60), seen[label], novel[label]) for label in drawn]
    more = len(labels) - len(drawn)
    caption = (
        "Each system at its longest code. Filled circles are queries for classes that were seen "
        "in training, open diamonds for novel classes; bars are 95% bootstrap intervals."
        + (f" {more} more systems are in the tables only." if more else "")
    )
    title = f"{plain(measure, 60)}: seen against novel classes"
    wide, narrow = (_drawn(pairs, measure, small=small) for small in (False, True))
    yield Plot(groups["seen"][0].task, "groups", title, caption, wide, narrow)


def _drawn(pairs: Sequence[tuple[str, Figure, Figure]], measure: str, *, small: bool) -> str:
    height = 0.27 * len(pairs) + 1.1
    with sheet(NARROW if small else WIDE, height) as (figure, axes):
        left = 0.53 if small else 0.38
        figure.subplots_adjust(left=left, right=0.975, bottom=0.55 / height, top=1 - 0.42 / height)
        for place, (_, *pair) in enumerate(pairs):
            axes.plot(
                [f.expected for f in pair], [place, place], color=MUTED, linewidth=1, zorder=2
            )
            for figure_, look, name in zip(pair, _LOOKS, _PAIR, strict=True):
                low, high = _errors(figure_)
                axes.errorbar(
                    [figure_.expected], [place], xerr=[[low], [high]], linestyle="none",
                    elinewidth=0.8, zorder=3, label=name if place == 0 else "", **look,  # type: ignore[arg-type]
                )  # fmt: skip
        longest = 32 if small else 48
        axes.set_yticks(range(len(pairs)), [plain(label, longest) for label, *_ in pairs])
        axes.tick_params(axis="y", length=0, labelsize=7.5 if small else 9)
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.grid(visible=True, axis="x")
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(plain(measure, 60))
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=9
        )
        return written(figure)


def _longest(rows: Sequence[Row], measure: str) -> dict[str, Figure]:
    """By system and length, its figure at the longest code."""
    several = len({row.model for row in rows}) > 1
    best: dict[str, Row] = {}
    for row in rows:
        figure = row.figures.get(measure)
        if figure is None or not math.isfinite(figure.expected):
            continue
        label = series(row, several)
        if label not in best or (row.bits or 0) > (best[label].bits or 0):
            best[label] = row
    return {series(row, several, with_bits=True): row.figures[measure] for row in best.values()}


def _errors(figure: Figure) -> tuple[float, float]:
    low = max(0.0, figure.expected - figure.low) if math.isfinite(figure.low) else 0.0
    high = max(0.0, figure.high - figure.expected) if math.isfinite(figure.high) else 0.0
    return low, high
