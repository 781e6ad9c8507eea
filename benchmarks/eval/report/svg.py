"""The look of all plots, and SVG whose text can be selected: the same figure gives the same bytes.

Colours follow Okabe and Ito's palette for colour-blind readers ("Color Universal Design", 2008),
darkened until each stands out on white. A file has white paper, so that it reads wherever it is
embedded; inside a page the paper is left out and the colours are the page's own, light or dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER, INK, MUTED, GRID = "#fffffe", "#1d262b", "#55626a", "#dde2e5"
COLOURS = (
    "#0067a3", "#bd4b00", "#00785a", "#a63d7c", "#8f6400", "#5c48a8", "#565d61", "#7d4a2d",
    "#b3261e", "#4d6b10",
)  # fmt: skip
WIDTH = 7.6
"""Inches."""
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


@contextmanager
def empty_figure(height: float) -> Iterator[Figure]:
    """An empty figure, `height` in inches; leave the block only when it is written."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(_SETTINGS)
        figure = Figure(figsize=(WIDTH, height))
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
