"""The interface of all search engines, with its input and output.

    flat.py            exact, on the CPU: scans every code and proves the result
    gpu.py             exact, on a graphics card; the same proof (memory: device_memory.py)
    ivf.py             approximate: scans a few inverted lists (inverted_lists.py)
    sharded/           exact, over Ray actors
    choosing.py        chooses the engine of an archive (background_index.py builds its lists)

All of them search `CodeBlocks` (blocks.py) for `Queries` (queries.py, the one definition of
distances), and return `Nearest` in the total order (distance, row).
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.queries import Queries


class SearchEngine(Protocol):
    """Finds the codes that are nearest to queries, among those of one generation.

    Attributes:
        kind: ``flat``, ``ivf``, ``gpu`` or ``sharded``.
        exact: whether it always finds the nearest rows.
    """

    kind: str
    exact: bool

    def search(self, queries: Queries, k: int, rows: RowSet | None = None) -> list[Nearest]:
        """The k nearest of each query, in the total order (distance, row).

        Args:
            queries: of the same code length.
            k: at least 1.
            rows: only these rows may be returned; None for all.

        Returns:
            for each query exactly min(k, allowed rows) rows.

        Raises:
            CodeError: the queries are of another code length.
        """
        ...


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
        """An empty result."""
        return cls(np.empty(0), np.empty(0, np.int64))

    @classmethod
    def of(cls, distances: NDArray[np.floating], rows: NDArray[np.int64], k: int) -> Nearest:
        """The k best of candidates in any order."""
        if 4 * k < len(rows):
            # Sorting everything, or all that are as far as the k-th, would take longer than the
            # search.
            last = np.partition(distances, k - 1)[k - 1]
            nearer, level = np.flatnonzero(distances < last), np.flatnonzero(distances == last)
            if len(level) > k - len(nearer):
                level = level[np.argpartition(rows[level], k - len(nearer) - 1)]
            near = np.concatenate([nearer, level[: k - len(nearer)]])
            distances, rows = distances[near], rows[near]
        order = np.lexsort((rows, distances))[:k]
        return cls(distances[order].astype(np.float64), rows[order])

    def within(self, distance: float) -> Nearest:
        """Those at most this far."""
        near = self.distances <= distance
        return Nearest(self.distances[near], self.rows[near])

    @classmethod
    def merged(cls, found: Sequence[Nearest], k: int) -> Nearest:
        """The k best of several searches over disjoint rows."""
        if len(found) == 1 and len(found[0]) <= k:
            return found[0]
        if not found:
            return cls.none()
        return cls.of(
            np.concatenate([one.distances for one in found]),
            np.concatenate([one.rows for one in found]),
            k,
        )


class RowSet:
    """The rows that a search may return, such as those that meet a condition.

    Engines cache here what they compute for it, such as positions in blocks, so that a repeated
    condition takes no time.

    Args:
        rows: int64 [n], strictly ascending.
    """

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self.rows = np.ascontiguousarray(rows, dtype=np.int64).view()
        self.rows.flags.writeable = False
        self.cache: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self.rows)
