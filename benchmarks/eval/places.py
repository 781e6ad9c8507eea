"""Where the relevant items of each query stand in a ranking, ties told: all that measures need.

A ranking orders items by (distance, row). Items at the same distance form a group; how a group
is ordered inside says nothing about the system. So for each relevant item not only its rank is
kept, but also how many items are nearer, and how many are as near.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Places:
    """Of q queries, as compressed sparse rows of those relevant items that are placed.

    Attributes:
        offsets: int64 [q + 1]; entries of query i are at offsets[i]:offsets[i + 1], in order of
            rank.
        ranks: int64, from 1, in the order (distance, row).
        nearer: int64, how many items are strictly nearer.
        tied: int64, how many items are at this distance, itself included.
        grades: int32, at least 1.
        relevant: int64 [q], relevant items of the query, placed or not; at least 1.
        ideal: grades of all relevant items of the query, descending, as int32 CSR over
            `ideal_offsets`.
        ideal_offsets: int64 [q + 1].
        ranked: int64 [q], how many items are ranked in all.
        depth: ranks beyond it are unknown, None where everything is ranked. A group that begins at
            rank `depth` or above is placed whole, all of its relevant items.
        within: int64 [q, 2], items and relevant items within Hamming radius 2; None where the
            distance is no Hamming distance.
    """

    offsets: NDArray[np.int64]
    ranks: NDArray[np.int64]
    nearer: NDArray[np.int64]
    tied: NDArray[np.int64]
    grades: NDArray[np.int32]
    relevant: NDArray[np.int64]
    ideal: NDArray[np.int32]
    ideal_offsets: NDArray[np.int64]
    ranked: NDArray[np.int64]
    depth: int | None = None
    within: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.relevant)

    @property
    def queries(self) -> NDArray[np.int64]:
        """int64, the query that each entry belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))
