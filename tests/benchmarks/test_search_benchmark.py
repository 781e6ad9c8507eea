from __future__ import annotations

import numpy as np
import pytest

from benchmarks.contestants import Answer, Question, bittern_asymmetric, bittern_symmetric
from benchmarks.exactness import brute_force, exactness
from benchmarks.search import BITS, NOISE, clustered_codes, soft_questions
from hashing.codes import hamming_distance
from index.flat import FlatCodes


def answer(distances: list[float], rows: list[int]) -> Answer:
    return Answer(np.array(distances), np.array(rows))


def test_codes_lie_around_their_centres() -> None:
    centres, codes = clustered_codes(500)
    nearest = hamming_distance(codes, centres).min(axis=1)
    assert nearest.mean() == pytest.approx(NOISE * BITS, rel=0.1)


def test_the_same_codes_are_drawn_every_time() -> None:
    assert np.array_equal(clustered_codes(300)[1], clustered_codes(300)[1])


@pytest.mark.parametrize("metric", ["hamming", "asymmetric"])
def test_the_index_is_found_exact(metric: str) -> None:
    centres, codes = clustered_codes(3_000)
    questions = soft_questions(centres)
    index = FlatCodes(np.arange(len(codes)), codes)
    search = bittern_symmetric(index) if metric == "hamming" else bittern_asymmetric(index)
    truths = [brute_force(question, codes, metric) for question in questions]
    found = exactness([search(question) for question in questions], truths)
    assert (found.distances, found.rows, found.order) == (1.0, 1.0, 1.0)


def test_another_row_at_the_same_distance_is_told_apart() -> None:
    found = exactness([answer([1.0, 2.0], [4, 9])], [answer([1.0, 2.0], [4, 7])])
    assert (found.distances, found.rows, found.order) == (1.0, 0.5, 0.0)


def test_a_missed_neighbour_shows_in_the_distances() -> None:
    found = exactness([answer([1.0, 3.0], [4, 9])], [answer([1.0, 2.0], [4, 7])])
    assert found.distances == 0.0


def test_brute_force_orders_equal_distances_by_row() -> None:
    codes = np.zeros((6, BITS // 8), dtype=np.uint8)
    question = Question(np.full(BITS, -1.0, np.float32), codes[0], 4)
    assert brute_force(question, codes, "hamming").rows.tolist() == [0, 1, 2, 3]
