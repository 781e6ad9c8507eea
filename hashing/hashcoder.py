"""HashCoder, the learned head of CroVCA (arXiv 2510.27584), as it is trained.

`bittern.hashing.learned` has the hasher of trained heads, which works without PyTorch.
"""

from __future__ import annotations

import torch
from torch import nn

from bittern.errors import InvalidInputError
from bittern.hashing.codes import check_bits
from bittern.hashing.learned import Size, wide

INITIAL_STD = 0.02


class HashCoder(nn.Module):
    """A small network that ends in a batch norm, so each bit is on for about half of the items.

    - ``small``: ``Linear(d, d) ReLU Linear(d, b) BatchNorm1d(b)``
    - ``large``: ``Linear(d, h) GELU Linear(h, h) GELU Linear(h, b) BatchNorm1d(b)`` with
      ``h = max(2 d, 2048)``

    Attributes:
        dim: length of an embedding.
        bits: length of a code.
        size: ``small`` or ``large``.
        layers: the layers in order.
    """

    def __init__(self, dim: int, bits: int, size: Size = "small") -> None:
        """Make a head with random weights: truncated normal, std 0.02; biases zero.

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
            hidden = wide(dim)
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


def _draw(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=INITIAL_STD)
        nn.init.zeros_(layer.bias)
