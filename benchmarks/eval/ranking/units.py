"""What is ranked: items by their rows, or each row by itself; and the relevance of those."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.protocol import Windows
from bittern.benchmarks.eval.tasks import Relevance

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """What is ranked, in the order of rows.

    As rows of an item stand together, the order (distance, row) of items is the order
    (distance, unit), whichever of an item's rows is the nearest.

    Attributes:
        starts: int64 [u + 1], the first row of each, and the number of rows.
        items: int64 [u], the item that each is, or belongs to; not falling.
        windows: how rows make up an item.
    """

    starts: Ints
    items: Ints
    windows: Windows

    @classmethod
    def of(cls, owners: Ints, windows: Windows) -> Units:
        """Of rows with owners, int64 [rows], not falling."""
        begins = np.ones(len(owners), dtype=bool)
        if windows != "separate":
            begins[1:] = owners[1:] != owners[:-1]
        first = np.flatnonzero(begins)
        return cls(np.append(first, len(owners)).astype(np.int64), owners[first], windows)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.starts[-1])

    @cached_property
    def single(self) -> bool:
        """Whether each is one row."""
        return len(self) == self.rows

    def reduced(self, distances: NDArray[Any], first: int, last: int) -> NDArray[Any]:
        """Distances of units `first` to `last - 1` from those of their rows, [q, rows]."""
        if self.single:
            return distances
        starts = self.starts[first:last] - self.starts[first]
        if self.windows == "max":
            return np.minimum.reduceat(distances, starts, axis=1)
        sums = np.add.reduceat(distances.astype(np.float64, copy=False), starts, axis=1)
        means: NDArray[np.float64] = sums / np.diff(self.starts[first : last + 1])
        return means

    def rows_of(self, units: Ints) -> tuple[Ints, Ints]:
        """All rows of some units, one after the other, and where those of each begin."""
        return ranges(self.starts[units], self.starts[units + 1])

    def nearest_rows(self, units: Ints, distances: NDArray[Any], offset: int = 0) -> Ints:
        """Of each unit the first of its nearest rows.

        Args:
            units: int64 [n].
            distances: [rows], of one query to rows from `offset` on.
            offset: number of the first row that there is a distance of.
        """
        if self.single or not len(units):
            return self.starts[units]
        rows, begins = self.rows_of(units)
        return rows[first_least(distances[rows - offset], begins)]


@dataclass(frozen=True)
class Wanted:
    """The relevance of units, and what is counted as relevant in all.

    Attributes:
        offsets: int64 [q + 1]; units of query i are at offsets[i]:offsets[i + 1].
        units: int64, ascending within a query.
        grades: int32, of each of `units`.
        relevant: int64 [q], relevant units, and relevant items without a row.
        ideal: int32, the grades of all those, descending within a query.
        ideal_offsets: int64 [q + 1].
    """

    offsets: Ints
    units: Ints
    grades: NDArray[np.int32]
    relevant: Ints
    ideal: NDArray[np.int32]
    ideal_offsets: Ints

    @classmethod
    def of(cls, relevance: Relevance, units: Units) -> Wanted:
        """The same relevance in units; an item without a row counts as one that is not found."""
        known = np.arange(int(relevance.items.max(initial=-1)) + 2)
        first = np.searchsorted(units.items, known)
        found = np.diff(first)[relevance.items]
        if found.min(initial=1) == found.max(initial=1) == 1:
            places, grades, relevant = first[relevance.items], relevance.grades, relevance.counts
            ideal = grades
        else:
            low = first[relevance.items]
            places, _ = ranges(low, low + found)
            grades = np.repeat(relevance.grades, found)
            counted = np.maximum(found, 1)
            relevant = _sums(counted, relevance.offsets)
            ideal = np.repeat(relevance.grades, counted)
        if ideal.min(initial=1) != ideal.max(initial=1):
            ideal = ideal[np.lexsort((-ideal, np.repeat(np.arange(len(relevance)), relevant)))]
        return cls(
            offsets_of(_sums(found, relevance.offsets)),
            places,
            grades,
            relevant,
            ideal,
            offsets_of(relevant),
        )

    def __len__(self) -> int:
        return len(self.relevant)

    def part(self, queries: Ints) -> Wanted:
        """The same for some of the queries, numbered anew."""
        chosen, begins = ranges(self.offsets[queries], self.offsets[queries + 1])
        ideal, ideal_begins = ranges(self.ideal_offsets[queries], self.ideal_offsets[queries + 1])
        return Wanted(
            np.append(begins, len(chosen)),
            self.units[chosen],
            self.grades[chosen],
            self.relevant[queries],
            self.ideal[ideal],
            np.append(ideal_begins, len(ideal)),
        )

    @property
    def queries(self) -> Ints:
        """int64, the query of each of `units`."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


def lookup(queries: Ints, units: Ints, wanted: Wanted, count: int) -> tuple[Ints, NDArray[Any]]:
    """Which of some (query, unit) are wanted.

    Args:
        queries: int64 [f].
        units: int64 [f]; -1 for none.
        wanted: what is relevant.
        count: how many units there are.

    Returns:
        places among `wanted.units`, int64 [f], and whether it is there, bool [f].
    """
    if not len(wanted.units):
        return np.zeros(len(queries), np.int64), np.zeros(len(queries), dtype=bool)
    keys = wanted.queries * count + wanted.units
    asked = queries * count + units
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    return at, (keys[at] == asked) & (units >= 0)


def ranges(begins: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """The numbers of several ranges, one after the other, and where each range begins in them."""
    counts = ends - begins
    offsets = offsets_of(counts)
    numbers = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], counts)
    return numbers.astype(np.int64), offsets[:-1]


def offsets_of(counts: Ints) -> Ints:
    """int64 [n + 1] from counts [n]."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def first_least(values: NDArray[Any], begins: Ints) -> Ints:
    """In each of the ranges that `values` is made of (none empty), the place of the first least."""
    least = np.minimum.reduceat(values, begins)
    counts = np.diff(np.append(begins, len(values)))
    places = np.flatnonzero(values == np.repeat(least, counts))
    return places[np.searchsorted(places, begins)]


def _sums(values: Ints, offsets: Ints) -> Ints:
    sums = offsets_of(values)
    return sums[offsets[1:]] - sums[offsets[:-1]]
