"""The interface between the training loop and a training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from bittern.hashing.losses import Loss

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Step:
    """The result of one batch.

    Attributes:
        total: the loss to minimise, a scalar with a gradient.
        terms: its terms by name, for the log; scalars, the same names every time. They stay on
            their device: the loop fetches many steps at once.
        logits: per view float [batch, bits].
    """

    total: torch.Tensor
    terms: Mapping[str, torch.Tensor | float] = field(default_factory=dict)
    logits: Sequence[torch.Tensor] = ()

    @classmethod
    def of(cls, loss: Loss, logits: Sequence[torch.Tensor]) -> Step:
        """The step of a cross-view loss."""
        terms = {"alignment": loss.alignment.detach(), "rate": loss.rate.detach()}
        return cls(loss.total, terms, [z.detach() for z in logits])


class Objective(Protocol[Batch]):
    """Modules, data and a loss, ready for the loop.

    A batch must depend on seed, epoch and step alone: a run may be resumed in the middle of an
    epoch. Randomness inside `loss` (dropout) may use torch's generators, which checkpoints store.
    """

    @property
    def module(self) -> torch.nn.Module:
        """All trained modules. The loop moves it to the device and calls `train()` and `eval()`; a
        submodule that must stay in evaluation mode overrides `train`.
        """
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Batches of every epoch, at least 1."""
        ...

    @property
    def data_digest(self) -> str:
        """Hex digest of the data and of frozen weights; a run is resumed only if it is equal."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """About the data, for the user."""
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trained parameters, as groups for AdamW with optional ``lr`` and ``weight_decay``.

        Checkpoints store these parameters and all buffers of `module`.
        """
        ...

    def begin_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 1, and when resuming inside one; perhaps without
        calls for earlier epochs.
        """
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number `start` (counted from 0) on."""
        ...

    def loss(self, batch: Batch) -> Step:
        """Forward pass and loss; runs under autocast."""
        ...

    def validate(self) -> dict[str, float] | None:
        """Values on held-out items; the first one is watched, greater is better. None if nothing
        is held out. Called in evaluation mode, without gradients.
        """
        ...
