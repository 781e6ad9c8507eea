"""Which queries are shown: a rule chooses, not somebody."""

from __future__ import annotations

import numpy as np

from benchmarks.retrieval.showing import chosen


def test_some_of_the_best_of_the_middling_and_of_the_worst_are_shown() -> None:
    values = np.linspace(0.0, 1.0, 101)
    assert chosen(values) == [100, 99, 51, 50, 1, 0]


def test_few_queries_are_all_shown_best_first() -> None:
    assert chosen(np.array([0.1, 0.9, 0.5])) == [1, 2, 0]


def test_equal_queries_are_taken_by_place() -> None:
    assert chosen(np.full(9, 0.5)) == [0, 1, 3, 4, 7, 8]


def test_undefined_queries_count_as_the_worst() -> None:
    assert chosen(np.array([np.nan, 0.2, 0.4, 0.1]), 3) == [2, 3, 0]
