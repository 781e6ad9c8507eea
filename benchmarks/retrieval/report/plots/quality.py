"""Quality against what it costs: bytes per item, or milliseconds per query."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.retrieval.report.plots.style import (
    COLOURS,
    FADED,
    MARKERS,
    MUTED,
    NARROW,
    WIDE,
    Plot,
    sheet,
    spread,
    written,
)
from benchmarks.retrieval.report.wording import amount, plain, series, value
from benchmarks.retrieval.results import Figure, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

MOST_LINES = 24
_LABEL_POINTS = 12.5
_STROKES = {"asymmetric": "-", "symmetric": (0, (4, 2)), "cosine": (0, (1, 1.5))}


@dataclass(frozen=True)
class _Line:
    label: str
    points: list[tuple[float, Figure]]
    colour: str
    marker: str
    stroke: Any


def draw_quality(
    rows: Sequence[Row], measure: str, against: str, chance: float | None
) -> Iterator[Plot]:
    """At most one plot of rows of one task and group.

    Args:
        rows: at least one.
        measure: the main one.
        against: ``bytes`` or ``time``.
        chance: expected value of a random order.
    """
    lines = _lines(rows, measure, against)
    if not lines:
        return
    drawn = lines[:MOST_LINES]
    wide, narrow = (_drawn(drawn, measure, against, chance, small=s) for s in (False, True))
    title, caption = _title(measure, against), _caption(lines, drawn, chance)
    yield Plot(rows[0].task, against, title, caption, wide, narrow)


def _drawn(
    lines: Sequence[_Line], measure: str, against: str, chance: float | None, *, small: bool
) -> str:
    """With names beside the lines, or below them where there is no room."""
    height = max(4.4, (len(lines) * _LABEL_POINTS + 80) / 72)
    below = 0.56 + (0.15 * len(lines) if small else 0.0)
    if small:
        height = 3.0 + below
    with sheet(NARROW if small else WIDE, height) as (figure, axes):
        left, right = (0.15, 0.985) if small else (0.085, 0.675)
        figure.subplots_adjust(left=left, right=right, bottom=below / height, top=1 - 0.16 / height)
        for line in lines:
            _draw(axes, line)
        places = [x for line in lines for x, _ in line.points]
        _axis(axes, places, measure, against, 6 if small else 9)
        if chance is not None and chance > axes.get_ylim()[0]:
            axes.axhline(chance, color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)), zorder=1)
            axes.text(
                0.99, chance, f"chance {value(chance)}", transform=axes.get_yaxis_transform(),
                ha="right", va="bottom", fontsize=8.5, color=MUTED,
            )  # fmt: skip
        if small:
            _list(figure, lines)
        else:
            _label(axes, lines)
        return written(figure)


def _title(measure: str, against: str) -> str:
    return f"{plain(measure, 60)} against " + (
        "bytes per item" if against == "bytes" else "search time"
    )


def _caption(lines: Sequence[_Line], drawn: Sequence[_Line], chance: float | None) -> str:
    more = len(lines) - len(drawn)
    return (
        "Bars are 95% bootstrap intervals over queries, bands the worst and best order of ties. "
        "Solid lines are asymmetric, dashed ones symmetric, dotted ones cosine distances."
        + (f" A random order has {value(chance)}." if chance is not None else "")
        + (f" {more} more systems are in the table only." if more else "")
    )


def _lines(rows: Sequence[Row], measure: str, against: str) -> list[_Line]:
    several = len({row.model for row in rows}) > 1
    found: dict[str, list[tuple[float, Figure]]] = {}
    of: dict[str, Row] = {}
    for row in rows:
        x = row.bytes_per_item if against == "bytes" else (row.search_ms or 0.0)
        figure = row.figures.get(measure)
        if figure is None or not (x > 0 and math.isfinite(x) and math.isfinite(figure.expected)):
            continue
        label = series(row, several)
        found.setdefault(label, []).append((x, figure))
        of.setdefault(label, row)
    systems = list(dict.fromkeys((row.model, row.system) for row in of.values()))
    lines = []
    for label, points in found.items():
        number = systems.index((of[label].model, of[label].system))
        stroke = (0, (6, 2, 1, 2)) if of[label].rerank else _STROKES.get(of[label].metric, "-")
        points.sort(key=lambda point: point[0])
        lines.append(
            _Line(
                label,
                points,
                COLOURS[number % len(COLOURS)],
                MARKERS[number % len(MARKERS)],
                stroke,
            )
        )
    return lines


def _draw(axes: Axes, line: _Line) -> None:
    x = [point[0] for point in line.points]
    figures = [point[1] for point in line.points]
    y = [figure.expected for figure in figures]
    errors = [
        [max(0.0, f.expected - f.low) if math.isfinite(f.low) else 0.0 for f in figures],
        [max(0.0, f.high - f.expected) if math.isfinite(f.high) else 0.0 for f in figures],
    ]
    axes.errorbar(
        x, y, yerr=errors, color=line.colour, linestyle=line.stroke, marker=line.marker,
        elinewidth=0.8, capsize=2, markeredgewidth=0, zorder=3,
    )  # fmt: skip
    worst, best = [f.worst for f in figures], [f.best for f in figures]
    if worst == best or not all(map(math.isfinite, (*worst, *best))):
        return
    if len(x) > 1:
        axes.fill_between(x, worst, best, color=line.colour, alpha=FADED, linewidth=0, zorder=2)
    else:
        axes.vlines(x, worst, best, color=line.colour, alpha=2 * FADED, linewidth=7, zorder=2)


def _axis(axes: Axes, places: Sequence[float], measure: str, against: str, most: int) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = min(places), max(places)
    if against == "bytes":
        axes.set_xscale("log", base=2)
        exponents = range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
        ticks = [2.0**e for e in exponents]
        axes.set_xlabel("bytes per item")
    else:
        axes.set_xscale("log")
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
        axes.set_xlabel("milliseconds per query (ranking alone)")
    ticks = [tick for tick in ticks if low / 1.3 <= tick <= high * 1.3] or [low]
    ticks = ticks[:: math.ceil(len(ticks) / most)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([amount(t) if against == "bytes" else f"{t:g}" for t in ticks])
    axes.set_xlim(low / 1.35, high * 1.35)
    axes.margins(y=0.06)
    axes.set_ylabel(plain(measure, 60))
    axes.grid(visible=True, axis="y")
    axes.grid(visible=False, axis="x")


def _list(figure: Sheet, lines: Sequence[_Line]) -> None:
    """Names below the axes."""
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], color=line.colour, linestyle=line.stroke, marker=line.marker,
               markeredgewidth=0, label=plain(line.label, 46))
        for line in lines
    ]  # fmt: skip
    figure.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(0.0, 0.0), frameon=False,
        fontsize=8.5, labelspacing=0.25, handlelength=2.2, handletextpad=0.4,
        borderaxespad=0.2, borderpad=0.1,
    )  # fmt: skip


def _label(axes: Axes, lines: Sequence[_Line]) -> None:
    """Names at the right, each beside the end of its line as far as there is room."""
    bottom, top = axes.get_ylim()
    box = axes.get_position()
    canvas = axes.get_figure()
    assert canvas is not None
    points = box.height * float(canvas.get_figure(root=True).get_size_inches()[1]) * 72
    wanted = [(line.points[-1][1].expected - bottom) / (top - bottom) for line in lines]
    gap = min(_LABEL_POINTS / points, 1.04 / max(1, len(lines)))
    for line, height in zip(lines, spread(wanted, gap, 0.0, 1.0), strict=True):
        x, figure = line.points[-1]
        axes.annotate(
            line.label if len(line.label) <= 38 else line.label[:37] + "…",
            xy=(x, figure.expected),
            xytext=(1.045, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8.5,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": line.colour, "linewidth": 0.6, "alpha": 0.55,
                "shrinkA": 1, "shrinkB": 4, "relpos": (0.0, 0.5),
            },
        )  # fmt: skip
        axes.plot(
            [1.03], [height], transform=axes.transAxes, clip_on=False, color=line.colour,
            marker=line.marker, markersize=5, markeredgewidth=0, linestyle="none",
        )  # fmt: skip
