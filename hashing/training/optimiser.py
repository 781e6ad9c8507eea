"""Device and precision of a training, and AdamW with a cosine schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from bittern.errors import InvalidInputError
from bittern.hashing.training.config import TrainingConfig

_AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """A device and a precision that it supports.

    Attributes:
        device: where modules and batches go.
        precision: ``fp32``, ``fp16`` or ``bf16``.
    """

    device: torch.device
    precision: str

    @property
    def autocast(self) -> torch.autocast:
        """A context for the forward pass."""
        return torch.autocast(
            self.device.type,
            dtype=_AUTOCAST.get(self.precision, torch.bfloat16),
            enabled=self.precision in _AUTOCAST,
        )


def placement(config: TrainingConfig) -> Placement:
    """Device and precision for these settings.

    Raises:
        InvalidInputError: a missing GPU, or a precision that the device lacks.
    """
    name = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InvalidInputError(
                f"the setting is device {name}, but PyTorch sees {count} GPUs; use device: cpu",
                field="device",
            )
        device = torch.device("cuda", device.index or 0)
    precision = config.precision
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise InvalidInputError(
            "precision fp16 needs a GPU; on a CPU use fp32 or bf16", field="precision"
        )
    return Placement(device, precision)


class Optimiser:
    """AdamW with a schedule of known length.

    Attributes:
        taken: steps so far.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        config: TrainingConfig,
        placement: Placement,
        total_steps: int,
    ) -> None:
        self._clip_norm = config.clip_norm
        self._total = total_steps
        self.taken = 0
        self._adamw = torch.optim.AdamW(
            [dict(group) for group in groups],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._highest = [float(group["lr"]) for group in self._adamw.param_groups]
        self._final = config.final_learning_rate / config.learning_rate
        self._scaler = torch.amp.GradScaler(
            placement.device.type, enabled=placement.precision == "fp16"
        )

    @property
    def parameters(self) -> list[torch.Tensor]:
        """All parameters, in the order of groups."""
        return [p for group in self._adamw.param_groups for p in group["params"]]

    @property
    def learning_rate(self) -> float:
        """Of the first group, at the last step."""
        return self._highest[0] * self._cosine(max(0, self.taken - 1))

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of `loss`."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Take a step along the gradients, then clear them."""
        share = self._cosine(self.taken)
        for group, highest in zip(self._adamw.param_groups, self._highest, strict=True):
            group["lr"] = highest * share
        if self._clip_norm:
            self._scaler.unscale_(self._adamw)
            torch.nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)
        self._scaler.step(self._adamw)
        self._scaler.update()
        self._adamw.zero_grad(set_to_none=True)
        self.taken += 1

    def tensors(self) -> dict[str, torch.Tensor]:
        """Moments, by ``number.name``."""
        state = self._adamw.state_dict()["state"]
        return {f"{i}.{name}": t for i, moments in state.items() for name, t in moments.items()}

    def state(self) -> dict[str, Any]:
        """The remaining state, as JSON values."""
        return {"taken": self.taken, "scaler": self._scaler.state_dict()}

    def restore(self, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Restore what `tensors` and `state` returned."""
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = tensor
        whole = self._adamw.state_dict()
        whole["state"] = moments
        self._adamw.load_state_dict(whole)
        self._scaler.load_state_dict(dict(state["scaler"]))
        self.taken = int(state["taken"])

    def _cosine(self, step: int) -> float:
        """Share of the highest rate: 1 at the first step, falling to the final share."""
        done = min(1.0, step / max(1, self._total - 1))
        return self._final + (1.0 - self._final) * 0.5 * (1.0 + math.cos(math.pi * done))
