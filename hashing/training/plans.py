"""How the bits of a hybrid code are shared out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bittern.errors import InvalidInputError
from bittern.hashing.hashers import LEAST_WEIGHT


@dataclass(frozen=True)
class HybridPlan:
    """How the bits are shared out.

    Attributes:
        ridge: of the aligned bits; see `bittern.hashing.aligned.alignment_map`.
        learned_share: of the bits, rounded to whole bytes; 0 for aligned bits alone, 1 for
            learned bits alone.
        learned_ridge: of the alignment that lies before the heads.
        weights: of an aligned and of a learned bit, in a query.
    """

    ridge: float = 1.0
    learned_share: float = 0.25
    learned_ridge: float = 0.5
    weights: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidInputError: a value out of its range.
        """
        ridges = 0 < self.ridge < math.inf and 0 < self.learned_ridge < math.inf
        weights = len(self.weights) == 2 and all(LEAST_WEIGHT <= w <= 1 for w in self.weights)
        if not (ridges and weights and 0 <= self.learned_share <= 1):
            raise InvalidInputError(
                f"a plan has ridges above 0, a share of 0 to 1 and two weights of "
                f"{LEAST_WEIGHT:g} to 1, not {self}"
            )

    def learned_bits(self, bits: int) -> int:
        """How many of `bits` are learned."""
        return round(bits * self.learned_share / 8) * 8


PLANS = tuple(
    HybridPlan(ridge, share, 0.5, weights)
    for ridge in (0.5, 1.0, 2.0, 4.0)
    for share, weights in (
        (0.0, (1.0, 1.0)),
        (0.25, (1.0, 0.5)),
        (0.25, (1.0, 1.0)),
        (0.5, (1.0, 1.0)),
    )
)
"""What `choose_plan` tries."""
ALIGNED_PLANS = tuple(HybridPlan(ridge, 0.0) for ridge in (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0))
"""The same for aligned bits alone."""
