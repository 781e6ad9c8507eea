"""Time of one search, in an exact index that is in use.

Rankings use arithmetic that keeps ties (`systems.exact`), which nobody would deploy, so the time of
a search is measured apart, with the same stored rows. Only the search is timed, of a query that is
embedded, centred and hashed already, for its nearest rows, each window on its own.

- codes: `bittern.index.engines.flat.FlatEngine`, by either distance;
- ``float32``, ``centred``: Faiss' `IndexFlatIP`; ``float16``, ``int8``: its `IndexScalarQuantizer`,
  by inner product;
- PQ and OPQ: its `IndexPQ`; by the symmetric distance, encoding the query is part of the search.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.jobs import Vectors
from bittern.benchmarks.eval.systems.base import Fitted, Metric
from bittern.benchmarks.eval.systems.quantized import FittedQuantizer
from bittern.benchmarks.eval.systems.vectors import FittedVectors
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.threads import faiss_threads

NEAREST = 100
"""Rows that a search is for."""
MOST_QUERIES = 32
"""Queries that are timed, one at a time."""
MOST_TIMED_BYTES = 1 << 30
"""Of stored rows; the index takes as much again at most, and a row number each."""
_WARM_UP = 5
"""Searches before; the product lays codes out for scanning after a few of them."""
_FEWEST_QUERIES = 3
_MOST_SECONDS = 5.0
"""After so long no further query is timed, once there are a few."""

Search = Callable[[int], object]


def search_times(fitted: Fitted, vectors: Vectors) -> dict[str, float | None]:
    """Milliseconds of one search by each distance; None where that would take too much memory."""
    if fitted.bytes_per_row * len(vectors.rows) > MOST_TIMED_BYTES:
        return dict.fromkeys(fitted.metrics)
    stored = np.concatenate([fitted.encode_items(tile) for _, tile in vectors.rows.tiles()])
    return {metric: search_ms(fitted, stored, vectors.queries, metric) for metric in fitted.metrics}


def search_ms(
    fitted: Fitted, stored: NDArray[Any], queries: NDArray[np.float32], metric: Metric
) -> float | None:
    """Milliseconds of one search on one thread, the median over up to 32 queries.

    Args:
        fitted: a system with its parameters.
        stored: what its `encode_items` made of all rows, [n, ...].
        queries: float32 [q, dim], as its `encode_queries` takes them.
        metric: one of those that it offers.

    Returns:
        None where there are no rows or no queries, the rows take more than 1 GiB, or this
        kind of system has no index here.

    Raises:
        CodeError: a query is not finite.
        InvalidInputError: no such distance.
    """
    if not len(stored) or not len(queries) or stored.nbytes > MOST_TIMED_BYTES:
        return None
    queries = queries[:MOST_QUERIES]
    with faiss_threads(1):
        search = _search(fitted, stored, queries, metric)
        return None if search is None else _median_ms(search, len(queries))


def _median_ms(search: Search, queries: int) -> float:
    for number in range(_WARM_UP):
        search(number % queries)
    taken: list[float] = []
    for number in range(queries):
        start = time.perf_counter()
        search(number)
        taken.append(time.perf_counter() - start)
        if len(taken) >= _FEWEST_QUERIES and sum(taken) > _MOST_SECONDS:
            break
    return 1000.0 * float(np.median(taken))


def _search(
    fitted: Fitted, stored: NDArray[Any], queries: NDArray[np.float32], metric: Metric
) -> Search | None:
    encoded = fitted.encode_queries(queries, metric)
    if isinstance(encoded, Queries):
        return _code_search(stored, encoded)
    if isinstance(fitted, FittedVectors):
        return _faiss_search(_vector_index(fitted, stored.shape[1]), stored, encoded)
    if isinstance(fitted, FittedQuantizer):
        return _faiss_search(fitted.faiss_index(metric), stored, fitted.turned(queries))
    return None


def _code_search(stored: NDArray[np.uint8], queries: Queries) -> Search:
    rows = np.arange(len(stored), dtype=np.int64)
    engine = FlatEngine(CodeBlocks.of(rows, stored), threads=1)
    # A batch of its own each time: look-up tables that a query has made stay with its batch.
    return lambda number: engine.search(queries.only([number]), NEAREST)


def _faiss_search(index: Any, stored: NDArray[Any], queries: NDArray[np.float32]) -> Search:
    rows = np.ascontiguousarray(stored)
    index.add_sa_codes(rows.view(np.uint8).reshape(len(rows), -1))
    nearest = min(NEAREST, len(rows))
    return lambda number: index.search(queries[number : number + 1], nearest)


def _vector_index(fitted: FittedVectors, dim: int) -> Any:
    """An empty index that takes what is stored."""
    import faiss

    if fitted.precision in ("float32", "centred"):
        return faiss.IndexFlatIP(dim)
    kinds = {"float16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}
    index = faiss.IndexScalarQuantizer(dim, kinds[fitted.precision], faiss.METRIC_INNER_PRODUCT)
    if fitted.quantizer is not None:
        index.sq.trained = fitted.quantizer.trained
        index.is_trained = True
    return index
