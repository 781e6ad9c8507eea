"""Searching for many queries at once, and for all that is near."""

from __future__ import annotations

import numpy as np
import pytest

from bittern.errors import CodeError, QueryError
from bittern.hashing.codes import hamming_distance
from bittern.index.archive import Archive
from tests.index.samples import OWL, code, photo, recording


@pytest.fixture
def filled(archive: Archive) -> Archive:
    archive.add(
        [photo(f"p{n}", seed=n) for n in range(20)] + [recording("song", 5)], model=OWL.digest
    )
    return archive


def test_many_queries_are_answered_as_one_by_one(filled: Archive) -> None:
    logits = np.random.default_rng(0).normal(size=(7, 64))
    rows = filled.nearest(logits, model=OWL.digest, k=5, metric="asymmetric", where="id <> 'p3'")
    for query, found in zip(logits, rows, strict=True):
        hits = filled.search(query, model=OWL.digest, k=5, metric="asymmetric", where="id <> 'p3'")
        assert found.rows.tolist() == [hit.observation.row for hit in hits]
        assert found.distances.tolist() == [hit.distance for hit in hits]


def test_codes_of_stored_observations_are_queries_too(filled: Archive) -> None:
    codes = np.stack([code(n) for n in range(4)])
    found = filled.nearest(codes, model=OWL.digest, k=1, metric="hamming", modality="image")
    assert [one.distances.tolist() for one in found] == [[0.0]] * 4


def test_everything_within_a_distance_comes_in_order(filled: Archive) -> None:
    found = filled.within(code(3), 30.0, model=OWL.digest, metric="hamming")
    everything = filled.search(code(3), model=OWL.digest, k=100, metric="hamming")
    near = [(hit.distance, hit.observation.row) for hit in everything if hit.distance <= 30]
    assert list(zip(found.distances.tolist(), found.rows.tolist(), strict=True)) == near
    assert 0 < len(near) < 25


def test_a_largest_distance_leaves_out_what_is_farther(filled: Archive) -> None:
    answer = filled.ask(code(3), model=OWL.digest, k=100, metric="hamming", within=30)
    assert answer.cutoff == 30
    assert all(hit.distance <= 30 for hit in answer.hits)
    assert [hit.rank for hit in answer.hits] == list(range(1, len(answer.hits) + 1))
    assert (answer.engine, answer.exact) == ("flat", True)


@pytest.mark.parametrize("within", [-1, float("nan"), float("inf"), "near", True])
def test_a_largest_distance_that_is_none_is_refused(filled: Archive, within: object) -> None:
    with pytest.raises(QueryError, match="within"):
        filled.search(code(1), model=OWL.digest, k=3, metric="hamming", within=within)  # type: ignore[arg-type]


@pytest.mark.parametrize("recall", [0, 1.01, float("nan"), None])
def test_a_recall_is_a_share_or_nothing(filled: Archive, recall: float | None) -> None:
    if recall is None:
        assert filled.search(code(1), model=OWL.digest, k=3, metric="hamming", recall=None)
        return
    with pytest.raises(QueryError, match="recall"):
        filled.search(code(1), model=OWL.digest, k=3, metric="hamming", recall=recall)


def test_a_batch_is_no_single_query_and_the_other_way_round(filled: Archive) -> None:
    with pytest.raises(CodeError, match=r"\[2, 64\]"):
        filled.search(np.zeros((2, 64)), model=OWL.digest, k=3, metric="asymmetric")
    with pytest.raises(CodeError, match=r"\[64\]"):
        filled.nearest(np.zeros(64), model=OWL.digest, k=3, metric="asymmetric")


def test_a_sample_of_codes_is_of_live_observations(filled: Archive) -> None:
    filled.delete(["p0", "p5"])
    sample = filled.sample_codes(OWL.digest, "image", lambda n: np.arange(n))
    assert len(sample) == 18
    assert hamming_distance(code(0)[None], sample).min() > 0
