"""Where a training runs and in which precision."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bittern.errors import InvalidInputError
from bittern.hashing.training.config import TrainingConfig

_AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Placement:
    """A device and a precision that it can do.

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
    """What the settings come to on this machine.

    Raises:
        InvalidInputError: a GPU that is not there, or a precision that the device lacks.
    """
    name = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InvalidInputError(
                f"device {name} was asked for, but PyTorch sees {count} GPUs; use device: cpu",
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
