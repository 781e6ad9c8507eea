from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bittern.benchmarks.eval import statistics
from bittern.benchmarks.eval.statistics import holm, interval, intervals, paired
from bittern.errors import InvalidInputError

PRECISIONS = np.random.default_rng(0).beta(0.4, 1.2, 60)


@pytest.mark.parametrize("values", [PRECISIONS, np.random.default_rng(9).lognormal(0, 1.5, 12)])
def test_the_interval_is_that_of_scipy(values: NDArray[np.float64]) -> None:
    reference = stats.bootstrap(
        (values,), np.mean, n_resamples=40_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    low, high = np.mean([interval(values, seed) for seed in range(20)], axis=0)
    width = reference.high - reference.low
    assert abs(low - reference.low) < 0.02 * width
    assert abs(high - reference.high) < 0.02 * width


def test_skewed_values_get_a_lopsided_interval() -> None:
    low, high = interval(np.random.default_rng(2).exponential(size=30) ** 2, 0)
    mean = (np.random.default_rng(2).exponential(size=30) ** 2).mean()
    assert high - mean > 1.2 * (mean - low) > 0


def test_means_that_tie_with_the_mean_are_no_rounding() -> None:
    """Sums of whole numbers are exact; of tenths, many that are equal would count as greater."""
    rng = np.random.default_rng(7)
    for count in range(5, 60):
        values = rng.integers(0, 4, count).astype(np.float64)
        low, high = interval(values, count)
        assert interval(values / 10, count) == pytest.approx((low / 10, high / 10), rel=1e-9)


def test_nineteen_of_twenty_intervals_hold_the_mean() -> None:
    rng = np.random.default_rng(3)
    samples = rng.beta(0.4, 1.2, (200, 50))
    ends = [interval(sample, seed) for seed, sample in enumerate(samples)]
    held = sum(low <= 0.25 <= high for low, high in ends)
    assert 0.90 <= held / len(ends) <= 0.98


def test_a_seed_decides_the_interval() -> None:
    assert interval(PRECISIONS, 5) == interval(PRECISIONS, 5)
    assert interval(PRECISIONS, 5) != interval(PRECISIONS, 6)


def test_blocks_of_resamples_are_no_part_of_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    other = 1 - PRECISIONS**2
    whole = interval(PRECISIONS, 5)
    monkeypatch.setattr(statistics, "_BLOCK_VALUES", 130)
    assert interval(PRECISIONS, 5) == pytest.approx(whole, rel=1e-12)
    assert paired(PRECISIONS, other, 1).low == pytest.approx(interval(PRECISIONS - other, 1)[0])


@pytest.mark.parametrize("clusters", [None, np.random.default_rng(3).integers(0, 12, 60)])
def test_many_figures_have_the_intervals_that_each_has_alone(
    clusters: NDArray[np.int64] | None,
) -> None:
    holed = np.where(np.arange(60) % 7 == 0, np.nan, PRECISIONS)
    nothing = np.full(60, np.nan)
    figures = np.stack([PRECISIONS, holed, np.full(60, 0.1), PRECISIONS**2, nothing, 1 - holed])
    alone = np.array([interval(one, 4, clusters=clusters) for one in figures])
    together = intervals(figures, 4, clusters=clusters)
    assert np.allclose(together, alone, rtol=1e-12, equal_nan=True)
    assert alone[2].tolist() == [0.1, 0.1]
    assert np.isnan(alone[4]).all()
    assert intervals(figures[:0], 4, clusters=clusters).shape == (0, 2)


def test_undefined_values_are_left_out() -> None:
    holed = np.insert(PRECISIONS, [0, 7, 60], np.nan)
    other = np.insert(PRECISIONS / 2, [0, 7, 60], 0.5)
    assert interval(holed, 5) == interval(PRECISIONS, 5)
    assert paired(holed, other, 0) == paired(PRECISIONS, PRECISIONS / 2, 0)


def test_too_few_values_for_an_interval_are_their_mean() -> None:
    assert interval(np.array([0.25]), 0) == (0.25, 0.25)
    assert interval(np.array([0.25, np.nan]), 0) == (0.25, 0.25)
    assert interval(np.full(9, 0.1), 0) == (0.1, 0.1)
    assert all(math.isnan(end) for end in interval(np.array([np.nan]), 0))
    assert all(math.isnan(end) for end in interval(np.array([]), 0))
    low, high = interval(np.array([0.0, 1.0]), 0)
    assert 0 <= low <= high <= 1


def test_values_that_are_not_one_number_per_query_are_refused() -> None:
    for wrong in (np.ones((2, 2)), np.array([1.0, np.inf])):
        with pytest.raises(InvalidInputError):
            interval(wrong, 0)
        with pytest.raises(InvalidInputError):
            paired(wrong, wrong, 0)
    with pytest.raises(InvalidInputError):
        intervals(np.ones(3), 0)
    with pytest.raises(InvalidInputError, match="same queries"):
        paired(np.ones(2), np.ones(3), 0)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 13])
def test_few_queries_have_all_their_signs_tried(count: int) -> None:
    rng = np.random.default_rng(count)
    a, b = rng.random(count), rng.random(count)
    d = a - b
    sums = [abs((d * signs).sum()) for signs in itertools.product((-1, 1), repeat=count)]
    exact = np.mean([one >= abs(d.sum()) - 1e-12 for one in sums])
    assert paired(a, b, 0).p == pytest.approx(exact, abs=1e-15)


@pytest.mark.parametrize("count", [4, 8, 30])
def test_equal_sums_of_tenths_tie_with_what_was_observed(count: int) -> None:
    rng = np.random.default_rng(count)
    for seed in range(20):
        a, b = rng.integers(0, 4, (2, count))
        assert paired(a / 10, b / 10, seed).p == paired(a, b, seed).p
    assert paired(np.array([0.1, 0.2, 0.3, 0.0]), np.zeros(4), 0).p == 2 / 8
    assert paired(np.array([0.3, 0.0, 0.0]), np.array([0.0, 0.1, 0.2]), 0).p == 1.0


def test_many_queries_agree_with_scipy() -> None:
    rng = np.random.default_rng(11)
    a = rng.random(40)
    b = np.clip(a + rng.normal(0.02, 0.15, 40), 0, 1)
    reference = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000,
        vectorized=False, rng=np.random.default_rng(1),
    ).pvalue  # fmt: skip
    assert 0.005 < reference < 0.5
    assert paired(a, b, 0).p == pytest.approx(reference, abs=0.02)


@given(st.integers(2, 60), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_swapping_the_systems_mirrors_the_comparison(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random(count), rng.random(count)
    there, back = paired(a, b, 3), paired(b, a, 3)
    assert there.p == back.p
    assert there.difference == pytest.approx(-back.difference, abs=1e-15)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)
    assert there.low <= there.difference <= there.high


def test_identical_systems_do_not_differ() -> None:
    same = paired(PRECISIONS, PRECISIONS.copy(), 0)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_clearly_different_systems_reach_the_least_p_there_is() -> None:
    rng = np.random.default_rng(4)
    b = rng.random(200) / 2
    assert paired(b + 0.3 + rng.random(200) / 10, b, 0).p == 1 / 10_001


def test_without_a_difference_one_p_in_twenty_is_below_a_twentieth() -> None:
    rng = np.random.default_rng(5)
    pairs = rng.random((200, 2, 25))
    ps = [paired(a, b, seed).p for seed, (a, b) in enumerate(pairs)]
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.09
    assert 0.4 <= np.mean(ps) <= 0.6


def test_nothing_to_compare_is_no_difference() -> None:
    nothing = paired(np.array([np.nan, 1.0]), np.array([1.0, np.nan]), 0)
    assert math.isnan(nothing.difference)
    assert nothing.p == 1.0


def test_holm_steps_down_as_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, 0.5]) == [1.0, 1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_refuses_what_is_no_probability() -> None:
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(InvalidInputError):
            holm([0.5, wrong])
