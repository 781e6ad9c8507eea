"""Faiss' product quantizer, the usual rival at equal bytes: one byte per part of the vector."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError

_CENTROIDS = 256
ROUNDS = 5
"""Of fitting the rotation, where nothing else is asked for; Faiss' 50 take eight times as long. On
the first split they gave, seen and novel, .298/.294 at 64 bits and .308/.383 at 256, where 5 give
.297/.309 and .306/.379."""


@dataclass(frozen=True)
class Quantizer:
    """A trained quantizer; see `train`."""

    quantizer: Any
    rotation: Any

    def turned(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows in the space that is quantized: float32 [n, dim]."""
        rows = np.ascontiguousarray(rows, dtype=np.float32)
        if self.rotation is None:
            return rows
        turned: NDArray[np.float32] = self.rotation.apply(rows)
        return turned

    def decoded(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows as the codes keep them, in that space: float32 [n, dim]."""
        with _one_thread():
            codes = self.quantizer.compute_codes(self.turned(rows))
            decoded: NDArray[np.float32] = self.quantizer.decode(codes)
        return decoded


def train(
    items: NDArray[np.float32], parts: int, seed: int, *, rotate: bool, rounds: int = ROUNDS
) -> Quantizer:
    """Train a product quantizer.

    Args:
        items: float32 [m, dim], at least 256 rows.
        parts: bytes of a code; must divide `dim`.
        seed: of k-means.
        rotate: learn a rotation first (OPQ).
        rounds: of fitting the rotation.

    Raises:
        InvalidInputError: too few rows, or `parts` does not divide `dim`.
    """
    import faiss

    dim = items.shape[1]
    if len(items) < _CENTROIDS or not fits(dim, parts):
        raise InvalidInputError(
            f"{len(items)} rows of {dim} dimensions cannot train {parts} sub-quantizers: it takes "
            f"{_CENTROIDS} rows, and dimensions that {parts} divides"
        )
    items = np.ascontiguousarray(items, dtype=np.float32)
    rotation = None
    with _one_thread():
        if rotate:
            rotation = faiss.OPQMatrix(dim, parts)
            rotation.pq = _quantizer(dim, parts, seed)
            rotation.niter = rounds
            rotation.train(items)
            items = rotation.apply(items)
        quantizer = _quantizer(dim, parts, seed)
        quantizer.train(items)
    return Quantizer(quantizer, rotation)


@contextmanager
def _one_thread() -> Iterator[None]:
    """So few rows are too little work to share out: on busy cores, threads wait for each other
    thirty times as long as one would take.
    """
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def fits(dim: int, parts: int) -> bool:
    """Whether vectors of `dim` dimensions can be cut into so many parts."""
    return parts > 0 and dim % parts == 0


def _quantizer(dim: int, parts: int, seed: int) -> Any:
    import faiss

    quantizer = faiss.ProductQuantizer(dim, parts, 8)
    quantizer.cp.seed = seed
    quantizer.cp.min_points_per_centroid = 1  # few rows are this benchmark's nature: no warning
    return quantizer


def distances(queries: NDArray[np.float32], rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Squared Euclidean: float64 [q, n], rounded so that equal rows are at equal distances."""
    x, y = queries.astype(np.float64), rows.astype(np.float64)
    inner = x @ y.T
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2.0 * inner
    rounded: NDArray[np.float64] = squares.round(10)
    return rounded
