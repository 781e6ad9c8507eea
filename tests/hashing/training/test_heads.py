from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bittern.errors import InvalidInputError
from bittern.hashing.hashcoder import LearnedHasher
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_writer import EmbeddingWriter
from bittern.hashing.training.embeddings import EmbeddingSet, View
from bittern.hashing.training.heads import HeadObjective, LabelsObjective, PairsObjective
from bittern.hashing.training.loop import train
from tests.hashing.training.sets import CLASSES, DIM, SMALL, embeddings, make_set


def test_pairs_learn_to_find_the_picture_of_a_caption(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", 600)
    config = SMALL.with_overrides({"epochs": 6, "learning_rate": 0.01})
    objective = PairsObjective(source, config)
    objective.module.eval()
    with torch.inference_mode():
        before = objective.validate()
    result = train(objective, config, tmp_path / "run")
    assert before is not None
    # Pictures of one class are nearly the same, so a sixth of the items tie at best.
    assert result.best.validation["mAP"] > 2 * before["mAP"]
    assert result.history[-1].loss < result.history[0].loss


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("heads", ["per-modality", "shared"])
def test_labels_learn_classes_across_modalities(tmp_path: Path, kind: str, heads: str) -> None:
    source = make_set(tmp_path / "set", 600, labels=kind)
    config = SMALL.with_overrides({"heads": heads, "epochs": 4, "learning_rate": 0.01})
    result = train(LabelsObjective(source, config), config, tmp_path / "run")
    assert result.best.validation["mAP"] > 0.7


def test_trained_heads_become_a_hasher_that_finds_the_same(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", 300)
    objective = PairsObjective(source, SMALL)
    train(objective, SMALL, tmp_path / "run")
    hasher = LearnedHasher.from_modules(objective.heads(), objective.means())
    rows = np.arange(20)
    embedded = source.read("photo", rows)
    with torch.inference_mode():
        expected = objective.module(torch.from_numpy(embedded), "image").numpy()
    assert np.allclose(hasher.logits(embedded, "image"), expected, atol=1e-4)


def test_shared_heads_are_one_object_and_separate_ones_are_not(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set")
    apart = PairsObjective(source, SMALL).heads()
    shared = PairsObjective(source, SMALL.with_overrides({"heads": "shared"})).heads()
    assert apart["text"] is not apart["image"]
    assert shared["text"] is shared["image"]


def test_weights_follow_from_the_seed_and_leave_the_generator_alone(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set")
    state = torch.get_rng_state()
    one, same = PairsObjective(source, SMALL), PairsObjective(source, SMALL)
    other = PairsObjective(source, SMALL.with_overrides({"seed": 9}))
    assert torch.equal(state, torch.get_rng_state())
    first = [next(o.module.parameters()) for o in (one, same, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_batches_hold_the_rows_that_they_name(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set")
    _, image, _ = embeddings(120)
    objective = PairsObjective(source, SMALL, buffer_rows=40)
    for batch in objective.batches(1):
        assert batch.views[0].dtype == torch.float32
        assert np.array_equal(batch.views[1].numpy(), image[batch.rows].astype(np.float32))


def test_items_held_out_are_never_trained_on(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", 300)
    objective = PairsObjective(source, SMALL.with_overrides({"validation_share": 0.3}))
    trained = {int(row) for epoch in (1, 2) for b in objective.batches(epoch) for row in b.rows}
    assert len(objective.held_out) == 90
    assert trained.isdisjoint(objective.held_out.tolist())


def test_batches_of_a_set_with_groups_hold_each_group_once(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", 300, groups=True)
    config = SMALL.with_overrides({"batch_size": CLASSES - 1})
    objective = PairsObjective(source, config)
    assert source.groups is not None
    for batch in objective.batches(1):
        assert len(np.unique(source.groups[batch.rows])) == CLASSES - 1


def test_items_without_a_label_are_left_out(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", labels="single")
    labels = np.load(tmp_path / "set" / "labels.npy")
    labels[:60] = -1
    np.save(tmp_path / "set" / "labels.npy", labels)
    objective = LabelsObjective(EmbeddingSet.open(source.folder), SMALL)
    assert all((batch.rows >= 60).all() for batch in objective.batches(1))


def test_without_held_out_items_nothing_is_validated(tmp_path: Path) -> None:
    config = SMALL.with_overrides({"validation_share": 0.0, "epochs": 2})
    result = train(PairsObjective(make_set(tmp_path / "set"), config), config, tmp_path / "run")
    assert result.best_epoch == 2
    assert result.best.validation == {}


def test_one_class_is_refused(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", labels="single")
    np.save(tmp_path / "set" / "labels.npy", np.full(120, 4, dtype=np.int32))
    with pytest.raises(InvalidInputError, match="name 1 classes"):
        LabelsObjective(EmbeddingSet.open(source.folder), SMALL)


def test_labels_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no labels; train on pairs"):
        LabelsObjective(make_set(tmp_path / "set"), SMALL)


def views_of(folder: Path, **dims: int) -> EmbeddingSet:
    views = {m: View(m, dim) for m, dim in dims.items()}
    random = np.random.default_rng(0)
    with EmbeddingWriter(folder, views) as writer:
        writer.append({m: random.standard_normal((40, dim)) for m, dim in dims.items()})
    return EmbeddingSet.open(folder)


def test_pairs_of_one_view_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="one view, pairs need two"):
        PairsObjective(views_of(tmp_path / "set", image=DIM), SMALL)


def test_modalities_of_different_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="one length"):
        PairsObjective(views_of(tmp_path / "set", image=DIM, text=DIM + 1), SMALL)


@pytest.mark.parametrize("kind", [PairsObjective, LabelsObjective])
def test_fewer_items_than_a_batch_are_refused(tmp_path: Path, kind: type[HeadObjective]) -> None:
    source = make_set(tmp_path / "set", 20, labels="single")
    with pytest.raises(InvalidInputError, match="fewer than one batch of 256"):
        kind(source, TrainingConfig(bits=16, device="cpu"))


def test_items_of_a_group_are_right_answers_to_each_other(tmp_path: Path) -> None:
    groups = np.repeat(np.arange(8), 8).astype(np.int32)
    words = np.random.default_rng(0).standard_normal((8, 12)).astype(np.float32)[groups]
    pictures = words + 0.01 * np.random.default_rng(1).standard_normal(words.shape)
    views = {"text": View("text", 12, "float32"), "image": View("image", 12, "float32")}
    with EmbeddingWriter(tmp_path / "set", views, groups=True) as writer:
        writer.append({"text": words, "image": pictures.astype(np.float32)}, None, groups)
    config = TrainingConfig(bits=64, batch_size=4, heads="shared", validation_share=0.5)
    objective = PairsObjective(EmbeddingSet.open(tmp_path / "set"), config)
    objective.module.eval()
    with torch.inference_mode():
        found = objective.validate()
    assert found is not None
    assert found["mAP"] > 0.9  # each picture of the group counts, not one of them
