from __future__ import annotations

import numpy as np
import pytest

from bittern.errors import BitternError, CodeError, InvalidInputError, UnsupportedModalityError
from bittern.hashing.codes import asymmetric_distance, pack
from bittern.hashing.training_free import Kind, fit, principal_components, random_rotation

KINDS: list[Kind] = ["pca", "itq", "lsh"]


def clusters(
    seed: int, n: int = 400, dim: int = 48, centres: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, centres, n)
    x = 3 * rng.standard_normal((centres, dim))[label] + rng.standard_normal((n, dim)) + 2.0
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), label


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 40, 48, 56, 256])
def test_any_number_of_bits_can_be_fitted(kind: Kind, bits: int) -> None:
    x, _ = clusters(0)
    logits = fit(kind, {"image": x}, bits).logits(x, "image")
    assert logits.shape == (400, bits)
    assert logits.dtype == np.float32
    assert np.sqrt((logits**2).mean()) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_find_items_of_the_same_class(kind: Kind) -> None:
    x, label = clusters(1)
    hasher = fit(kind, {"image": x}, 128)
    logits = hasher.logits(x, "image")
    codes = pack(logits)
    right = [label[np.argsort(asymmetric_distance(z, codes))[1:6]] for z in logits[:50]]
    assert np.mean(np.array(right) == label[:50, None]) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_hasher_and_another_seed_another(kind: Kind) -> None:
    x, _ = clusters(2)
    first, again, other = (fit(kind, {"image": x}, 32, seed=s).projection for s in (5, 5, 6))
    assert (first == again).all()
    assert not np.allclose(first, other)


def test_each_modality_is_centred_by_its_own_mean() -> None:
    x, _ = clusters(3)
    moved = x + np.float32(0.5)
    hasher = fit("pca", {"image": x, "text": moved}, 48, basis=["image"])
    np.testing.assert_allclose(hasher.logits(x, "image"), hasher.logits(moved, "text"), atol=1e-4)


def test_a_modality_with_few_rows_weighs_as_much_as_one_with_many() -> None:
    rng = np.random.default_rng(0)
    many, few = np.zeros((8000, 16)), np.zeros((200, 16))
    many[:, :8] = rng.standard_normal((8000, 8))
    few[:, 8:] = 2.0 * rng.standard_normal((200, 8))
    hasher = fit("pca", {"image": many, "audio": few}, 8)
    kept = np.linalg.norm(np.linalg.qr(hasher.projection)[0][8:])
    assert kept > 0.99 * np.sqrt(8)


def test_pca_with_rotation_keeps_distances() -> None:
    x, _ = clusters(4)
    logits = fit("pca", {"image": x}, 48).logits(x, "image")
    between = np.linalg.norm(x[0] - x[1:50], axis=1)
    hashed = np.linalg.norm(logits[0] - logits[1:50], axis=1)
    np.testing.assert_allclose(hashed / between, (hashed / between).mean(), rtol=1e-3)


def test_rotation_is_orthogonal() -> None:
    r = random_rotation(64, np.random.default_rng(0))
    np.testing.assert_allclose(r @ r.T, np.eye(64), atol=1e-10)


def test_components_that_are_only_rounding_noise_are_left_out() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 3)) @ rng.standard_normal((3, 20))
    assert principal_components(x - x.mean(axis=0), 20).shape == (20, 3)


def test_itq_quantises_with_less_error_than_a_random_rotation() -> None:
    x, _ = clusters(5)

    def error(kind: Kind) -> float:
        hasher = fit(kind, {"image": x}, 32)
        z = hasher.logits(x, "image") / hasher.scale
        return float(((z - np.sign(z) * np.abs(z).mean()) ** 2).mean())

    assert error("itq") < error("pca")


def test_one_row_is_enough_to_fit() -> None:
    x, _ = clusters(6)
    for kind in KINDS:
        logits = fit(kind, {"image": x[:1]}, 64).logits(x, "image")
        assert logits.shape == (400, 64)
        assert pack(logits[:1]).any()


def test_codes_do_not_depend_on_the_batch_size() -> None:
    x, _ = clusters(7)
    hasher = fit("pca", {"image": x}, 256)
    one_by_one = np.concatenate([pack(hasher.logits(row[None], "image")) for row in x])
    assert (one_by_one == pack(hasher.logits(x, "image"))).all()


@pytest.mark.parametrize(
    ("embeddings", "error"),
    [
        ({}, InvalidInputError),
        ({"image": np.zeros((0, 4))}, CodeError),
        ({"image": np.full((3, 4), np.nan)}, CodeError),
        ({"image": np.ones((3, 4)), "text": np.ones((3, 5))}, CodeError),
    ],
)
def test_unusable_embeddings_are_refused(
    embeddings: dict[str, np.ndarray], error: type[BitternError]
) -> None:
    with pytest.raises(error):
        fit("pca", embeddings, 16)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="pca, itq, lsh"):
        fit("nosuch", {"image": np.ones((2, 4))}, 16)  # type: ignore[arg-type]


def test_a_modality_that_was_not_fitted_is_refused() -> None:
    x, _ = clusters(8)
    with pytest.raises(UnsupportedModalityError, match="image, not audio"):
        fit("lsh", {"image": x}, 16).logits(x, "audio")


def test_embeddings_of_another_dimension_are_refused() -> None:
    x, _ = clusters(9)
    with pytest.raises(CodeError, match=r"\[n, 48\]"):
        fit("lsh", {"image": x}, 16).logits(x[:, :40], "image")
