"""Mean average precision of asymmetric search over held-out items, during training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError
from bittern.hashing.codes import probabilities, unpack

_BLOCK_CELLS = 1 << 22
_DECIMALS = 9
"""Matrix products round differently from column to column; equal codes must tie."""


def mean_average_precision(
    query_logits: NDArray[np.floating],
    database: NDArray[np.floating] | NDArray[np.uint8],
    relevant: NDArray[np.bool_],
    *,
    excluded: NDArray[np.integer] | None = None,
) -> float:
    """MAP over the full ranking by asymmetric distance, ties broken by database row.

    Average precision of a query is the mean, over all its relevant rows, of the precision at
    their ranks. Queries without a relevant row are left out.

    Args:
        query_logits: float [q, bits].
        database: float [n, bits] logits, or uint8 [n, bits/8] codes.
        relevant: bool [q, n].
        excluded: int [q], per query a database row that is not ranked (itself); -1 for none.

    Raises:
        CodeError: shapes that do not fit together, NaN, or no query with a relevant row.
    """
    queries = np.asarray(query_logits)
    stored = np.asarray(database)
    bits = unpack(stored) if stored.dtype == np.uint8 else (stored > 0)
    if queries.ndim != 2 or bits.ndim != 2 or queries.shape[1] != bits.shape[1]:
        raise CodeError(
            f"queries must be [q, bits] and the database [n, bits], not {list(queries.shape)} "
            f"and {list(bits.shape)}"
        )
    if relevant.shape != (len(queries), len(bits)):
        raise CodeError(f"relevant must be [{len(queries)}, {len(bits)}], not {relevant.shape}")
    if not np.isfinite(queries).all():
        raise CodeError("query logits hold NaN or infinity")
    relevant = _without(relevant, excluded)
    on = bits.astype(np.float64)
    precisions = []
    block = max(1, _BLOCK_CELLS // max(1, len(on)))
    for start in range(0, len(queries), block):
        part = slice(start, start + block)
        # Less the part of the distance that is the same for every row of one query.
        distance = np.round((1.0 - 2.0 * probabilities(queries[part])) @ on.T, _DECIMALS)
        if excluded is not None:
            rows = np.flatnonzero(excluded[part] >= 0)
            distance[rows, excluded[part][rows]] = np.inf
        precisions.append(_average_precision(distance, relevant[part]))
    values = np.concatenate(precisions) if precisions else np.empty(0)
    values = values[~np.isnan(values)]
    if not len(values):
        raise CodeError("no query has a relevant row: there is nothing to average")
    return float(values.mean())


def _without(
    relevant: NDArray[np.bool_], excluded: NDArray[np.integer] | None
) -> NDArray[np.bool_]:
    if excluded is None:
        return relevant
    if excluded.shape != (len(relevant),):
        raise CodeError(f"excluded must be [{len(relevant)}], not {list(excluded.shape)}")
    relevant = relevant.copy()
    rows = np.flatnonzero(excluded >= 0)
    relevant[rows, excluded[rows]] = False
    return relevant


def _average_precision(
    distance: NDArray[np.float64], relevant: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Per query; NaN where nothing is relevant."""
    order = np.argsort(distance, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    ranks = np.arange(1, distance.shape[1] + 1)
    precision = np.cumsum(hits, axis=1) / ranks
    total = hits.sum(axis=1)
    summed = (precision * hits).sum(axis=1)
    return np.where(total > 0, summed / np.maximum(total, 1), np.nan)
