"""Hybrid codes: some bits from one hasher, some from another, weighed by the query.

Training-free bits serve whatever may be asked; learned bits serve better what they were trained
on. Side by side in one code they serve both, and how much each part counts is the query's
choice, since asymmetric search takes any real weight per bit. Ours (not published); measured in
docs/background/learned-codes.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError
from bittern.hashing.hashers import Hasher

KIND = "hybrid"
LEAST_WEIGHT = 1e-6
"""A part that counts less has no business in a code."""
_PART = "part."


@dataclass(frozen=True)
class HybridHasher:
    """The logits of several hashers side by side, each part weighed.

    A query counts bit i with ``tanh(z_i / 2)``. A part of weight w has its logits turned into
    ``2 artanh(w tanh(z / 2))``: the sign, and so the code, stays; the query's count of each of
    its bits is multiplied by exactly w. Search needs to know nothing of it.

    Attributes:
        parts: hashers for the same embeddings, in the order of their bits.
        weights: per part, 1e-6 to 1.
        settings: how parts and weights were chosen, for the record.
    """

    parts: Sequence[Hasher]
    weights: Sequence[float]
    settings: Mapping[str, Any] = field(default_factory=dict)

    kind = KIND

    def __post_init__(self) -> None:
        if len(self.parts) < 2 or len(self.parts) != len(self.weights):
            raise CodeError(
                f"a hybrid needs two parts or more and a weight for each, not {len(self.parts)} "
                f"and {len(self.weights)}"
            )
        if len({part.dim for part in self.parts}) > 1:
            raise CodeError(f"parts differ in dim: {[part.dim for part in self.parts]}")
        if not all(LEAST_WEIGHT <= weight <= 1 for weight in self.weights):
            raise CodeError(
                f"weights must be {LEAST_WEIGHT:g} to 1, not {list(self.weights)}; only their "
                "ratio counts, so divide by the largest"
            )

    @property
    def dim(self) -> int:
        """Length of the embeddings that go in."""
        return self.parts[0].dim

    @property
    def bits(self) -> int:
        """Length of the codes that come out."""
        return sum(part.bits for part in self.parts)

    def logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        """All parts' logits, weighed; see `bittern.hashing.hashers.Hasher`.

        Raises:
            CodeError: wrong shape, or a value is not finite.
            UnsupportedModalityError: a part does not know this modality.
        """
        parts = [part.logits(embeddings, modality) for part in self.parts]
        weighed = [weigh(z, w) for z, w in zip(parts, self.weights, strict=True)]
        return np.concatenate(weighed, axis=1)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The parts' tensors, as ``part.<number>.<name>``."""
        return {
            f"{_PART}{number}.{name}": tensor
            for number, part in enumerate(self.parts)
            for name, tensor in part.tensors().items()
        }

    def config(self) -> dict[str, Any]:
        """Kind, weights, the parts' configurations and the settings."""
        return {
            "kind": KIND,
            "weights": [float(weight) for weight in self.weights],
            "parts": [dict(part.config()) for part in self.parts],
            "settings": dict(self.settings),
        }


def weigh(logits: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Logits whose ``tanh(z / 2)`` is that of `logits` times `weight`; signs stay.

    Args:
        logits: float32 [n, bits].
        weight: above 0, at most 1.
    """
    if weight == 1.0:
        return logits
    scaled = weight * np.tanh(logits.astype(np.float64) / 2)
    weighed: NDArray[np.float32] = (2 * np.arctanh(scaled)).astype(np.float32)
    # A logit so close to 0 that float32 cannot tell it from 0 any more keeps its side.
    return np.where((weighed > 0) == (logits > 0), weighed, logits)


def part_tensors(
    tensors: Mapping[str, NDArray[np.float32]], number: int
) -> dict[str, NDArray[np.float32]]:
    """The tensors of one part, under its own names."""
    prefix = f"{_PART}{number}."
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
