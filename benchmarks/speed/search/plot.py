"""Latency against recall, drawn: the farther to the lower right, the better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bittern.benchmarks.speed.search.curves import GOOD_RECALL, Curves

_OURS = ("#134074", "#5b8def", "#0b6e4f", "#3aa17e", "#6a4c93", "#b39bc8")
_THEIRS = ("#c8553d", "#f2a541", "#8c5e3c", "#d96c9f", "#777777", "#b0b0b0")
_RECALLS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
_LEAST_MISSED = 3e-4
"""Where a recall of 1 is drawn, since a logarithmic axis has no place for it."""


def draw(curves: Sequence[Curves], path: Path) -> None:
    """One panel per collection, as the file's suffix says (.svg, .png).

    Args:
        curves: at least one.
        path: the picture; replaced if it is there.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D

    settings: Any = {"svg.hashsalt": "bittern", "svg.fonttype": "path", "font.size": 9}
    with matplotlib.rc_context(settings):
        styles = _styles(curves)
        figure, panels = pyplot.subplots(
            1,
            len(curves),
            figsize=(4.4 * len(curves) + 2.4, 4.0),
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for panel, one in zip(panels[0], curves, strict=True):
            _draw_one(panel, one, styles)
        panels[0][0].set_ylabel("milliseconds per query")
        lines = [Line2D([], [], label=name, **style) for name, style in styles.items()]
        figure.legend(handles=lines, loc="outside right center", frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {})
        pyplot.close(figure)


def _styles(curves: Sequence[Curves]) -> dict[str, dict[str, Any]]:
    """Colour, line and marker of each contestant, the same in all panels."""
    names = dict.fromkeys(p.contestant for one in curves for p in one.points)
    exact = {p.contestant for one in curves for p in one.points if not p.parameter}
    styles: dict[str, dict[str, Any]] = {}
    for ours, colours in ((True, _OURS), (False, _THEIRS)):
        some = [name for name in names if name.startswith("bittern") == ours]
        for number, name in enumerate(some):
            styles[name] = {
                "color": colours[number % len(colours)],
                "linestyle": "-" if ours else "--",
                "marker": "D" if name in exact else "o",
                "markersize": 5 if name in exact else 3,
                "linewidth": 1.3,
            }
    return styles


def _draw_one(panel: Any, curves: Curves, styles: dict[str, dict[str, Any]]) -> None:
    for name, style in styles.items():
        points = [
            (max(1.0 - p.recall, _LEAST_MISSED), p.milliseconds.median)
            for p in curves.points
            if p.contestant == name and p.recall >= _RECALLS[0]
        ]
        if points:
            panel.plot(*zip(*points, strict=True), **style)
    panel.axvline(1.0 - GOOD_RECALL, color="#bbbbbb", linewidth=0.8, zorder=0)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(1.0 - _RECALLS[0], _LEAST_MISSED / 1.3)
    ticks = [1.0 - recall for recall in _RECALLS]
    panel.set_xticks([*ticks, _LEAST_MISSED], [*(f"{r:g}" for r in _RECALLS), "1"])
    panel.set_xticks([], minor=True)
    panel.set_title(curves.collection, fontsize=9)
    panel.set_xlabel("recall@100, ties counted fairly")
    panel.grid(alpha=0.3, linewidth=0.4)
