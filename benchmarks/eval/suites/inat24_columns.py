"""Columns of millions of ids, paths and names, of which few are looked at."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_CHUNK = 1 << 16


class Numbers(Sequence[str]):
    """Numbers as texts, made when they are asked for.

    Args:
        values: int64 [n].
    """

    def __init__(self, values: NDArray[np.int64]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: Any, /) -> Any:
        """One of them, or a list of those in a slice."""
        if isinstance(place, slice):
            return [str(value) for value in self.values[place].tolist()]
        return str(self.values[place])


@dataclass(frozen=True)
class Texts(Sequence[str]):
    """Many texts of which most begin, or are, as others are.

    Attributes:
        starts: the different beginnings.
        start_of: int32 [n], which of them each text begins with.
        rests: a pyarrow array of the n rests; None where there are none.
    """

    starts: Sequence[str]
    start_of: NDArray[np.int32]
    rests: Any = None

    def __len__(self) -> int:
        return len(self.start_of)

    def __getitem__(self, place: Any, /) -> Any:
        """One of them, or a list of those in a slice."""
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        start = self.starts[self.start_of[place]]
        return start if self.rests is None else start + self.rests[int(place)].as_py()

    def only(self, places: NDArray[np.int64]) -> Texts:
        """Some of them."""
        rests = None if self.rests is None else self.rests.take(pa.array(places))
        return replace(self, start_of=self.start_of[places], rests=rests)


@dataclass
class Column:
    """Texts on their way into `Texts`.

    Attributes:
        split: whether they are paths, that begin alike up to the last slash; else they are the same
            as others.
    """

    split: bool
    _numbers: dict[str, int] = field(default_factory=dict)
    _start_of: Any = field(default_factory=lambda: array("i"))
    _chunks: list[Any] = field(default_factory=list)
    _rests: list[str] = field(default_factory=list)

    def add(self, value: str) -> None:
        """Take one more."""
        folder, slash, rest = value.rpartition("/") if self.split else (value, "", "")
        self._start_of.append(self._numbers.setdefault(folder + slash, len(self._numbers)))
        if self.split:
            self._rests.append(rest)
            if len(self._rests) == _CHUNK:
                self._pack()

    def _pack(self) -> None:
        self._chunks.append(pa.array(self._rests, pa.string()))
        self._rests = []

    def texts(self) -> Texts:
        """All of them, once nothing more is taken."""
        starts = np.frombuffer(self._start_of, np.intc).astype(np.int32)
        if not self.split:
            return Texts(list(self._numbers), starts)
        self._pack()
        rests = pa.chunked_array(self._chunks).cast(pa.large_string()).combine_chunks()
        return Texts(list(self._numbers), starts, rests)


def places_of(ids: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places of ids among unique known ones, int64; -1 for those that are not among them."""
    if not len(known):
        return np.full(len(ids), -1, np.int64)
    order = np.argsort(known, kind="stable")
    nearest = np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)
    found = order[nearest]
    return np.where(known[found] == ids, found, -1)
