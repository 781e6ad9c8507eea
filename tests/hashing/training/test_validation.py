from __future__ import annotations

import numpy as np
import pytest

from bittern.errors import CodeError
from bittern.hashing.codes import asymmetric_distance, pack
from bittern.hashing.training.validation import mean_average_precision


def test_a_case_worked_by_hand() -> None:
    query = np.full((1, 8), 3.0)
    database = np.full((4, 8), 1.0)
    for row, wrong in enumerate((1, 0, 3, 2)):  # ranking: rows 1, 0, 3, 2
        database[row, :wrong] = -1
    relevant = np.array([[False, True, True, False]])  # ranks 1 and 4
    found = mean_average_precision(query, database, relevant)
    assert found == pytest.approx((1 / 1 + 2 / 4) / 2)


def test_ties_are_broken_by_row() -> None:
    query = np.random.default_rng(0).standard_normal((1, 16))
    database = np.ones((5, 16))
    for row in range(5):
        relevant = np.zeros((1, 5), dtype=bool)
        relevant[0, row] = True
        assert mean_average_precision(query, database, relevant) == pytest.approx(1 / (row + 1))


def test_the_ranking_is_that_of_asymmetric_search() -> None:
    random = np.random.default_rng(1)
    queries, database = random.standard_normal((6, 32)), random.standard_normal((40, 32))
    relevant = random.random((6, 40)) < 0.2
    expected = []
    for query, wanted in zip(queries, relevant, strict=True):
        order = np.argsort(asymmetric_distance(query, pack(database)), kind="stable")
        hits = wanted[order]
        expected.append((np.cumsum(hits) / np.arange(1, 41))[hits].mean())
    found = mean_average_precision(queries, database, relevant)
    assert found == pytest.approx(np.mean(expected))


def test_an_item_can_be_excluded_from_its_own_results() -> None:
    logits = np.array([[3.0] * 8, [3.0] * 7 + [-3.0]])
    relevant = np.ones((2, 2), dtype=bool)
    assert mean_average_precision(logits, logits, relevant, excluded=np.arange(2)) == 1.0


def test_queries_without_an_answer_are_left_out() -> None:
    logits = np.eye(2, 8) - 0.5
    relevant = np.array([[True, False], [False, False]])
    assert mean_average_precision(logits, logits, relevant) == 1.0
    with pytest.raises(CodeError, match="no query has a relevant row"):
        mean_average_precision(logits, logits, np.zeros((2, 2), dtype=bool))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CodeError, match="must be"):
        mean_average_precision(np.ones((1, 8)), np.ones((2, 16)), np.ones((1, 2), dtype=bool))
    with pytest.raises(CodeError, match="relevant must be"):
        mean_average_precision(np.ones((1, 8)), np.ones((2, 8)), np.ones((2, 1), dtype=bool))
