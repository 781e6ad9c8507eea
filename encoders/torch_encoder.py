"""The common base of encoders whose towers are one torch module."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Media, Modality
from bittern.encoders.checkpoints import (
    load_into,
    pick_device,
    read_tensors,
    sha256_of_weights,
    weights_file,
)
from bittern.errors import ModelDamagedError, QueryError, UnsupportedModalityError

if TYPE_CHECKING:
    import torch

_SHOWN = 60


class TorchEncoder:
    """Towers in one module. See `bittern.encoders.base.Encoder`.

    Attributes:
        name: catalogue name.
        dim: length of an embedding.
        modalities: the towers that the encoder has.
        digests: per tower, hex SHA-256 of weights, configuration and preprocessing. Device and
            precision are not part of it: they flip few bits, and how many is measured.
        module: the towers as a `torch.nn.Module`, for adapters.
        device: where they run.
        context_length: tokens that a text may have, start and end included.
    """

    modalities: frozenset[Modality]
    dim: int
    digests: Mapping[Modality, str]
    module: torch.nn.Module
    context_length: int

    def __init__(self, name: str, device: str | None, batch_size: int) -> None:
        self.name = name
        self.device = pick_device(device)
        self._batch_size = batch_size
        self._lock = threading.Lock()

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        """Embed texts, pictures or windows of sound, in portions that fit.

        Args:
            modality: one of `modalities`.
            batch: `str`; uint8 [h, w, 3]; or float32 [window_s * sample_rate].

        Returns:
            float32 [n, dim], each row of unit L2 norm; [0, dim] for an empty batch.

        Raises:
            UnsupportedModalityError: the encoder has no such tower.
            QueryError: a text is empty, or longer than the tower can take.
            InvalidInputError: an item has the wrong type, dtype or shape.
            ModelDamagedError: an embedding is not finite.
        """
        import torch

        rows = np.empty((len(batch), self.dim), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(batch), self._batch_size):
                portion = batch[start : start + self._batch_size]
                embedded = self.embed(modality, self.prepare(modality, portion))
                rows[start : start + len(portion)] = embedded.float().cpu().numpy()
        if not np.isfinite(rows).all():
            raise ModelDamagedError(
                "an embedding holds NaN or infinity: the weights are damaged, or the precision is "
                "too low for them (try precision='fp32')"
            )
        return rows

    def prepare(self, modality: Modality, batch: Sequence[Media]) -> Any:
        """Inputs of a tower, on its device."""
        raise NotImplementedError

    def embed(self, modality: Modality, inputs: Any) -> torch.Tensor:
        """Run a tower on the inputs that `prepare` returned."""
        raise NotImplementedError

    def check_modality(self, modality: Modality) -> None:
        """Raise an `UnsupportedModalityError` for a modality without a tower."""
        if modality not in self.modalities:
            known = " and ".join(m for m in Modality if m in self.modalities)
            raise UnsupportedModalityError(
                f"{self.name} has towers for {known}, not for {modality}"
            )

    def too_long(self, text: str, tokens: int) -> QueryError:
        """The error for a text that the tower would have to truncate."""
        return QueryError(
            f"{self.name}: the text {shortened(text)} has {tokens} tokens, this encoder takes "
            f"{self.context_length}; shorten it",
            field="text",
            details={"tokens": str(tokens), "limit": str(self.context_length)},
        )

    def _load(
        self,
        module: torch.nn.Module,
        folder: Path,
        names: Sequence[str],
        sha256: str,
        ignorable: tuple[str, ...] = (),
    ) -> str:
        """Fill the towers from the first of these weights files; returns its hex SHA-256.

        Raises:
            ModelDamagedError: the file is missing, damaged, does not have the expected `sha256`
                (empty for any), or does not fit the towers.
        """
        weights = weights_file(folder, names, self.name)
        found = sha256_of_weights(weights, self.name, sha256)
        load_into(module, read_tensors(weights, self.name), self.name, ignorable=ignorable)
        self.module = module.to(self.device).eval().requires_grad_(False)
        return found


def shortened(text: str) -> str:
    """A text in quotes for an error message, at most 60 characters of it."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")
