"""What is ranked (items by their rows), and what a system stores of it.

What a system stores is kept in memory where it is small, else computed again tile by tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows
from bittern.benchmarks.eval.systems.base import Fitted
from bittern.benchmarks.eval.tasks import Relevance

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """What is ranked: items that have rows, in the order of their rows.

    As rows of an item stand together, the order (distance, row) of items is the order
    (distance, unit), whichever of an item's rows is the nearest.

    Attributes:
        starts: int64 [u + 1], the first row of each, and the number of rows.
        items: int64 [u], the item that each is, rising.
        mean: whether an item counts by the mean over its rows; else by its nearest row.
    """

    starts: Ints
    items: Ints
    mean: bool = False

    @classmethod
    def of(cls, owners: Ints, mean: bool) -> Units:
        """Of rows with owners, int64 [rows], not falling."""
        items, first = np.unique(owners, return_index=True)
        return cls(np.append(first, len(owners)).astype(np.int64), items, mean)

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
        if not self.mean:
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
        position = np.searchsorted(units.items, relevance.items)
        found = position < len(units)
        found[found] = units.items[position[found]] == relevance.items[found]
        ends = offsets_of(found.astype(np.int64))
        queries = np.repeat(np.arange(len(relevance)), relevance.counts)
        return cls(
            ends[relevance.offsets],
            position[found],
            relevance.grades[found],
            relevance.counts,
            relevance.grades[np.lexsort((-relevance.grades, queries))],
            relevance.offsets,
        )

    def __len__(self) -> int:
        return len(self.relevant)

    def of_query(self, query: int) -> slice:
        """The entries of a query."""
        return slice(self.offsets[query], self.offsets[query + 1])

    def subset(self, queries: Ints) -> Wanted:
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
        positions among `wanted.units`, int64 [f], and whether it is there, bool [f].
    """
    if not len(wanted.units):
        return np.zeros(len(queries), np.int64), np.zeros(len(queries), dtype=bool)
    keys = wanted.queries * count + wanted.units
    sought = queries * count + units
    at = np.minimum(np.searchsorted(keys, sought), len(keys) - 1)
    return at, (keys[at] == sought) & (units >= 0)


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
    """The position of the first least value in each of the ranges, none of them empty."""
    least = np.minimum.reduceat(values, begins)
    counts = np.diff(np.append(begins, len(values)))
    ranks = np.flatnonzero(values == np.repeat(least, counts))
    return ranks[np.searchsorted(ranks, begins)]


RADIUS = 2
"""Hamming radius of `Ranks.within`."""


@dataclass(frozen=True)
class Limits:
    """How much memory is used, and how many threads. None of it changes a ranking.

    Attributes:
        kept_bytes: what is stored is kept up to so much, else made anew from each tile.
        block_bytes: distances that a thread holds at a time.
        tile_rows: embeddings that are read at a time.
        batch: queries that are searched at a time.
        threads: the most at once; None for one per usable core.
    """

    kept_bytes: int = 1 << 30
    block_bytes: int = 1 << 26
    tile_rows: int = 65_536
    batch: int = 1_024
    threads: int | None = None


@dataclass(frozen=True)
class Stored:
    """Rows as a system stores them, in tiles that hold whole units.

    Attributes:
        units: what is ranked.
        kept: all rows, where they may be kept; else None.
        anew: makes tiles of rows anew, for each pass.
    """

    units: Units
    kept: NDArray[Any] | None
    anew: Callable[[], Iterator[tuple[int, NDArray[Any]]]] = lambda: iter(())

    @classmethod
    def of(cls, fitted: Fitted, rows: EmbeddedRows, units: Units, limits: Limits) -> Stored:
        """What `fitted` stores of `rows`, kept up to `limits.kept_bytes`."""

        def anew() -> Iterator[tuple[int, NDArray[Any]]]:
            for first, tile in rows.tiles(limits.tile_rows):
                stored = fitted.encode_items(tile)
                del tile
                yield first, stored
                del stored

        kept: NDArray[Any] | None = None
        for first, stored in anew():
            if kept is None:
                if stored.nbytes / max(len(stored), 1) * len(rows) > limits.kept_bytes:
                    return cls(units, None, anew)
                kept = np.empty((len(rows), *stored.shape[1:]), stored.dtype)
            kept[first : first + len(stored)] = stored
            del stored
        return cls(units, kept, anew)

    def tiles(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """First and last unit of each tile, and their rows. Only one is in memory at a time if
        the caller lets go of it.

        Tiles end where units do: rows of a unit that goes on are put before the next tile.
        """
        if self.kept is not None:
            yield 0, len(self.units), self.kept
            return
        starts = self.units.starts
        over: NDArray[Any] | None = None
        unit = 0
        for first, stored in self.anew():
            end = first + len(stored)
            if over is not None:
                stored = np.concatenate([over, stored])
            last = int(np.searchsorted(starts, end, "right")) - 1
            complete = int(starts[last] - starts[unit])
            over = stored[complete:].copy() if complete < len(stored) else None
            if last > unit:
                yield unit, last, stored[:complete]
                unit = last
            del stored
