from __future__ import annotations

import numpy as np
import pytest

from bittern.errors import CodeError
from bittern.hashing.training.records import bit_statistics


def test_balance_correlation_and_dead_bits_of_a_case_worked_by_hand() -> None:
    signs = np.array([[1, 1, -1, 1], [1, 1, 1, 1], [-1, -1, 1, 1], [-1, -1, -1, 1]])
    found = bit_statistics(signs.astype(np.float32))
    assert found.share.tolist() == [0.5, 0.5, 0.5, 1.0]
    assert found.dead == (3,)
    assert found.balance == pytest.approx(0.75)
    # Bits 0 and 1 are equal, bit 2 is independent of both, bit 3 has no correlation.
    assert found.correlation[0, 1] == pytest.approx(1.0)
    assert found.correlation[0, 2] == pytest.approx(0.0)
    assert found.correlation[3].tolist() == [0, 0, 0, 0]
    assert found.mean_correlation == pytest.approx(1 / 3)
    assert not found.collapsed


def test_constant_codes_are_collapsed() -> None:
    found = bit_statistics(np.full((300, 8), -1.0))
    assert found.collapsed
    assert found.balance == 0
    assert found.mean_correlation == 0


def test_a_bit_that_one_item_in_two_hundred_has_is_dead() -> None:
    logits = np.random.default_rng(0).standard_normal((200, 8))
    logits[:, 2] = -1
    logits[7, 2] = 1
    assert bit_statistics(logits).dead == (2,)


@pytest.mark.parametrize("logits", [np.zeros((0, 8)), np.zeros(8), np.full((2, 8), np.nan)])
def test_what_is_no_matrix_of_numbers_is_refused(logits: np.ndarray) -> None:
    with pytest.raises(CodeError):
        bit_statistics(logits)
