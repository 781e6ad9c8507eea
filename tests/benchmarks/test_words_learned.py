from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bittern.benchmarks.words import learned
from bittern.benchmarks.words.contestants import Fit
from bittern.benchmarks.words.data import EmbeddedWords, Words
from bittern.benchmarks.words.learned import GLOSS, LEARNED, chosen, plain_hybrid, written
from bittern.benchmarks.words.protocol import Training, split
from bittern.hashing.hashers import HybridHasher
from bittern.hashing.training.alignment import WORDS
from bittern.hashing.training.heads import LabelsObjective, PairsObjective
from bittern.hashing.training.plans import HybridPlan

CLASSES, EACH, DIM = 40, 20, 32


@pytest.fixture(scope="module")
def training() -> Training:
    rng = np.random.default_rng(3)
    names = rng.standard_normal((CLASSES, DIM))
    labels = np.repeat(np.arange(CLASSES), EACH)
    turn = np.eye(DIM) + 0.3 * rng.standard_normal((DIM, DIM))
    items = names[labels] @ turn + rng.standard_normal((len(labels), DIM))
    words = Words(("",) * len(labels), labels, ("",) * CLASSES)
    embedded = EmbeddedWords(words, items.astype(np.float32), names.astype(np.float32))
    return split(embedded, 0).training()


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "EPOCHS", 2)


def test_the_embedding_set_holds_the_training_part_row_by_row(
    training: Training, tmp_path: Path
) -> None:
    source = written(training, tmp_path / "set")
    rows = np.arange(source.rows)
    assert np.array_equal(source.read(GLOSS, rows), training.items)
    assert np.array_equal(source.read(WORDS, rows), training.queries[training.labels])
    assert source.labels is not None
    assert np.array_equal(source.labels, training.labels)


def test_every_learned_contestant_gives_codes_of_the_length_asked_for(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = (HybridPlan(1.0, 0.0), HybridPlan(1.0, 0.5))
    for fit in (*_fits(), chosen(few), plain_hybrid):
        hasher = fit(training, 32, 1)
        assert hasher.bits == 32
        logits = hasher.logits(training.items, GLOSS)
        assert 0.2 < (logits > 0).mean() < 0.8
        assert hasher.logits(training.queries, WORDS).shape == (len(training.queries), 32)
    assert len({contestant.name for contestant in LEARNED}) == len(LEARNED)


def _fits() -> list[Fit]:
    return [learned.heads(PairsObjective), learned.heads(LabelsObjective)]


def test_the_same_seed_gives_the_same_codes(training: Training) -> None:
    fit = chosen((HybridPlan(1.0, 0.5),))
    first, second, other = (fit(training, 16, seed) for seed in (1, 1, 2))
    rows = training.items
    assert np.array_equal(first.logits(rows, GLOSS), second.logits(rows, GLOSS))
    assert not np.array_equal(first.logits(rows, GLOSS), other.logits(rows, GLOSS))


@pytest.mark.parametrize(("bits", "parts"), [(16, [8, 8]), (64, [32, 32]), (256, [192, 64])])
def test_the_plain_hybrid_shares_its_bits_as_published_for_these_words(
    training: Training, bits: int, parts: list[int]
) -> None:
    hasher = plain_hybrid(training, bits, 0)
    assert isinstance(hasher, HybridHasher)
    assert [part.bits for part in hasher.parts] == parts


def test_plans_that_come_to_the_same_bytes_are_tried_once(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[HybridPlan] = []

    def choose(*_: object, plans: tuple[HybridPlan, ...], **__: object) -> list[object]:
        tried.extend(plans)
        raise KeyboardInterrupt

    monkeypatch.setattr(learned, "choose_plan", choose)
    plans = tuple(HybridPlan(1.0, share) for share in (0.0, 0.1, 0.5, 0.55))
    with pytest.raises(KeyboardInterrupt):
        chosen(plans)(training, 16, 0)
    assert [plan.learned_share for plan in tried] == [0.0, 0.5]
