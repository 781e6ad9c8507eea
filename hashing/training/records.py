"""What a training reports while it runs, and when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bittern.hashing.training.bits import BitStatistics


@dataclass(frozen=True)
class Progress:
    """Where a run is; given after each batch.

    Attributes:
        epoch: from 1.
        epochs: of the whole run.
        step: batches of this epoch that are done.
        steps: batches of an epoch.
        loss: of the latest batch whose loss was fetched (each one on a CPU).
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class EpochRecord:
    """One finished epoch.

    Attributes:
        epoch: from 1.
        loss: mean over its batches.
        parts: means of what the loss is made of.
        validation: values on held-out items; empty when nothing is held out.
        learning_rate: at its last step.
        dead_bits: bits that are as good as constant in some view.
        balance: 1 when every bit is on for half of the items; mean over views.
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
    """What a training came to. The objective's module holds the weights of `best_epoch`.

    Attributes:
        history: one record per epoch.
        best_epoch: the epoch with the best validation value, the last of equals; the last one
            without validation.
        bits: per view, statistics of the codes of the last batches under those weights.
        warnings: what whoever trusts these weights should know.
        stopped_early: whether `patience` ended the run.
        resumed: whether it went on from a checkpoint.
    """

    history: Sequence[EpochRecord]
    best_epoch: int
    bits: Sequence[BitStatistics]
    warnings: Sequence[str]
    stopped_early: bool
    resumed: bool

    @property
    def best(self) -> EpochRecord:
        """The record of `best_epoch`."""
        return self.history[self.best_epoch - 1]

    @property
    def seconds(self) -> float:
        """Time spent in all epochs, over all processes."""
        return sum(record.seconds for record in self.history)
