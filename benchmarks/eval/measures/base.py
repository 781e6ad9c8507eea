"""What a measure is: a name, a cutoff, and a value per query for each way to treat ties.

A ranking orders items by (distance, row). Items at the same distance form a group; how a group
is ordered inside says nothing about the system. So for each relevant item, `Ranks` holds its rank,
how many items are nearer, and how many are as near. Measures need nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError


@dataclass(frozen=True)
class Ranks:
    """Of q queries, as compressed sparse rows of those relevant items that are placed.

    Attributes:
        offsets: int64 [q + 1]; entries of query i are at offsets[i]:offsets[i + 1], in order of
            rank.
        rank: int64, from 1, in the order (distance, row).
        nearer: int64, how many items are strictly nearer.
        tied: int64, how many items are at this distance, itself included.
        grades: int32, at least 1.
        relevant: int64 [q], relevant items of the query, placed or not; at least 1.
        ideal: grades of all relevant items of the query, descending, as int32 CSR over
            `ideal_offsets`.
        ideal_offsets: int64 [q + 1].
        ranked: int64 [q], how many items are ranked in all.
        depth: ranks beyond it are unknown, None where everything is ranked. A group that begins at
            rank `depth` or above is placed whole, all of its relevant items.
        within: int64 [q, 2], items and relevant items within Hamming radius 2; None where the
            distance is no Hamming distance.
    """

    offsets: NDArray[np.int64]
    rank: NDArray[np.int64]
    nearer: NDArray[np.int64]
    tied: NDArray[np.int64]
    grades: NDArray[np.int32]
    relevant: NDArray[np.int64]
    ideal: NDArray[np.int32]
    ideal_offsets: NDArray[np.int64]
    ranked: NDArray[np.int64]
    depth: int | None = None
    within: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.relevant)

    @property
    def queries(self) -> NDArray[np.int64]:
        """int64, the query that each entry belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Tie = Literal["ranked", "expected", "best", "worst"]


@dataclass(frozen=True)
class Groups:
    """Groups with at least one relevant item, in order of (query, distance).

    Attributes:
        query: int64 [m].
        nearer: int64 [m], items that are strictly nearer than the group.
        tied: int64 [m], items in it.
        hits: int64 [m], relevant ones in it, at least 1.
        before: int64 [m], relevant items that are strictly nearer.
        gain: float64 [m], sum of the grades in it.
    """

    query: Ints
    nearer: Ints
    tied: Ints
    hits: Ints
    before: Ints
    gain: Floats

    def slots(self, limit: Ints) -> Ints:
        """int64 [m], positions of each group at ranks up to `limit` (int64 [q]) of its query."""
        slots: Ints = np.clip(limit[self.query] - self.nearer, 0, self.tied)
        return slots


@dataclass(frozen=True)
class Order:
    """The relevant items in one order of the ties, query by query, by rank.

    Attributes:
        query: int64 [e].
        rank: int64 [e], from 1.
        nth: int64 [e], which relevant item of its query, from 1.
        grades: int32 [e].
    """

    query: Ints
    rank: Ints
    nth: Ints
    grades: NDArray[np.int32]


def groups_of(ranks: Ranks) -> Groups:
    """Groups of equal distance."""
    query = ranks.queries
    starts = _starts(query, ranks.nearer)
    ends = np.append(starts[1:], len(query))
    gain = np.concatenate([[0], np.cumsum(ranks.grades, dtype=np.int64)])
    query = query[starts]
    return Groups(
        query=query,
        nearer=ranks.nearer[starts],
        tied=ranks.tied[starts],
        hits=ends - starts,
        before=starts - ranks.offsets[query],
        gain=(gain[ends] - gain[starts]).astype(np.float64),
    )


def order_of(ranks: Ranks, tie: Literal["ranked", "best", "worst"]) -> Order:
    """The product's order, or relevant items first (best) or last (worst) among equals.

    Among relevant ones the higher grade is first in the best order and last in the worst.
    """
    query = ranks.queries
    nth = np.arange(1, len(query) + 1) - ranks.offsets[query]
    if tie == "ranked":
        return Order(query, ranks.rank, nth, ranks.grades)
    starts = _starts(query, ranks.nearer)
    hits = np.diff(np.append(starts, len(query)))
    group = np.repeat(np.arange(len(starts)), hits)
    ahead = np.arange(len(query)) - starts[group]
    if tie == "best":
        rank = ranks.nearer + 1 + ahead
        grades = ranks.grades[np.lexsort((-ranks.grades, group))]
    else:
        rank = ranks.nearer + ranks.tied - hits[group] + 1 + ahead
        grades = ranks.grades[np.lexsort((ranks.grades, group))]
    return Order(query, rank, nth, grades)


def per_query(ranks: Ranks, query: Ints, values: NDArray[Any]) -> Floats:
    """float64 [q], sums of `values` over the queries that they belong to."""
    return np.bincount(query, weights=values, minlength=len(ranks)).astype(np.float64)


def _starts(query: Ints, nearer: Ints) -> Ints:
    """Entries at which a group begins."""
    if not len(query):
        return np.empty(0, np.int64)
    new = (query[1:] != query[:-1]) | (nearer[1:] != nearer[:-1])
    return np.concatenate([[0], np.flatnonzero(new) + 1]).astype(np.int64)


Cut = Literal["always", "optional", "never"]


@dataclass(frozen=True)
class Measure(ABC):
    """A retrieval measure.

    Attributes:
        cutoff: only ranks up to it count; None where the measure has none. Where the ranking is
            known to a depth only, a measure without cutoff is cut at that depth.
        stem: its name without the cutoff.
        about: what it is, in one line.
        citation: where it is defined.
        cut: whether it has a cutoff: ``always``, ``optional`` or ``never``.
    """

    cutoff: int | None = None

    stem: ClassVar[str]
    about: ClassVar[str]
    citation: ClassVar[str]
    cut: ClassVar[Cut]

    @property
    def name(self) -> str:
        """E.g. ``AP_minR@50``."""
        return self.stem if self.cutoff is None else f"{self.stem}@{self.cutoff}"

    def of(self, ranks: Ranks, tie: Tie) -> Floats:
        """Its value for each query.

        Args:
            ranks: where the relevant items stand.
            tie: ``ranked``, the order (distance, row); ``expected``, the mean over uniformly
                random orders inside every group of equal distance; ``best`` and ``worst``, the
                extremes over those orders, query by query.

        Returns:
            float64 [q].

        Raises:
            InvalidInputError: the cutoff is beyond the depth to which ranks are known, or `tie`
                is something else.
        """
        limit = self._limit(ranks)
        if tie == "expected":
            return self._expected(ranks, groups_of(ranks), limit)
        if tie == "ranked":
            return self._in_order(ranks, order_of(ranks, tie), limit)
        if tie in ("best", "worst"):
            return self._extreme(ranks, limit, tie)
        raise InvalidInputError(f"no such way to treat ties: {tie!r}; one of {get_args(Tie)}")

    @abstractmethod
    def _in_order(self, ranks: Ranks, order: Order, limit: Ints) -> Floats:
        """Its value in one order of the ties."""

    @abstractmethod
    def _expected(self, ranks: Ranks, groups: Groups, limit: Ints) -> Floats:
        """Its mean over random orders of the ties."""

    def _extreme(self, ranks: Ranks, limit: Ints, tie: Literal["best", "worst"]) -> Floats:
        """Its maximum or minimum; here for measures that only gain when a hit moves up."""
        return self._in_order(ranks, order_of(ranks, tie), limit)

    def _limit(self, ranks: Ranks) -> Ints:
        """int64 [q], the last rank that counts."""
        limit = ranks.ranked
        depth = ranks.depth
        if depth is not None and (limit > depth).any():
            if self.cutoff is not None and self.cutoff > depth:
                raise InvalidInputError(
                    f"{self.name} looks at {self.cutoff} ranks, and only {depth} are known: rank "
                    f"deeper, or ask for {self.stem}@{depth}"
                )
            limit = np.minimum(limit, depth)
        return limit if self.cutoff is None else np.minimum(limit, self.cutoff)
