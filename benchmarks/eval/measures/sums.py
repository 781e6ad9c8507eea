"""Sums of 1/i and of 1/log2(1+i) over runs of ranks of any length, without adding them up.

Ranks up to 64 come from a table; beyond, the midpoint form of the Euler-Maclaurin formula leaves
a relative error under 1e-12. Differences of prefix sums would lose digits where a short run lies
deep.
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TABLE = 64
_RANKS = np.arange(1, _TABLE + 1)
_RECIPROCALS = np.concatenate([[0.0], np.cumsum(1.0 / _RANKS)])
_DISCOUNTS = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(1.0 + _RANKS))])


def reciprocals(first: NDArray[Any], last: NDArray[Any]) -> Floats:
    """Sum of 1/i over first < i <= last, elementwise: a difference of harmonic numbers.

    Args:
        first: integers, at least 0.
        last: integers, at least `first`.
    """
    head, a, b = _split(_RECIPROCALS, first, last)
    slope = a**-2 - b**-2
    third = 6 * (a**-4 - b**-4)
    tail: Floats = np.log1p((b - a) / a) - slope / 24 + 7 * third / 5760
    return head + tail


def discounts(first: NDArray[Any], last: NDArray[Any]) -> Floats:
    """Sum of 1/log2(1+i) over first < i <= last, elementwise."""
    head, a, b = _split(_DISCOUNTS, first, last)
    a, b = a + 1, b + 1
    tail = _integral(a, b) - (_slope(b) - _slope(a)) / 24 + 7 * (_third(b) - _third(a)) / 5760
    return head + log(2) * tail


def _split(table: Floats, first: NDArray[Any], last: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """What the table has of a run; where the rest begins and ends, half a rank later."""
    first, last = np.asarray(first), np.asarray(last)
    head = table[np.minimum(last, _TABLE)] - table[np.minimum(first, _TABLE)]
    return head, np.maximum(first, _TABLE) + 0.5, np.maximum(last, _TABLE) + 0.5


def _integral(a: Floats, b: Floats) -> Floats:
    """Of 1/log(y) from a to b: Gauss-Legendre on short runs, the logarithmic integral on long."""
    middle, half = (a + b) / 2, (b - a) / 2
    area = np.zeros_like(middle)
    for node, weight in zip(*np.polynomial.legendre.leggauss(10), strict=True):
        area += weight / np.log(middle + node * half)
    area *= half
    long = half > a / 4
    if long.any():
        from scipy.special import expi

        area[long] = expi(np.log(b[long])) - expi(np.log(a[long]))
    return area


def _slope(y: Floats) -> Floats:
    """First derivative of 1/log(y)."""
    result: Floats = -1 / (y * np.log(y) ** 2)
    return result


def _third(y: Floats) -> Floats:
    """Third derivative of 1/log(y)."""
    x = np.log(y)
    result: Floats = -(2 * x**2 + 6 * x + 6) / (y**3 * x**4)
    return result
