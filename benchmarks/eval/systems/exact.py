"""Inner products that come out the same to the last bit, in whatever order they are added up.

A matrix product rounds differently at the edge of a tile than within it, and then two equal rows
are at different distances, and the tie between them is lost. Here all numbers are first brought
to whole multiples of 2**-26. Products of two such vectors of unit length, and all sums of
products, are whole numbers below 2**53 (Cauchy and Schwarz), which float64 holds exactly: there
is nothing to round. What is given away is 2**-27 per component, some 6e-9 of a cosine: less than
what a sum of float32 products loses.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

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
