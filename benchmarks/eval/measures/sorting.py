"""Places from all distances by plain sorting: for few queries, and to check faster ways against."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.measures.base import Ints, Ranks
from bittern.benchmarks.eval.tasks import Relevance
from bittern.errors import InvalidInputError


def ranks_of(
    distances: NDArray[Any],
    relevance: Relevance,
    *,
    depth: int | None = None,
    hamming: bool = False,
    ranked: Relevance | None = None,
) -> Ranks:
    """Where the relevant items stand, query by query.

    Args:
        distances: [q, n], numbers, none of them NaN; the row of an item is its place.
        relevance: of q queries; each has at least one item.
        depth: leave out what begins beyond this rank; None to place everything.
        hamming: whether distances are Hamming distances, so that those up to 2 are counted.
        ranked: the only items that are ranked for each query; None for all.

    Raises:
        InvalidInputError: shapes that do not fit, NaN, a depth below 1, or a query without
            relevant items.
    """
    distances = np.asarray(distances)
    _check(distances, relevance, depth, ranked)
    entries: list[NDArray[np.int64]] = []
    sizes, within = [], np.zeros((len(distances), 2), np.int64)
    for query, row in enumerate(distances):
        candidates = np.arange(len(row)) if ranked is None else ranked.of(query)
        numbers = _placed(row, candidates, relevance, query)
        if hamming:
            near = row[candidates] <= 2
            right = np.isin(candidates, relevance.of(query))
            within[query] = near.sum(), (near & right).sum()
        entries.append(numbers[:, numbers[1] < (depth or len(row))])
        sizes.append(len(candidates))
    rank, nearer, tied, grades = np.concatenate([np.empty((4, 0), np.int64), *entries], axis=1)
    asked = np.repeat(np.arange(len(relevance)), relevance.counts)
    return Ranks(
        offsets=np.cumsum([0, *(chunk.shape[1] for chunk in entries)], dtype=np.int64),
        rank=rank,
        nearer=nearer,
        tied=tied,
        grades=grades.astype(np.int32),
        relevant=relevance.counts.astype(np.int64),
        ideal=relevance.grades[np.lexsort((-relevance.grades, asked))],
        ideal_offsets=relevance.offsets,
        ranked=np.array(sizes, np.int64),
        depth=depth,
        within=within if hamming else None,
    )


def _placed(row: NDArray[Any], candidates: Ints, relevance: Relevance, query: int) -> Ints:
    """int64 [4, r]: ranks, nearer, tied and grades of one query's relevant items, by rank."""
    order = candidates[np.lexsort((candidates, row[candidates]))]
    ordered = row[order]
    relevant = relevance.of(query)
    rank = np.flatnonzero(np.isin(order, relevant))
    items = order[rank]
    nearer = np.searchsorted(ordered, row[items], "left")
    tied = np.searchsorted(ordered, row[items], "right") - nearer
    grades = relevance.grades[relevance.offsets[query] + np.searchsorted(relevant, items)]
    return np.stack([rank + 1, nearer, tied, grades]).astype(np.int64)


def _check(
    distances: NDArray[Any], relevance: Relevance, depth: int | None, ranked: Relevance | None
) -> None:
    q = len(relevance)
    if distances.ndim != 2 or len(distances) != q or (ranked is not None and len(ranked) != q):
        raise InvalidInputError(
            f"distances are {list(distances.shape)} and relevance is of {q} queries: there must "
            "be a row for each query"
        )
    if np.isnan(distances).any():
        raise InvalidInputError("a distance is NaN; leave such items out before ranking")
    if depth is not None and depth < 1:
        raise InvalidInputError(f"a depth of {depth} ranks nothing; it must be at least 1")
    if (relevance.counts < 1).any():
        raise InvalidInputError(
            f"query {int(np.argmin(relevance.counts))} has no relevant item: leave out queries "
            "that nothing answers"
        )
