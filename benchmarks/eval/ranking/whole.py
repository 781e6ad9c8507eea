"""Everything is ranked, exactly, in bounded memory.

The stored rows are read in tiles. First the distances of the relevant units are noted, then each
tile counts how many of its units are nearer, or as near; counts of tiles add up. Where all stored
rows fit into memory they are one tile, and both are done at once. Whole numbers are counted, other
distances sorted; both give the same.
"""

from __future__ import annotations

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
    Units,
    Wanted,
    offsets_of,
)
from bittern.benchmarks.eval.systems.base import Fitted, Metric
from bittern.errors import InvalidInputError
from bittern.index.engines.threads import for_each, usable_cores

_COUNTABLE = 1 << 16
"""Whole numbers below it are counted, and sorted by radix."""


ENTRY = np.dtype(
    [
        ("query", np.int64),
        ("unit", np.int64),
        ("grade", np.int32),
        ("nearer", np.int64),
        ("before", np.int64),
        ("tied", np.int64),
    ]
)
"""A ranked relevant unit of a query: its grade, how many units are strictly nearer, how many are as
near and come before it, and how many are as near, itself included.
"""
NEAREST = np.dtype([("unit", np.int64), ("distance", np.float64), ("row", np.int64)])
"""One of the nearest units of a query: its distance, and the nearest of its rows."""


def no_nearest(queries: int, depth: int) -> NDArray[np.void]:
    """`NEAREST` [queries, depth] with no unit (-1) at an infinite distance."""
    return np.full((queries, depth), np.array((-1, np.inf, -1), NEAREST))


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

    def counts(self, units: Ints, values: NDArray[np.float64]) -> tuple[Ints, Ints, Ints]:
        """For wanted units, ascending, at these distances: what the tile adds to ``nearer``,
        ``before`` and ``tied`` of `ENTRY`.
        """
        nearer = self.up_to(values, strictly=True)
        tied = self.up_to(values, strictly=False) - nearer
        last = self.first + len(self.distances)
        before = np.where(units >= last, tied, 0)
        doubtful = np.flatnonzero((units >= self.first) & (units < last) & (tied > 1))
        if len(doubtful):
            before[doubtful] = self._among_equals(units[doubtful] - self.first)
        return nearer, before, tied

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


def entries_of(nearest: NDArray[np.void], offsets: Ints) -> NDArray[np.void]:
    """Where each unit of whole lists, sorted by distance, stands in its list.

    Args:
        nearest: `NEAREST` [f].
        offsets: int64 [q + 1]; the list of query i is at offsets[i]:offsets[i + 1].

    Returns:
        `ENTRY` [f], without grades.
    """
    found = np.zeros(len(nearest), ENTRY)
    distances = nearest["distance"]
    begins = np.ones(len(found), dtype=bool)
    begins[1:] = distances[1:] != distances[:-1]
    begins[offsets[:-1][offsets[:-1] < len(found)]] = True
    runs = np.append(np.flatnonzero(begins), len(found))
    run = np.cumsum(begins) - 1
    counts = np.diff(offsets)
    found["query"] = np.repeat(np.arange(len(counts)), counts)
    found["unit"] = nearest["unit"]
    found["nearer"] = runs[run] - np.repeat(offsets[:-1], counts)
    found["before"] = np.arange(len(found)) - runs[run]
    found["tied"] = np.diff(runs)[run]
    return found


@dataclass(frozen=True)
class Entries:
    """Ranked relevant units, in any order, and the nearest of all units.

    Attributes:
        relevant: `ENTRY` [e].
        nearest: `NEAREST` [q, h], of each query in order.
        within: see `Ranks.within`.
    """

    relevant: NDArray[np.void]
    nearest: NDArray[np.void]
    within: Ints | None

    @property
    def rank(self) -> Ints:
        """int64 [e], from 1."""
        rank: Ints = self.relevant["nearer"] + self.relevant["before"] + 1
        return rank

    def to_depth(self, depth: int) -> Entries:
        """Only the groups that begin at rank `depth` or above."""
        kept = self.relevant[self.relevant["nearer"] < depth]
        return Entries(kept, self.nearest[:, :depth], self.within)

    def ranks(self, wanted: Wanted, ranked: Ints, depth: int | None) -> Ranks:
        """As measures take them."""
        rank = self.rank
        order = np.lexsort((rank, self.relevant["query"]))
        entries = self.relevant[order]
        return Ranks(
            offsets=offsets_of(np.bincount(entries["query"], minlength=len(wanted))),
            rank=rank[order],
            nearer=entries["nearer"],
            tied=entries["tied"],
            grades=entries["grade"],
            relevant=wanted.relevant,
            ideal=wanted.ideal,
            ideal_offsets=wanted.ideal_offsets,
            ranked=ranked,
            depth=depth,
            within=self.within,
        )


def joined(subsets: list[Entries], numbers: list[Ints]) -> Entries:
    """Subsets of the queries as one; of a query that is in several the last counts.

    Args:
        subsets: at least one.
        numbers: of each subset's queries, int64.
    """
    count = 1 + max(int(subset.max(initial=-1)) for subset in numbers)
    holds = np.full(count, -1)
    nearest = no_nearest(count, max(subset.nearest.shape[1] for subset in subsets))
    within = None if subsets[0].within is None else np.zeros((count, 2), np.int64)
    relevant = []
    for position, (subset, own) in enumerate(zip(subsets, numbers, strict=True)):
        holds[own] = position
        nearest[own] = subset.nearest
        if within is not None:
            assert subset.within is not None
            within[own] = subset.within
    for position, (subset, own) in enumerate(zip(subsets, numbers, strict=True)):
        entries = subset.relevant.copy()
        entries["query"] = own[entries["query"]]
        relevant.append(entries[holds[entries["query"]] == position])
    return Entries(np.concatenate(relevant), nearest, within)


_MOST_QUERIES = 64
"""Searched together; tables of asymmetric distances take 64 KiB for each query at 256 bits."""


@dataclass(frozen=True)
class Search:
    """Queries to a system, and what is searched for.

    Attributes:
        fitted: the system.
        queries: float32 [q, dim].
        metric: the distance.
        units: what is ranked.
        wanted: what is relevant.
        keep: so many of the nearest are kept.
        limits: memory and threads.
    """

    fitted: Fitted
    queries: NDArray[np.float32]
    metric: Metric
    units: Units
    wanted: Wanted
    keep: int
    limits: Limits

    def __len__(self) -> int:
        return len(self.queries)

    def subset(self, queries: Ints) -> Search:
        """Some of the queries, numbered anew."""
        return replace(self, queries=self.queries[queries], wanted=self.wanted.subset(queries))

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
        stored: what the system stores of the units.
    """

    def __init__(self, search: Search, stored: Stored) -> None:
        units, wanted = search.units, search.wanted
        self._search = search
        self._stored = stored
        self._values = np.full(len(wanted.units), np.inf)
        self._entries = np.zeros(len(wanted.units), ENTRY)
        self._entries["query"], self._entries["unit"] = wanted.queries, wanted.units
        self._entries["grade"] = wanted.grades
        self._nearest = no_nearest(len(search), min(search.keep, len(units)))
        hamming = search.metric == "symmetric" and (units.single or not units.mean)
        self._within = np.zeros((len(search), 2), np.int64) if hamming else None

    def entries(self) -> Entries:
        """Rank."""
        if self._stored.kept is None:
            self._pass(note=True, count=False)
            self._pass(note=False, count=True)
        else:
            self._pass(note=True, count=True)
        return Entries(self._entries, self._nearest, self._within)

    def _pass(self, note: bool, count: bool) -> None:
        threads = self._search.limits.threads or usable_cores()
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
        distances = self._search.units.reduced(rows, first, last)
        for query in range(*queries):
            found = distances[query - queries[0]]
            if note:
                self._note(query, found, first)
            if count:
                self._count(query, Tile(found, first), rows[query - queries[0]])

    def _blocks(self, rows: int, threads: int) -> list[tuple[int, int]]:
        """Queries that are searched together, first and last."""
        queries = len(self._search)
        size = max(1, self._search.limits.block_bytes // (8 * max(rows, 1)))
        size = min(size, _MOST_QUERIES, max(1, -(-queries // threads)))
        return [(begin, min(begin + size, queries)) for begin in range(0, queries, size)]

    def _note(self, query: int, distances: NDArray[Any], first: int) -> None:
        """Note the distances of relevant units of a tile."""
        own = self._search.wanted.of_query(query)
        units = self._entries["unit"][own]
        low, high = np.searchsorted(units, [first, first + len(distances)])
        self._values[own][low:high] = distances[units[low:high] - first]

    def _count(self, query: int, tile: Tile, rows: NDArray[Any]) -> None:
        own = self._search.wanted.of_query(query)
        values, entries = self._values[own], self._entries[own]
        nearer, before, tied = tile.counts(entries["unit"], values)
        entries["nearer"] += nearer
        entries["before"] += before
        entries["tied"] += tied
        if self._within is not None:
            self._within[query, 0] += tile.up_to(np.array([RADIUS]), strictly=False)[0]
            self._within[query, 1] = np.count_nonzero(values <= RADIUS)
        if self._nearest.shape[1]:
            self._keep(self._nearest[query], tile, rows)

    def _keep(self, known: NDArray[np.void], tile: Tile, rows: NDArray[Any]) -> None:
        """Keep the nearest of this tile and those before."""
        # A unit of a later tile comes after its equals.
        chosen = tile.nearest(len(known), below=float(known["distance"][-1]))
        if not len(chosen):
            return
        more = np.empty(len(chosen), NEAREST)
        more["unit"] = chosen + tile.first
        more["distance"] = tile.distances[chosen]
        first_row = int(self._search.units.starts[tile.first])
        more["row"] = self._search.units.nearest_rows(more["unit"], rows, first_row)
        both = np.concatenate([known, more])
        known[:] = both[np.argsort(both["distance"], kind="stable")[: len(known)]]
