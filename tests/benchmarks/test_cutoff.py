from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.benchmarks.cutoff import RATES, synthetic
from bittern.benchmarks.cutoff_outcomes import (
    CONTENDERS,
    Asked,
    at_rates,
    auc,
    best,
    contenders,
    distances,
    outcome,
    weights_of,
)
from bittern.hashing.codes import asymmetric_distance, hamming_distance, pack, unpack
from bittern.index.relevance import Cutoff, similarities

LOGITS = np.random.default_rng(0).normal(0, 2, (5, 64))
CODES = np.random.default_rng(1).integers(0, 256, (200, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def asked() -> Asked:
    return synthetic(20_000, 0.2)


def test_weights_of_logits_give_back_the_asymmetric_distances() -> None:
    expected = np.stack([asymmetric_distance(z, CODES) for z in LOGITS])
    assert distances(weights_of(LOGITS, "asymmetric"), CODES) == pytest.approx(expected)


def test_signs_of_logits_give_back_the_hamming_distances() -> None:
    expected = hamming_distance(pack(LOGITS), CODES)
    assert distances(weights_of(LOGITS, "hamming"), CODES) == pytest.approx(expected)


def test_the_chosen_contender_is_the_similarity_of_the_product() -> None:
    weights = weights_of(LOGITS, "asymmetric")
    score = CONTENDERS["similarity (chosen)"](distances(weights, CODES), weights)
    assert score == pytest.approx(similarities(weights, CODES))
    assert best(weights, CODES) == pytest.approx(score.max(axis=1))


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_scores_a_nearer_hit_higher(name: str) -> None:
    weights = weights_of(LOGITS, "asymmetric")
    far = distances(weights, CODES)
    score = CONTENDERS[name](far, weights)
    order = np.argsort(far, axis=1, kind="stable")
    assert (np.diff(np.take_along_axis(score, order, axis=1)) <= 1e-12).all()


def scores() -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    present = np.array([[9.0, 8.0, 1.0, 7.0], [3.0, 6.0, 2.0, 1.0]])
    relevant = np.array([[True, False, True, True], [True, False, False, False]])
    return present, relevant, np.array([4.0, 5.0, 1.0, 0.0])


def test_an_outcome_counts_answered_queries_and_right_hits() -> None:
    found = outcome(*scores(), least=5.0)
    assert (found.elsewhere, found.gone, found.present) == (0.25, 1.0, 1.0)
    assert found.precision == 2 / 4
    assert found.recall == pytest.approx((2 / 3 + 0) / 2)
    assert found.hits == 2.0


def test_nothing_let_through_has_no_precision() -> None:
    found = outcome(*scores(), least=10.0)
    assert (found.elsewhere, found.gone, found.present, found.recall) == (0, 0, 0, 0)
    assert np.isnan(found.precision)


def test_auc_counts_ties_as_half() -> None:
    assert auc(np.array([2.0, 1.0]), np.array([1.0, 0.0])) == (1 + 1 + 0.5 + 1) / 4


def test_a_higher_rate_lets_more_of_everything_through(asked: Asked) -> None:
    curve = at_rates(asked, RATES)
    for key in ("elsewhere", "gone", "present", "recall", "hits"):
        values = [getattr(curve[rate], key) for rate in RATES]
        assert values == sorted(values)


def test_synthetic_queries_are_answered_rightly_and_unrelated_ones_are_not(asked: Asked) -> None:
    found = at_rates(asked, (Cutoff.USUAL.rate,))[Cutoff.USUAL.rate]
    assert found.present == 1.0
    assert found.elsewhere <= 0.1
    assert found.precision > 0.9


def test_synthetic_codes_lie_around_the_centres_that_are_relevant(asked: Asked) -> None:
    nearest = distances(asked.present, asked.codes).argmin(axis=1)
    here = asked.relevant.any(axis=1)
    assert asked.relevant[np.arange(len(nearest)), nearest][here].all()


def test_contenders_are_compared_where_as_many_unrelated_queries_pass(asked: Asked) -> None:
    found = contenders(asked)
    assert set(found) == set(CONTENDERS)
    for values in found.values():
        assert values["elsewhere"] == pytest.approx(0.05, abs=0.006)
        assert 0 <= values["auc_gone"] <= 1


def test_a_background_of_fewer_rows_says_how_many(asked: Asked) -> None:
    assert asked.background(100).rows == 100
    assert asked.background().queries == len(asked.references)
    assert unpack(asked.codes).shape[1] == asked.present.shape[1]
