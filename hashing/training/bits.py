"""What codes look like: how often each bit is on, and how much bits repeat one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError

CONSTANT_SHARE = 0.01
"""A bit that is on for less than this share of the items, or off for less, tells nothing."""


@dataclass(frozen=True)
class BitStatistics:
    """Statistics of the bits of some items.

    Attributes:
        items: how many items.
        share: float64 [bits], share of the items whose bit is 1; one half is ideal.
        dead: bits that are as good as constant, in ascending order.
        correlation: float64 [bits, bits], Pearson correlation; 0 where a bit is constant.
    """

    items: int
    share: NDArray[np.float64]
    dead: tuple[int, ...]
    correlation: NDArray[np.float64]

    @property
    def bits(self) -> int:
        """Code length."""
        return len(self.share)

    @property
    def collapsed(self) -> bool:
        """Whether no bit tells anything."""
        return len(self.dead) == self.bits

    @property
    def balance(self) -> float:
        """Mean over bits of ``1 - |2 share - 1|``: 1 when every bit is on for half."""
        return float(np.mean(1.0 - np.abs(2.0 * self.share - 1.0)))

    @property
    def mean_correlation(self) -> float:
        """Mean absolute correlation of two different bits that both vary; 0 without such."""
        varying = np.flatnonzero((self.share > 0) & (self.share < 1))
        if len(varying) < 2:
            return 0.0
        among = np.abs(self.correlation[np.ix_(varying, varying)])
        pairs = len(varying) * (len(varying) - 1)
        return float((among.sum() - np.trace(among)) / pairs)


def bit_statistics(logits: NDArray[np.floating]) -> BitStatistics:
    """Statistics of the codes of logits.

    Args:
        logits: float [n, bits]; the bit is ``logit > 0``.

    Raises:
        CodeError: not a matrix, empty, or a logit is NaN.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2 or 0 in logits.shape:
        raise CodeError(f"logits must be [n, bits] with n > 0, not {list(logits.shape)}")
    if np.isnan(logits).any():
        raise CodeError("logits hold NaN")
    on = (logits > 0).astype(np.float64)
    share = on.mean(axis=0)
    dead = np.flatnonzero((share < CONSTANT_SHARE) | (share > 1.0 - CONSTANT_SHARE))
    centred = on - share
    norm = np.sqrt((centred**2).sum(axis=0))
    scaled = centred / np.where(norm > 0, norm, 1.0)
    return BitStatistics(
        items=len(on),
        share=share,
        dead=tuple(int(bit) for bit in dead),
        correlation=scaled.T @ scaled,
    )
