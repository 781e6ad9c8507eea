"""The rows of an archive, and their ids in the store.

Rows are added in runs and rarely move, so a few runs describe ten million rows: the first row
number, the first id in the store, the length. A deletion splits a run. In the worst case (every
second row deleted) a row takes 24 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Int64s = NDArray[np.int64]
_MANY_RUNS = 1_000


@dataclass(frozen=True)
class RowMap:
    """Ascending runs of rows that do not overlap.

    Attributes:
        first: int64 [runs], first row number of each run.
        ids: int64 [runs], the store's id of that row; it counts up within the run.
        lengths: int64 [runs], rows in each run, 1 or more.
    """

    first: Int64s
    ids: Int64s
    lengths: Int64s

    @classmethod
    def of(cls, batches: Iterable[tuple[Int64s, Int64s]]) -> RowMap:
        """The map of rows and their ids, in batches of int64 [n] each, in any order."""
        runs = [_runs(rows, ids) for rows, ids in batches if len(rows)]
        empty = np.empty(0, np.int64)
        first, at, lengths = (
            np.concatenate([run[column] for run in runs] or [empty]) for column in range(3)
        )
        return cls(first, at, lengths)._ordered()

    @classmethod
    def joined(cls, maps: Sequence[RowMap]) -> RowMap:
        """The rows of several maps that have none in common."""
        return cls(
            np.concatenate([one.first for one in maps]),
            np.concatenate([one.ids for one in maps]),
            np.concatenate([one.lengths for one in maps]),
        )._ordered()

    def __len__(self) -> int:
        return int(self._positions[-1])

    @property
    def last(self) -> int:
        """The greatest row number; -1 if there is none."""
        return int(self._end[-1]) - 1 if len(self.first) else -1

    def rows(self) -> Int64s:
        """All row numbers, ascending: int64 [n]."""
        return _counted(self.first, self.lengths)

    def run_between(self, begin: int, end: int) -> tuple[int, Int64s | None]:
        """The rows at positions `begin` to `end`; without an array if they are a run.

        Returns:
            the first row; all rows, int64 [end - begin], or None if they are consecutive.
        """
        start, last = np.searchsorted(self._positions, [begin, end - 1], side="right") - 1
        first = int(self.first[start] + begin - self._positions[start])
        if start == last:
            return first, None
        runs = slice(start, last + 1)
        begins = np.maximum(self._positions[:-1][runs], begin)
        ends = np.minimum(self._positions[1:][runs], end)
        return first, _counted(
            self.first[runs] + begins - self._positions[:-1][runs], ends - begins
        )

    def positions_of(self, rows: Int64s) -> tuple[Int64s, NDArray[np.bool_]]:
        """Positions of rows among all rows.

        Args:
            rows: int64 [k], in any order.

        Returns:
            int64 [k], the position of each; bool [k], whether the row exists.
        """
        run, known = self._run_of(rows)
        return self._positions[run] + rows - self.first[run] if len(self.first) else rows, known

    def ids_of(self, rows: Int64s) -> tuple[Int64s, NDArray[np.bool_]]:
        """The store's ids of rows, int64 [k]; and whether the rows exist, bool [k]."""
        run, known = self._run_of(rows)
        return self.ids[run] + rows - self.first[run] if len(self.first) else rows, known

    def rows_of(self, ids: Int64s) -> Int64s | None:
        """The rows with these ids in the store, ascending.

        Args:
            ids: int64 [k], in any order.

        Returns:
            int64 [k]; None if an id is unknown, since the store has moved rows.
        """
        if not len(ids):
            return ids
        if (ids[:-1] > ids[1:]).any():
            ids = np.sort(ids)
        order, start = self._by_id
        begins = np.searchsorted(ids, start)
        counts = np.diff(np.append(begins, len(ids)))
        hit = np.flatnonzero(counts)
        last = ids[(begins + counts)[hit] - 1]
        if not len(begins) or begins[0] or (last - start[hit] >= self.lengths[order[hit]]).any():
            return None
        shifts = self.first[order] - start
        if len(hit) > _MANY_RUNS:
            rows = ids + np.repeat(shifts, counts)
        else:
            # Without another array of that length: allocating it takes longer than the sums.
            rows = ids.copy()
            for run in hit.tolist():
                rows[begins[run] : begins[run] + counts[run]] += shifts[run]
        if (rows[:-1] > rows[1:]).any():
            rows = np.sort(rows)
        return rows

    def without(self, rows: Int64s) -> RowMap:
        """The map without some rows (int64, ascending), which need not be in it."""
        if not len(rows) or not len(self.first):
            return self
        gone, _, length = _runs(rows, rows)
        return self._minus(gone, gone + length)

    def with_rows(self, rows: Int64s, ids: Int64s) -> RowMap:
        """The map with more rows, or with other ids of known ones."""
        if not len(rows):
            return self
        kept = self.without(np.sort(rows)) if rows.min() <= self.last else self
        first, at, lengths = _runs(rows, ids)
        return RowMap(
            np.concatenate([kept.first, first]),
            np.concatenate([kept.ids, at]),
            np.concatenate([kept.lengths, lengths]),
        )._ordered()

    def missing_from(self, later: RowMap) -> Int64s:
        """Rows of this map that a later map lacks, ascending."""
        return self._minus(later.first, later._end).rows()

    def same_rows(self, other: RowMap) -> bool:
        """Whether the two have the same row numbers, whatever their ids."""
        return len(self) == len(other) and not len(self.missing_from(other))

    @cached_property
    def _end(self) -> Int64s:
        return self.first + self.lengths

    @cached_property
    def _positions(self) -> Int64s:
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    @cached_property
    def _by_id(self) -> tuple[NDArray[np.intp], Int64s]:
        order = np.argsort(self.ids)
        return order, self.ids[order]

    def _run_of(self, rows: Int64s) -> tuple[Int64s, NDArray[np.bool_]]:
        if not len(self.first):
            return np.zeros(len(rows), np.int64), np.zeros(len(rows), dtype=bool)
        run = np.searchsorted(self.first, rows, side="right") - 1
        known = (run >= 0) & (rows < self._end[run])
        return np.maximum(run, 0), known

    def _minus(self, begin: Int64s, end: Int64s) -> RowMap:
        """The map without the rows of some intervals, ascending and not overlapping."""
        cuts = np.unique(np.concatenate([self.first, self._end, begin, end]))
        starts, ends = cuts[:-1], cuts[1:]
        run, inside = self._run_of(starts)
        if len(begin):
            removed = np.searchsorted(begin, starts, side="right") - 1
            inside &= (removed < 0) | (starts >= end[removed])
        run, starts, ends = run[inside], starts[inside], ends[inside]
        ids = self.ids[run] + starts - self.first[run] if len(run) else starts
        return RowMap(starts, ids, ends - starts)._ordered()

    def _ordered(self) -> RowMap:
        """The same rows in the fewest runs."""
        if not len(self.first):
            return self
        first, ids, lengths = self.first, self.ids, self.lengths
        if (first[:-1] > first[1:]).any():
            order = np.argsort(first, kind="stable")
            first, ids, lengths = first[order], ids[order], lengths[order]
        if (first[1:] < (first + lengths)[:-1]).any():
            return _without_doubles(first, ids, lengths)
        goes_on = (first[1:] == (first + lengths)[:-1]) & (ids[1:] == (ids + lengths)[:-1])
        if not goes_on.any():
            return RowMap(first, ids, lengths)
        begins = np.flatnonzero(np.concatenate([[True], ~goes_on]))
        return RowMap(first[begins], ids[begins], np.add.reduceat(lengths, begins))


def _runs(rows: Int64s, ids: Int64s) -> tuple[Int64s, Int64s, Int64s]:
    """Runs in which rows and ids count up together: first rows, first ids, lengths."""
    breaks = (rows[1:] - rows[:-1] != 1) | (ids[1:] - ids[:-1] != 1)
    begins = np.concatenate([[0], np.flatnonzero(breaks) + 1])
    return rows[begins], ids[begins], np.diff(np.append(begins, len(rows)))


def _without_doubles(first: Int64s, ids: Int64s, lengths: Int64s) -> RowMap:
    """The map of a damaged store with duplicate row numbers: one of each."""
    rows, one = np.unique(_counted(first, lengths), return_index=True)
    return RowMap(*_runs(rows, _counted(ids, lengths)[one]))


def _counted(first: Int64s, lengths: Int64s) -> Int64s:
    """`first[i], first[i] + 1, ...` of each run, one after the other."""
    if len(first) == 1:
        return np.arange(first[0], first[0] + lengths[0], dtype=np.int64)
    before = np.cumsum(lengths) - lengths
    return np.repeat(first - before, lengths) + np.arange(int(lengths.sum()), dtype=np.int64)
