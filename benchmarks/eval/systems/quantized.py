"""Faiss' product quantizers at equal bytes: one byte per subvector.

- ``Faiss PQ``: Jégou, Douze & Schmid, PAMI 2011.
- ``Faiss OPQ, 5 rounds``: behind a learned rotation (Ge, He, Ke & Sun, CVPR 2013). Faiss' own
  default is 50 rounds of fitting it. On 3,505 x 384 training rows of `words` at 64 bits (two
  random splits, one draw each, one thread), 5, 20 and 50 rounds took 1.1, 3.5 and 8.4 s; training
  rows were off by a squared .426, .408 and .403 (PQ: .515); and mean average precision was .298,
  .291 and .294 for seen classes and .264, .262 and .257 for novel ones. More rounds fit the
  training rows better and find no more, so 5 it is, and its name says so.

Both sides are centred on the mean of their training rows and brought to unit length again: left
where they are, words and photographs are further from each other than from anything else. Rows
are ranked by squared Euclidean distance: asymmetric with the query as it is, symmetric with the
query put through the quantizer as well.

Faiss trains; which centroid is nearest is found here. Faiss finds it by matrix products in
float32, where equal rows in different batches may come to different codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.systems.base import (
    FittedSystem,
    Metric,
    System,
    Training,
    centres,
    checked,
    checked_training,
    digest_of,
)
from bittern.benchmarks.eval.systems.codes import DRAWS
from bittern.benchmarks.eval.systems.exact import (
    UNIT_BITS,
    Matrix,
    squared_distances,
    unit,
    whole,
)
from bittern.errors import InvalidInputError
from bittern.index.engines.threads import faiss_threads

_BLOCK_ROWS = 4096
_CENTROIDS = 256
ROUNDS = 5
"""Of fitting the rotation."""


def train_quantizer(
    items: NDArray[np.float32], subvectors: int, seed: int, *, rotate: bool
) -> tuple[Any, Any]:
    """Faiss' product quantizer, trained, and the rotation before it; None for no rotation.

    Args:
        items: float32 [m, dim], at least 256 rows.
        subvectors: bytes of a code; must divide `dim`.
        seed: of k-means.
        rotate: learn a rotation first (OPQ).

    Raises:
        InvalidInputError: too few rows.
    """
    import faiss

    dim = items.shape[1]
    if len(items) < _CENTROIDS:
        raise InvalidInputError(
            f"{len(items)} rows of {dim} dimensions cannot train {subvectors} sub-quantizers: it "
            f"takes {_CENTROIDS} rows, and dimensions that {subvectors} divides"
        )
    items = np.ascontiguousarray(items, dtype=np.float32)
    rotation = None
    # So few rows are too little work to share out: on busy cores, threads wait for each other
    # thirty times as long as one would take.
    with faiss_threads(1):
        if rotate:
            rotation = faiss.OPQMatrix(dim, subvectors)
            rotation.pq = _quantizer(dim, subvectors, seed)
            rotation.niter = ROUNDS
            rotation.train(items)
            items = rotation.apply(items)
        quantizer = _quantizer(dim, subvectors, seed)
        quantizer.train(items)
    return quantizer, rotation


def _quantizer(dim: int, subvectors: int, seed: int) -> Any:
    import faiss

    quantizer = faiss.ProductQuantizer(dim, subvectors, 8)
    quantizer.cp.seed = seed
    quantizer.cp.min_points_per_centroid = 1  # few rows are this benchmark's nature: no warning
    return quantizer


@dataclass
class ProductQuantizer(System):
    """Faiss' PQ, or OPQ.

    Attributes:
        rotate: learn a rotation first.
    """

    rotate: bool
    draws = DRAWS

    def __post_init__(self) -> None:
        self.name = f"Faiss OPQ, {ROUNDS} rounds" if self.rotate else "Faiss PQ"

    def fits(self, dim: int, bits: int | None) -> str:
        """Where the bytes of a code divide the dimensions."""
        reason = super().fits(dim, bits)
        if not reason and bits is not None and dim % (bits // 8):
            reason = f"{bits // 8} bytes do not divide {dim} dimensions into equal parts"
        return reason

    def fit(self, training: Training, bits: int | None, seed: int) -> FittedQuantizer:
        """Train on the items of `training`.

        Raises:
            CodeError: the training set is not finite.
            InvalidInputError: fewer than 256 items, or a length that does not fit.
        """
        length = self.length(training.items.shape[1], bits)
        checked_training(training)
        means = centres(training)
        items = np.empty_like(training.items, dtype=np.float32)
        for start in range(0, len(items), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            items[block] = unit(training.items[block] - means[0])
        return FittedQuantizer(
            *train_quantizer(items, length // 8, seed, rotate=self.rotate), means
        )


class FittedQuantizer(FittedSystem):
    """A trained product quantizer.

    Stored are codes, uint8 [n, bits/8]: the number of the nearest centroid of each subvector.
    Queries are float64 [q, dim], whole numbers: turned, or decoded again for symmetric distances.

    Args:
        pq: Faiss' quantizer, trained.
        rotation: Faiss' rotation before it; None for none.
        means: of items and of queries, float32 [dim] each.
    """

    metrics: tuple[Metric, ...] = ("symmetric", "asymmetric")

    def __init__(
        self,
        pq: Any,
        rotation: Any,
        means: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> None:
        import faiss

        dim = len(means[0])
        centroids = faiss.vector_to_array(pq.centroids).reshape(pq.M, pq.ksub, pq.dsub)
        turn = None
        if rotation is not None:
            turn = faiss.vector_to_array(rotation.A).reshape(dim, dim)
        self.dim, self._means = dim, means
        self._turn = None if turn is None else whole(turn)
        self._centroids = centroids.astype(np.float64)
        # What is decoded may be longer than a unit vector: leave room for the longest.
        longest = math.sqrt((self._centroids**2).sum(axis=2).max(axis=1).sum())
        self._positions = UNIT_BITS - max(0, math.ceil(math.log2(max(longest, 1.0))))
        self.bits = 8 * pq.M
        self.bytes_per_row = float(pq.M)
        arrays = {"centroids": centroids, "items": means[0], "queries": means[1]}
        if turn is not None:
            arrays["rotation"] = turn
        self.digest = digest_of({"quantizer": "pq" if turn is None else "opq"}, arrays)

    def _items(self, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        out = np.empty((len(rows), len(self._centroids)), dtype=np.uint8)
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = self._turned(rows[start : start + _BLOCK_ROWS] - self._means[0])
            out[start : start + _BLOCK_ROWS] = self._coded(block)
        return out

    def _queries(self, rows: NDArray[np.float32], metric: Metric) -> Matrix:
        turned = self._turned(rows - self._means[1])
        if metric == "asymmetric":
            return whole(turned, self._positions)
        return self._decoded(self._coded(turned))

    def distances(
        self, queries: Matrix, stored: NDArray[np.uint8], first: int, last: int
    ) -> NDArray[np.float64]:
        """Squared Euclidean distances to what is stored, decoded: float64 [last - first, n]."""
        out = np.empty((last - first, len(stored)))
        for start in range(0, len(stored), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            out[:, block] = squared_distances(queries[first:last], self._decoded(stored[block]))
        out *= 2.0 ** (-2 * self._positions)
        return out

    def faiss_index(self, metric: Metric) -> Any:
        """An empty `faiss.IndexPQ` that takes these codes, and queries as `turned` gives them.

        Args:
            metric: ``asymmetric`` looks distances up per query, ``symmetric`` between centroids.
        """
        import faiss

        subvectors, _, width = self._centroids.shape
        kind: Any = faiss.IndexPQ
        index = kind(subvectors * width, subvectors, 8, faiss.METRIC_L2)
        centroids = self._centroids.astype(np.float32).ravel()
        faiss.copy_array_to_vector(centroids, index.pq.centroids)
        index.is_trained = True
        if metric == "symmetric":
            index.pq.compute_sdc_table()
            index.search_type = kind.ST_SDC
        return index

    def turned(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Queries, centred and in the space that is quantized: float32 [q, dim].

        Raises:
            CodeError: a value is not finite; says in which row.
        """
        rows = checked(queries, self.dim, "queries")
        return self._turned(rows - self._means[1]).astype(np.float32)

    def _turned(self, centred: NDArray[np.float32]) -> Matrix:
        """Centred rows in the space that is quantized: float64 [n, dim] of unit length."""
        rows = unit(centred)
        if self._turn is None:
            return rows
        turned: Matrix = (whole(rows) @ self._turn.T) * 2.0 ** (-2 * UNIT_BITS)
        return turned

    def _coded(self, turned: Matrix) -> NDArray[np.uint8]:
        """Of rows in that space, the nearest centroids: uint8 [n, subvectors]."""
        subvectors, _, width = self._centroids.shape
        out = np.empty((len(turned), subvectors), dtype=np.uint8)
        rows = whole(turned)
        for block, centroids in enumerate(self._centroids):
            mine = rows[:, block * width : (block + 1) * width]
            out[:, block] = squared_distances(mine, whole(centroids)).argmin(axis=1)
        return out

    def _decoded(self, codes: NDArray[np.uint8]) -> Matrix:
        """The vectors that codes stand for, as whole numbers: float64 [n, dim]."""
        numbers = whole(self._centroids, self._positions)
        subvectors = [numbers[block, codes[:, block]] for block in range(len(numbers))]
        return np.concatenate(subvectors, axis=1)
