from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bittern.errors import CodeError
from bittern.hashing.codes import asymmetric_distance, hamming_distance, pack, probabilities, unpack


def random_logits(seed: int, n: int, bits: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, bits))


def test_bit_i_is_bit_i_mod_8_of_byte_i_div_8() -> None:
    for i in range(24):
        logits = -np.ones((1, 24))
        logits[0, i] = 1.0
        expected = np.zeros(3, np.uint8)
        expected[i // 8] = 1 << (i % 8)
        assert (pack(logits)[0] == expected).all()


def test_a_logit_of_zero_gives_a_zero_bit() -> None:
    assert pack(np.zeros((1, 8)))[0, 0] == 0


@given(st.integers(0, 2**31), st.integers(0, 9), st.integers(1, 64))
def test_unpack_returns_the_signs_that_were_packed(seed: int, n: int, size: int) -> None:
    logits = random_logits(seed, n, size * 8)
    assert (unpack(pack(logits)) == (logits > 0)).all()


@given(st.integers(0, 2**31), st.integers(1, 8))
def test_hamming_distance_counts_differing_bits(seed: int, size: int) -> None:
    a, b = random_logits(seed, 3, size * 8), random_logits(seed + 1, 5, size * 8)
    expected = ((a > 0)[:, None, :] != (b > 0)[None, :, :]).sum(axis=2)
    assert (hamming_distance(pack(a), pack(b)) == expected).all()


@given(st.integers(0, 2**31), st.integers(1, 64))
def test_asymmetric_distance_is_l1_to_the_sigmoid(seed: int, size: int) -> None:
    codes = pack(random_logits(seed, 20, size * 8))
    query = 3 * random_logits(seed + 1, 1, size * 8)[0]
    p = 1 / (1 + np.exp(-query))
    expected = np.abs(p - unpack(codes)).sum(axis=1)
    np.testing.assert_allclose(asymmetric_distance(query, codes), expected, atol=1e-9)


def test_asymmetric_distance_ranks_like_the_weighted_bits() -> None:
    codes = pack(random_logits(0, 200, 64))
    query = random_logits(1, 1, 64)[0]
    p = probabilities(query)
    score = -(unpack(codes) * (2 * p - 1)).sum(axis=1)
    assert (np.argsort(asymmetric_distance(query, codes)) == np.argsort(score)).all()


def test_asymmetric_distance_of_a_row_does_not_depend_on_its_neighbours() -> None:
    codes = pack(random_logits(0, 70_000, 16))
    query = random_logits(1, 1, 16)[0]
    together = asymmetric_distance(query, codes)
    picked = np.array([0, 1, 32_767, 32_768, 69_999])
    assert (asymmetric_distance(query, codes[picked]) == together[picked]).all()


def test_saturated_logits_give_the_hamming_distance() -> None:
    a, b = random_logits(0, 1, 128), random_logits(1, 50, 128)
    soft = asymmetric_distance(1e6 * a[0], pack(b))
    assert (soft == hamming_distance(pack(a), pack(b))[0]).all()


@pytest.mark.parametrize("bits", [0, 7, 12, 4104])
def test_unusable_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(CodeError, match=r"multiple of 8|shape"):
        pack(np.ones((2, bits)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_code_is_made_of_numbers_that_are_not_finite(value: float) -> None:
    logits = np.ones((2, 16))
    logits[1, 3] = value
    with pytest.raises(CodeError, match="NaN or infinity"):
        pack(logits)
    with pytest.raises(CodeError, match="NaN or infinity"):
        asymmetric_distance(logits[1], pack(np.ones((1, 16))))


def test_codes_of_another_length_are_refused_with_both_lengths() -> None:
    with pytest.raises(CodeError, match=r"64 bits .* 128 bits"):
        hamming_distance(pack(np.ones((1, 128))), pack(np.ones((1, 64))))


def test_codes_of_another_dtype_are_refused() -> None:
    with pytest.raises(CodeError, match="int64"):
        unpack(np.ones((1, 4), dtype=np.int64))
