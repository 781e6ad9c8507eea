"""How sure a mean over queries is, and whether two systems differ.

Queries are what is drawn at random in a benchmark, so they are what is drawn again. All results
are decided by values and seed alone. scipy has the same resampling methods, and the tests compare
with it; its arrays of indices grow with queries times resamples, and its permutations are drawn
in Python one by one, where 100,000 queries and hundreds of figures want small blocks of bits and
counts, and matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError

Values = NDArray[np.float64]

RESAMPLES = 2_000
"""Of the bootstrap; Efron and Tibshirani (1993) advise 1000 or more for intervals."""
FLIPS = 10_000
"""Random assignments of signs where there are too many to try all."""
EXACT_QUERIES = 14
"""Up to so many queries that differ, all 2**14 assignments are tried."""
LEVEL = 0.95
_BLOCK_VALUES = 1 << 21
"""Numbers in memory at a time: 16 MiB."""
_NEARLY = 1e-9
"""Sums this close, relative to the sum of all magnitudes, count as equal."""


@dataclass(frozen=True)
class Paired:
    """System a against system b on the same queries.

    Attributes:
        difference: mean of a minus b; NaN without a query.
        low, high: 95% bootstrap interval of it.
        p: two-sided, of the randomisation test.
        queries: how many were compared.
        left_out: queries that are undefined (NaN) for one of the two.
    """

    difference: float
    low: float
    high: float
    p: float
    queries: int
    left_out: int


def undefined(values: Values) -> int:
    """How many values are NaN, and so are left out."""
    return int(np.isnan(values).sum())


def interval(values: Values, seed: int) -> tuple[float, float]:
    """95% bootstrap interval of the mean over queries: bias-corrected and accelerated.

    BCa (Efron, JASA 1987) rather than plain percentiles: values of average precision are skewed,
    and BCa covers them better at the same cost.

    Args:
        values: float64 [q]; NaN, which is undefined, is left out (`undefined` counts them).
        seed: of the resampling.

    Returns:
        Both ends; the mean itself twice where all values are equal or there is only one, and NaN
        where there is none.

    Raises:
        InvalidInputError: not one-dimensional, or a value is infinite.
    """
    kept = _defined(values)
    if len(kept) == 0:
        return math.nan, math.nan
    if (kept == kept[0]).all():
        return float(kept[0]), float(kept[0])
    mean = float(kept.mean())
    means = np.concatenate([counts @ kept for counts in _resampled(len(kept), seed)]) / len(kept)
    low, high = np.quantile(means, _levels(kept, mean, means)).tolist()
    return low, high


def paired(a: Values, b: Values, seed: int) -> Paired:
    """Paired randomisation test of two systems, two-sided, on the mean difference.

    If systems were the same, either could have had either value of a query: the signs of the
    differences are flipped at random, and p is the share of assignments whose mean difference is
    at least as large as that observed (Fisher; compared with other tests for retrieval by
    Smucker, Allan & Carterette, CIKM 2007). All assignments are tried where at most 14 queries
    differ, else 10,000 random ones, the observed one counted in (Phipson & Smyth, 2010), so that
    p is at least 1e-4.

    Args:
        a: float64 [q], values of one system.
        b: float64 [q], of the other, for the same queries.
        seed: of signs and resamples.

    Raises:
        InvalidInputError: lengths differ, or a value is infinite.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        raise InvalidInputError(
            f"two systems are compared on the same queries, not on {a.shape} and {b.shape} values"
        )
    _defined(a), _defined(b)
    differences = a - b
    kept = _defined(differences)
    low, high = interval(differences, seed)
    return Paired(
        difference=float(kept.mean()) if len(kept) else math.nan,
        low=low,
        high=high,
        p=_randomised(kept[kept != 0], seed),
        queries=len(kept),
        left_out=undefined(differences),
    )


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p of several tests (Holm, Scand. J. Statist. 1979), in the order given.

    The smallest p is multiplied by how many tests there are, the next by one less, and so on;
    none is smaller than the one before it, and none above 1.

    Raises:
        InvalidInputError: a p that is no probability.
    """
    values = np.asarray(ps, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise InvalidInputError(f"p must be 0 to 1, not {list(ps)}")
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(one) for one in adjusted]


def _defined(values: Values) -> Values:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or np.isinf(values).any():
        raise InvalidInputError(
            f"values must be one finite number or NaN per query, not {list(values.shape)} with "
            f"{int(np.isinf(values).sum())} infinite ones"
        )
    return values[~np.isnan(values)]


def _resampled(count: int, seed: int) -> Iterator[Values]:
    """How often each of `count` queries is drawn: blocks of float64 [resamples, count]."""
    rng = np.random.default_rng([seed, 1])
    block = max(1, _BLOCK_VALUES // count)
    for start in range(0, RESAMPLES, block):
        drawn = [
            np.bincount(rng.integers(0, count, count), minlength=count)
            for _ in range(min(block, RESAMPLES - start))
        ]
        yield np.stack(drawn).astype(np.float64)


def _levels(values: Values, mean: float, means: Values) -> Values:
    """The two quantiles of the bootstrap means that BCa takes for the ends."""
    from scipy.special import ndtr, ndtri

    below = ((means < mean).mean() + (means <= mean).mean()) / 2
    tails = ndtri(np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    bias = ndtri(below)
    # The jackknife of a mean has the deviations of the values themselves.
    deviations = values - mean
    spread = (deviations**2).sum()
    acceleration = (deviations**3).sum() / (6 * spread**1.5)
    reach = bias + tails
    levels: Values = ndtr(bias + reach / (1 - acceleration * reach))
    return levels if np.isfinite(levels).all() else ndtr(tails)


def _randomised(differences: Values, seed: int) -> float:
    """P of a sum of differences, none of them 0, under random signs."""
    if not len(differences):
        return 1.0
    total = differences.sum()
    least = abs(total) - _NEARLY * np.abs(differences).sum()
    exact = len(differences) <= EXACT_QUERIES
    blocks = _all_signs(len(differences)) if exact else _random_signs(len(differences), seed)
    reached, tried = 0, 0
    for positive in blocks:
        sums = 2.0 * (positive @ differences) - total
        reached += int((np.abs(sums) >= least).sum())
        tried += len(sums)
    return reached / tried if exact else (reached + 1) / (tried + 1)


def _all_signs(count: int) -> Iterator[Values]:
    numbers = np.arange(2**count)[:, None]
    yield ((numbers >> np.arange(count)) & 1).astype(np.float64)


def _random_signs(count: int, seed: int) -> Iterator[Values]:
    """Blocks of float64 [assignments, count], 1 where a difference keeps its sign, else 0."""
    rng = np.random.default_rng([seed, 2])
    block = max(1, _BLOCK_VALUES // count)
    for start in range(0, FLIPS, block):
        many = min(block, FLIPS - start)
        drawn = rng.integers(0, 256, (many, -(-count // 8)), dtype=np.uint8)
        yield np.unpackbits(drawn, axis=1, count=count).astype(np.float64)
