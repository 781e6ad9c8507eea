"""Asymmetric distances at the speed of Faiss's 4-bit product quantiser, with a proven error.

A code's nibbles are product-quantiser codes: with the 16 corners of the 4-cube as the
centroids of every sub-quantiser, the inner product with ``2p - 1`` is exact, and the
asymmetric distance is ``sum p_i`` less that. `IndexPQFastScan` (Andre et al., "Quicker ADC",
arXiv 1812.09162) rounds each look-up table to 8 bits, so what it returns are candidates
and a bound on how far their distances are off; the caller scores the candidates exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashing.codes import probabilities

MAX_BITS = 1024
"""Longest codes: 255 per nibble must fit the scan's 16-bit sums."""
_NIBBLE_BITS = ((np.arange(16)[:, None] >> np.arange(4)) & 1).astype(np.float32)
_FLOAT32_SLACK_PER_BIT = 2e-6


@dataclass(frozen=True, slots=True)
class Candidates:
    """The nearest codes by rounded distance.

    Attributes:
        places: int64 [n], positions among the codes.
        floor: no code that is not among the candidates is nearer than this.
    """

    places: NDArray[np.int64]
    floor: float


class FastScan:
    """Codes laid out for the scan, which takes as much memory again as the codes.

    Args:
        codes: uint8 [n, bits/8], bits at most `MAX_BITS`; copied.
    """

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        import faiss

        bits = codes.shape[1] * 8
        nibbles = bits // 4
        plain: Any = faiss.IndexPQ(bits, nibbles, 4, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(np.tile(_NIBBLE_BITS, (nibbles, 1)).ravel(), plain.pq.centroids)
        plain.is_trained = True
        plain.add_sa_codes(np.ascontiguousarray(codes))
        index: Any = faiss.IndexPQFastScan(plain)
        # It remembers where `plain` had its codes, which are about to be freed.
        index.orig_codes = None
        self._index = index
        self.size = len(codes)
        self._bits = int(bits)

    def candidates(self, logits: NDArray[np.floating], count: int) -> Candidates:
        """The nearest codes by rounded distance, `count` of them or fewer.

        Args:
            logits: float [bits], one query.
            count: at most `size`.
        """
        p = probabilities(logits)
        weights = (2.0 * p - 1.0).astype(np.float32)
        products, places = self._index.search(weights[None, :], count)
        found = places[0] >= 0
        worst = float(p.sum()) - float(products[0][found].min(initial=np.inf))
        # Faiss leaves out codes that are as far away as can be, whatever `count` is.
        floor = worst - self._rounding(weights) if found.sum() < self.size else np.inf
        return Candidates(places[0][found].astype(np.int64), floor)

    def _rounding(self, weights: NDArray[np.float32]) -> float:
        """Most that a rounded distance can be off: half a step per nibble.

        One step is 1/255 of the widest table's span.
        """
        spans = np.abs(weights.astype(np.float64)).reshape(-1, 4).sum(axis=1)
        step = float(spans.max()) / 255.0
        return 0.5 * step * float(spans.size) + _FLOAT32_SLACK_PER_BIT * self._bits
