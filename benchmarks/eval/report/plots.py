"""Plots of a run, as SVG: the same results give the same bytes.

Markers differ as well as colours, so colour is never alone.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bittern.benchmarks.eval.report.abstract import by_model
from bittern.benchmarks.eval.report.svg import COLOURS, MUTED, empty_figure, written
from bittern.benchmarks.eval.report.wording import amount, by_task_and_group, plain, without_model
from bittern.benchmarks.eval.results import ClassScore, Results, Row, Score
from bittern.text import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "*", "<", ">", "h")
MOST_LINES, MOST_BARS = 10, 8
"""Of systems; with more than so many, only the last point of each has its interval."""
MOST_SYSTEMS = 14
"""Of the plot of groups."""
MOST_OF_CLASSES = 4
"""Systems of the plot of classes."""
MOST_NAMES = 40
"""Classes of a plot; of more, half are the best and half the worst."""
LAST = ("random projection", "Faiss PQ")
"""Systems that are drawn only where there is room."""
FLOAT = "float32"
_GROUPS = ("seen", "novel")
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": COLOURS[0], "marker": "o", "markeredgewidth": 0},
    {"color": COLOURS[1], "marker": "D", "markerfacecolor": "none", "markeredgewidth": 1.4},
)
_DASHED, _DOTTED = (0, (5, 3)), (0, (1, 2))


@dataclass(frozen=True)
class Plot:
    """A drawn plot.

    Attributes:
        task: name of the task that it belongs to.
        kind: ``bytes``, ``time``, ``groups`` or ``classes``.
        title: one line.
        caption: what it shows, and how to read it.
        svg: a whole file.
    """

    task: str
    kind: str
    title: str
    caption: str
    svg: str


def draw(results: Results) -> list[Plot]:
    """Per task: quality against bytes and against time, groups, and classes, as far as there are
    numbers.
    """
    return list(_plots(results))


def _plots(results: Results) -> Iterator[Plot]:
    tables = by_task_and_group(results.rows)
    for task in dict.fromkeys(name for name, _ in tables):
        measures = results.measures_of(task)
        if not measures:
            continue
        group = "all" if (task, "all") in tables else next(g for t, g in tables if t == task)
        models = by_model(tables[task, group])
        for model, rows in models.items():
            summary = results.group_of(task, model, group)
            chance = summary.chance if summary else None
            for against in ("bytes", "time"):
                shown = model if len(models) > 1 else ""
                yield from _quality(rows, measures[0], against, chance, shown)
        for model in models:
            own = {
                g: [row for row in rows if row.model == model]
                for (t, g), rows in tables.items()
                if t == task
            }
            chances = {g: found.chance for g in own if (found := results.group_of(task, model, g))}
            yield from _groups(own, measures[0], chances, model if len(models) > 1 else "")
        classes = [c for c in results.classes if c.task == task]
        yield from _classes(classes, measures[0], {row.model for row in results.rows})


# Quality against bytes per item, or milliseconds per search


@dataclass(frozen=True)
class _Line:
    """A system at its lengths: x and score of each point, in order of x."""

    label: str
    points: list[tuple[float, Score]]
    colour: str
    marker: str


def _quality(
    rows: Sequence[Row], measure: str, against: str, chance: float | None, model: str
) -> Iterator[Plot]:
    """At most one plot of the rows of one task, group and model."""
    kept = [row for row in rows if _cost(row, against) and _is_drawn(row, measure)]
    if not kept:
        return
    codes: dict[str, list[tuple[float, Score]]] = {}
    for row in kept:
        if row.bits is not None:
            codes.setdefault(row.system, []).append((_cost(row, against), row.figures[measure]))
    names = sorted(codes, key=lambda name: name.startswith(LAST))
    lines = [
        _Line(plain(name, 60), sorted(codes[name], key=lambda p: p[0]), COLOURS[n], MARKERS[n])
        for n, name in enumerate(names[:MOST_LINES])
    ]
    lines += [
        _Line(plain(r.system, 60), [(_cost(r, against), r.figures[measure])], MUTED, "o")
        for r in sorted(kept, key=lambda row: row.system != FLOAT)
        if r.bits is None
    ]
    of = "bytes per item" if against == "bytes" else "search time"
    title = f"{plain(measure, 60)} against {of}" + (f", {plain(model, 60)}" if model else "")
    caption = (
        f"Codes by asymmetric distance, and float vectors by cosine (dashed: {FLOAT}). Bars are "
        f"95% intervals of {'all points' if len(lines) <= MOST_BARS else 'the last points'}. "
        + (
            ""
            if against == "bytes"
            else "Time is of one search for the 100 nearest, on one thread. "
        )
        + "Symmetric distances and re-ranked hits are in the table."
    )
    if (more := len(names) - MOST_LINES) > 0:
        caption += f" {counted(more, 'more system is', 'more systems are')} there, too."
    svg = _drawn_quality(lines, measure, against, chance)
    yield Plot(rows[0].task, against, title, caption, svg)


def _is_drawn(row: Row, measure: str) -> bool:
    score = row.figures.get(measure)
    if row.rerank or score is None or not math.isfinite(score.expected):
        return False
    return row.bits is None or row.metric == "asymmetric"


def _cost(row: Row, against: str) -> float:
    """Bytes or milliseconds; 0 where they are not known."""
    x = row.bytes_per_item if against == "bytes" else (row.search_ms or 0.0)
    return x if math.isfinite(x) and x > 0 else 0.0


def _drawn_quality(lines: Sequence[_Line], measure: str, against: str, chance: float | None) -> str:
    height = max(4.0, 0.24 * len(lines) + 1.2)
    with empty_figure(height) as figure:
        axes = figure.subplots()
        figure.subplots_adjust(left=0.085, right=0.68, bottom=0.56 / height, top=0.97)
        for line in lines:
            _draw_line(axes, line, all_bars=len(lines) <= MOST_BARS)
        for level, dashes in _levels(lines, chance):
            axes.axhline(level, color=MUTED, linewidth=0.9, linestyle=dashes, zorder=2)
        if chance is not None and math.isfinite(chance):
            axes.text(
                0.01, chance, f"chance {chance:.3f}", fontsize=8.5, color=MUTED, va="bottom",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_ylabel(plain(measure, 60))
        axes.grid(visible=False, axis="x")
        _scale(axes, against, [x for line in lines for x, _ in line.points])
        handles, labels = axes.get_legend_handles_labels()
        ends = [-line.points[-1][1].expected for line in lines]
        order = sorted(range(len(lines)), key=lambda i: ends[i])
        axes.legend(
            [handles[i] for i in order], [labels[i] for i in order], loc="upper left",
            bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=8.5, borderaxespad=0,
        )  # fmt: skip
        return written(figure)


def _draw_line(axes: Axes, line: _Line, *, all_bars: bool) -> None:
    main = line.colour != MUTED or line.label == FLOAT
    axes.plot(
        [x for x, _ in line.points], [score.expected for _, score in line.points],
        color=line.colour, marker=line.marker, markeredgewidth=0, zorder=3,
        alpha=1.0 if main else 0.6, label=plain(line.label, 26),
    )  # fmt: skip
    for x, score in line.points if all_bars else line.points[-1:]:
        if main and math.isfinite(score.low) and math.isfinite(score.high):
            axes.vlines(x, score.low, score.high, color=line.colour, linewidth=0.9, zorder=3)


def _levels(lines: Sequence[_Line], chance: float | None) -> Iterator[tuple[float, Any]]:
    """Heights of float32 and of a random order, with their dashes."""
    yield from ((line.points[0][1].expected, _DASHED) for line in lines if line.label == FLOAT)
    if chance is not None and math.isfinite(chance):
        yield chance, _DOTTED


def _scale(axes: Axes, against: str, costs: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = min(costs), max(costs)
    axes.set_xscale("log", base=2)
    if against == "bytes":
        ticks = sorted(set(costs))
        axes.set_xlabel("bytes per item")
    else:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
        ticks = [tick for tick in ticks if low / 1.2 <= tick <= high * 1.2] or [low]
        axes.set_xlabel("milliseconds per search")
    ticks = ticks[:: math.ceil(len(ticks) / 9)]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([amount(t) if against == "bytes" else f"{t:.3g}" for t in ticks])
    axes.set_xlim(low / 1.5, high * 1.5)


# Seen beside novel classes


def _groups(
    groups: Mapping[str, Sequence[Row]],
    measure: str,
    chances: Mapping[str, float | None],
    model: str,
) -> Iterator[Plot]:
    """At most one plot: each system at its longest code, seen and novel on one line.

    The groups ask for different numbers of items among different ones, so their values cannot be
    compared as they are: a second panel has values relative to float32 on the same queries.
    """
    if not all(groups.get(name) for name in _GROUPS):
        return
    seen, novel = (_longest(groups[name], measure) for name in _GROUPS)
    labels = [label for label in seen if label in novel]
    if not labels:
        return
    more = len(labels) - MOST_SYSTEMS
    caption = (
        "Each system at its longest code, asymmetric. Groups differ in what is searched and in how "
        "many items are right, so the second panel has values relative to float32 on the same "
        "queries. Bars are 95% intervals; dotted lines are chance in each group."
        + (f" {more} more systems are in the tables only." if more > 0 else "")
    )
    title = f"{plain(measure, 60)}: seen against novel classes"
    if model:
        title += f", {plain(model, 60)}"
    scores = {label: (seen[label], novel[label]) for label in labels[:MOST_SYSTEMS]}
    svg = _drawn_groups(scores, measure, chances)
    yield Plot(groups["seen"][0].task, "groups", title, caption, svg)


def _longest(rows: Sequence[Row], measure: str) -> dict[str, Score]:
    """By system and length, its score at the longest code."""
    best: dict[str, Row] = {}
    for row in rows:
        if not _is_drawn(row, measure) or (row.bits is None and row.system != FLOAT):
            continue
        if row.system not in best or (row.bits or 0) > (best[row.system].bits or 0):
            best[row.system] = row
    return {
        f"{name} {row.bits}" if row.bits else name: row.figures[measure]
        for name, row in best.items()
    }


def _drawn_groups(
    scores: Mapping[str, tuple[Score, Score]], measure: str, chances: Mapping[str, float | None]
) -> str:
    height = 0.27 * len(scores) + 1.1
    floats = scores.get(FLOAT)
    relative = floats is not None and all(f.expected > 0 for f in floats) and len(scores) > 1
    with empty_figure(height) as figure:
        panels = figure.subplots(1, 2 if relative else 1, squeeze=False)[0]
        figure.subplots_adjust(
            left=0.25, right=0.975, bottom=0.55 / height, top=1 - 0.42 / height, wspace=0.06
        )
        for number, (name, look) in enumerate(zip(_GROUPS, _LOOKS, strict=True)):
            own = [pair[number] for pair in scores.values()]
            heights = [row + 0.14 * (2 * number - 1) for row in range(len(own))]
            errors = [_errors(score) for score in own]
            panels[0].errorbar(
                [score.expected for score in own], heights, elinewidth=0.8, zorder=3,
                xerr=[[low for low, _ in errors], [high for _, high in errors]],
                linestyle="none", label=name, **look,
            )  # fmt: skip
            chance = chances.get(name)
            if chance is not None and math.isfinite(chance):
                panels[0].axvline(chance, color=look["color"], linewidth=1, linestyle=_DOTTED)
            if relative and floats is not None:
                shares = [100 * score.expected / floats[number].expected for score in own]
                panels[1].plot(shares, heights, linestyle="none", **look)
        names = [plain(label, 26) for label in scores]
        _finish(panels[0], names, plain(measure, 60))
        panels[0].set_xlim(left=0)
        if relative:
            _finish(panels[1], [""] * len(names), "% of float32's value")
            panels[1].axvline(100, color=MUTED, linewidth=0.9, linestyle=_DASHED, zorder=1)
        panels[0].legend(
            loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, frameon=False, fontsize=9
        )
        return written(figure)


def _finish(axes: Axes, names: Sequence[str], label: str) -> None:
    """One line per name, from the top."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)


def _errors(score: Score) -> tuple[float, float]:
    low = max(0.0, score.expected - score.low) if math.isfinite(score.low) else 0.0
    high = max(0.0, score.high - score.expected) if math.isfinite(score.high) else 0.0
    return low, high


# Class by class


def _classes(
    classes: Sequence[ClassScore], measure: str, models: Collection[str]
) -> Iterator[Plot]:
    """At most one plot of the classes of one task, all systems in one order: that of float32."""
    classes = [
        replace(c, values={without_model(k, models): v for k, v in c.values.items()})
        for c in classes
    ]
    labels = list(
        dict.fromkeys(label for c in classes for label, v in c.values.items() if math.isfinite(v))
    )
    if not labels:
        return
    labels.sort(key=lambda label: FLOAT not in label)
    first = labels[0]
    ordered = sorted(classes, key=lambda c: (-_finite(c.values.get(first)), c.name))
    caption = (
        f"One line per class, in the order of {plain(first, 60)}; in brackets its right items."
    )
    if len(ordered) > MOST_NAMES:
        half = MOST_NAMES // 2
        caption += f" The {half} best and the {half} worst of {amount(len(ordered))} classes."
        ordered = ordered[:half] + ordered[-half:]
    if (more := len(labels) - MOST_OF_CLASSES) > 0:
        caption += f" {more} more systems are in results.json only."
    svg = _drawn_classes(ordered, labels[:MOST_OF_CLASSES], measure)
    yield Plot(ordered[0].task, "classes", f"{plain(measure, 60)} by class", caption, svg)


def _drawn_classes(classes: Sequence[ClassScore], labels: Sequence[str], measure: str) -> str:
    height = 0.22 * len(classes) + 1.6
    with empty_figure(height) as figure:
        axes = figure.subplots()
        top = 1 - (0.2 + 0.24 * -(-len(labels) // 2)) / height
        figure.subplots_adjust(left=0.38, right=0.975, bottom=0.55 / height, top=top)
        for number, label in enumerate(labels):
            values = [c.values.get(label, math.nan) for c in classes]
            axes.plot(
                values, range(len(values)), linestyle="none", marker=MARKERS[number],
                color=COLOURS[number], label=plain(label, 44), zorder=3, markeredgewidth=0,
                alpha=0.9,
            )  # fmt: skip
        names = [f"{plain(c.name, 34)} ({amount(c.relevant)})" for c in classes]
        _finish(axes, names, plain(measure, 60))
        axes.legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, fontsize=8.5,
            handletextpad=0.2, columnspacing=1.2,
        )  # fmt: skip
        return written(figure)


def _finite(value: float | None) -> float:
    return -math.inf if value is None or math.isnan(value) else value
