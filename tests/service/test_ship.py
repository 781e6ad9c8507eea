"""Training heads on a simulated set of a few concepts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bittern.encoders.field.concepts import unit
from bittern.encoders.field_build.vocabulary import Concept, Vocabulary
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.loop import train
from bittern.service import ship
from bittern.service.ship import ConceptObjective, SimulatedSet

DIM = 16
KINDS = 24


class Clusters:
    """Draws media around a direction per class; the words for it lie there, too."""

    def __init__(self) -> None:
        self.centres = unit(np.random.default_rng(1).standard_normal((KINDS, DIM)))

    def images(self, classes: list[int], rng: np.random.Generator) -> np.ndarray:
        noise = 0.1 * rng.standard_normal((len(classes), DIM))
        return unit(self.centres[classes] + noise)

    sounds = images

    def embed(self, texts: list[str]) -> np.ndarray:
        return self.images([int(text.split()[-1]) for text in texts], np.random.default_rng(2))


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> SimulatedSet:
    monkeypatch.setattr(ConceptObjective, "steps_per_epoch", 20)
    clusters = Clusters()
    concepts = {}
    for n in range(KINDS):  # a third seen, a third heard, a third both
        images, sounds = ({n} if n % 3 != 1 else set()), ({n} if n % 3 != 0 else set())
        concepts[f"kind {n}"] = Concept([f"kind {n}", f"sort {n}"], images, sounds)
    both = {n for n in range(KINDS) if n % 3 == 2}
    concepts["many 2"] = Concept(["many 2"], both, both)
    return SimulatedSet(Vocabulary(concepts, []), clusters, clusters.embed, seed=0)  # type: ignore[arg-type]


def config(**values: object) -> TrainingConfig:
    return TrainingConfig(bits=16, heads="shared", device="cpu", **values)


def test_a_batch_shows_each_concept_by_its_own_media(source: SimulatedSet) -> None:
    batch = source.batch(np.random.default_rng(0))
    assert len(batch.texts) == KINDS + 1
    assert len(batch.images) == len(batch.seen)
    assert len(batch.sounds) == len(batch.heard)
    leaves = batch.seen < len(batch.texts) - 1  # the kind of many comes last
    near = (batch.texts[batch.seen] * batch.images).sum(dim=1)[leaves]
    others = (batch.texts.roll(1, dims=0)[batch.seen] * batch.images).sum(dim=1)[leaves]
    assert near.min() > 0.5 > others.mean()


def test_batches_follow_from_seed_epoch_and_step_alone(source: SimulatedSet) -> None:
    objective = ConceptObjective(source, config())
    whole = list(objective.batches(2))
    later = list(objective.batches(2, start=15))
    assert all(torch.equal(a.texts, b.texts) for a, b in zip(whole[15:], later, strict=True))
    assert not torch.equal(whole[0].texts, next(objective.batches(1)).texts)


def test_training_brings_words_and_media_of_a_concept_to_like_codes(
    source: SimulatedSet, tmp_path: Path
) -> None:
    objective = ConceptObjective(source, config(epochs=3))
    train(objective, objective.config, tmp_path / "run")
    hasher, batch = objective.hasher(), source.batch(np.random.default_rng(9))
    words = hasher.logits(batch.texts.numpy(), "text") > 0
    images = hasher.logits(batch.images.numpy(), "image") > 0
    same = (words[batch.seen] == images).mean()
    different = (np.roll(words, 1, axis=0)[batch.seen] == images).mean()
    assert same > different + 0.2


def test_the_free_bits_of_a_hybrid_come_first_and_the_learned_ones_last(
    source: SimulatedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    typical = {m: unit(rng.standard_normal((50, DIM))) for m in ("text", "image", "audio")}
    monkeypatch.setattr("bittern.encoders.field.calibration", lambda: typical)
    monkeypatch.setitem(ship.LEARNED_BITS, 64, 48)
    hybrid = ship.train_hybrid(source, 64, 0, tmp_path / "run")
    assert [one.bits for one in hybrid.hashers] == [16, 48]
    assert hybrid.bits == 64
    assert hybrid.logits(typical["audio"], "audio").shape == (50, 64)


def test_words_are_coded_by_a_shipped_model_without_pytorch() -> None:
    code = """if True:
        import sys
        from bittern.service.models.fitting import SHIPPED
        from bittern.service.models.model import Embedders, Model, catalogue_encoder
        from bittern.service.models.saved import load_saved
        saved = load_saved(SHIPPED / "field-256")
        model = Model(saved, Embedders(catalogue_encoder).of(saved))
        model.logits("text", model.embed_query("an owl"))
        print(sorted({"torch", "transformers", "scipy"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
