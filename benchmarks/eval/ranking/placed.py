"""Where relevant units stand, while it is being found out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.places import Places
from bittern.benchmarks.eval.ranking.units import Ints, Wanted, offsets_of


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
class Placed:
    """Relevant units that are placed, in any order, and the nearest of all units.

    Attributes:
        queries: int64 [e].
        units: int64 [e].
        grades: int32 [e].
        nearer: int64 [e], units that are strictly nearer.
        before: int64 [e], units that are as near, and come before it.
        tied: int64 [e], units that are as near, itself included.
        nearest: of each query.
        within: see `Places.within`.
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
    def ranks(self) -> Ints:
        """int64 [e], from 1."""
        return self.nearer + self.before + 1

    def to_depth(self, depth: int) -> Placed:
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

    def places(self, wanted: Wanted, ranked: Ints, depth: int | None) -> Places:
        """As measures take them."""
        ranks = self.ranks
        order = np.lexsort((ranks, self.queries))
        return Places(
            offsets=offsets_of(np.bincount(self.queries, minlength=len(wanted))),
            ranks=ranks[order],
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


def joined(parts: list[Placed], numbers: list[Ints]) -> Placed:
    """Several parts of the queries as one; of a query that is in several the last holds.

    Args:
        parts: at least one.
        numbers: of each part's queries, int64.
    """
    if len(parts) == 1:
        return parts[0]
    count = 1 + max(int(part.max(initial=-1)) for part in numbers)
    holds = np.full(count, -1)
    nearest = Nearest.none(count, max(part.nearest.units.shape[1] for part in parts))
    within = None if parts[0].within is None else np.zeros((count, 2), np.int64)
    for place, (part, own) in enumerate(zip(parts, numbers, strict=True)):
        holds[own] = place
        nearest.put(own, part.nearest)
        if within is not None:
            assert part.within is not None
            within[own] = part.within
    queries = [own[part.queries] for part, own in zip(parts, numbers, strict=True)]
    once = sum(len(own) for own in numbers) == count
    kept = [slice(None) if once else holds[of] == place for place, of in enumerate(queries)]

    def all_of(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate([array[k] for array, k in zip(arrays, kept, strict=True)])

    return Placed(
        all_of(queries),
        all_of(part.units for part in parts),
        all_of(part.grades for part in parts),
        all_of(part.nearer for part in parts),
        all_of(part.before for part in parts),
        all_of(part.tied for part in parts),
        nearest,
        within,
    )
