"""Where relevant items stand in a ranking: all that a measure needs.

A ranking orders items by (distance, row). Items at the same distance form a group; how a group
is ordered inside says nothing about the system. So for each relevant item, `Ranks` holds its rank,
how many items are nearer, and how many are as near.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

Tie = Literal["ranked", "expected", "best", "worst"]
TIES: tuple[Tie, ...] = get_args(Tie)
"""The product's order (distance, row); the mean over random orders of ties; the extremes."""


@dataclass(frozen=True)
class Ranks:
    """Of q queries, as compressed sparse rows of those relevant items that are ranked.

    Attributes:
        offsets: int64 [q + 1]; entries of query i are at offsets[i]:offsets[i + 1], in order of
            rank.
        rank: int64, from 1, in the order (distance, row).
        nearer: int64, how many items are strictly nearer.
        tied: int64, how many items are at this distance, itself included.
        grades: int32, at least 1.
        relevant: int64 [q], relevant items of the query, ranked or not; at least 1.
        ideal: grades of all relevant items of the query, descending, as int32 CSR over
            `ideal_offsets`.
        ideal_offsets: int64 [q + 1].
        ranked: int64 [q], how many items are ranked in all.
        depth: ranks beyond it are unknown, None where everything is ranked. A group that begins at
            rank `depth` or above is known whole, all of its relevant items.
        within: int64 [q, 2], items and relevant items within Hamming radius 2; None where the
            distance is no Hamming distance.
    """

    offsets: Ints
    rank: Ints
    nearer: Ints
    tied: Ints
    grades: NDArray[np.int32]
    relevant: Ints
    ideal: NDArray[np.int32]
    ideal_offsets: Ints
    ranked: Ints
    depth: int | None = None
    within: Ints | None = None

    def __len__(self) -> int:
        return len(self.relevant)

    @property
    def queries(self) -> Ints:
        """int64, the query that each entry belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def per_query(self, query: Ints, values: NDArray[Any]) -> Floats:
        """float64 [q], sums of `values` over the queries that they belong to."""
        return np.bincount(query, weights=values, minlength=len(self)).astype(np.float64)


@dataclass(frozen=True)
class Groups:
    """Groups with at least one relevant item, in order of (query, distance).

    Where an order of the ties is given, each relevant item is a group of its own.

    Attributes:
        query: int64 [m].
        nearer: int64 [m], items that rank before the group.
        tied: int64 [m], items in it.
        hits: int64 [m], relevant ones in it, at least 1.
        before: int64 [m], relevant items that rank before the group.
        gain: float64 [m], sum of the grades in it.
        limit: int64 [q], the last rank that counts.
        ordered: whether an order of the ties is given.
    """

    query: Ints
    nearer: Ints
    tied: Ints
    hits: Ints
    before: Ints
    gain: Floats
    limit: Ints
    ordered: bool

    @property
    def slots(self) -> Ints:
        """int64 [m], ranks of each group that count."""
        slots: Ints = np.clip(self.limit[self.query] - self.nearer, 0, self.tied)
        return slots


def groups_of(ranks: Ranks, tie: Tie, limit: Ints) -> Groups:
    """Groups of equal distance (``expected``), or relevant items in one order of the ties.

    ``best`` puts relevant items first among equals, the higher grade first; ``worst`` puts them
    last, the higher grade last.

    Args:
        ranks: of all queries.
        tie: how ties fall.
        limit: int64 [q], the last rank that counts.
    """
    query = ranks.queries
    starts = _starts(query, ranks.nearer)
    hits = np.diff(np.append(starts, len(query)))
    if tie == "expected":
        gain = np.concatenate([[0], np.cumsum(ranks.grades, dtype=np.int64)])
        first = query[starts]
        return Groups(
            query=first,
            nearer=ranks.nearer[starts],
            tied=ranks.tied[starts],
            hits=hits,
            before=starts - ranks.offsets[first],
            gain=(gain[starts + hits] - gain[starts]).astype(np.float64),
            limit=limit,
            ordered=False,
        )
    rank, grades = ranks.rank, ranks.grades
    if tie != "ranked":
        group = np.repeat(np.arange(len(starts)), hits)
        last = ranks.tied - hits[group] if tie == "worst" else 0
        rank = ranks.nearer + 1 + last + np.arange(len(query)) - starts[group]
        sign = 1 if tie == "worst" else -1
        grades = grades[np.lexsort((sign * grades, group))]
    return Groups(
        query=query,
        nearer=rank - 1,
        tied=np.ones(len(query), np.int64),
        hits=np.ones(len(query), np.int64),
        before=np.arange(len(query)) - ranks.offsets[query],
        gain=grades.astype(np.float64),
        limit=limit,
        ordered=True,
    )


def _starts(query: Ints, nearer: Ints) -> Ints:
    """Entries at which a group begins."""
    if not len(query):
        return np.empty(0, np.int64)
    new = (query[1:] != query[:-1]) | (nearer[1:] != nearer[:-1])
    return np.concatenate([[0], np.flatnonzero(new) + 1]).astype(np.int64)
