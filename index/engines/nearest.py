"""What a search finds: rows and distances, in the one total order (distance, row)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Nearest:
    """Rows and their distances, ordered by (distance, row).

    Attributes:
        distances: float64 [k], in bits.
        rows: int64 [k].
    """

    distances: NDArray[np.float64]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def none(cls) -> Nearest:
        """Nothing found."""
        return cls(np.empty(0), np.empty(0, np.int64))

    @classmethod
    def of(
        cls, distances: NDArray[np.floating], rows: NDArray[np.int64], k: int | None = None
    ) -> Nearest:
        """The k best of candidates in any order; all of them where `k` is None."""
        if k is not None and 4 * k < len(rows):
            # Sorting everything would cost more than the search; ties with the k-th stay in.
            near = distances <= np.partition(distances, k - 1)[k - 1]
            distances, rows = distances[near], rows[near]
        order = np.lexsort((rows, distances))[:k]
        return cls(distances[order].astype(np.float64), rows[order])

    @classmethod
    def best_of(cls, parts: Sequence[Nearest], k: int | None = None) -> Nearest:
        """The k best of several searches over disjoint rows; all where `k` is None."""
        if len(parts) == 1 and (k is None or len(parts[0]) <= k):
            return parts[0]
        if not parts:
            return cls.none()
        return cls.of(
            np.concatenate([part.distances for part in parts]),
            np.concatenate([part.rows for part in parts]),
            k,
        )
