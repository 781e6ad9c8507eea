"""Row numbers: of a block of codes, and of what a search may find."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DENSE = 8
"""A look-up table over the span of the rows is worth it up to so many numbers per row."""


class RowNumbers:
    """Strictly ascending row numbers; a run without gaps takes no memory.

    Args:
        rows: int64 [n], strictly ascending.
    """

    __slots__ = ("_array", "_count", "_first")

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self._count = len(rows)
        self._first = int(rows[0]) if self._count else 0
        self._array: NDArray[np.int64] | None = None
        if self._count and int(rows[-1]) - self._first + 1 != self._count:
            self._array = np.ascontiguousarray(rows, dtype=np.int64).view()
            self._array.flags.writeable = False

    @classmethod
    def run(cls, first: int, count: int) -> RowNumbers:
        """The rows `first`, `first + 1`, ... without an array of them."""
        made = cls(np.empty(0, np.int64))
        made._first, made._count = first, count
        return made

    def __len__(self) -> int:
        return self._count

    @property
    def first(self) -> int:
        """The least row number; 0 where there is none."""
        return self._first

    @property
    def last(self) -> int:
        """The greatest row number; -1 where there is none."""
        if not self._count:
            return -1
        return self._first + self._count - 1 if self._array is None else int(self._array[-1])

    @property
    def nbytes(self) -> int:
        """Bytes that the numbers take."""
        return 0 if self._array is None else self._array.nbytes

    def array(self) -> NDArray[np.int64]:
        """The numbers: int64 [n]."""
        if self._array is not None:
            return self._array
        return np.arange(self._first, self._first + self._count, dtype=np.int64)

    def at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers at some places."""
        rows: NDArray[np.int64] = (
            places + self._first if self._array is None else self._array[places]
        )
        return rows

    def places_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of those of `rows` (int64, ascending) that are here, ascending."""
        begin, end = np.searchsorted(rows, [self.first, self.last + 1])
        within = rows[begin:end]
        if self._array is None or not len(within):
            return within - self._first
        if self.last - self._first < _DENSE * self._count < _DENSE * _DENSE * len(within):
            wanted = np.zeros(self.last - self._first + 1, dtype=bool)
            wanted[within - self._first] = True
            return np.flatnonzero(wanted[self._array - self._first])
        places = np.searchsorted(self._array, within)
        return np.asarray(places[self._array[places] == within], dtype=np.int64)


class RowSet:
    """The rows that a search may find, such as those that meet a condition.

    What an engine works out for them (which places of which block) is kept as long as
    both live, so that a condition that is asked for again costs nothing again.

    Args:
        rows: int64 [n], strictly ascending.
    """

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self.rows = np.ascontiguousarray(rows, dtype=np.int64).view()
        self.rows.flags.writeable = False
        self.known: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def __len__(self) -> int:
        return len(self.rows)
