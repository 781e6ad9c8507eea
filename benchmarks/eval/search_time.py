"""How long one search takes: what somebody would run who had chosen this system.

Quality is ranked with arithmetic that keeps ties (`systems.exact`), which nobody would deploy;
so the time of that ranking says nothing of a system. Here the same stored rows go into an exact
index that is in use: codes into the product's own engine, vectors and products of quantizers
into Faiss. What is timed is the search alone, of a query that is embedded, centred, turned or
hashed already, for its nearest rows, windows of one item each on their own. No answer is looked
at: it is a timing, not a ranking.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
"""Searches before; the product lays codes out for scanning once a few were asked for."""
_FEWEST_QUERIES = 3
_MOST_SECONDS = 5.0
"""After so long no further query is timed, once there are a few."""

Search = Callable[[int], object]


def search_ms(
    fitted: Fitted, stored: NDArray[Any], queries: NDArray[np.float32], metric: Metric
) -> float | None:
    """Milliseconds of one search on one thread, the median over up to 32 queries.

    - codes: `bittern.index.engines.flat.FlatEngine`, exact, by either distance;
    - ``float32``, ``centred``: Faiss' `IndexFlatIP`; ``float16``, ``int8``: its
      `IndexScalarQuantizer`, by inner product;
    - PQ and OPQ: its `IndexPQ`; by the symmetric distance, encoding the query is part of the
      search there.

    Threads that Faiss may use are afterwards what they were before.

    Args:
        fitted: a system with its parameters.
        stored: what its `store` made of all rows, [n, ...].
        queries: float32 [q, dim], as its `ask` takes them.
        metric: one of those that it offers.

    Returns:
        None where there is nothing to search or to ask, the rows take more than 1 GiB, or this
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
    asked = fitted.ask(queries, metric)
    if isinstance(asked, Queries):
        return _code_search(stored, asked)
    if isinstance(fitted, FittedVectors):
        return _faiss_search(_vector_index(fitted), stored, asked)
    if isinstance(fitted, FittedQuantizer):
        return _faiss_search(fitted.faiss_index(metric), stored, fitted.turned(queries))
    return None


def _code_search(stored: NDArray[np.uint8], asked: Queries) -> Search:
    rows = np.arange(len(stored), dtype=np.int64)
    engine = FlatEngine(CodeBlocks.of(rows, stored), threads=1)
    # A batch of its own each time: look-up tables that a query has made stay with its batch.
    return lambda number: engine.search(asked.only([number]), NEAREST)


def _faiss_search(index: Any, stored: NDArray[Any], asked: NDArray[np.float32]) -> Search:
    rows = np.ascontiguousarray(stored)
    index.add_sa_codes(rows.view(np.uint8).reshape(len(rows), -1))
    nearest = min(NEAREST, len(rows))
    return lambda number: index.search(asked[number : number + 1], nearest)


def _vector_index(fitted: FittedVectors) -> Any:
    """An empty index that takes what is stored."""
    import faiss

    if fitted.precision in ("float32", "centred"):
        return faiss.IndexFlatIP(fitted.dim)
    kinds = {"float16": faiss.ScalarQuantizer.QT_fp16, "int8": faiss.ScalarQuantizer.QT_8bit}
    index = faiss.IndexScalarQuantizer(
        fitted.dim, kinds[fitted.precision], faiss.METRIC_INNER_PRODUCT
    )
    if fitted.quantizer is not None:
        index.sq.trained = fitted.quantizer.trained
        index.is_trained = True
    return index
