from __future__ import annotations

import numpy as np
import pytest

from bittern.benchmarks.speed.codes import (
    NOISE,
    REPEATED_NOISE,
    ROWS_PER_SPECIES,
    SPECIES_APART,
    clustered,
    flips,
    real,
    repeated,
)
from bittern.errors import CodeError
from bittern.hashing.codes import hamming_distance


def test_codes_are_close_to_others_of_their_species() -> None:
    codes = clustered(2_000, 256).codes
    distances = hamming_distance(codes[:50], codes)
    twice_the_noise = 2 * NOISE * (1 - NOISE) * 256
    nearest = np.sort(distances, axis=1)[:, 1 : ROWS_PER_SPECIES // 2]
    assert nearest.mean() == pytest.approx(twice_the_noise, rel=0.2)
    assert np.median(distances) > 1.5 * twice_the_noise


def test_the_same_codes_are_drawn_every_time() -> None:
    some, again = clustered(300, 64), clustered(300, 64)
    assert np.array_equal(some.codes, again.codes)
    assert np.array_equal(some.logits, again.logits)


@pytest.mark.parametrize("share", [NOISE, SPECIES_APART, REPEATED_NOISE])
def test_the_requested_share_of_bits_is_flipped(share: float) -> None:
    found = flips(np.random.default_rng(1), 4_000, 64, share)
    assert np.bitwise_count(found).sum() / (4_000 * 64) == pytest.approx(share, abs=1 / 256)


def test_real_codes_come_first_and_then_codes_like_them() -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, (40, 32), dtype=np.uint8)
    found = repeated(codes, 500, rng)
    assert np.array_equal(found[:40], codes)
    nearest = hamming_distance(found[40:], codes).min(axis=1)
    assert nearest.mean() == pytest.approx(REPEATED_NOISE * 256, rel=0.2)
    assert np.array_equal(repeated(codes, 10, rng), codes[:10])


def test_real_codes_are_those_of_the_shipped_model() -> None:
    some, more = real(100), real(6_000)
    assert some.bits == 256
    assert np.array_equal(some.codes, more.codes[:100])
    assert some.logits.shape == (64, 256)
    with pytest.raises(CodeError, match="no model of 32 bits ships"):
        real(100, 32)
