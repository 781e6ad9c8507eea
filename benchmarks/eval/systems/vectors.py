"""Inner products that come out the same to the last bit, in whatever order they are added up.

A matrix product rounds differently at the edge of a tile than within it, and then two equal rows
are at different distances, and the tie between them is lost. Here all numbers are first brought
to whole multiples of 2**-26. Products of two such vectors of unit length, and all sums of
products, are whole numbers below 2**53 (Cauchy and Schwarz), which float64 holds exactly: there
is nothing to round. What is given away is 2**-27 per component, some 6e-9 of a cosine: less than
what a sum of float32 products loses.

Float vectors, kept in 4, 2 or 1 bytes per dimension and ranked by cosine.

- ``float32``, ``float16``: the embeddings as they are, and rounded to half precision.
- ``int8``: Faiss' ``ScalarQuantizer`` of 8 bits. Each dimension has a range of its own, from the
  least to the greatest value among the training items, cut into 255 equal steps; what lies
  outside is taken to the end of the range.
- ``centred``: float32, each side less the mean of its training rows. Not a system that anyone
  stores, but a control: codes centre both sides too, and some of what they win is that.

Queries stay float32. The cosine is that with what is stored, decoded, of unit length again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.systems.base import (
    Metric,
    System,
    Training,
    centres,
    check_metric,
    checked,
    checked_training,
    digest_of,
)

Matrix = NDArray[np.float64]

UNIT_BITS = 26
"""Binary digits that a component of a vector of unit length keeps."""
_MANTISSA = 53
_SHORTEST = 2.0 ** (2 * UNIT_BITS - 2)
"""Half of unit length, squared, as whole numbers; shorter rows would lose digits."""
_BLOCK_ROWS = 2048
"""Rows that are brought to whole numbers at a time: 12 MiB of 768 dimensions."""


def unit(rows: NDArray[np.floating]) -> Matrix:
    """Rows of unit length, to within a millionth; rows of zeros stay.

    A row's result depends on that row alone.

    Args:
        rows: float [n, dim], finite.

    Returns:
        float64 [n, dim].
    """
    rows = np.asarray(rows, dtype=np.float64)
    peaks = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
    scaled = rows / np.where(peaks > 0, peaks, 1.0)
    # Entries are at most 1, so that the sum of `dim` squares of whole numbers is exact.
    positions = (_MANTISSA - math.ceil(math.log2(max(rows.shape[1], 2)))) // 2
    lengths = np.sqrt(_squares(np.rint(scaled * 2.0**positions)))[:, None] * 2.0**-positions
    return scaled / np.where(lengths > 0, lengths, 1.0)


def whole(rows: NDArray[np.floating], positions: int = UNIT_BITS) -> Matrix:
    """Rows in units of ``2**-positions``, rounded to whole numbers: float64 [n, dim].

    Products with it are exact as long as lengths are at most ``2**(26 - positions)``, a little
    (a thousandth, say) more or less.
    """
    return np.rint(np.asarray(rows, dtype=np.float64) * 2.0**positions)


def cosine_distances(queries: NDArray[np.floating], rows: NDArray[np.floating]) -> Matrix:
    """One minus the cosine; 1 where a vector is all zeros.

    Args:
        queries: float [q, dim], finite.
        rows: float [n, dim], finite.

    Returns:
        float64 [q, n], 0 to 2. Equal rows are at equal distances to the last bit, wherever they
        stand and whatever stands beside them.
    """
    directions, lengths = _directions(queries)
    out = np.empty((len(queries), len(rows)))
    for start in range(0, len(rows), _BLOCK_ROWS):
        block, squares = _directions(rows[start : start + _BLOCK_ROWS])
        products = directions @ block.T
        scale = lengths[:, None] * squares
        np.sqrt(scale, out=scale)
        np.divide(products, scale, out=products, where=scale > 0)
        np.subtract(1.0, products, out=out[:, start : start + _BLOCK_ROWS])
    return out


def _directions(rows: NDArray[np.floating]) -> tuple[Matrix, Matrix]:
    """Rows as whole numbers of a length that makes products exact, and their squared lengths.

    Rows of about unit length stay as long as they are; others are brought to unit length first.
    """
    numbers = np.multiply(rows, 2.0**UNIT_BITS, dtype=np.float64)
    np.rint(numbers, out=numbers)
    squares = _squares(numbers)
    # Below the limit the sum is exact, and no sum that belongs above it is rounded to below.
    other = np.flatnonzero(~((squares >= _SHORTEST) & (squares < 2.0**_MANTISSA)))
    if len(other):
        numbers[other] = whole(unit(rows[other]))
        squares[other] = _squares(numbers[other])
    return numbers, squares


def squared_distances(queries: Matrix, rows: Matrix) -> Matrix:
    """Squared Euclidean distances of whole numbers (see `whole`), in their units.

    Args:
        queries: float64 [q, dim].
        rows: float64 [n, dim].

    Returns:
        float64 [q, n].
    """
    products = queries @ rows.T
    products *= -2.0
    products += _squares(queries)[:, None] + _squares(rows)
    return products


def _squares(rows: Matrix) -> Matrix:
    """Sum of squares of each row, float64 [n]; exact for whole numbers as they are used here."""
    sums: Matrix = np.einsum("ij,ij->i", rows, rows)
    return sums


Precision = Literal["float32", "float16", "int8", "centred"]
_BYTES = {"float32": 4, "float16": 2, "int8": 1, "centred": 4}
_HALF = float(np.finfo(np.float16).max)
"""Beyond any embedding of unit length; what is longer must not turn infinite."""
_DECODED_ROWS = 16_384
"""Rows of int8 that are decoded at a time."""


@dataclass
class FloatVectors(System):
    """Embeddings by cosine; see the module.

    Attributes:
        precision: how they are kept.
    """

    precision: Precision
    coded = False

    def __post_init__(self) -> None:
        self.name = "centred float32" if self.precision == "centred" else self.precision

    def fit(self, training: Training, bits: int | None, seed: int) -> FittedVectors:
        """Fit it; nothing is drawn, so `seed` decides nothing.

        Raises:
            CodeError: the training part is empty, or not finite.
        """
        del bits, seed
        items = checked_training(training).items
        dim = items.shape[1]
        means = centres(training) if self.precision == "centred" else None
        ranges = _trained(items) if self.precision == "int8" else None
        return FittedVectors(self.precision, dim, means, ranges)


class FittedVectors:
    """Embeddings kept at some precision; see `base.Fitted`.

    Attributes:
        precision: how they are kept.
        dim: length of an embedding.
        quantizer: Faiss' `ScalarQuantizer` of int8, trained; else None.

    Args:
        precision: how they are kept.
        dim: length of an embedding.
        means: of items and of queries, float32 [dim] each, that are subtracted.
        quantizer: of int8.
    """

    bits: int | None = None
    metrics: tuple[Metric, ...] = ("cosine",)

    def __init__(
        self,
        precision: Precision,
        dim: int,
        means: tuple[NDArray[np.float32], NDArray[np.float32]] | None,
        quantizer: Any,
    ) -> None:
        assert precision in get_args(Precision)
        self.precision: Precision = precision
        self.dim, self._means = dim, means
        self.quantizer = quantizer
        self.bytes_per_row = float(dim * _BYTES[precision])
        arrays = {} if means is None else {"items": means[0], "queries": means[1]}
        if quantizer is not None:
            arrays["ranges"] = _ranges(quantizer)
        self.digest = digest_of({"vectors": precision, "dim": dim}, arrays)

    def encode_items(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        """Items as they are kept: float32 or float16 [n, dim]; of int8, uint8 [n, dim], steps
        within each dimension's range.

        Raises:
            CodeError: a value is not finite; says in which row.
        """
        rows = checked(embeddings, self.dim, "items")
        if self.precision == "int8":
            return self._coded(rows)
        if self.precision == "float16":
            return np.clip(rows, -_HALF, _HALF).astype(np.float16)
        return rows if self._means is None else rows - self._means[0]

    def encode_queries(
        self, embeddings: NDArray[np.float32], metric: Metric
    ) -> NDArray[np.float32]:
        """Queries, float32 [q, dim].

        Raises:
            CodeError: a value is not finite; says in which row.
        """
        check_metric(metric, self.metrics)
        rows = checked(embeddings, self.dim, "queries")
        return rows if self._means is None else rows - self._means[1]

    def distances(
        self, queries: NDArray[np.float32], stored: NDArray[Any], first: int, last: int
    ) -> NDArray[np.float64]:
        """One minus the cosine, float64 [last - first, n]; see `exact.cosine_distances`."""
        queries = queries[first:last]
        if self.quantizer is None:
            return cosine_distances(queries, stored)
        out = np.empty((len(queries), len(stored)))
        for start in range(0, len(stored), _DECODED_ROWS):
            block = slice(start, start + _DECODED_ROWS)
            decoded = self.quantizer.decode(np.ascontiguousarray(stored[block]))
            out[:, block] = cosine_distances(queries, decoded)
        return out

    def _coded(self, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        if not len(rows):
            return np.empty((0, self.dim), dtype=np.uint8)
        coded: NDArray[np.uint8] = self.quantizer.compute_codes(rows)
        return coded


def _trained(items: NDArray[np.float32]) -> Any:
    import faiss

    quantizer = faiss.ScalarQuantizer(items.shape[1], faiss.ScalarQuantizer.QT_8bit)
    quantizer.train(np.ascontiguousarray(items, dtype=np.float32))
    return quantizer


def _ranges(quantizer: Any) -> NDArray[np.float32]:
    import faiss

    ranges: NDArray[np.float32] = faiss.vector_to_array(quantizer.trained)
    return ranges
