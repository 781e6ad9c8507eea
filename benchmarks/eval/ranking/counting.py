"""One query in one tile: how many units are nearer than a wanted one, how many as near.

Counts of tiles add up. Whole numbers are counted, other distances sorted; both give the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.ranking.units import Ints

_COUNTABLE = 1 << 16
"""Whole numbers below it are counted, and sorted by radix."""


@dataclass(frozen=True)
class Standing:
    """Of wanted units, what one tile adds: see `Placed`."""

    nearer: Ints
    before: Ints
    tied: Ints


class Tile:
    """The distances of one query to the units of a tile.

    Args:
        distances: [n], whole numbers or float64, all finite.
        first: number of the first unit.
    """

    def __init__(self, distances: NDArray[Any], first: int) -> None:
        self.distances = distances
        self.first = first
        self.ends: Ints | None = None
        self.ordered: NDArray[Any] | None = None
        if distances.dtype.kind in "iu" and len(distances) and distances.max() < _COUNTABLE:
            self.ends = np.cumsum(np.bincount(distances))
        else:
            self.ordered = np.sort(distances)

    def up_to(self, values: NDArray[Any], strictly: bool) -> Ints:
        """How many distances are at most (or below) each of some values."""
        if self.ends is None:
            assert self.ordered is not None
            side = "left" if strictly else "right"
            return np.searchsorted(self.ordered, values, side).astype(np.int64)  # type: ignore[call-overload, no-any-return]
        whole = values.astype(np.int64) - int(strictly)
        counts = self.ends[np.minimum(whole, len(self.ends) - 1)]
        return np.where(whole < 0, 0, counts).astype(np.int64)

    def standing(self, units: Ints, values: NDArray[np.float64]) -> Standing:
        """Count for wanted units, ascending, at these distances."""
        nearer = self.up_to(values, strictly=True)
        tied = self.up_to(values, strictly=False) - nearer
        last = self.first + len(self.distances)
        before = np.where(units >= last, tied, 0)
        doubtful = np.flatnonzero((units >= self.first) & (units < last) & (tied > 1))
        if len(doubtful):
            before[doubtful] = self._among_equals(units[doubtful] - self.first)
        return Standing(nearer, before, tied)

    def _among_equals(self, places: Ints) -> Ints:
        """How many before each of these places have the same distance."""
        wanted = self.distances[places]
        if self.ends is not None:
            asked = np.zeros(len(self.ends), dtype=bool)
            asked[wanted] = True
            members = np.flatnonzero(asked[self.distances])
        else:
            values = np.unique(wanted)
            at = np.minimum(np.searchsorted(values, self.distances), len(values) - 1)
            members = np.flatnonzero(values[at] == self.distances)
        theirs = self._sortable(self.distances[members])
        order = np.argsort(theirs, kind="stable")
        stands = np.empty(len(order), dtype=np.int64)
        stands[order] = np.arange(len(order))
        begins = np.searchsorted(theirs[order], self._sortable(wanted), "left")
        return stands[np.searchsorted(members, places)] - begins

    def nearest(self, count: int, below: float = np.inf) -> Ints:
        """The `count` nearest that are nearer than `below`, in order: places in the tile."""
        count = min(count, len(self.distances))
        if not count:
            return np.empty(0, np.int64)
        limit = (
            np.searchsorted(self.ends, count) if self.ends is not None else self.ordered[count - 1]  # type: ignore[index]
        )
        chosen = np.flatnonzero((self.distances <= limit) & (self.distances < below))
        order = np.argsort(self._sortable(self.distances[chosen]), kind="stable")
        return chosen[order[:count]]

    def _sortable(self, values: NDArray[Any]) -> NDArray[Any]:
        # NumPy sorts 16-bit numbers by radix.
        return values.astype(np.uint16) if self.ends is not None else values


def in_lists(distances: NDArray[np.float64], offsets: Ints) -> Standing:
    """Where each entry of sorted lists stands in its list.

    Args:
        distances: [f], not falling within a list.
        offsets: int64 [q + 1]; list i is at offsets[i]:offsets[i + 1].
    """
    begins = np.ones(len(distances), dtype=bool)
    begins[1:] = distances[1:] != distances[:-1]
    begins[offsets[:-1][offsets[:-1] < len(distances)]] = True
    runs = np.append(np.flatnonzero(begins), len(distances))
    run = np.cumsum(begins) - 1
    lists = np.repeat(offsets[:-1], np.diff(offsets))
    return Standing(runs[run] - lists, np.arange(len(distances)) - runs[run], np.diff(runs)[run])
