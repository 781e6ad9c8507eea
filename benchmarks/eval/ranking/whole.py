"""Everything is ranked, exactly, in bounded memory.

The stored rows are read in tiles. First the distances of the relevant units are noted, then each
tile counts how many of its units are nearer, or as near; counts of tiles add up. Where all stored
rows fit into memory they are one tile, and both are done at once. Whole numbers are counted, other
distances sorted; both give the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.measures.ranks import Ranks
from bittern.benchmarks.eval.ranking.units import (
    RADIUS,
    Ints,
    Limits,
    Stored,
    Wanted,
    offsets_of,
)
from bittern.benchmarks.eval.systems.base import Fitted, Metric
from bittern.errors import InvalidInputError
from bittern.index.engines.threads import for_each, usable_cores

_COUNTABLE = 1 << 16
"""Whole numbers below it are counted, and sorted by radix."""


@dataclass(frozen=True)
class Standing:
    """Of wanted units, what one tile adds: see `Entries`."""

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

    def _among_equals(self, ranks: Ints) -> Ints:
        """How many before each of these positions have the same distance."""
        wanted = self.distances[ranks]
        if self.ends is not None:
            queries = np.zeros(len(self.ends), dtype=bool)
            queries[wanted] = True
            members = np.flatnonzero(queries[self.distances])
        else:
            values = np.unique(wanted)
            at = np.minimum(np.searchsorted(values, self.distances), len(values) - 1)
            members = np.flatnonzero(values[at] == self.distances)
        theirs = self._sortable(self.distances[members])
        order = np.argsort(theirs, kind="stable")
        stands = np.empty(len(order), dtype=np.int64)
        stands[order] = np.arange(len(order))
        begins = np.searchsorted(theirs[order], self._sortable(wanted), "left")
        return stands[np.searchsorted(members, ranks)] - begins

    def nearest(self, count: int, below: float = np.inf) -> Ints:
        """The `count` nearest that are nearer than `below`, in order: positions in the tile."""
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


@dataclass(frozen=True)
class Nearest:
    """The nearest units of each query, in order.

    Attributes:
        units: int64 [q, h]; -1 where there are no more.
        distances: float64 [q, h]; infinite there.
        rows: int64 [q, h], the nearest row of each; -1 there.
    """

    units: Ints
    distances: NDArray[np.float64]
    rows: Ints

    @classmethod
    def none(cls, queries: int, depth: int) -> Nearest:
        """Nothing yet."""
        shape = (queries, depth)
        return cls(
            np.full(shape, -1, np.int64), np.full(shape, np.inf), np.full(shape, -1, np.int64)
        )

    def put(self, queries: Ints, others: Nearest) -> None:
        """Set the lists of some queries."""
        self.units[queries] = others.units
        self.distances[queries] = others.distances
        self.rows[queries] = others.rows

    def first(self, depth: int) -> Nearest:
        """The first `depth` of each list."""
        return Nearest(self.units[:, :depth], self.distances[:, :depth], self.rows[:, :depth])


@dataclass(frozen=True)
class Entries:
    """Ranked relevant units, in any order, and the nearest of all units.

    Attributes:
        queries: int64 [e].
        units: int64 [e].
        grades: int32 [e].
        nearer: int64 [e], units that are strictly nearer.
        before: int64 [e], units that are as near, and come before it.
        tied: int64 [e], units that are as near, itself included.
        nearest: of each query.
        within: see `Ranks.within`.
    """

    queries: Ints
    units: Ints
    grades: NDArray[np.int32]
    nearer: Ints
    before: Ints
    tied: Ints
    nearest: Nearest
    within: Ints | None

    @property
    def rank(self) -> Ints:
        """int64 [e], from 1."""
        return self.nearer + self.before + 1

    def to_depth(self, depth: int) -> Entries:
        """Only the groups that begin at rank `depth` or above."""
        kept = self.nearer < depth
        if kept.all():
            return replace(self, nearest=self.nearest.first(depth))
        return replace(
            self,
            queries=self.queries[kept],
            units=self.units[kept],
            grades=self.grades[kept],
            nearer=self.nearer[kept],
            before=self.before[kept],
            tied=self.tied[kept],
            nearest=self.nearest.first(depth),
        )

    def ranks(self, wanted: Wanted, ranked: Ints, depth: int | None) -> Ranks:
        """As measures take them."""
        rank = self.rank
        order = np.lexsort((rank, self.queries))
        return Ranks(
            offsets=offsets_of(np.bincount(self.queries, minlength=len(wanted))),
            rank=rank[order],
            nearer=self.nearer[order],
            tied=self.tied[order],
            grades=self.grades[order],
            relevant=wanted.relevant,
            ideal=wanted.ideal,
            ideal_offsets=wanted.ideal_offsets,
            ranked=ranked,
            depth=depth,
            within=self.within,
        )


def joined(subsets: list[Entries], numbers: list[Ints]) -> Entries:
    """Several parts of the queries as one; of a query that is in several the last counts.

    Args:
        subsets: at least one.
        numbers: of each part's queries, int64.
    """
    if len(subsets) == 1:
        return subsets[0]
    count = 1 + max(int(subset.max(initial=-1)) for subset in numbers)
    holds = np.full(count, -1)
    nearest = Nearest.none(count, max(subset.nearest.units.shape[1] for subset in subsets))
    within = None if subsets[0].within is None else np.zeros((count, 2), np.int64)
    for position, (subset, own) in enumerate(zip(subsets, numbers, strict=True)):
        holds[own] = position
        nearest.put(own, subset.nearest)
        if within is not None:
            assert subset.within is not None
            within[own] = subset.within
    queries = [own[subset.queries] for subset, own in zip(subsets, numbers, strict=True)]
    once = sum(len(own) for own in numbers) == count
    kept = [slice(None) if once else holds[of] == position for position, of in enumerate(queries)]

    def all_of(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([array[k] for array, k in zip(arrays, kept, strict=True)])

    return Entries(
        all_of(queries),
        all_of(subset.units for subset in subsets),
        all_of(subset.grades for subset in subsets),
        all_of(subset.nearer for subset in subsets),
        all_of(subset.before for subset in subsets),
        all_of(subset.tied for subset in subsets),
        nearest,
        within,
    )


_MOST_QUERIES = 64
"""Searched together; tables of asymmetric distances take 64 KiB for each query at 256 bits."""


@dataclass(frozen=True)
class Search:
    """Queries to a system, and by which distance.

    Attributes:
        fitted: the system.
        queries: float32 [q, dim].
        metric: the distance.
    """

    fitted: Fitted
    queries: NDArray[np.float32]
    metric: Metric

    def subset(self, queries: Ints) -> Search:
        """Some of the queries."""
        return Search(self.fitted, self.queries[queries], self.metric)

    def distances(self, first: int, last: int, stored: NDArray[Any]) -> NDArray[Any]:
        """Of some queries to stored rows, [last - first, n].

        Raises:
            InvalidInputError: one is not finite.
        """
        queries = self.fitted.encode_queries(self.queries[first:last], self.metric)
        found = self.fitted.distances(queries, stored, 0, last - first)
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            query = first + int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
            raise InvalidInputError(
                f"query {query} has {self.metric} distances that are NaN or infinite; look for "
                "embeddings of items, or parameters, that are not finite"
            )
        return found


class Whole:
    """Ranks everything.

    Args:
        search: the queries.
        stored: what is ranked.
        wanted: what is relevant.
        keep: so many of the nearest are kept.
        limits: memory and threads.
    """

    def __init__(
        self,
        search: Search,
        stored: Stored,
        wanted: Wanted,
        keep: int,
        limits: Limits,
    ) -> None:
        units = stored.units
        self._search = search
        self._stored = stored
        self._units = units
        self._wanted = wanted
        self._limits = limits
        entries = len(wanted.units)
        self._values = np.full(entries, np.inf)
        self._nearer = np.zeros(entries, np.int64)
        self._before = np.zeros(entries, np.int64)
        self._tied = np.zeros(entries, np.int64)
        self._nearest = Nearest.none(len(wanted), min(keep, len(units)))
        hamming = search.metric == "symmetric" and (units.single or not units.mean)
        self._within = np.zeros((len(wanted), 2), np.int64) if hamming else None

    def entries(self) -> Entries:
        """Rank."""
        if self._stored.kept is None:
            self._pass(note=True, count=False)
            self._pass(note=False, count=True)
        else:
            self._pass(note=True, count=True)
        return Entries(
            self._wanted.queries,
            self._wanted.units,
            self._wanted.grades,
            self._nearer,
            self._before,
            self._tied,
            self._nearest,
            self._within,
        )

    def _pass(self, note: bool, count: bool) -> None:
        threads = self._limits.threads or usable_cores()
        for first, last, stored in self._stored.tiles():
            blocks = self._blocks(len(stored), threads)
            # Held here alone: a thread may let go of its work late.
            held = [stored]
            del stored
            for_each(partial(self._block, held, first, last, note, count), blocks, threads)
            held.clear()

    def _block(
        self,
        held: list[NDArray[Any]],
        first: int,
        last: int,
        note: bool,
        count: bool,
        queries: tuple[int, int],
    ) -> None:
        """Some queries in the tile of units `first` to `last - 1`."""
        rows = self._search.distances(*queries, held[0])
        distances = self._units.reduced(rows, first, last)
        for query in range(*queries):
            found = distances[query - queries[0]]
            if note:
                self._note(query, found, first)
            if count:
                self._count(query, Tile(found, first), rows[query - queries[0]])

    def _blocks(self, rows: int, threads: int) -> list[tuple[int, int]]:
        """Queries that are searched together, first and last."""
        queries = len(self._wanted)
        size = max(1, self._limits.block_bytes // (8 * max(rows, 1)))
        size = min(size, _MOST_QUERIES, max(1, -(-queries // threads)))
        return [(begin, min(begin + size, queries)) for begin in range(0, queries, size)]

    def _note(self, query: int, distances: NDArray[Any], first: int) -> None:
        """Note the distances of relevant units of a tile."""
        begin, end = self._wanted.offsets[query : query + 2]
        units = self._wanted.units[begin:end]
        low, high = np.searchsorted(units, [first, first + len(distances)])
        self._values[begin + low : begin + high] = distances[units[low:high] - first]

    def _count(self, query: int, tile: Tile, rows: NDArray[Any]) -> None:
        begin, end = self._wanted.offsets[query : query + 2]
        values = self._values[begin:end]
        standing = tile.standing(self._wanted.units[begin:end], values)
        self._nearer[begin:end] += standing.nearer
        self._before[begin:end] += standing.before
        self._tied[begin:end] += standing.tied
        if self._within is not None:
            self._within[query, 0] += tile.up_to(np.array([RADIUS]), strictly=False)[0]
            self._within[query, 1] = np.count_nonzero(values <= RADIUS)
        if self._nearest.units.shape[1]:
            self._keep(query, tile, rows)

    def _keep(self, query: int, tile: Tile, rows: NDArray[Any]) -> None:
        """Keep the nearest of this tile and those before."""
        known = self._nearest
        depth = known.units.shape[1]
        # A unit of a later tile comes after its equals.
        chosen = tile.nearest(depth, below=float(known.distances[query, -1]))
        if not len(chosen):
            return
        units = chosen + tile.first
        first_row = int(self._units.starts[tile.first])
        distances = np.concatenate([known.distances[query], tile.distances[chosen]])
        order = np.argsort(distances, kind="stable")[:depth]
        nearest = self._units.nearest_rows(units, rows, first_row)
        known.distances[query] = distances[order]
        known.units[query] = np.concatenate([known.units[query], units])[order]
        known.rows[query] = np.concatenate([known.rows[query], nearest])[order]
