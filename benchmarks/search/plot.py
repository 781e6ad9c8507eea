"""Latency against recall, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.search.curves import GOOD_RECALL, Curves

_COLOURS = ("#0b6e4f", "#3aa17e", "#134074", "#5b8def", "#c8553d", "#8d6a9f", "#f2a541", "#777777")
_SHOWN_FROM = 0.5
"""Recall below this is left out of the picture."""


def draw(curves: Sequence[Curves], path: Path) -> None:
    """One panel per collection, as the file's suffix says (.svg, .png).

    Args:
        curves: at least one.
        path: the picture; replaced if it is there.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams.update({"svg.hashsalt": "bittern", "svg.fonttype": "path", "font.size": 9})
    names = list(dict.fromkeys(p.contestant for one in curves for p in one.points))
    figure, panels = pyplot.subplots(
        1, len(curves), figsize=(4.6 * len(curves), 4.2), sharey=True, squeeze=False
    )
    for panel, one in zip(panels[0], curves, strict=True):
        for number, name in enumerate(names):
            points = [
                (p.recall, p.milliseconds.median)
                for p in one.points
                if p.contestant == name and p.recall >= _SHOWN_FROM
            ]
            if not points:
                continue
            panel.plot(
                *zip(*points, strict=True),
                color=_COLOURS[number % len(_COLOURS)],
                marker="o" if len(points) > 1 else "D",
                markersize=3.5,
                linestyle="--" if number >= len(_COLOURS) else "-",
                label=name,
            )
        panel.axvline(GOOD_RECALL, color="#bbbbbb", linewidth=0.8, zorder=0)
        panel.set_yscale("log")
        panel.set_title(one.collection, fontsize=9)
        panel.set_xlabel("recall@100, ties counted fairly")
        panel.grid(alpha=0.25, which="both", linewidth=0.4)
    panels[0][0].set_ylabel("milliseconds per query")
    handles = dict(
        pair
        for panel in panels[0]
        for pair in zip(*panel.get_legend_handles_labels()[::-1], strict=True)
    )
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=4, frameon=False)
    figure.tight_layout(rect=(0, 0.05 * (1 + len(handles) // 4), 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else {}
    figure.savefig(path, dpi=150, metadata=metadata)
    pyplot.close(figure)
