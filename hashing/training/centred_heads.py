"""HashCoder heads for several modalities, each behind the mean of its own."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.errors import InvalidInputError
from bittern.hashing.hashcoder import HashCoder
from bittern.hashing.training.config import TrainingConfig

_SHARED = "shared"


class CentredHeads(torch.nn.Module):
    """HashCoder heads behind the mean of their modality.

    Attributes:
        coders: by modality, or one called ``shared``.
        modalities: those that have a head.
    """

    def __init__(self, means: dict[str, NDArray[np.float64]], config: TrainingConfig) -> None:
        """Draw the heads from the seed, without touching torch's own generators.

        Raises:
            InvalidInputError: modalities have embeddings of different lengths.
        """
        super().__init__()
        dims = {modality: len(mean) for modality, mean in means.items()}
        if len(set(dims.values())) != 1:
            raise InvalidInputError(
                f"embeddings of all modalities must have one length, not {dims}", field="views"
            )
        dim = next(iter(dims.values()))
        self.modalities = tuple(sorted(means))
        names = [_SHARED] if config.heads == _SHARED else list(self.modalities)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.coders = torch.nn.ModuleDict(
                {name: HashCoder(dim, config.bits, config.size) for name in names}
            )
        for modality, mean in means.items():
            self.register_buffer(f"mean_{modality}", torch.from_numpy(mean.astype(np.float32)))

    def forward(self, embeddings: torch.Tensor, modality: str) -> torch.Tensor:
        """Logits [n, bits] of float32 [n, dim]."""
        logits: torch.Tensor = self.head(modality)(self.placed(embeddings, modality))
        return logits

    def placed(self, embeddings: torch.Tensor, modality: str) -> torch.Tensor:
        """Embeddings as the head takes them: float32 [n, dim], centred."""
        return embeddings - self.mean(modality)

    def head(self, modality: str) -> HashCoder:
        """The head of a modality; the same object for all where it is shared."""
        name = _SHARED if _SHARED in self.coders else modality
        coder = self.coders[name]
        assert isinstance(coder, HashCoder)
        return coder

    def mean(self, modality: str) -> torch.Tensor:
        """float32 [dim], subtracted before the head."""
        return self.get_buffer(f"mean_{modality}")
