"""What the training loop knows of what it trains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch

from bittern.hashing.losses import Loss

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Step:
    """What one batch comes to.

    Attributes:
        total: the loss to minimise, a scalar with a gradient.
        parts: what it is made of, by name, for the log; scalars, the same names every time.
            Left on their device: the loop fetches many steps at once.
        logits: per view float [batch, bits].
    """

    total: torch.Tensor
    parts: Mapping[str, torch.Tensor | float] = field(default_factory=dict)
    logits: Sequence[torch.Tensor] = ()

    @classmethod
    def of(cls, loss: Loss, logits: Sequence[torch.Tensor]) -> Step:
        """The step of a cross-view loss."""
        parts = {"alignment": loss.alignment.detach(), "rate": loss.rate.detach()}
        return cls(loss.total, parts, [z.detach() for z in logits])


class Objective(Protocol[Batch]):
    """Modules, data and a loss, ready for the loop.

    Everything that decides a batch must follow from the seed, the epoch and the step alone,
    never from how the run got there: a run that was killed is resumed in the middle of an
    epoch. Randomness inside `loss` (dropout) may use torch's generators, which checkpoints
    hold.
    """

    @property
    def module(self) -> torch.nn.Module:
        """All that is trained. The loop moves it to the device, and between `train()` and
        `eval()`; a part that must stay in evaluation mode overrides its own `train`.
        """
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Batches of every epoch, at least 1."""
        ...

    @property
    def data_digest(self) -> str:
        """Hex digest of the data and of whatever frozen weights lie before it; a run is
        resumed only on equal data.
        """
        ...

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters that are ever trained, as groups for AdamW; a group may name its own
        ``lr`` and ``weight_decay``. Parameters and buffers that are in no group and are no
        buffer of `module` are not checkpointed.
        """
        ...

    def begin_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 1, and again when resuming inside one; must
        not rely on having been called for earlier epochs.
        """
        ...

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number `start` (counted from 0) on."""
        ...

    def loss(self, batch: Batch) -> Step:
        """Forward pass and loss; runs under autocast."""
        ...

    def validate(self) -> dict[str, float] | None:
        """Values on held-out items, the first of which is watched, greater being better; None
        when nothing is held out. Called in evaluation mode, without gradients.
        """
        ...
