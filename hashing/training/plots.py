"""``plot.png``: a run at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bittern.hashing.training.bits import BitStatistics
from bittern.hashing.training.records import EpochRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLOT_FILE = "plot.png"


def draw(
    history: Sequence[EpochRecord], bits: Sequence[BitStatistics], path: Path, title: str = ""
) -> None:
    """Draw losses, validation, balance of the bits and their correlation.

    Args:
        history: one record per epoch, at least one.
        bits: per view.
        path: of the PNG file, which is replaced as a whole.
        title: above it all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure of its own: pyplot would keep global state, and may look for a display.
    figure = Figure(figsize=(11, 8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    (losses, validation), (balance, correlation) = figure.subplots(2, 2)
    _losses(losses, history)
    _validation(validation, history)
    _balance(balance, bits)
    _correlation(correlation, bits)
    figure.suptitle(title)
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        canvas.print_png(file)  # type: ignore[no-untyped-call]
    temporary.replace(path)


def _losses(axes: Axes, history: Sequence[EpochRecord]) -> None:
    epochs = [record.epoch for record in history]
    axes.plot(epochs, [record.loss for record in history], "k.-", label="loss")
    for name in history[0].parts:
        axes.plot(epochs, [record.parts[name] for record in history], ".-", label=name)
    axes.set(title="training loss", xlabel="epoch")
    axes.legend()


def _validation(axes: Axes, history: Sequence[EpochRecord]) -> None:
    axes.set(title="validation", xlabel="epoch")
    names = list(dict.fromkeys(name for record in history for name in record.validation))
    for name in names:
        having = [record for record in history if name in record.validation]
        axes.plot(
            [record.epoch for record in having],
            [record.validation[name] for record in having],
            ".-",
            label=name,
        )
    if names:
        axes.legend()
    else:
        axes.text(0.5, 0.5, "nothing was held out", ha="center", transform=axes.transAxes)


def _balance(axes: Axes, bits: Sequence[BitStatistics]) -> None:
    for number, view in enumerate(bits, start=1):
        axes.hist(
            view.share, bins=np.linspace(0, 1, 41).tolist(), alpha=0.5, label=f"view {number}"
        )
    dead = len({bit for view in bits for bit in view.dead})
    axes.set(title=f"share of items with the bit on ({dead} bits dead)", ylabel="bits")
    if bits:
        axes.legend()


def _correlation(axes: Axes, bits: Sequence[BitStatistics]) -> None:
    if not bits:
        return
    matrix = np.mean([np.abs(view.correlation) for view in bits], axis=0)
    np.fill_diagonal(matrix, 0.0)
    mean = float(np.mean([view.mean_correlation for view in bits]))
    image = axes.imshow(matrix, vmin=0.0, vmax=1.0, cmap="magma", interpolation="nearest")
    axes.set(title=f"correlation of bits, absolute (mean {mean:.3f})", xlabel="bit", ylabel="bit")
    axes.figure.colorbar(image, ax=axes)
