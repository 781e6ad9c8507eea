from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bittern.benchmarks.eval.systems.exact import (
    cosine_distances,
    squared_distances,
    unit,
    whole,
)


@given(st.integers(1, 900), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_every_order_of_addition_gives_the_same_products(dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = unit(rng.standard_normal((5, dim))), unit(rng.standard_normal((9, dim)))
    order = rng.permutation(dim)
    assert np.array_equal(
        cosine_distances(a, b), np.stack([cosine_distances(a, row[None])[:, 0] for row in b], 1)
    )
    products = whole(a) @ whole(b).T
    assert np.array_equal(products, whole(a)[:, order] @ whole(b)[:, order].T)
    exact = [[sum(int(x) * int(y) for x, y in zip(q, r, strict=True)) for r in whole(b)]
             for q in whole(a)]  # fmt: skip
    assert [[int(x) for x in row] for row in products] == exact


def test_plain_products_do_differ_which_is_what_this_is_for() -> None:
    rng = np.random.default_rng(0)
    a, b = unit(rng.standard_normal((5, 333))), unit(rng.standard_normal((900, 333)))
    order = rng.permutation(333)
    assert not np.array_equal(a @ b.T, a[:, order] @ b[:, order].T)


def test_the_cosine_is_right_to_eight_digits_whatever_the_lengths() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((20, 768)), rng.standard_normal((30, 768))
    a *= 10.0 ** rng.integers(-30, 30, (20, 1))
    b *= 10.0 ** rng.integers(-30, 30, (30, 1))
    plain = 1 - (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    assert np.abs(cosine_distances(a, b) - plain).max() < 3e-8


def test_a_row_is_at_distance_zero_from_itself_and_one_from_nothing() -> None:
    rows = np.random.default_rng(2).standard_normal((50, 384)).astype(np.float32)
    assert (np.diagonal(cosine_distances(rows, rows)) == 0).all()
    assert (cosine_distances(rows, np.zeros((3, 384))) == 1).all()
    assert (cosine_distances(np.zeros((1, 384)), rows) == 1).all()
    assert np.allclose(cosine_distances(rows, -rows[:1])[0], 2)


@pytest.mark.parametrize("dim", [1, 2, 3, 4096, 65_536])
def test_unit_rows_have_unit_length(dim: int) -> None:
    rows = np.random.default_rng(dim).standard_normal((4, dim)) * 1e-20
    assert np.allclose(np.linalg.norm(unit(rows), axis=1), 1, atol=1e-6)
    spike = np.zeros((1, dim))
    spike[0, -1] = -3.0
    assert unit(spike)[0, -1] == -1


def test_squared_distances_of_whole_numbers_are_exact() -> None:
    rng = np.random.default_rng(3)
    a, b = whole(unit(rng.standard_normal((6, 40)))), whole(unit(rng.standard_normal((7, 40))))
    exact = [[sum((int(x) - int(y)) ** 2 for x, y in zip(q, r, strict=True)) for r in b] for q in a]
    assert np.allclose(squared_distances(a, b), np.array(exact, dtype=np.float64), rtol=1e-15)
