"""How sure a mean over queries is, and whether two systems differ.

Queries are what is drawn at random in a benchmark, so they are what is drawn again. Queries that
ask for the same class are hard or easy together: where they are one cluster, whole clusters
are drawn, or have their signs flipped, and the figure stays the mean over queries. Without that,
a hundred queries for ten classes would look like a hundred witnesses.

All results are decided by values, clusters and seed alone. scipy has the same methods for queries
on their own, and the tests compare with it; but it draws anew for every figure, and 100,000
queries are drawn two thousand times in seconds: here a run's figures share their draws, as counts,
and what is left of each is a matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError

Values = NDArray[np.float64]
Clusters = NDArray[np.int64]

RESAMPLES = 2_000
"""Of the bootstrap; Efron and Tibshirani (1993) advise 1000 or more for intervals."""
FLIPS = 10_000
"""Random assignments of signs where there are too many to try all."""
EXACT_CLUSTERS = 14
"""Up to so many clusters that differ, all 2**14 assignments are tried."""
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
    """

    difference: float
    low: float
    high: float
    p: float


def interval(values: Values, seed: int, *, clusters: Clusters | None = None) -> tuple[float, float]:
    """95% bootstrap interval of the mean over queries: bias-corrected and accelerated.

    BCa (Efron, JASA 1987) rather than plain percentiles: values of average precision are skewed,
    and BCa covers them better at the same cost. With clusters, as many clusters as there are are
    drawn with all their queries (Davison & Hinkley, Bootstrap Methods, 1997, section 3.8), the
    mean is that over all queries drawn, and the jackknife leaves out one cluster at a time.

    Args:
        values: float64 [q]; NaN, which is undefined, is left out.
        seed: of the resampling.
        clusters: int64 [q], the number of each query's cluster; None where each is its own.

    Returns:
        Both ends; the mean itself twice where all values, or the means of all clusters, are equal
        or there is only one, and NaN where there is none.

    Raises:
        InvalidInputError: not one-dimensional, a value is infinite, or clusters are not one whole
            number per query.
    """
    rows = _checked(values, 1)[None]
    low, high = intervals(rows, seed, clusters=clusters)[0].tolist()
    return low, high


def intervals(values: Values, seed: int, *, clusters: Clusters | None = None) -> Values:
    """The same for many figures over the same queries, which are drawn again once for all.

    Args:
        values: float64 [figures, q].
        seed: of the resampling.
        clusters: int64 [q]; see `interval`.

    Returns:
        float64 [figures, 2]; each is what `interval` gives, to rounding.

    Raises:
        InvalidInputError: not two-dimensional, a value is infinite, or clusters are not one whole
            number per query.
    """
    values = _checked(values, 2)
    clusters = _clusters(clusters, values.shape[1])
    out = np.full((len(values), 2), np.nan)
    patterns, which = np.unique(~np.isnan(values), axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        figures = np.flatnonzero(which == number)
        if pattern.any():
            defined = np.flatnonzero(pattern)
            out[figures] = _intervals(values[np.ix_(figures, defined)], clusters[defined], seed)
    return out


def _intervals(kept: Values, clusters: Clusters, seed: int) -> Values:
    """Of float64 [figures, q] without NaN, q at least 1: float64 [figures, 2]."""
    sums, sizes = _summed(kept, clusters)
    equal = (kept == kept[:, :1]).all(axis=1, keepdims=True)
    out = np.repeat(np.where(equal, kept[:, :1], kept.mean(axis=1, keepdims=True)), 2, axis=1)
    inside = sums / sizes
    varied = np.flatnonzero(~equal[:, 0] & (inside != inside[:, :1]).any(axis=1))
    if len(varied):
        drawn = [
            (counts @ sums[varied].T) / (counts @ sizes)[:, None]
            for counts in _resampled(len(sizes), seed)
        ]
        means = np.concatenate(drawn)
        for number, figure in enumerate(varied):
            levels = _levels(sums[figure], sizes, means[:, number])
            out[figure] = np.quantile(means[:, number], levels)
    return out


def paired(a: Values, b: Values, seed: int, *, clusters: Clusters | None = None) -> Paired:
    """Paired randomisation test of two systems, two-sided, on the mean difference.

    If systems were the same, either could have had either value of a query: the signs of the
    differences are flipped at random, and p is the share of assignments whose mean difference is
    at least as large as that observed (Fisher; compared with other tests for retrieval by
    Smucker, Allan & Carterette, CIKM 2007). All queries of a cluster are flipped together: that
    much only is exchangeable if systems can be good or bad at what they share. All assignments are
    tried where at most 14 clusters differ, else 10,000 random ones, the observed one counted in
    (Phipson & Smyth, 2010), so that p is at least 1e-4.

    Args:
        a: float64 [q], values of one system.
        b: float64 [q], of the other, for the same queries.
        seed: of signs and resamples.
        clusters: int64 [q]; see `interval`.

    Raises:
        InvalidInputError: lengths differ, a value is infinite, or clusters are not one whole
            number per query.
    """
    a, b = _checked(a, 1), _checked(b, 1)
    if a.shape != b.shape:
        raise InvalidInputError(
            f"two systems are compared on the same queries, not on {a.shape} and {b.shape} values"
        )
    differences = a - b
    kept = differences[~np.isnan(differences)]
    clusters = _clusters(clusters, len(differences))
    low, high = interval(differences, seed, clusters=clusters)
    mine = clusters[~np.isnan(differences)]
    sums, _ = _summed(kept[None], mine)
    magnitudes, _ = _summed(np.abs(kept)[None], mine)
    # Tenths that cancel out within a cluster leave a rounding error: that is no difference.
    differing = np.abs(sums[0]) > _NEARLY * magnitudes[0]
    return Paired(
        difference=float(kept.mean()) if len(kept) else math.nan,
        low=low,
        high=high,
        p=_randomised(sums[0, differing], seed),
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


def _checked(values: Values, dimensions: int) -> Values:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != dimensions or np.isinf(values).any():
        raise InvalidInputError(
            f"values must be float {'[figures, q]' if dimensions == 2 else '[q]'}, finite or NaN, "
            f"not {list(values.shape)} with {int(np.isinf(values).sum())} infinite ones"
        )
    return values


def _clusters(clusters: Clusters | None, queries: int) -> Clusters:
    """The same, int64 [queries]; each query its own where there are none."""
    if clusters is None:
        return np.arange(queries)
    clusters = np.asarray(clusters)
    if clusters.shape != (queries,) or not np.issubdtype(clusters.dtype, np.integer):
        raise InvalidInputError(
            f"clusters must be one whole number for each of {queries} queries, not "
            f"{clusters.dtype} {list(clusters.shape)}"
        )
    return clusters.astype(np.int64)


def _summed(values: Values, clusters: Clusters) -> tuple[Values, Values]:
    """Sums of float64 [figures, q] over clusters, float64 [figures, clusters], and their sizes.

    Clusters are in the order in which they first come, so that a draw does not depend on how
    they are numbered; a query that is its own cluster is its own sum.
    """
    _, first, which = np.unique(clusters, return_index=True, return_inverse=True)
    position = np.empty(len(first), dtype=np.int64)
    position[np.argsort(first)] = np.arange(len(first))
    which, many = position[which], len(first)
    sums = np.empty((len(values), many))
    for figure, row in enumerate(values):
        sums[figure] = np.bincount(which, weights=row, minlength=many)
    return sums, np.bincount(which, minlength=many).astype(np.float64)


def _resampled(count: int, seed: int) -> Iterator[Values]:
    """How often each of `count` clusters is drawn: blocks of float64 [resamples, count]."""
    rng = np.random.default_rng([seed, 1])
    block = max(1, _BLOCK_VALUES // count)
    for start in range(0, RESAMPLES, block):
        drawn = [
            np.bincount(rng.integers(0, count, count), minlength=count)
            for _ in range(min(block, RESAMPLES - start))
        ]
        yield np.stack(drawn).astype(np.float64)


def _levels(sums: Values, sizes: Values, means: Values) -> Values:
    """The two quantiles of the bootstrap means that BCa takes for the ends."""
    from scipy.special import ndtr, ndtri

    mean = sums.sum() / sizes.sum()
    # Figures such as hit@k take few values: means that are equal must count as equal.
    tie = _NEARLY * np.abs(sums / sizes).max()
    below = (means < mean - tie).mean() + (np.abs(means - mean) <= tie).mean() / 2
    tails = ndtri(np.array([(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    bias = ndtri(below)
    deviations = _deviations(sums, sizes, mean)
    spread = (deviations**2).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        acceleration = (deviations**3).sum() / (6 * spread**1.5)
        reach = bias + tails
        levels: Values = ndtr(bias + reach / (1 - acceleration * reach))
    return levels if np.isfinite(levels).all() else ndtr(tails)


def _deviations(sums: Values, sizes: Values, mean: float) -> Values:
    """How far the mean moves when each cluster is left out, around its average, to some scale.

    Without cluster c it is less by ``(sum_c - size_c * mean) / (all - size_c)``. Where all are of
    one size, that is to scale the deviation of a cluster's own sum, and the average is zero.
    """
    moved: Values = sums - sizes * mean
    if (sizes == sizes[0]).all():
        return moved
    moved /= 1.0 - sizes / sizes.sum()
    moved -= moved.mean()
    return moved


def _randomised(differences: Values, seed: int) -> float:
    """P of a sum of differences, none of them 0, under random signs."""
    if not len(differences):
        return 1.0
    total = differences.sum()
    least = abs(total) - _NEARLY * np.abs(differences).sum()
    exact = len(differences) <= EXACT_CLUSTERS
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
