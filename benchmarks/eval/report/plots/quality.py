"""Quality against what it costs: bytes per item, or milliseconds per search."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bittern.benchmarks.eval.report.plots.style import (
    COLOURS,
    MARKERS,
    MUTED,
    NARROW,
    WIDE,
    Plot,
    paper,
    spread,
    written,
)
from bittern.benchmarks.eval.report.wording import amount, counted, plain, value
from bittern.benchmarks.eval.results import Figure, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Sheet

MOST_LINES, MOST_BARS = 10, 8
"""Of systems; with more than so many, only the last point of each has its interval."""
LAST = ("random projection", "Faiss PQ")
"""What is drawn only where there is room."""
MAIN_FLOAT = "float32"
_LABEL_POINTS = 12.5
_LONGEST = 26


@dataclass(frozen=True)
class Line:
    """A system at its lengths, or float vectors as one point."""

    label: str
    points: list[tuple[float, Figure]]
    colour: str
    marker: str


@dataclass(frozen=True)
class Drawing:
    """What one plot shows.

    Attributes:
        measure, against: of the axes; ``bytes`` or ``time``.
        codes: lines of codes.
        floats: points of float vectors, float32 first.
        chance: of a random order.
        headline: above the axes.
    """

    measure: str
    against: str
    codes: Sequence[Line]
    floats: Sequence[Line]
    chance: float | None
    headline: str


def draw_quality(
    rows: Sequence[Row], measure: str, against: str, chance: float | None, model: str = ""
) -> Iterator[Plot]:
    """At most one plot of rows of one task, group and model.

    Args:
        rows: at least one.
        measure: the main one.
        against: ``bytes`` or ``time``.
        chance: expected value of a random order.
        model: named in the title, where there are several.
    """
    kept = [row for row in rows if _place(row, against) and _is_drawn(row, measure)]
    floats = [row for row in kept if row.bits is None]
    codes = [row for row in kept if row.bits is not None]
    names = sorted(
        dict.fromkeys(row.system for row in codes), key=lambda name: name.startswith(LAST)
    )
    if not kept:
        return
    lines = [
        Line(
            plain(name, 60),
            sorted(
                ((_place(r, against), r.figures[measure]) for r in codes if r.system == name),
                key=lambda point: point[0],
            ),
            COLOURS[number % len(COLOURS)],
            MARKERS[number % len(MARKERS)],
        )
        for number, name in enumerate(names[:MOST_LINES])
    ]
    vectors = [
        Line(plain(r.system, 60), [(_place(r, against), r.figures[measure])], MUTED, "o")
        for r in sorted(floats, key=lambda row: row.system != MAIN_FLOAT)
    ]
    drawing = Drawing(measure, against, lines, vectors, chance, _headline(rows, model))
    wide, narrow = (_drawn(drawing, small=small) for small in (False, True))
    title = f"{plain(measure, 60)} against " + (
        "bytes per item" if against == "bytes" else "search time"
    )
    if model:
        title += f", {plain(model, 60)}"
    yield Plot(
        rows[0].task, against, title, _caption(drawing, len(names) - len(lines)), wide, narrow
    )


def _is_drawn(row: Row, measure: str) -> bool:
    figure = row.figures.get(measure)
    if row.rerank or figure is None or not math.isfinite(figure.expected):
        return False
    return row.bits is None or row.metric == "asymmetric"


def _place(row: Row, against: str) -> float:
    """Where on the x axis; 0 for nowhere."""
    x = row.bytes_per_item if against == "bytes" else (row.search_ms or 0.0)
    return x if math.isfinite(x) and x > 0 else 0.0


def _headline(rows: Sequence[Row], model: str) -> str:
    queries = counted(max(row.queries for row in rows), "query", "queries")
    clusters = max(row.clusters for row in rows)
    names = ", ".join(plain(name, 40) for name in (rows[0].task, model) if name)
    return f"{names}: {queries}, {clusters:,} independent"


def _caption(drawing: Drawing, more: int) -> str:
    against = (
        "Points of one length are shifted sideways so that bars do not hide each other."
        if drawing.against == "bytes"
        else "Time is of one search for the 100 nearest, on one thread."
    )
    bars = "all points" if _has_all_bars(drawing) else "the last point of each system"
    return (
        f"Codes by asymmetric distance, and float vectors by cosine (dashed: {MAIN_FLOAT}). Bars "
        f"are 95% intervals of {bars}. {against} Symmetric distances and re-ranked hits are in "
        "the table."
        + (
            f" {counted(more, 'more system is', 'more systems are')} there, too."
            if more > 0
            else ""
        )
    )


def _has_all_bars(drawing: Drawing) -> bool:
    return len(drawing.codes) <= MOST_BARS


def _drawn(drawing: Drawing, *, small: bool) -> str:
    """Codes at the left, their names, and float vectors at the right on an axis of their own."""
    count = len(drawing.codes)
    below = 0.56 + (0.15 * (count + 1) if small else 0.0)
    height = 3.2 + below if small else max(4.2, (count * _LABEL_POINTS + 90) / 72)
    with paper(NARROW if small else WIDE, height) as figure:
        bottom, top = below / height, 1 - (0.16 if small else 0.42) / height
        codes, floats = _axes(figure, drawing, bottom, top, small)
        if not small:
            figure.text(0.012, 1 - 0.14 / height, drawing.headline, va="top", fontsize=10.5)
        everything = [*drawing.codes, *drawing.floats]
        highest = max(
            max(f.expected, f.high if math.isfinite(f.high) else 0.0)
            for line in everything for _, f in line.points
        )  # fmt: skip
        for axes in filter(None, (codes, floats)):
            axes.set_ylim(0, max(highest, drawing.chance or 0.0, 1e-3) * 1.06)
            _level(axes, drawing)
        if codes is not None:
            for number, line in enumerate(drawing.codes):
                _draw_codes(codes, line, drawing, number)
            _scale(codes, drawing, [x for line in drawing.codes for x, _ in line.points])
            if not small:
                _label(codes, drawing.codes)
        if floats is not None:
            _draw_floats(floats, drawing)
        first = codes or floats
        assert first is not None
        first.set_ylabel(plain(drawing.measure, 60))
        if drawing.chance is not None and math.isfinite(drawing.chance):
            first.text(
                0.01, drawing.chance, f"chance {value(drawing.chance)}", fontsize=8.5, color=MUTED,
                transform=first.get_yaxis_transform(), va="bottom",
            )  # fmt: skip
        if small:
            _list(figure, drawing.codes)
        return written(figure)


def _axes(
    figure: Sheet, drawing: Drawing, bottom: float, top: float, small: bool
) -> tuple[Axes | None, Axes | None]:
    left, between, right = (0.14, 0.68, 0.985) if small else (0.075, 0.56, 0.985)
    far = 0.74 if small else 0.8
    if not drawing.codes:
        return None, figure.add_axes((left, bottom, right - left, top - bottom))
    if not drawing.floats:
        end = right if small else between + 0.14
        return figure.add_axes((left, bottom, end - left, top - bottom)), None
    codes = figure.add_axes((left, bottom, between - left, top - bottom))
    floats = figure.add_axes((far, bottom, right - far, top - bottom))
    floats.set_yticklabels([])
    floats.tick_params(axis="y", length=0)
    floats.spines["left"].set_visible(False)
    return codes, floats


def _level(axes: Axes, drawing: Drawing) -> None:
    axes.grid(visible=True, axis="y")
    axes.grid(visible=False, axis="x")
    if drawing.floats and drawing.floats[0].label == MAIN_FLOAT:
        level = drawing.floats[0].points[0][1].expected
        axes.axhline(level, color=MUTED, linewidth=0.9, linestyle=(0, (5, 3)), zorder=2)
    if drawing.chance is not None and math.isfinite(drawing.chance):
        axes.axhline(drawing.chance, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)


def _draw_codes(axes: Axes, line: Line, drawing: Drawing, number: int) -> None:
    count = len(drawing.codes)
    step = 0.0 if drawing.against != "bytes" else min(0.08, 0.5 / count)
    aside = 2.0 ** (step * (number - (count - 1) / 2))
    x = [point[0] * aside for point in line.points]
    figures = [point[1] for point in line.points]
    axes.plot(
        x, [f.expected for f in figures], color=line.colour, marker=line.marker,
        markeredgewidth=0, zorder=3,
    )  # fmt: skip
    barred = range(len(x)) if _has_all_bars(drawing) else range(len(x))[-1:]
    for i in barred:
        _bar(axes, x[i], figures[i], line.colour)


def _bar(axes: Axes, x: float, figure: Figure, colour: str) -> None:
    if math.isfinite(figure.low) and math.isfinite(figure.high):
        axes.vlines(x, figure.low, figure.high, color=colour, linewidth=0.9, zorder=3)


def _draw_floats(axes: Axes, drawing: Drawing) -> None:
    for line in drawing.floats:
        (x, figure) = line.points[0]
        main = line.label == MAIN_FLOAT
        axes.plot(
            [x], [figure.expected], marker="o", markersize=6 if main else 4, color=MUTED,
            linestyle="none", markeredgewidth=0, zorder=3, alpha=1.0 if main else 0.6,
        )  # fmt: skip
        if main:
            _bar(axes, x, figure, MUTED)
    _scale(axes, drawing, [line.points[0][0] for line in drawing.floats])
    axes.set_xlabel("float vectors")
    figures = [figure for line in drawing.floats for _, figure in line.points]
    lowest = min(f.low if math.isfinite(f.low) else f.expected for f in figures)
    highest = max(f.high if math.isfinite(f.high) else f.expected for f in figures)
    room = axes.get_ylim()[1]
    below = lowest > room - highest
    names = [plain(line.label, 18) for line in drawing.floats[:6]]
    axes.text(
        0.5, lowest - 0.03 * room if below else highest + 0.03 * room, "\n".join(names),
        va="top" if below else "bottom", ha="center",
        fontsize=8, color=MUTED, transform=axes.get_yaxis_transform(), linespacing=1.3,
    )  # fmt: skip


def _scale(axes: Axes, drawing: Drawing, places: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = min(places), max(places)
    axes.set_xscale("log", base=2)
    if drawing.against == "bytes":
        ticks = sorted(set(places))
        axes.set_xlabel("bytes per item")
    else:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
        ticks = [tick for tick in ticks if low / 1.2 <= tick <= high * 1.2] or [low]
        axes.set_xlabel("milliseconds per search")
    width = axes.get_position().width * axes.figure.get_size_inches()[0]  # type: ignore[union-attr]
    most = max(1, int(width / 0.55))
    ticks = ticks[:: math.ceil(len(ticks) / most)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([amount(t) if drawing.against == "bytes" else f"{t:.3g}" for t in ticks])
    room = 1.5 if high > low else 2.0
    axes.set_xlim(low / room, high * room)


def _label(axes: Axes, lines: Sequence[Line]) -> None:
    """Names beside the axes, in the order of the ends of their lines."""
    bottom, top = axes.get_ylim()
    height = axes.get_position().height * axes.figure.get_size_inches()[1] * 72  # type: ignore[union-attr]
    wanted = [(line.points[-1][1].expected - bottom) / (top - bottom) for line in lines]
    gap = min(_LABEL_POINTS / height, 1.04 / max(1, len(lines)))
    place: Any = {"transform": axes.transAxes, "clip_on": False}
    for line, at in zip(lines, spread(wanted, gap, 0.0, 1.0), strict=True):
        axes.plot([1.025], [at], color=line.colour, marker=line.marker, markersize=5,
                  markeredgewidth=0, linestyle="none", **place)  # fmt: skip
        axes.text(1.05, at, plain(line.label, _LONGEST), va="center", fontsize=8.5, **place)


def _list(figure: Sheet, lines: Sequence[Line]) -> None:
    """Names below the axes, in the order of the ends of their lines."""
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], color=line.colour, marker=line.marker, markeredgewidth=0,
               label=plain(line.label, 46))
        for line in sorted(lines, key=lambda line: -line.points[-1][1].expected)
    ]  # fmt: skip
    if keys:
        figure.legend(
            handles=keys, loc="lower left", bbox_to_anchor=(0.0, 0.0), frameon=False,
            fontsize=8.5, labelspacing=0.25, handlelength=2.2, handletextpad=0.4,
            borderaxespad=0.2, borderpad=0.1,
        )  # fmt: skip
