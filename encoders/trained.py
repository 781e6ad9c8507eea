"""Trained parameters as named arrays: copied out, and put back only if every one of them fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.checkpoints import check_fit
from bittern.errors import ModelDamagedError

if TYPE_CHECKING:
    import torch


def place_tensors(
    label: str,
    own: Mapping[str, torch.nn.Parameter],
    given: Mapping[str, NDArray[np.float32]],
) -> None:
    """Copy arrays into parameters, if every one of them fits.

    Args:
        label: what to call the model in errors.
        own: where they go, by name.
        given: float32 arrays, by the same names.

    Raises:
        ModelDamagedError: arrays are missing, unknown, of another shape or dtype, or hold NaN or
            infinity. Nothing was copied then.
    """
    import torch

    common = own.keys() & given.keys()
    check_fit(
        label,
        missing=own.keys() - given.keys(),
        unexpected=given.keys() - own.keys(),
        mismatched=[
            f"{name}: {list(given[name].shape)} for {list(own[name].shape)}"
            for name in common
            if tuple(given[name].shape) != tuple(own[name].shape)
        ],
    )
    for name in sorted(common):
        if given[name].dtype != np.float32:
            raise ModelDamagedError(f"{label}: {name} must be float32, not {given[name].dtype}")
        if not np.isfinite(given[name]).all():
            raise ModelDamagedError(
                f"{label}: {name} holds NaN or infinity; use an earlier state of this model"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(np.array(given[name])))


def copy_tensors(parameters: Mapping[str, torch.nn.Parameter]) -> dict[str, NDArray[np.float32]]:
    """Copies of parameters as float32 arrays, by name."""
    return {
        name: np.array(parameter.detach().float().cpu().numpy())
        for name, parameter in parameters.items()
    }
