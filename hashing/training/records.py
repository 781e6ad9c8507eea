"""Reports of a run: a record per epoch, bit statistics, a log and a plot.

``log.jsonl`` has a line per epoch and per some steps, ``log.csv`` a line per epoch. A resumed run
truncates ``log.jsonl`` to its checkpoint, so no line is repeated.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError
from bittern.files import replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

JSON_FILE = "log.jsonl"
CSV_FILE = "log.csv"
PLOT_FILE = "plot.png"
CHECKPOINT_FILE = "checkpoint.safetensors"
CONSTANT_SHARE = 0.01
"""A bit that is on or off for less than this share of the items counts as constant."""
Progress = Callable[[str, int, int, str], None]
"""Called with the stage (``encoding``, ``training``), steps done, steps in all, and a note."""


@dataclass(frozen=True)
class BitStatistics:
    """Statistics of the bits of some items.

    Attributes:
        share: float64 [bits], share of the items whose bit is 1; one half is ideal.
        dead: constant bits, ascending.
        correlation: float64 [bits, bits], Pearson correlation; 0 where a bit is constant.
    """

    share: NDArray[np.float64]
    dead: tuple[int, ...]
    correlation: NDArray[np.float64]

    @property
    def bits(self) -> int:
        """Code length."""
        return len(self.share)

    @property
    def collapsed(self) -> bool:
        """Whether all bits are constant."""
        return len(self.dead) == self.bits

    @property
    def balance(self) -> float:
        """Mean over bits of ``1 - |2 share - 1|``: 1 if every bit is on for half of the items."""
        return float(np.mean(1.0 - np.abs(2.0 * self.share - 1.0)))

    @property
    def mean_correlation(self) -> float:
        """Mean absolute correlation of two different bits that vary; 0 without such."""
        varying = np.flatnonzero((self.share > 0) & (self.share < 1))
        if len(varying) < 2:
            return 0.0
        among = np.abs(self.correlation[np.ix_(varying, varying)])
        pairs = len(varying) * (len(varying) - 1)
        return float((among.sum() - np.trace(among)) / pairs)


def bit_statistics(logits: NDArray[np.floating]) -> BitStatistics:
    """Statistics of the codes of logits.

    Args:
        logits: float [n, bits]; the bit is ``logit > 0``.

    Raises:
        CodeError: not a matrix, empty, or a logit is NaN.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2 or 0 in logits.shape:
        raise CodeError(f"logits must be [n, bits] with n > 0, not {list(logits.shape)}")
    if np.isnan(logits).any():
        raise CodeError("logits hold NaN")
    on = (logits > 0).astype(np.float64)
    share = on.mean(axis=0)
    dead = np.flatnonzero((share < CONSTANT_SHARE) | (share > 1.0 - CONSTANT_SHARE))
    centred = on - share
    norm = np.sqrt((centred**2).sum(axis=0))
    scaled = centred / np.where(norm > 0, norm, 1.0)
    return BitStatistics(
        share=share,
        dead=tuple(int(bit) for bit in dead),
        correlation=scaled.T @ scaled,
    )


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch.

    Attributes:
        epoch: from 1.
        loss: mean over its batches.
        parts: means of its terms.
        validation: values on held-out items; empty when nothing is held out.
        learning_rate: at its last step.
        dead_bits: bits that are constant in some view.
        balance: 1 if every bit is on for half of the items; mean over views.
        correlation: mean absolute correlation of two bits; mean over views.
        seconds: time it took, validation included.
    """

    epoch: int
    loss: float
    parts: Mapping[str, float]
    validation: Mapping[str, float]
    learning_rate: float
    dead_bits: int
    balance: float
    correlation: float
    seconds: float

    @property
    def watched(self) -> float | None:
        """The validation value that decides which weights are best."""
        return next(iter(self.validation.values()), None)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training. The objective's module has the weights of `best_epoch`.

    Attributes:
        history: one record per epoch.
        best_epoch: the epoch with the best validation value, the last of equals; the last one
            without validation.
        bits: per view, statistics of the codes of the last batches under those weights.
        warnings: for users of these weights.
        stopped_early: whether `patience` ended the run.
        resumed: whether it continued from a checkpoint.
        was_finished: whether the run was finished before.
    """

    history: Sequence[EpochRecord]
    best_epoch: int
    bits: Sequence[BitStatistics]
    warnings: Sequence[str]
    stopped_early: bool
    resumed: bool
    was_finished: bool

    @property
    def best(self) -> EpochRecord:
        """The record of `best_epoch`."""
        return self.history[self.best_epoch - 1]

    @property
    def seconds(self) -> float:
        """Time spent in all epochs, over all processes."""
        return sum(record.seconds for record in self.history)


class RunLog:
    """Appends to the log in a run folder."""

    def __init__(self, folder: Path, keep_bytes: int = 0) -> None:
        """Open the log.

        Args:
            folder: of the run.
            keep_bytes: length to which an existing log is truncated.
        """
        self._folder = folder
        path = folder / JSON_FILE
        path.touch()
        os.truncate(path, min(keep_bytes, path.stat().st_size))
        self._file = path.open("a", encoding="utf-8")

    @property
    def bytes_written(self) -> int:
        """Length of ``log.jsonl``, after flushing it."""
        self._file.flush()
        return os.fstat(self._file.fileno()).st_size

    def step(
        self, epoch: int, step: int, losses: Mapping[str, float], learning_rate: float
    ) -> None:
        """Add a line for the mean losses since the last one; `step` counts within the epoch."""
        self._line(
            {"kind": "step", "epoch": epoch, "step": step, **losses, "learning_rate": learning_rate}
        )

    def epoch(self, history: Sequence[EpochRecord]) -> None:
        """Add a line for the latest epoch, and rewrite ``log.csv``."""
        self._line({"kind": "epoch", **history[-1].to_dict()})
        self._file.flush()
        replace_file(self._folder / CSV_FILE, as_csv(history).encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(values) + "\n")


def as_csv(history: Sequence[EpochRecord]) -> str:
    """One line per epoch, under a header line."""
    rows = []
    for record in history:
        values = record.to_dict()
        parts, validation = values.pop("parts"), values.pop("validation")
        rows.append({**values, **parts, **{f"validation_{k}": v for k, v in validation.items()}})
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def draw_plot(
    history: Sequence[EpochRecord], bits: Sequence[BitStatistics], path: Path, title: str = ""
) -> None:
    """Draw losses, validation, balance of the bits and their correlation.

    Args:
        history: one record per epoch, at least one.
        bits: per view.
        path: of the PNG file, replaced atomically.
        title: of the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # Not pyplot, which has global state and may need a display.
    figure = Figure(figsize=(11, 8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    (losses, validation), (balance, correlation) = figure.subplots(2, 2)
    _losses(losses, history)
    _validation(validation, history)
    _balance(balance, bits)
    _correlation(correlation, bits)
    figure.suptitle(title)
    content = io.BytesIO()
    canvas.print_png(content)  # type: ignore[no-untyped-call]
    replace_file(path, content.getvalue())


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
