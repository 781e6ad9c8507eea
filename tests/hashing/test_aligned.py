"""Aligned codes: the regression, its limits, and what is saved of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.errors import CodeError, UnsupportedModalityError
from bittern.hashing.aligned import Moments, alignment_map, fit_aligned
from bittern.hashing.codes import asymmetric_distance, pack
from bittern.hashing.hashers import Hasher
from bittern.hashing.saved_model import restore
from bittern.hashing.training_free import fit

DIM = 16
RNG = np.random.default_rng(3)


def clouds(rows: int = 400) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Words, and media that are a linear distortion of them, noise added."""
    words = RNG.standard_normal((rows, DIM))
    distortion = np.random.default_rng(5).standard_normal((DIM, DIM))
    return words @ distortion + 0.3 * RNG.standard_normal((rows, DIM)) + 2.0, words - 1.0


def moments(rows: int = 400) -> Moments:
    media, words = clouds(rows)
    taken = Moments(DIM)
    taken.add(media, words)
    return taken


def test_moments_are_those_of_the_whole_whatever_the_batches() -> None:
    media, words = clouds()
    taken = Moments(DIM)
    for start in range(0, 400, 70):
        taken.add(media[start : start + 70], words[start : start + 70])
    x, y = media - media.mean(axis=0), words - words.mean(axis=0)
    assert np.allclose(taken.mean_media, media.mean(axis=0))
    assert np.allclose(taken.covariance, x.T @ x / 400)
    assert np.allclose(taken.cross_covariance, x.T @ y / 400)


def test_a_weight_of_two_is_the_row_twice() -> None:
    media, words = clouds(30)
    weighed, twice = Moments(DIM), Moments(DIM)
    weighed.add(media, words, np.where(np.arange(30) < 10, 2.0, 1.0))
    twice.add(np.concatenate([media, media[:10]]), np.concatenate([words, words[:10]]))
    assert np.allclose(weighed.covariance, twice.covariance)
    assert np.allclose(weighed.cross_covariance, twice.cross_covariance)
    assert np.allclose(weighed.mean_words, twice.mean_words)


def test_the_map_is_the_ridge_regression_of_the_difference() -> None:
    media, words = clouds()
    taken = moments_of(media, words)
    x, y = media - media.mean(axis=0), words - words.mean(axis=0)
    strength = 0.5 * np.trace(x.T @ x) / DIM
    expected = np.eye(DIM) + np.linalg.solve(x.T @ x + strength * np.eye(DIM), x.T @ (y - x))
    assert np.allclose(alignment_map(taken, 0.5), expected)


def moments_of(media: NDArray[np.float64], words: NDArray[np.float64]) -> Moments:
    taken = Moments(DIM)
    taken.add(media, words)
    return taken


def test_no_ridge_is_plain_regression_and_a_huge_one_leaves_media_where_they_are() -> None:
    media, words = clouds()
    taken = moments_of(media, words)
    x, y = media - media.mean(axis=0), words - words.mean(axis=0)
    assert np.allclose(alignment_map(taken, 1e-9), np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-4)
    assert np.allclose(alignment_map(taken, 1e9), np.eye(DIM), atol=1e-6)


def test_with_a_huge_ridge_the_codes_are_those_of_pca_and_rotation() -> None:
    media, words = clouds()
    aligned = fit_aligned({"image": moments_of(media, words)}, 16, ridge=1e9, seed=4)
    free = fit("pca", {"image": media, "text": words}, 16, seed=4, basis=["image"])
    rows = media.astype(np.float32)
    assert np.allclose(aligned.logits(rows, "image"), free.logits(rows, "image"), atol=1e-3)
    texts = words.astype(np.float32)
    assert np.allclose(aligned.logits(texts, "text"), free.logits(texts, "text"), atol=1e-3)


def test_the_logits_of_media_have_a_root_mean_square_of_one() -> None:
    image, audio = clouds(300), clouds(500)
    pairs = {"image": moments_of(*image), "audio": moments_of(*audio)}
    hasher = fit_aligned(pairs, 32, ridge=0.5)
    squares = [
        np.mean(hasher.logits(media.astype(np.float32), medium).astype(np.float64) ** 2)
        for medium, (media, _) in (("image", image), ("audio", audio))
    ]
    assert np.mean(squares) == pytest.approx(1.0, rel=1e-3)


def test_aligned_codes_find_media_by_their_words_where_training_free_codes_do_not() -> None:
    media, words = clouds()
    new_media, new_words = clouds(100)
    aligned = fit_aligned({"image": moments_of(media, words)}, 32, ridge=0.1)
    free = fit("pca", {"image": media, "text": words}, 32, basis=["image"])

    def found(hasher: Hasher) -> float:
        codes = pack(hasher.logits(new_media, "image"))
        queries = hasher.logits(new_words, "text")
        best = [asymmetric_distance(z, codes).argmin() for z in queries]
        return float(np.mean(np.array(best) == np.arange(100)))

    assert found(aligned) > 0.7
    assert found(free) < 0.3


def test_more_bits_than_dimensions_come_from_further_rotations() -> None:
    hasher = fit_aligned({"image": moments()}, 40, ridge=1.0)
    assert hasher.bits == 40
    assert np.linalg.matrix_rank(hasher.maps["text"]) == DIM


def test_it_is_saved_and_restored_with_the_same_logits() -> None:
    hasher = fit_aligned({"image": moments(), "audio": moments()}, 24, ridge=1.0)
    again = restore(hasher.tensors(), hasher.config())
    rows = RNG.standard_normal((9, DIM)).astype(np.float32)
    for modality in ("text", "image", "audio"):
        assert np.array_equal(again.logits(rows, modality), hasher.logits(rows, modality))


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ridge_that_is_not_positive_is_refused(ridge: float) -> None:
    with pytest.raises(CodeError, match="ridge"):
        alignment_map(moments(), ridge)


@pytest.mark.parametrize(("value", "rows"), [(1.0, 5), (0.1, 7), (0.1, 1000), (0.0, 5)])
def test_rows_that_are_all_equal_cannot_be_aligned(value: float, rows: int) -> None:
    taken = Moments(DIM)
    taken.add(np.full((rows, DIM), value), np.ones((rows, DIM)))
    with pytest.raises(CodeError, match="all rows are equal"):
        alignment_map(taken, 1.0)


def test_rows_that_are_not_finite_or_do_not_match_are_refused() -> None:
    taken = Moments(DIM)
    with pytest.raises(CodeError, match="NaN"):
        taken.add(np.full((2, DIM), np.nan), np.ones((2, DIM)))
    with pytest.raises(CodeError, match="must both be"):
        taken.add(np.ones((2, DIM)), np.ones((3, DIM)))


def test_an_unknown_modality_is_refused_by_name() -> None:
    hasher = fit_aligned({"image": moments()}, 16, ridge=1.0)
    with pytest.raises(UnsupportedModalityError, match="image, text, not audio"):
        hasher.logits(np.ones((1, DIM), np.float32), "audio")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("map.text", np.ones((DIM, 24), np.float32)),
        ("offset.text", np.ones(8, np.float32)),
        ("map.text", np.full((DIM, 16), np.inf, np.float32)),
        ("offset.audio", np.ones(16, np.float32)),
        ("other", np.ones(16, np.float32)),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(
    name: str, value: NDArray[np.float32]
) -> None:
    hasher = fit_aligned({"image": moments()}, 16, ridge=1.0)
    with pytest.raises(CodeError):
        restore({**hasher.tensors(), name: value}, hasher.config())
