"""Simulated embeddings of `field`: small classifiers and label vectors made up here."""

from __future__ import annotations

import numpy as np
import pytest

from bittern.encoders.field.concepts import Concepts, unit
from bittern.encoders.field_build.simulated import Simulator
from bittern.encoders.field_build.vocabulary import (
    KNOWN_IMAGES,
    MOST_RELATIVES,
    ClassName,
    Concept,
    vocabulary,
)

DIM = 24
SOUND_CLASSES = 60


@pytest.fixture
def labels() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {
        "image.labels": unit(rng.standard_normal((KNOWN_IMAGES, DIM))),
        "image.prior": np.ones(KNOWN_IMAGES, dtype=np.float32),
        "audio.labels": unit(rng.standard_normal((SOUND_CLASSES, DIM))),
        "audio.prior": np.ones(SOUND_CLASSES, dtype=np.float32),
    }


@pytest.fixture
def simulator(labels: dict[str, np.ndarray]) -> Simulator:
    rng = np.random.default_rng(6)
    settings = {"image": {"temperature": 1.5, "top_k": 20}, "audio": {"top_k": 20}}
    image = 0.1 * rng.standard_normal((KNOWN_IMAGES, 400)).astype(np.float32)
    audio = 0.2 * rng.standard_normal((SOUND_CLASSES, 300)).astype(np.float32)
    return Simulator(image, audio, [[3, 4]], Concepts(labels, settings))


def test_the_same_seed_simulates_the_same_bits_and_another_seed_others(
    simulator: Simulator,
) -> None:
    def drawn(seed: int) -> list[bytes]:
        rng = np.random.default_rng(seed)
        images = simulator.images([0, 7, KNOWN_IMAGES], rng)
        return [images.tobytes(), simulator.sounds([1, 2], rng).tobytes()]

    assert drawn(0) == drawn(0)
    assert all(a != b for a, b in zip(drawn(0), drawn(1), strict=True))


def test_simulated_embeddings_are_finite_and_of_unit_norm(simulator: Simulator) -> None:
    rng = np.random.default_rng(0)
    for x in (simulator.images(list(range(50)), rng), simulator.sounds([0] * 50, rng)):
        assert x.shape == (50, DIM)
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)


def test_an_item_lies_nearer_to_its_own_class_than_to_others_on_average(
    simulator: Simulator, labels: dict[str, np.ndarray]
) -> None:
    rng = np.random.default_rng(0)
    images, sounds = simulator.images([8] * 200, rng), simulator.sounds([8] * 200, rng)
    for x, directions in ((images, labels["image.labels"]), (sounds, labels["audio.labels"])):
        assert (x.mean(axis=0) @ directions.T).argmax() == 8


def test_a_relatives_class_lies_near_its_relatives(
    simulator: Simulator, labels: dict[str, np.ndarray]
) -> None:
    x = simulator.images([KNOWN_IMAGES] * 300, np.random.default_rng(0)).mean(axis=0)
    nearest = (labels["image.labels"] @ x).argsort()[-2:]
    assert sorted(nearest) == [3, 4]


def test_items_of_a_class_differ(simulator: Simulator) -> None:
    x = simulator.images([2] * 20, np.random.default_rng(0))
    assert len(np.unique(x, axis=0)) == 20


@pytest.fixture
def few_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two owls, a tool, a heard owl; a relative of the owls, and one of nothing."""
    owls = [["owl"], ["bird"]]
    images = [
        ClassName(("Barn Owl", "Tyto"), kin=owls),
        ClassName(("hammer",), animal=False),
        ClassName(("snowy owl",), kin=owls),
    ]
    sounds = [ClassName(("Tawny Owl",), "Strix aluco", kin=[["owl", "hooter"], ["bird"]])]
    animals = [
        ClassName(("hawk owl",), kin=owls),
        ClassName(("Barn owl",), kin=owls),
        ClassName(("tapeworm",), kin=[["worm"]]),
    ]
    where = "bittern.encoders.field_build.vocabulary."
    monkeypatch.setattr(where + "read_kin", lambda: {"image": 0, "audio": 0, "animals": animals})
    monkeypatch.setattr(where + "image_classes", lambda _: images)
    monkeypatch.setattr(where + "audio_classes", lambda _: sounds)


@pytest.mark.usefixtures("few_classes")
def test_a_kind_has_all_classes_below_it_as_members() -> None:
    found = vocabulary().concepts
    for word in ("owl", "bird"):
        assert found[word].images == {0, 2, KNOWN_IMAGES}
        assert found[word].sounds == {0}
        assert found[word].group == "kin"
    assert found["owl"].captions == ["owl", "hooter"]


@pytest.mark.usefixtures("few_classes")
def test_a_class_goes_by_all_its_names_in_small_letters() -> None:
    found = vocabulary().concepts
    assert found["barn owl"] == Concept(["barn owl", "tyto"], {0}, set())
    assert found["tawny owl"] == Concept(["tawny owl", "strix aluco"], set(), {0})
    assert [found[w].group for w in ("barn owl", "tawny owl")] == ["image", "audio"]


@pytest.mark.usefixtures("few_classes")
def test_words_without_an_animal_with_a_class_or_without_relatives_are_left_out() -> None:
    words = vocabulary()
    assert set(words.concepts) == {"barn owl", "snowy owl", "tawny owl", "hawk owl", "owl", "bird"}
    assert words.concepts["hawk owl"].group == "relative"
    assert words.relatives == [[0, 2]]


def test_the_real_vocabulary_holds_kinds_of_both_networks() -> None:
    words = vocabulary()
    owl = words.concepts["owl"]
    assert owl.group == "kin"
    assert 24 in owl.images  # ImageNet's great grey owl
    assert len(owl.sounds) > 50
    assert all(1 <= len(row) <= MOST_RELATIVES for row in words.relatives)
    assert all(c.captions and (c.images or c.sounds) for c in words.concepts.values())
    numbers = {n for c in words.concepts.values() for n in c.images if n >= KNOWN_IMAGES}
    assert numbers == set(range(KNOWN_IMAGES, KNOWN_IMAGES + len(words.relatives)))
