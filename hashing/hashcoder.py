"""HashCoder: the learned head of CroVCA (arXiv 2510.27584), embedding in, logits out."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from bittern.errors import InvalidInputError
from bittern.hashing.codes import check_bits

Size = Literal["small", "large"]

INITIAL_STD = 0.02
NARROWEST_LARGE = 2048


class HashCoder(nn.Module):
    """A small network that ends in a batch norm, so that every bit is on for about half.

    - ``small``: ``Linear(d, d) ReLU Linear(d, b) BatchNorm1d(b)``
    - ``large``: ``Linear(d, h) GELU Linear(h, h) GELU Linear(h, b) BatchNorm1d(b)`` with
      ``h = max(2 d, 2048)``

    Attributes:
        dim: length of the embeddings that go in.
        bits: length of the codes that come out.
        size: which of the two.
        layers: the layers in order.
    """

    def __init__(self, dim: int, bits: int, size: Size = "small") -> None:
        """Make a head with fresh weights: truncated normal, std 0.02; biases zero.

        Raises:
            CodeError: unusable bits.
            InvalidInputError: unusable dim, or no such size.
        """
        super().__init__()
        check_bits(bits)
        if dim < 1:
            raise InvalidInputError(f"dim must be at least 1, not {dim}", field="dim")
        self.dim, self.bits, self.size = dim, bits, size
        middle: list[nn.Module]
        if size == "small":
            middle = [nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, bits)]
        elif size == "large":
            hidden = max(2 * dim, NARROWEST_LARGE)
            middle = [nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()]
            middle.append(nn.Linear(hidden, bits))
        else:
            raise InvalidInputError(
                f"there is no HashCoder '{size}'; there are small and large", field="size"
            )
        self.layers = nn.Sequential(*middle, nn.BatchNorm1d(bits))
        for layer in self.layers:
            _draw(layer)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits, [n, bits], of embeddings [n, dim]; the code is ``logits > 0``."""
        logits: torch.Tensor = self.layers(embeddings)
        return logits

    def reinitialise(self) -> None:
        """Draw the last linear layer and the batch norm anew; what lies before them stays.

        Discrete communication (arXiv 2602.09764) does so every few epochs: an embedding that
        must serve several encodings keeps more than one of them needs.
        """
        for layer in self.layers[-2:]:
            _draw(layer)


def _draw(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=INITIAL_STD)
        nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.BatchNorm1d):
        layer.reset_running_stats()
        layer.reset_parameters()
