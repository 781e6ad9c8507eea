"""Sums over runs of ranks, and chances in a random order of one group, in closed form.

Sums of 1/i and of 1/log2(1+i): ranks up to 64 come from a table; beyond, the midpoint form of the
Euler-Maclaurin formula leaves a relative error under 1e-12. Differences of prefix sums would lose
digits where a short run lies deep.

Chances: of `tied` items `relevant` are hits. Groups can have millions of items, so nothing here
takes differences of logarithms of factorials: they lose their digits there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.measures.ranks import Floats, Ints

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


_CELLS = 1 << 20  # numbers in one table of `mean_over_hits`
_NEGLIGIBLE = 36.0  # exp(-36) is 2e-16
_GROWTH = 7.0  # rounding errors may grow by exp(7), to some 1e-12


def no_hit(tied: Ints, relevant: Ints, slots: Ints) -> Floats:
    """Probability that the first `slots` items hold no hit: C(tied - relevant, slots) / C(tied,
    slots), as a product of the shorter kind, cut off where it is negligible.
    """
    few, many = np.minimum(relevant, slots), np.maximum(relevant, slots)
    possible = few + many <= tied
    logs = np.where(possible, 0.0, -np.inf)
    active, step = np.flatnonzero(possible & (few > 0)), 0
    while len(active):
        logs[active] += np.log1p(-many[active] / (tied[active] - step))
        step += 1
        active = active[(step < few[active]) & (logs[active] > -_NEGLIGIBLE)]
    chance: Floats = np.exp(logs)
    return chance


def mean_over_hits(
    tied: Ints, relevant: Ints, slots: Ints, value: Callable[[Floats, Ints], Floats]
) -> Floats:
    """Mean of a value that depends on how many hits are in the first `slots` items.

    The number is hypergeometric; counts whose probability is negligible (by Bernstein's
    inequality, which holds since the count is distributed as a sum of independent ones) are left
    out. At most a million counts are in memory at once.

    Args:
        tied: int64 [m].
        relevant: int64 [m].
        slots: int64 [m].
        value: of counts, float64 [p, w], and rows, int64 [p, 1], to float64 [p, w].
    """
    share = relevant / tied
    mean = slots * share
    reach = 32 + 9 * np.sqrt(mean * (1 - share) * (tied - slots) / np.maximum(tied - 1, 1))
    least = np.maximum(np.maximum(0, slots - (tied - relevant)), np.floor(mean - reach))
    most = np.minimum(np.minimum(relevant, slots), np.ceil(mean + reach))
    width = (most - least + 1).astype(np.int64)
    rows, result = np.argsort(-width, kind="stable"), np.empty(len(tied))
    while len(rows):
        widest = width[rows[0]]
        taken, rows = np.split(rows, [max(1, _CELLS // widest)])
        at = taken[:, None]
        x = least[at] + np.arange(widest)
        inside = x <= most[at]
        up = (relevant[at] - x + 1) * (slots[at] - x + 1)
        down = x * (tied[at] - relevant[at] - slots[at] + x)
        ratio = np.divide(up, down, out=np.ones_like(x), where=inside & (x > least[at]))
        logs = np.where(inside, np.cumsum(np.log(ratio), axis=1), -np.inf)
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        values = np.where(inside, value(x, at), 0.0)
        result[taken] = (weights * values).sum(axis=1) / weights.sum(axis=1)
    return result


def mean_reciprocal(nearer: Ints, tied: Ints, relevant: Ints) -> Floats:
    """Mean of 1 / (nearer + J), where the first hit of the group is at its J-th position.

    J = j has the probability C(tied - j, relevant - 1) / C(tied, relevant). With I(r) for the
    mean at r relevant items, splitting off one factor of that binomial gives

        I(r) = r / ((r-1) (tied-r+1)) * ((tied+nearer-r+2) I(r-1) - 1),  I(1) a harmonic sum.

    Upwards its rounding errors grow by about r (1 + nearer/tied)^r, downwards they shrink by as
    much; and where hits are dense few terms of the sum itself count. For each group the shortest
    of the three ways is taken that keeps eleven digits: at most some multiple of sqrt(tied) steps.
    """
    terms = np.minimum(tied - relevant + 1, np.ceil(_NEGLIGIBLE * tied / relevant))
    growth = (tied + nearer - relevant + 2) / (tied - relevant + 1)
    grown = np.where(relevant > 1, np.log(relevant) + relevant * np.log(growth), 0.0)
    upward = np.where(grown <= _GROWTH, relevant, np.inf)
    with np.errstate(divide="ignore"):
        downward = np.minimum(np.ceil(_NEGLIGIBLE / np.log1p(nearer / tied)), tied - relevant)
    way = np.argmin(np.stack([terms, upward, downward]), axis=0)
    steps = np.stack([terms, np.minimum(upward, relevant) - 1, downward]).astype(np.int64)
    result = np.empty(len(tied))
    for number, walk in enumerate((_by_terms, _upwards, _downwards)):
        rows = np.flatnonzero(way == number)
        taken = steps[number, rows]
        result[rows] = walk(nearer[rows], tied[rows], relevant[rows], taken)
    return result


def _by_terms(nearer: Ints, tied: Ints, relevant: Ints, terms: Ints) -> Floats:
    total, chance = np.zeros(len(tied)), relevant / tied
    for j, on in _steps(terms):
        total[on] += chance[on] / (nearer[on] + j)
        chance[on] *= (tied[on] - relevant[on] - j + 1) / np.maximum(tied[on] - j, 1)
    return total


def _upwards(nearer: Ints, tied: Ints, relevant: Ints, steps: Ints) -> Floats:
    mean = reciprocals(nearer, nearer + tied) / tied
    for j, on in _steps(steps):
        r = j + 1
        scaled = (tied[on] + nearer[on] - r + 2) * mean[on] - 1
        mean[on] = scaled * r / ((r - 1) * (tied[on] - r + 1))
    return mean


def _downwards(nearer: Ints, tied: Ints, relevant: Ints, steps: Ints) -> Floats:
    top = relevant + steps
    mean = 1 / (nearer + (tied + 1) / (top + 1))  # exact where all are relevant
    for j, on in _steps(steps):
        r = top[on] - j + 1
        scaled = 1 + mean[on] * (r - 1) * (tied[on] - r + 1) / r
        mean[on] = scaled / (tied[on] + nearer[on] - r + 2)
    return mean


def _steps(counts: Ints) -> Iterator[tuple[int, Ints]]:
    """(j, rows with at least j steps) for j from 1."""
    active, j = np.flatnonzero(counts > 0), 1
    while len(active):
        yield j, active
        j += 1
        active = active[counts[active] >= j]
