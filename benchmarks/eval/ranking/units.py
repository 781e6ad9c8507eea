"""What is ranked (items by their rows, or each row by itself), the settings, and what is stored.

What a system stores is kept in memory where it is small, else computed again tile by tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows
from bittern.benchmarks.eval.measures.base import Ranks
from bittern.benchmarks.eval.systems.base import Fitted
from bittern.benchmarks.eval.tasks import Relevance, Windows
from bittern.errors import InvalidInputError

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
            ranks, grades, relevant = first[relevance.items], relevance.grades, relevance.counts
            ideal = grades
        else:
            low = first[relevance.items]
            ranks, _ = ranges(low, low + found)
            grades = np.repeat(relevance.grades, found)
            counted = np.maximum(found, 1)
            relevant = _sums(counted, relevance.offsets)
            ideal = np.repeat(relevance.grades, counted)
        if ideal.min(initial=1) != ideal.max(initial=1):
            ideal = ideal[np.lexsort((-ideal, np.repeat(np.arange(len(relevance)), relevant)))]
        return cls(
            offsets_of(_sums(found, relevance.offsets)),
            ranks,
            grades,
            relevant,
            ideal,
            offsets_of(relevant),
        )

    def __len__(self) -> int:
        return len(self.relevant)

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
        places among `wanted.units`, int64 [f], and whether it is there, bool [f].
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
    """In each of the ranges that `values` is made of (none empty), the place of the first least."""
    least = np.minimum.reduceat(values, begins)
    counts = np.diff(np.append(begins, len(values)))
    ranks = np.flatnonzero(values == np.repeat(least, counts))
    return ranks[np.searchsorted(ranks, begins)]


def _sums(values: Ints, offsets: Ints) -> Ints:
    sums = offsets_of(values)
    return sums[offsets[1:]] - sums[offsets[:-1]]


DEEP = 1_000
"""How deep is ranked where ranking everything would take too long."""
_MOST_COMPARED = 2_000_000_000
"""Distances that are worked out one by one; some minutes on two cores."""
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
class Settings:
    """How items are ranked.

    Attributes:
        windows: an item counts by its nearest row (``max``), by the mean over its rows (``mean``),
            or each row is ranked by itself (``separate``).
        depth: ranks beyond it need not be known; None or 0 for everything.
        candidates: the only items that are ranked for each query, where a benchmark gives them.
            Relevant items that are not among them count as relevant all the same: who counts
            otherwise leaves them out of the relevance.
        rerank: so many of the nearest are ranked anew by float cosine; 0 for none.
        keep: so many of the nearest are told by name; no more than the depth.
        limits: memory and threads.
    """

    windows: Windows = "max"
    depth: int | None = None
    candidates: Relevance | None = None
    rerank: int = 0
    keep: int = 0
    limits: Limits = field(default_factory=Limits)

    @property
    def deep(self) -> int | None:
        """How deep is ranked: no less than is ranked anew; None for everything."""
        return max(self.depth, self.rerank) if self.depth and self.candidates is None else None

    def checked(self) -> Settings:
        """These settings, if they can be used.

        Raises:
            InvalidInputError: a name that there is not, or a number below 0.
        """
        if self.windows not in get_args(Windows):
            raise InvalidInputError(
                f"windows must be one of {', '.join(get_args(Windows))}, not {self.windows!r}",
                field="windows",
            )
        numbers = {"depth": self.depth or 0, "rerank": self.rerank, "keep": self.keep}
        for name, number in numbers.items():
            if number < 0:
                raise InvalidInputError(f"{name} must be 0 or more, not {number}", field=name)
        return self


@dataclass(frozen=True)
class Searched:
    """What is searched, and what is right.

    Attributes:
        rows: the items' embeddings.
        items: how many items there are; those without a row are not ranked.
        relevance: which of them answer which query. Those without a row are never found, but
            count as relevant.
    """

    rows: EmbeddedRows
    items: int
    relevance: Relevance

    def check(self, queries: NDArray[np.float32], candidates: Relevance | None) -> None:
        """Check that all parts are of one size.

        Raises:
            InvalidInputError: they are not, or a query's embedding is not finite.
        """
        for name, pairs in (("relevance", self.relevance), ("candidates", candidates)):
            if pairs is None:
                continue
            if len(pairs) != len(queries):
                raise InvalidInputError(
                    f"{name} is given for {len(pairs)} queries, there are {len(queries)}"
                )
            _check_items(name, pairs.items, self.items)
        _check_items("the embedded rows", self.rows.owners, self.items)
        if queries.ndim != 2 or queries.shape[1] != self.rows.dim:
            raise InvalidInputError(
                f"queries have shape {list(queries.shape)}, the items' embeddings are of "
                f"{self.rows.dim} numbers: use one model for both"
            )
        broken = np.flatnonzero(~np.isfinite(queries).all(axis=1))
        if len(broken):
            raise InvalidInputError(
                f"the embedding of query {broken[0]} holds NaN or infinity; embed it anew, or "
                "leave it out"
            )


@dataclass(frozen=True)
class Ranking:
    """What was found.

    Attributes:
        ranks: where the relevant items stand.
        hits: int64 [q, h], the nearest items in order, -1 where there are no more.
        distances: float64 [q, h], theirs; infinite where there are no more. Of items that were
            ranked anew it is 1 - cosine, of those behind them still the system's.
        rows: int64 [q, h], the observation of each hit that was nearest; -1 where there is none.
        seconds: taken by ranking alone; reading embeddings and storing them is not part of it.
    """

    ranks: Ranks
    hits: NDArray[np.int64]
    distances: NDArray[np.float64]
    rows: NDArray[np.int64]
    seconds: float


def default_depth(queries: int, rows: int, coded: bool) -> int | None:
    """How deep to rank where nobody says: None, everything, while that takes minutes.

    Ranking everything works out each distance of each query; a search of codes to a depth does
    not. Float vectors gain nothing by a depth, as each of their distances is needed in any case.

    Args:
        queries: how many.
        rows: observations that are ranked.
        coded: whether codes are searched.
    """
    return DEEP if coded and queries * rows > _MOST_COMPARED else None


def _check_items(name: str, ranks: NDArray[np.int64], items: int) -> None:
    if len(ranks) and not 0 <= int(ranks.min()) <= int(ranks.max()) < items:
        wrong = int(ranks.min()) if ranks.min() < 0 else int(ranks.max())
        raise InvalidInputError(f"{name}: there is no item {wrong}, only 0 to {items - 1}")


class Clock:
    """Seconds since it was made, without those spent `aside`."""

    def __init__(self) -> None:
        self._begun = perf_counter()
        self._aside = 0.0

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Work that is not counted."""
        begun = perf_counter()
        try:
            yield
        finally:
            self._aside += perf_counter() - begun

    @property
    def seconds(self) -> float:
        """Counted so far."""
        return perf_counter() - self._begun - self._aside


class Stored:
    """Rows as a system stores them, in tiles that hold whole units.

    Args:
        fitted: the system.
        rows: embeddings.
        units: what is ranked.
        limits: what may be kept.
        clock: reading and storing is not counted.

    Attributes:
        kept: all rows, where they may be kept; else None.
    """

    def __init__(
        self, fitted: Fitted, rows: EmbeddedRows, units: Units, limits: Limits, clock: Clock
    ) -> None:
        self._fitted = fitted
        self._rows = rows
        self._units = units
        self._limits = limits
        self._clock = clock
        with clock.aside():
            self.kept = self._all()

    def tiles(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """First and last unit of each tile, and their rows. Only one is in memory at a time if
        the caller lets go of it.
        """
        if self.kept is not None:
            yield 0, len(self._units), self.kept
            return
        anew = self._anew()
        while True:
            with self._clock.aside():
                tile = next(anew, None)
            if tile is None:
                return
            first, last, stored = tile
            del tile
            yield first, last, stored
            del stored

    def _all(self) -> NDArray[Any] | None:
        kept: NDArray[Any] | None = None
        for first, tile in self._rows.tiles(self._limits.tile_rows):
            stored = self._fitted.encode_items(tile)
            del tile
            if kept is None:
                if stored.nbytes / max(len(stored), 1) * len(self._rows) > self._limits.kept_bytes:
                    return None
                kept = np.empty((len(self._rows), *stored.shape[1:]), stored.dtype)
            kept[first : first + len(stored)] = stored
            del stored
        return kept

    def _anew(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Tiles end where units do: rows of a unit that goes on are put before the next tile."""
        starts = self._units.starts
        over: NDArray[Any] | None = None
        unit = 0
        for first, tile in self._rows.tiles(self._limits.tile_rows):
            stored = self._fitted.encode_items(tile)
            end = first + len(tile)
            del tile
            if over is not None:
                stored = np.concatenate([over, stored])
            last = int(np.searchsorted(starts, end, "right")) - 1
            complete = int(starts[last] - starts[unit])
            over = stored[complete:].copy() if complete < len(stored) else None
            if last > unit:
                yield unit, last, stored[:complete]
                unit = last
            del stored
