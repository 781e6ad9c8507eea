from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bittern.errors import CodeError, QueryError
from bittern.hashing.codes import asymmetric_distance, hamming_distance, pack, probabilities, unpack
from bittern.index.relevance import (
    FEWEST_QUERIES,
    FEWEST_ROWS,
    SAMPLE_ROWS,
    Background,
    sample_positions,
    similarities,
)
from bittern.query import HIGHEST_RATE, LOWEST_RATE, check_relevance

BITS = 64
RATES = st.floats(LOWEST_RATE, HIGHEST_RATE)
ROWS = st.integers(1, 10**9)


def random_codes(rows: int, seed: int, bits: int = BITS) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (rows, bits // 8), dtype=np.uint8)


def random_weights(queries: int, seed: int, bits: int = BITS) -> NDArray[np.float64]:
    normal = np.random.default_rng(seed).standard_normal((queries, bits))
    return np.asarray(np.tanh(normal), dtype=np.float64)


def signs(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.where(unpack(codes) > 0, 1.0, -1.0)


CODES = random_codes(2_000, seed=1)
BACKGROUND = Background.of(random_weights(256, seed=2), CODES)


@pytest.mark.parametrize("bits", [8, 64, 256])
def test_similarity_is_the_asymmetric_distance_on_another_scale(bits: int) -> None:
    logits = np.random.default_rng(3).normal(0, 2, bits)
    codes = random_codes(50, seed=4, bits=bits)
    weights = 2 * probabilities(logits) - 1
    distances = asymmetric_distance(logits, codes)
    scaled = (bits - 2 * distances) / (np.linalg.norm(weights) * np.sqrt(bits))
    assert similarities(weights[None], codes)[0] == pytest.approx(scaled)


def test_similarity_of_signs_is_the_share_of_agreeing_bits() -> None:
    codes = random_codes(20, seed=5)
    expected = 1 - 2 * hamming_distance(codes, codes) / BITS
    assert similarities(signs(codes), codes) == pytest.approx(expected)


@given(RATES, RATES, ROWS)
def test_a_higher_rate_lets_hits_through_that_are_farther(a: float, b: float, rows: int) -> None:
    low, high = sorted((a, b))
    weights = random_weights(1, seed=6)[0]
    near = BACKGROUND.threshold(weights, low, rows)
    assert near <= BACKGROUND.threshold(weights, high, rows)


@given(ROWS, ROWS, RATES)
def test_among_more_rows_a_hit_must_be_nearer(a: int, b: int, rate: float) -> None:
    few, many = sorted((a, b))
    weights = random_weights(1, seed=6)[0]
    far = BACKGROUND.threshold(weights, rate, few)
    assert BACKGROUND.threshold(weights, rate, many) <= far


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_other_unrelated_queries_are_answered_at_the_given_rate(rate: float) -> None:
    queries = random_weights(4_000, seed=8)
    nearest = similarities(queries, CODES).max(axis=1)
    answered = np.mean(nearest >= BACKGROUND.similarity(rate, len(CODES)))
    assert rate / 4 <= answered <= 2 * rate  # codes at random have a lighter tail than Gumbel's


def test_a_sample_stands_for_a_larger_archive() -> None:
    archive = random_codes(20_000, seed=9)
    sampled = Background.of(random_weights(256, seed=2), archive[sample_positions(len(archive))])
    nearest = similarities(random_weights(1_000, seed=10), archive).max(axis=1)
    assert np.mean(nearest >= sampled.similarity(0.1, len(archive))) <= 0.15
    assert np.mean(nearest >= sampled.similarity(0.1, sampled.rows)) > 0.2


def test_a_query_with_its_class_in_the_archive_is_answered_and_without_it_is_not() -> None:
    query = random_weights(1, seed=11)[0]
    close = pack(np.where(np.random.default_rng(12).random((30, BITS)) < 0.1, -1, 1) * query)
    threshold = BACKGROUND.threshold(query, 0.05, len(CODES))
    length = np.linalg.norm(query) * np.sqrt(BITS)
    present = BITS / 2 - similarities(query[None], close)[0] * length / 2
    absent = BITS / 2 - similarities(query[None], CODES)[0] * length / 2
    assert np.mean(present <= threshold) > 0.8
    assert absent.min() > threshold


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_reference_queries_that_are_in_the_archive_after_all_change_little(share: float) -> None:
    weights = random_weights(300, seed=13)
    clean = Background.of(weights, CODES)
    found = round(share * len(weights))
    weights[:found] = signs(CODES[:found])  # each of these finds its own code: similarity 1
    mixed = Background.of(weights, CODES)
    if share < 0.25:
        least = clean.similarity(0.05, len(CODES))
        assert least <= mixed.similarity(0.05, len(CODES)) <= least + 0.1
    else:  # more than a quarter: stricter, so what is let through is still right
        assert mixed.similarity(0.05, len(CODES)) > clean.similarity(0.05, len(CODES))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_what_answers_the_query_does_not_raise_its_own_threshold(share: float) -> None:
    query = random_weights(1, seed=14)[0]
    many = round(share * len(CODES))
    archive = CODES.copy()
    archive[:many] = pack(query[None])
    background = Background.of(random_weights(256, seed=2), archive)
    assert background.threshold(query, 0.01, len(archive)) > 5.0


def test_the_sample_is_all_of_a_small_archive() -> None:
    assert sample_positions(100).tolist() == list(range(100))


def test_the_sample_of_a_large_archive_is_drawn_without_return_and_always_the_same() -> None:
    positions = sample_positions(10**6)
    assert len(np.unique(positions)) == SAMPLE_ROWS
    assert np.array_equal(positions, np.sort(positions))
    assert np.array_equal(positions, sample_positions(10**6))
    assert positions.min() < 10_000 < 990_000 < positions.max() < 10**6


@pytest.mark.parametrize(
    ("queries", "rows"), [(FEWEST_QUERIES, FEWEST_ROWS - 1), (FEWEST_QUERIES - 1, 500), (256, 0)]
)
def test_too_little_to_judge_by_lets_everything_through(queries: int, rows: int) -> None:
    background = Background.of(random_weights(queries, seed=15), random_codes(rows, seed=16))
    query = random_weights(1, seed=17)[0]
    assert not background.usable
    assert background.threshold(query, 0.01, rows) == np.inf


def test_just_enough_to_judge_by_makes_a_cut_off() -> None:
    weights = random_weights(FEWEST_QUERIES, seed=15)
    assert Background.of(weights, random_codes(FEWEST_ROWS, seed=16)).usable


def test_reference_queries_that_all_find_the_same_let_everything_through() -> None:
    weights = np.repeat(random_weights(1, seed=18), 100, axis=0)
    background = Background.of(weights, random_codes(200, seed=19))
    assert not background.usable
    assert background.similarity(0.01, 200) == -np.inf


def test_an_archive_of_one_code_over_and_over_has_a_cut_off_that_the_code_itself_passes() -> None:
    archive = np.repeat(random_codes(1, seed=20), 500, axis=0)
    background = Background.of(random_weights(256, seed=21), archive)
    assert background.threshold(signs(archive[:1])[0], 0.01, 500) >= 0
    assert background.growth == 0


def test_hamming_distances_with_ties_have_a_threshold() -> None:
    background = Background.of(signs(random_codes(256, seed=22)), CODES)
    query = signs(random_codes(1, seed=23))[0]
    threshold = background.threshold(query, 0.05, len(CODES))
    assert 0 < threshold < hamming_distance(pack(query[None]), CODES).mean()


def test_to_a_query_that_says_nothing_nothing_is_relevant() -> None:
    query = np.zeros(BITS)
    assert BACKGROUND.threshold(query, 0.5, 100) == -np.inf


def test_the_names_stand_for_rates_that_rise() -> None:
    rates = [check_relevance(name) for name in ("strict", "usual", "loose")]
    assert LOWEST_RATE <= rates[0] < rates[1] < rates[2] <= HIGHEST_RATE


def test_a_rate_is_taken_as_it_is() -> None:
    assert check_relevance(0.03) == 0.03
    assert check_relevance(np.float64(0.5)) == 0.5


@pytest.mark.parametrize("wrong", ["", "lax", 0, 0.0009, 0.51, 1, -1, np.nan, np.inf, True, None])
def test_another_cut_off_is_refused_with_the_names(wrong: Any) -> None:
    with pytest.raises(QueryError, match="strict, usual, loose") as refused:
        check_relevance(wrong)
    assert refused.value.field == "relevance"


def test_weights_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(CodeError, match="NaN"):
        BACKGROUND.threshold(np.full(BITS, np.nan), 0.05, 100)


def test_weights_of_another_length_than_the_codes_are_refused() -> None:
    with pytest.raises(CodeError, match="bits"):
        Background.of(random_weights(100, seed=1, bits=128), CODES)
