from __future__ import annotations

import numpy as np
import pytest

from bittern.benchmarks.eval.systems import learned
from bittern.benchmarks.eval.systems.base import Training
from bittern.benchmarks.eval.systems.codes import FittedCodes
from bittern.benchmarks.eval.systems.learned import SavedHasher, TrainedHere
from bittern.benchmarks.eval.systems.selection import (
    LABELLED,
    NAMES,
    UNLABELLED,
    systems_for,
)
from bittern.errors import InvalidInputError, UnsupportedModalityError
from bittern.hashing.codes import pack
from bittern.hashing.hashers import HybridHasher
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training.hybrid import HybridPlan
from bittern.hashing.training_free import fit

DIM, CLASSES, EACH = 16, 15, 40


@pytest.fixture(scope="module")
def training() -> Training:
    rng = np.random.default_rng(2)
    names = rng.standard_normal((CLASSES, DIM)).astype(np.float32)
    labels = np.repeat(np.arange(CLASSES), EACH)
    items = names[labels] + 0.7 * rng.standard_normal((len(labels), DIM)).astype(np.float32)
    return Training(items, "image", names, "text", labels)


@pytest.fixture(scope="module")
def saved(training: Training) -> SavedModel:
    hasher = fit("pca", {"image": training.items, "text": training.queries}, 16, seed=9)
    return SavedModel.describe("pond", hasher, encoder="pond", towers={}, licence="CC0")


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "EPOCHS", 1)


def test_a_saved_model_is_what_it_is_whatever_the_training_and_seed(
    saved: SavedModel, training: Training
) -> None:
    system = SavedHasher(saved)
    one, other = system.fit(training, 16, 0), system.fit(training, 16, 5)
    assert (system.name, one.bits) == ("pond pca", 16)
    assert one.digest == other.digest
    expected = pack(saved.hasher.logits(training.items, "image"))
    assert np.array_equal(one.encode_items(training.items), expected)


def test_sides_are_part_of_a_saved_models_digest(saved: SavedModel, training: Training) -> None:
    turned = Training(training.items, "text", training.queries, "image")
    system = SavedHasher(saved)
    assert system.fit(turned, 16, 0).digest != system.fit(training, 16, 0).digest


def test_a_saved_model_refuses_other_lengths_dimensions_and_sides(
    saved: SavedModel, training: Training
) -> None:
    system = SavedHasher(saved)
    assert system.fits(DIM, 16) == ""
    assert "codes of 16 bits, not 32" in system.fits(DIM, 32)
    assert "16 dimensions, not 24" in system.fits(24, 16)
    with pytest.raises(InvalidInputError, match="16 bits, not 32"):
        system.fit(training, 32, 0)
    heard = Training(training.items, "audio", training.queries, "text")
    with pytest.raises(UnsupportedModalityError, match="audio"):
        system.fit(heard, 16, 0)


@pytest.mark.parametrize("method", LABELLED)
def test_methods_trained_here_refuse_a_part_without_labels(method: str, training: Training) -> None:
    unlabelled = Training(training.items, "image", training.queries, "text")
    with pytest.raises(InvalidInputError, match="no labels"):
        LABELLED[method].fit(unlabelled, 16 if LABELLED[method].coded else None, 0)


@pytest.mark.parametrize("wrong", [np.zeros(3, np.int64), np.full(CLASSES * EACH, CLASSES)])
def test_labels_without_a_text_are_refused(wrong: np.ndarray, training: Training) -> None:
    part = Training(training.items, "image", training.queries, "text", wrong)
    with pytest.raises(InvalidInputError, match="15 queries for each of 600 items"):
        LABELLED["crovca"].fit(part, 16, 0)


def test_too_few_items_for_a_batch_are_refused(training: Training) -> None:
    labels = training.labels
    assert labels is not None
    few = Training(training.items[:90], "image", training.queries, "text", labels[:90])
    with pytest.raises(InvalidInputError, match="instead of 256: there are 90"):
        LABELLED["crovca"].fit(few, 16, 0)


@pytest.mark.parametrize("method", ["aligned", "hybrid", "aligned-float32"])
def test_too_few_classes_to_choose_on_are_refused(method: str, training: Training) -> None:
    labels = training.labels
    assert labels is not None
    few = Training(training.items, "image", training.queries, "text", labels % 9)
    with pytest.raises(InvalidInputError, match="10 classes, not 9"):
        LABELLED[method].fit(few, 16, 0)


def test_texts_of_classes_that_no_item_is_of_are_no_part_of_the_training(
    training: Training,
) -> None:
    labels = training.labels
    assert labels is not None
    more = Training(
        training.items,
        "image",
        np.concatenate([training.queries[:1] + 9, training.queries]),
        "text",
        labels + 1,
    )
    system = LABELLED["crovca-pairs"]
    assert system.fit(more, 16, 0).digest == system.fit(training, 16, 0).digest


@pytest.mark.parametrize("method", ["crovca-pairs", "aligned-crovca", "hb-crovca", "aligned"])
def test_what_is_trained_here_gives_codes_that_find_the_class(
    method: str, training: Training
) -> None:
    fitted = LABELLED[method].fit(training, 32, 1)
    assert isinstance(fitted, FittedCodes)
    assert isinstance(fitted.hasher, HybridHasher) == (method == "hb-crovca")
    queries, stored = (
        fitted.encode_queries(training.queries, "asymmetric"),
        fitted.encode_items(training.items),
    )
    distances = fitted.distances(queries, stored, 0, CLASSES)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :EACH]
    right = training.labels[nearest] == np.arange(CLASSES)[:, None]  # type: ignore[index]
    assert right.mean() > 3 / CLASSES


@pytest.mark.parametrize(("bits", "parts"), [(16, [8, 8]), (64, [32, 32]), (256, [192, 64])])
def test_the_plain_hybrid_shares_its_bits_as_published_for_words(
    training: Training, bits: int, parts: list[int]
) -> None:
    hasher = LABELLED["hb-crovca"].fit(training, bits, 0).hasher  # type: ignore[attr-defined]
    assert [one.bits for one in hasher.hashers] == parts


def test_aligned_vectors_are_aligned_codes_before_the_threshold(training: Training) -> None:
    system = LABELLED["aligned-float32"]
    fitted, codes = system.fit(training, None, 1), LABELLED["aligned"].fit(training, DIM, 1)
    stored = fitted.encode_items(training.items)
    assert (fitted.bits, fitted.bytes_per_row, fitted.metrics) == (None, 4 * DIM, ("cosine",))
    assert np.array_equal(pack(stored), codes.encode_items(training.items))
    queries = fitted.encode_queries(training.queries, "cosine")
    logits = codes.hasher.logits(training.queries, "text")  # type: ignore[attr-defined]
    assert np.allclose(queries, logits, atol=1e-5)
    similar = queries @ stored.T / np.outer(*(np.linalg.norm(x, axis=1) for x in (queries, stored)))
    assert np.allclose(fitted.distances(queries, stored, 0, CLASSES), 1 - similar, atol=1e-5)
    assert system.fits(DIM, None) == ""
    assert "no code length" in system.fits(DIM, 16)


def test_plans_that_come_to_the_same_bytes_are_tried_once(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[HybridPlan] = []

    def choose(*_: object, plans: tuple[HybridPlan, ...], **__: object) -> list[object]:
        tried.extend(plans)
        raise KeyboardInterrupt

    monkeypatch.setattr("bittern.hashing.training.plan_choice.choose_plan", choose)
    plans = tuple(HybridPlan(1.0, share) for share in (0.0, 0.1, 0.5, 0.55))
    monkeypatch.setattr("bittern.hashing.training.plan_choice.PLANS", plans)
    with pytest.raises(KeyboardInterrupt):
        LABELLED["hybrid"].fit(training, 16, 0)
    assert [plan.learned_share for plan in tried] == [0.0, 0.5]


def test_a_plain_hybrid_needs_a_byte_for_each_part() -> None:
    system = TrainedHere("HB + CroVCA", "hb-crovca")
    assert "16 bits, not 8" in system.fits(DIM, 8)
    assert system.fits(DIM, 16) == ""


def test_all_systems_are_compared_that_labels_and_models_allow(saved: SavedModel) -> None:
    assert len(systems_for((), False)) == len(UNLABELLED)
    everything = systems_for((), True, [saved])
    assert len(everything) == len(UNLABELLED) + len(LABELLED) + 1
    assert len({system.name for system in everything}) == len(everything)
    assert everything[-1].name == "pond pca"
    assert [s.name for s in systems_for(NAMES, True, [saved])] == [s.name for s in everything]


def test_systems_are_chosen_by_name_each_once_in_a_fixed_order(saved: SavedModel) -> None:
    chosen = systems_for(["ITQ", "learned", "hb", "itq"], False, [saved])
    assert [system.name for system in chosen] == ["Hashing-Baseline", "ITQ", "pond pca"]


def test_systems_that_a_suite_cannot_have_are_refused_with_the_reason() -> None:
    with pytest.raises(InvalidInputError, match=r"crovca, hybrid must be trained on labelled"):
        systems_for(["hb", "crovca", "hybrid"], False)
    with pytest.raises(InvalidInputError, match="--model"):
        systems_for(["learned"], True)
