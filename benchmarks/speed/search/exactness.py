"""Correctness of the timed searches: comparison with brute force, and recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest

_BLOCK_ROWS = 1 << 16
_ROUNDING = 1e-9
"""Distances that differ by less are equal."""


@dataclass(frozen=True)
class Exactness:
    """Shares of the results, 0 to 1.

    Attributes:
        distances: queries whose k distances are those of the k nearest.
        rows: of the k nearest rows in the order (distance, row), the share that was found;
            among rows at the same distance another choice counts as missed.
        order: queries whose rows are exactly those, in that order.
    """

    distances: float
    rows: float
    order: float


def all_distances(query: Queries, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Distances of one query to all codes: float64 [n]."""
    blocks = [
        query.distances(0, codes[start : start + _BLOCK_ROWS])
        for start in range(0, len(codes), _BLOCK_ROWS)
    ]
    return np.concatenate(blocks)


def brute_force(query: Queries, codes: NDArray[np.uint8], k: int) -> Nearest:
    """The k nearest in the order (distance, row), by comparing every row."""
    return Nearest.of(all_distances(query, codes), np.arange(len(codes)), k)


def exactness(answers: Sequence[Nearest], truths: Sequence[Nearest]) -> Exactness:
    """Compare results to brute force, query by query."""
    pairs = list(zip(answers, truths, strict=True))
    return Exactness(
        distances=_share([_same(a.distances, t.distances) for a, t in pairs]),
        rows=_share([len(np.intersect1d(a.rows, t.rows)) / len(t.rows) for a, t in pairs]),
        order=_share([np.array_equal(a.rows, t.rows) for a, t in pairs]),
    )


def recall(
    found: Sequence[NDArray[np.int64]],
    queries: Queries,
    codes: NDArray[np.uint8],
    truths: Sequence[Nearest],
) -> float:
    """Share of the k nearest that were found: a row counts if its distance is at most that of the
    true k-th, so ties are equivalent.

    Args:
        found: of each query the rows; negative ones are ignored, repeated ones count once.
        queries: the queries.
        codes: uint8 [n, bits/8], of row 0, 1, ...
        truths: the k nearest of each query.
    """
    shares = []
    for number, (rows, truth) in enumerate(zip(found, truths, strict=True)):
        distinct = np.unique(rows[rows >= 0])
        limit = truth.distances[-1] + _ROUNDING
        hits = np.count_nonzero(queries.distances(number, codes[distinct]) <= limit)
        shares.append(min(1.0, hits / len(truth)))
    return _share(shares)


def _same(some: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    return len(some) == len(others) and bool(np.allclose(some, others, atol=1e-5))


def _share(values: Sequence[float]) -> float:
    return float(np.mean(values))
