"""The main measure class by class: which kinds are found, and which are not."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bittern.benchmarks.eval.report.plots.style import (
    COLOURS,
    MARKERS,
    NARROW,
    WIDE,
    Plot,
    sheet,
    spread,
    written,
)
from bittern.benchmarks.eval.report.wording import amount, plain, without_model
from bittern.benchmarks.eval.results import ClassFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SYSTEMS = 4
MOST_NAMES = 40
"""With more classes than this, names give way to one sorted curve per system."""


def draw_classes(
    classes: Sequence[ClassFigure], measure: str, models: Collection[str] = ()
) -> Iterator[Plot]:
    """At most one plot of the classes of one task, all systems in one order: that of float32.

    Args:
        classes: of one task.
        measure: the main one.
        models: of the run; a single one is not named.
    """
    classes = [
        replace(c, values={without_model(k, models): v for k, v in c.values.items()})
        for c in classes
    ]
    labels = list(
        dict.fromkeys(label for c in classes for label, v in c.values.items() if math.isfinite(v))
    )
    if not labels:
        return
    labels.sort(key=lambda label: "float32" not in label)
    classes = sorted(classes, key=lambda c: (-_number(c.values.get(labels[0])), c.name))
    drawn = labels[:MOST_SYSTEMS]
    named = len(classes) <= MOST_NAMES
    draw = _draw_named if named else _draw_sorted
    pictures = []
    for small in (False, True):
        height = 0.22 * len(classes) + 1.4 + 0.4 * small if named else 4.2
        with sheet(NARROW if small else WIDE, height) as (figure, axes):
            draw(figure, axes, classes, drawn, measure, small)
            pictures.append(written(figure))
    how = (
        f"One line per class, in the order of {plain(drawn[0], 60)}; in brackets its right items."
        if named
        else f"{amount(len(classes))} classes in the order of {plain(drawn[0], 60)}. Dots are "
        "classes, lines their running means."
    )
    more = len(labels) - len(drawn)
    caption = how + (f" {more} more systems are in results.json only." if more else "")
    yield Plot(classes[0].task, "classes", f"{plain(measure, 60)} by class", caption, *pictures)


def _draw_named(
    figure: Figure,
    axes: Axes,
    classes: Sequence[ClassFigure],
    labels: list[str],
    measure: str,
    small: bool,
) -> None:
    height = float(figure.get_size_inches()[1])
    columns = 1 if small else 2
    rows = -(-len(labels) // columns)
    top = 1 - (0.16 + 0.24 * rows) / height
    left = 0.47 if small else 0.38
    figure.subplots_adjust(left=left, right=0.975, bottom=0.55 / height, top=top)
    for number, label in enumerate(labels):
        points = [
            (c.values[label], place)
            for place, c in enumerate(classes)
            if math.isfinite(c.values.get(label, math.nan))
        ]
        axes.plot(
            [x for x, _ in points], [y for _, y in points], linestyle="none",
            marker=MARKERS[number], color=COLOURS[number], label=plain(label, 44), zorder=3,
            markeredgewidth=0, alpha=0.9,
        )  # fmt: skip
    names = [f"{plain(c.name, 24 if small else 34)} ({amount(c.relevant)})" for c in classes]
    axes.set_yticks(range(len(classes)), names)
    axes.tick_params(axis="y", length=0, labelsize=7.5 if small else 8.5)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlabel(plain(measure, 60))
    axes.spines["left"].set_visible(False)
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=columns, frameon=False, fontsize=8.5,
        handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip


def _draw_sorted(
    figure: Figure,
    axes: Axes,
    classes: Sequence[ClassFigure],
    labels: list[str],
    measure: str,
    small: bool,
) -> None:
    left, right, bottom = (0.15, 0.985, 0.30) if small else (0.085, 0.655, 0.135)
    figure.subplots_adjust(left=left, right=right, bottom=bottom, top=0.965)
    curves = []
    for number, label in enumerate(labels):
        found = [
            (place, c.values[label])
            for place, c in enumerate(classes, 1)
            if math.isfinite(c.values.get(label, math.nan))
        ]
        places, values = [x for x, _ in found], [y for _, y in found]
        curves.append(_running(values))
        axes.plot(
            places, values, color=COLOURS[number], marker="o", linestyle="none", markersize=2.5,
            markeredgewidth=0, alpha=0.35,
        )  # fmt: skip
        axes.plot(
            places, curves[-1], color=COLOURS[number], marker=MARKERS[number], zorder=3,
            markevery=max(1, len(values) // 9), markeredgewidth=0, label=plain(label, 44),
        )  # fmt: skip
    axes.set_xlim(1, len(classes))
    axes.set_xlabel(f"classes, in the order of {plain(labels[0], 40)}")
    axes.set_ylabel(plain(measure, 60))
    axes.grid(visible=False, axis="x")
    if small:
        figure.legend(loc="lower left", frameon=False, fontsize=8, labelspacing=0.3)
        return
    _label(axes, curves, labels)


def _label(axes: Axes, curves: Sequence[Sequence[float]], labels: Sequence[str]) -> None:
    """Names at the right, in the order of the curves' ends."""
    bottom, top = axes.get_ylim()
    wanted = [(values[-1] - bottom) / (top - bottom) for values in curves]
    for number, height in enumerate(spread(wanted, 0.05, 0.0, 1.0)):
        place = {"transform": axes.transAxes, "clip_on": False}
        axes.plot(
            [1.03], [height], marker=MARKERS[number], color=COLOURS[number], markeredgewidth=0,
            **place,  # type: ignore[arg-type]
        )  # fmt: skip
        text = plain(labels[number], 38)
        axes.text(1.05, height, text, va="center", fontsize=8.5, **place)  # type: ignore[arg-type]


def _running(values: Sequence[float]) -> list[float]:
    """Means of a tenth of the values around each."""
    half = max(1, len(values) // 20)
    windows = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _number(value: float | None) -> float:
    return -math.inf if value is None or math.isnan(value) else value
