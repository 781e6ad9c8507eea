from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.benchmarks import measures
from bittern.errors import InvalidInputError


def ranking(*relevant: int) -> NDArray[np.bool_]:
    return np.array(relevant, dtype=np.bool_)


def all_orders(relevant: int, n: int) -> list[NDArray[np.bool_]]:
    return [np.isin(np.arange(n), places) for places in combinations(range(n), relevant)]


def test_average_precision_is_the_mean_precision_at_relevant_ranks() -> None:
    assert measures.average_precision(ranking(1, 0, 1, 0)) == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_average_precision_divides_by_all_relevant_items_not_by_those_at_the_top() -> None:
    late = ranking(1, *[0] * 97, 1, 1)
    assert measures.average_precision(late) == pytest.approx((1 + 2 / 99 + 3 / 100) / 3)


def test_a_perfect_ranking_has_average_precision_one() -> None:
    assert measures.average_precision(ranking(1, 1, 0, 0)) == 1.0


def test_precision_divides_by_k_even_where_fewer_items_are_ranked() -> None:
    assert measures.precision_at(ranking(1, 0, 1), 5) == pytest.approx(2 / 5)


def test_precision_counts_only_the_first_k() -> None:
    assert measures.precision_at(ranking(0, 1, 1, 1), 2) == pytest.approx(1 / 2)


def test_a_hit_is_one_relevant_item_among_the_first_k() -> None:
    assert measures.hit_at(ranking(0, 0, 1, 1), 3) == 1.0
    assert measures.hit_at(ranking(0, 0, 1, 1), 2) == 0.0


@pytest.mark.parametrize(("relevant", "n"), [(1, 1), (1, 2), (1, 7), (2, 7), (6, 7), (7, 7)])
def test_chance_is_the_mean_over_all_orders(relevant: int, n: int) -> None:
    orders = all_orders(relevant, n)
    precision = np.mean([measures.average_precision(order) for order in orders])
    top = np.mean([measures.precision_at(order, 5) for order in orders])
    hit = np.mean([measures.hit_at(order, 5) for order in orders])
    assert measures.chance_of_average_precision(relevant, n) == pytest.approx(precision)
    assert measures.chance_of_precision_at(relevant, n, 5) == pytest.approx(top)
    assert measures.chance_of_hit_at(relevant, n, 5) == pytest.approx(hit)


@pytest.mark.parametrize("nothing", [ranking(), ranking(0, 0)])
def test_a_query_that_nothing_answers_is_refused(nothing: NDArray[np.bool_]) -> None:
    with pytest.raises(InvalidInputError, match="leave out queries"):
        measures.average_precision(nothing)


def test_chance_of_more_relevant_items_than_items_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="3 of 2"):
        measures.chance_of_average_precision(3, 2)


def test_a_ranking_of_numbers_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="bool"):
        measures.average_precision(np.array([1, 0]))
