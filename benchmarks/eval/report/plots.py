"""How plots look, and how they become SVG that is the same every time.

Colours follow Okabe and Ito's palette for colour-blind readers ("Color Universal Design", 2008),
darkened until each stands out on white; markers differ as well, so colour is never alone. A file
has white paper, so that it reads wherever it is embedded; inside a page the paper is left out and
the colours are the page's own, light or dark.

Quality against what it costs: bytes per item, or milliseconds per search.

Queries for classes that were seen in training beside those for novel classes.

The two groups ask for different numbers of items among different ones, so their values cannot be
compared as they are: beside them stands each system's value relative to float32's on the same
queries.

The main measure class by class: which kinds are found, and which are not.

Plots of a run, as SVG whose text can be selected: the same results give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bittern.benchmarks.eval.report.abstract import by_model, group_of, measures_of
from bittern.benchmarks.eval.report.wording import (
    amount,
    counted,
    parts,
    plain,
    value,
    without_model,
)
from bittern.benchmarks.eval.results import ClassScore, Results, Row, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK, MUTED, GRID = "#fffffe", "#1d262b", "#55626a", "#dde2e5"
COLOURS = (
    "#0067a3", "#bd4b00", "#00785a", "#a63d7c", "#8f6400", "#5c48a8", "#565d61", "#7d4a2d",
    "#b3261e", "#4d6b10",
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "*", "<", ">", "h")
WIDE, NARROW = 7.6, 4.2
"""Inches: of a file and a large screen, and of a telephone."""
FADED = 0.14
"""Opacity of bands."""
_FONT, _LIKE_IT = "DejaVu Sans", "Verdana, Arial, sans-serif"
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "bittern",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": _FONT,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
}
_TAG = re.compile(r"<[^<>]*>")
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "none"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(COLOURS)
}


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Attributes:
        task: name of the task that it belongs to.
        kind: ``bytes``, ``time``, ``groups`` or ``classes``.
        title: one line.
        caption: what is to be seen, and how to read it.
        svg: a whole file.
        narrow: the same, drawn for a telephone.
    """

    task: str
    kind: str
    title: str
    caption: str
    svg: str
    narrow: str


@contextmanager
def sheet(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """One empty pair of axes, in inches; leave the block only when it is written."""
    with paper(width, height) as figure:
        yield figure, figure.subplots()


@contextmanager
def paper(width: float, height: float) -> Iterator[Figure]:
    """An empty figure, in inches; leave the block only when it is written."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(_SETTINGS)
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        yield figure


def written(figure: Figure) -> str:
    """The figure as an SVG file."""
    data = io.BytesIO()
    nothing: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(data, format="svg", metadata=nothing)
    return data.getvalue().decode("utf-8").replace(f"'{_FONT}'", f"'{_FONT}', {_LIKE_IT}")


def inline(svg: str, prefix: str, label: str) -> str:
    """The same as an element of a page: its ids are its own, its colours the page's.

    Args:
        svg: of `written`.
        prefix: distinguishes it on its page; letters and digits.
        label: what a screen reader says; already escaped for an attribute.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<style[^>]*>[^<]*</style>", "", body, count=1)

    def within(tag: re.Match[str]) -> str:
        text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", tag[0])
        text = re.sub(r"font-family: [^;]*; ", "", text)
        return re.sub(r"#[0-9a-f]{6}", lambda c: _VARIABLES.get(c[0], c[0]), text)

    body = _TAG.sub(within, body)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body)
    assert size is not None
    opening = f'<svg role="img" aria-label="{label}" viewBox="0 0 {size[1]} {size[2]}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening, body, count=1)


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights near the wanted ones, at least `gap` apart, in the same order, within bounds as far
    as there is room.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    # Without their gaps, heights only have to rise: pool adjacent violators (least squares).
    pools: list[tuple[float, int]] = []
    for position, i in enumerate(order):
        mean, count = wanted[i] - position * gap, 1
        while pools and pools[-1][0] > mean:
            other, number = pools.pop()
            mean = (mean * count + other * number) / (count + number)
            count += number
        pools.append((mean, count))
    rising = [mean for mean, count in pools for _ in range(count)]
    highest = max(low, high - (len(wanted) - 1) * gap)
    entries = [0.0] * len(wanted)
    for position, i in enumerate(order):
        entries[i] = min(max(rising[position], low), highest) + position * gap
    return entries


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
    points: list[tuple[float, Score]]
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
    figure: Figure, drawing: Drawing, bottom: float, top: float, small: bool
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


def _bar(axes: Axes, x: float, figure: Score, colour: str) -> None:
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


def _list(figure: Figure, lines: Sequence[Line]) -> None:
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
    wide, narrow = (_groups_drawn(pairs, measure, chances, small=small) for small in (False, True))
    yield Plot(groups["seen"][0].task, "groups", title, caption, wide, narrow)


def _groups_drawn(
    pairs: Sequence[tuple[str, Score, Score]],
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
    axes: Axes, figures: Sequence[Score], look: Mapping[str, Any], name: str, aside: float
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


def _longest(rows: Sequence[Row], measure: str) -> dict[str, Score]:
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


def _errors(figure: Score) -> tuple[float, float]:
    low = max(0.0, figure.expected - figure.low) if math.isfinite(figure.low) else 0.0
    high = max(0.0, figure.high - figure.expected) if math.isfinite(figure.high) else 0.0
    return low, high


MOST_SYSTEMS_OF_CLASSES = 4
MOST_NAMES = 40
"""With more classes than this, names give way to one sorted curve per system."""


def draw_classes(
    classes: Sequence[ClassScore], measure: str, models: Collection[str] = ()
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
    drawn = labels[:MOST_SYSTEMS_OF_CLASSES]
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
    classes: Sequence[ClassScore],
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
    classes: Sequence[ClassScore],
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
    _label_curves(axes, curves, labels)


def _label_curves(axes: Axes, curves: Sequence[Sequence[float]], labels: Sequence[str]) -> None:
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


def draw(results: Results) -> list[Plot]:
    """Per task: quality against bytes and against time, classes, and groups, where there are any.

    Raises:
        nothing of its own: what cannot be drawn (no number at all) is left out.
    """
    return list(_all_plots(results))


def _all_plots(results: Results) -> Iterator[Plot]:
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
