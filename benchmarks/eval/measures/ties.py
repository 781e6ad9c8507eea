"""Items at equal distances: groups of them, and the orders that they can be put in.

A group is all items at one distance from a query. Inside it every order is as good as another;
what is known of a group is how many items are nearer, how many it has, and which of them are
relevant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.places import Places

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
        """int64 [m], places of each group at ranks up to `limit` (int64 [q]) of its query."""
        slots: Ints = np.clip(limit[self.query] - self.nearer, 0, self.tied)
        return slots


@dataclass(frozen=True)
class Order:
    """The relevant items in one order of the ties, query by query, by rank.

    Attributes:
        query: int64 [e].
        ranks: int64 [e], from 1.
        nth: int64 [e], which relevant item of its query, from 1.
        grades: int32 [e].
    """

    query: Ints
    ranks: Ints
    nth: Ints
    grades: NDArray[np.int32]


def groups_of(places: Places) -> Groups:
    """Groups of equal distance."""
    query = places.queries
    starts = _starts(query, places.nearer)
    ends = np.append(starts[1:], len(query))
    gain = np.concatenate([[0], np.cumsum(places.grades, dtype=np.int64)])
    query = query[starts]
    return Groups(
        query=query,
        nearer=places.nearer[starts],
        tied=places.tied[starts],
        hits=ends - starts,
        before=starts - places.offsets[query],
        gain=(gain[ends] - gain[starts]).astype(np.float64),
    )


def order_of(places: Places, tie: Literal["ranked", "best", "worst"]) -> Order:
    """The product's order, or relevant items first (best) or last (worst) among equals.

    Among relevant ones the higher grade is first in the best order and last in the worst.
    """
    query = places.queries
    nth = np.arange(1, len(query) + 1) - places.offsets[query]
    if tie == "ranked":
        return Order(query, places.ranks, nth, places.grades)
    starts = _starts(query, places.nearer)
    hits = np.diff(np.append(starts, len(query)))
    group = np.repeat(np.arange(len(starts)), hits)
    ahead = np.arange(len(query)) - starts[group]
    if tie == "best":
        ranks = places.nearer + 1 + ahead
        grades = places.grades[np.lexsort((-places.grades, group))]
    else:
        ranks = places.nearer + places.tied - hits[group] + 1 + ahead
        grades = places.grades[np.lexsort((places.grades, group))]
    return Order(query, ranks, nth, grades)


def per_query(places: Places, query: Ints, values: NDArray[Any]) -> Floats:
    """float64 [q], sums of `values` over the queries that they belong to."""
    return np.bincount(query, weights=values, minlength=len(places)).astype(np.float64)


def _starts(query: Ints, nearer: Ints) -> Ints:
    """Entries at which a group begins."""
    if not len(query):
        return np.empty(0, np.int64)
    new = (query[1:] != query[:-1]) | (nearer[1:] != nearer[:-1])
    return np.concatenate([[0], np.flatnonzero(new) + 1]).astype(np.int64)
