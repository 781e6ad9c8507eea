"""Queries that ask for the same class are drawn, and have their signs flipped, together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from bittern.benchmarks.eval.statistics import interval, paired
from bittern.errors import InvalidInputError

PRECISIONS = np.random.default_rng(0).beta(0.4, 1.2, 60)
Values = NDArray[np.float64]
Clusters = NDArray[np.int64]


def by_class(rng: np.random.Generator, sizes: NDArray[np.int64], shared: float) -> Values:
    """Values around 0 of which some is shared by all queries of a cluster."""
    effects = np.repeat(rng.normal(0, shared, len(sizes)), sizes)
    found: Values = effects + rng.normal(0, 0.3, len(effects))
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_the_interval_is_that_of_scipy_over_sums_and_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, 15)
    clusters = np.repeat(np.arange(15), sizes)
    values = rng.beta(0.4, 1.2, 15)[clusters] ** 2 + rng.random(len(clusters)) / 10
    reference = stats.bootstrap(
        (np.bincount(clusters, values), sizes),
        lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis),
        paired=True, n_resamples=40_000, method="BCa", rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    ends = [interval(values, seed, clusters=clusters) for seed in range(20)]
    low, high = np.mean(ends, axis=0)
    width = reference.high - reference.low
    assert abs(low - reference.low) < 0.03 * width
    assert abs(high - reference.high) < 0.03 * width
    alone = interval(values, 0)
    assert alone[1] - alone[0] < 0.6 * width


def test_clusters_of_one_query_each_change_nothing() -> None:
    other = PRECISIONS**2 - 0.03
    holed = np.where(np.arange(60) % 7 == 0, np.nan, PRECISIONS)
    for numbers in (np.arange(60), np.random.default_rng(1).permutation(60) - 30):
        assert interval(holed, 5, clusters=numbers) == interval(holed, 5)
        assert paired(holed, other, 5, clusters=numbers) == paired(holed, other, 5)


def test_how_clusters_are_numbered_and_where_their_queries_stand_changes_nothing() -> None:
    clusters = np.repeat(np.arange(12), 5)
    again = np.random.default_rng(2).permutation(12)[clusters] * 1000
    assert interval(PRECISIONS, 5, clusters=clusters) == interval(PRECISIONS, 5, clusters=again)
    turned = np.arange(60).reshape(12, 5).T.ravel()
    scattered = interval(PRECISIONS[turned], 5, clusters=clusters[turned])
    assert scattered == pytest.approx(interval(PRECISIONS, 5, clusters=clusters), rel=1e-12)


def test_repeated_queries_are_no_more_sure_than_single_ones() -> None:
    twice, clusters = np.repeat(PRECISIONS, 2), np.repeat(np.arange(60), 2)
    other = np.sqrt(PRECISIONS)[::-1]
    assert interval(twice, 3, clusters=clusters) == pytest.approx(interval(PRECISIONS, 3))
    doubled = paired(twice, np.repeat(other, 2), 3, clusters=clusters)
    once = paired(PRECISIONS, other, 3)
    assert (doubled.p, doubled.low) == pytest.approx((once.p, once.low))


def test_two_clusters_have_the_three_means_that_two_draws_can_have() -> None:
    """One query at 0.9, three at 0.1, 0.2 and 0.3: means 0.9, 1.5 / 4 and 0.2."""
    low, high = interval(np.array([0.1, 0.9, 0.2, 0.3]), 0, clusters=np.array([7, 2, 7, 7]))
    assert (low, high) == pytest.approx((0.2, 0.9))


def test_one_cluster_or_equal_ones_are_their_mean() -> None:
    values = np.array([0.0, 1.0, 0.5, 0.5])
    assert interval(values, 0, clusters=np.zeros(4, np.int64)) == (0.5, 0.5)
    assert interval(values, 0, clusters=np.array([0, 0, 1, 1])) == (0.5, 0.5)
    thirds = np.array([0.1, 0.3, 0.2, 0.2, 0.1, 0.2, 0.3])
    result = interval(thirds, 0, clusters=np.array([0, 0, 1, 1, 2, 2, 2]))
    assert result == pytest.approx((0.2, 0.2))


def test_three_clusters_have_eight_assignments_of_signs() -> None:
    a = np.array([0.5, 0.1, 0.2, 0.4, 0.3])
    clusters = np.array([1, 1, 2, 3, 3])
    # Sums 0.6, 0.2 and 0.7: only all of one sign reach 1.5.
    result = paired(a, np.zeros(5), 0, clusters=clusters)
    assert result.p == 2 / 8
    assert result.difference == pytest.approx(0.3)
    # Sums 0.6, -0.2 and 0.7: 1.5 and 1.1, either way round.
    assert paired(a * [1, 1, -1, 1, 1], np.zeros(5), 0, clusters=clusters).p == 4 / 8
    assert paired(a, np.zeros(5), 0, clusters=np.zeros(5, np.int64)).p == 1.0


def test_a_cluster_whose_differences_cancel_out_is_none_that_differs() -> None:
    a, zeros = np.array([0.1, 0.2, -0.3, 0.4]), np.zeros(4)
    assert a[:3].sum() != 0
    assert paired(a, zeros, 0, clusters=np.array([0, 0, 0, 1])).p == 1.0
    same = paired(a, a.copy(), 0, clusters=np.array([0, 0, 0, 1]))
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_up_to_fourteen_clusters_are_exact_however_many_queries_they_have() -> None:
    rng = np.random.default_rng(4)
    clusters = rng.permutation(np.repeat(np.arange(14), 20))
    a = rng.normal(0.02, 0.1, 280)
    ps = {paired(a, np.zeros(280), seed, clusters=clusters).p for seed in range(3)}
    assert len(ps) == 1
    p = ps.pop() * 2**14
    assert p == pytest.approx(round(p), abs=1e-9)


def test_without_a_difference_classes_are_no_evidence_of_one() -> None:
    """One in twenty is what is promised; queries taken for independent say so of every other."""
    rng = np.random.default_rng(5)
    sizes = np.array([2, 3, 5, 8, 8, 10, 10, 12, 12, 15, 15, 20])
    clusters = np.repeat(np.arange(12), sizes)
    zeros = np.zeros(len(clusters))
    together, apart, held = [], [], []
    for seed in range(200):
        result = paired(by_class(rng, sizes, 1.0), zeros, seed, clusters=clusters)
        together.append(result.p)
        held.append(result.low <= 0 <= result.high)
    for seed in range(40):
        apart.append(paired(by_class(rng, sizes, 1.0), zeros, seed).p)
    assert 0.02 <= np.mean(np.array(together) < 0.05) <= 0.09
    assert np.mean(np.array(apart) < 0.05) > 0.4
    assert 0.80 <= np.mean(held) <= 0.98


def test_undefined_queries_leave_the_rest_of_their_cluster() -> None:
    clusters = np.repeat(np.arange(12), 5)
    holes = np.isin(np.arange(60), [3, 10, 11, 12, 13, 14])
    holed = np.where(holes, np.nan, PRECISIONS)
    kept = interval(PRECISIONS[~holes], 5, clusters=clusters[~holes])
    assert interval(holed, 5, clusters=clusters) == kept
    other = PRECISIONS**2
    without = paired(PRECISIONS[~holes], other[~holes], 5, clusters=clusters[~holes])
    assert paired(holed, other, 5, clusters=clusters) == without
    nothing = paired(np.full(3, np.nan), np.ones(3), 0, clusters=np.array([0, 0, 1]))
    assert math.isnan(nothing.difference)
    assert nothing.p == 1.0


@pytest.mark.parametrize("wrong", [np.arange(59), np.arange(60.0), np.zeros((1, 60), np.int64)])
def test_clusters_that_are_not_one_whole_number_per_query_are_refused(wrong: Clusters) -> None:
    with pytest.raises(InvalidInputError, match="for each of 60 queries"):
        interval(PRECISIONS, 0, clusters=wrong)
    with pytest.raises(InvalidInputError, match="for each of 60 queries"):
        paired(PRECISIONS, PRECISIONS, 0, clusters=wrong)
