from __future__ import annotations

import numpy as np

from bittern.benchmarks import measures
from bittern.benchmarks.ranking import items_in_order, orders_within_ties


def test_a_recording_stands_at_the_place_of_its_best_window() -> None:
    distances = np.array([9, 1, 5, 7])
    owners = np.array([0, 0, 1, 2])
    assert items_in_order(distances, owners).tolist() == [0, 1, 2]


def test_equal_distances_are_ordered_by_row() -> None:
    distances = np.array([3, 3, 2, 3])
    owners = np.array([2, 1, 0, 3])
    assert items_in_order(distances, owners).tolist() == [0, 2, 1, 3]


def test_every_item_is_ranked_once() -> None:
    rng = np.random.default_rng(0)
    owners = np.repeat(np.arange(20), rng.integers(1, 5, 20))
    order = items_in_order(rng.integers(0, 6, len(owners)), owners)
    assert sorted(order.tolist()) == list(range(20))


def test_ties_span_from_the_worst_to_the_best_order() -> None:
    distances = np.array([1, 1, 1, 2])
    relevant = np.array([False, True, False, True])
    worst, best = orders_within_ties(distances, np.arange(4), relevant)
    assert worst.tolist() == [False, False, True, True]
    assert best.tolist() == [True, False, False, True]


def test_the_order_by_row_lies_between_the_worst_and_the_best() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        owners = np.repeat(np.arange(12), rng.integers(1, 4, 12))
        distances = rng.integers(0, 4, len(owners))
        relevant = np.isin(np.arange(12), rng.choice(12, 3, replace=False))
        worst, best = orders_within_ties(distances, owners, relevant)
        taken = measures.average_precision(relevant[items_in_order(distances, owners)])
        low, high = measures.average_precision(worst), measures.average_precision(best)
        assert low <= taken <= high


def test_without_ties_worst_and_best_are_the_ranking_itself() -> None:
    distances = np.array([0.4, 0.1, 0.3, 0.2])
    relevant = np.array([True, False, False, True])
    worst, best = orders_within_ties(distances, np.arange(4), relevant)
    ranked = relevant[items_in_order(distances, np.arange(4))]
    assert worst.tolist() == best.tolist() == ranked.tolist()
