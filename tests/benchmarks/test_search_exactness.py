from __future__ import annotations

import numpy as np
import pytest

from bittern.benchmarks.speed.codes import METRICS, clustered
from bittern.benchmarks.speed.search.engines import flat_engine
from bittern.benchmarks.speed.search.exactness import brute_force, exactness, recall
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest
from bittern.types import Metric


def answer(distances: list[float], rows: list[int]) -> Nearest:
    return Nearest(np.array(distances), np.array(rows))


@pytest.mark.parametrize("metric", METRICS)
def test_the_exact_engine_is_found_exact(metric: Metric) -> None:
    collection = clustered(3_000, 256)
    queries = collection.queries(metric, 4)
    truths = [brute_force(query, collection.codes, 20) for query in queries]
    found = exactness(flat_engine(collection).search(queries, 20), truths)
    assert (found.distances, found.rows, found.order) == (1.0, 1.0, 1.0)


def test_another_row_at_the_same_distance_is_distinguished() -> None:
    found = exactness([answer([1.0, 2.0], [4, 9])], [answer([1.0, 2.0], [4, 7])])
    assert (found.distances, found.rows, found.order) == (1.0, 0.5, 0.0)


def test_a_missed_neighbour_shows_in_the_distances() -> None:
    found = exactness([answer([1.0, 3.0], [4, 9])], [answer([1.0, 2.0], [4, 7])])
    assert found.distances == 0.0


def test_brute_force_orders_equal_distances_by_row() -> None:
    codes = np.zeros((6, 8), dtype=np.uint8)
    assert brute_force(Queries.of_codes(codes[:1]), codes, 4).rows.tolist() == [0, 1, 2, 3]


def test_recall_counts_any_row_at_the_true_distances_once() -> None:
    # Rows 0 to 2 are alike, row 3 is far: the two nearest are any two of the three.
    codes = np.array([[0] * 8, [0] * 8, [0] * 8, [255] * 8], dtype=np.uint8)
    queries = Queries.of_codes(codes[:1])
    truths = [brute_force(queries[0], codes, 2)]
    assert recall([np.array([1, 2])], queries, codes, truths) == 1.0
    assert recall([np.array([2, 2])], queries, codes, truths) == 0.5
    assert recall([np.array([3, -1])], queries, codes, truths) == 0.0
