from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bittern.errors import InvalidInputError
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import EmbeddingSet, EmbeddingWriter, View
from bittern.hashing.training.heads import (
    CentredHeads,
    HeadsObjective,
    joint_means,
    objective_for,
    update_batch_norm,
)
from bittern.hashing.training.loop import train
from bittern.hashing.training.validation import TrainingData, split_rows
from tests.hashing.training.sets import CLASSES, DIM, SMALL, embeddings, make_set


def test_pairs_learn_to_find_the_picture_of_a_caption(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", 600)
    config = SMALL.with_overrides({"epochs": 6, "learning_rate": 0.01})
    objective = objective_for(source, config)
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
    result = train(objective_for(source, config), config, tmp_path / "run")
    assert result.best.validation["mAP"] > 0.7


def test_trained_heads_become_a_hasher_that_finds_the_same(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", 300)
    objective = objective_for(source, SMALL)
    train(objective, SMALL, tmp_path / "run")
    hasher = objective.module.hasher()
    rows = np.arange(20)
    embedded = source.read("photo", rows)
    with torch.inference_mode():
        expected = objective.module(torch.from_numpy(embedded), "image").numpy()
    assert np.allclose(hasher.logits(embedded, "image"), expected, atol=1e-4)


def test_shared_heads_are_one_object_and_separate_ones_are_not(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set")
    apart = objective_for(source, SMALL).module
    shared = objective_for(source, SMALL.with_overrides({"heads": "shared"})).module
    assert apart.head("text") is not apart.head("image")
    assert shared.head("text") is shared.head("image")


def test_weights_follow_from_the_seed_and_leave_the_generator_alone(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set")
    state = torch.get_rng_state()
    one, same = objective_for(source, SMALL), objective_for(source, SMALL)
    other = objective_for(source, SMALL.with_overrides({"seed": 9}))
    assert torch.equal(state, torch.get_rng_state())
    first = [next(o.module.parameters()) for o in (one, same, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_batches_hold_the_rows_that_they_name(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set")
    _, image, _ = embeddings(120)
    objective = HeadsObjective(
        TrainingData([split_rows(source, 0, 0)], labels=False), SMALL, buffer_rows=40
    )
    for batch in (one.batch for one in objective.batches(1)):
        assert batch.views[0].dtype == torch.float32
        assert np.array_equal(batch.views[1].numpy(), image[batch.rows].astype(np.float32))


def test_items_held_out_are_never_trained_on(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", 300)
    objective = objective_for(source, SMALL.with_overrides({"validation_share": 0.3}))
    batches = [one.batch for epoch in (1, 2) for one in objective.batches(epoch)]
    trained = {int(row) for batch in batches for row in batch.rows}
    held_out = objective.sets[0].held_out
    assert len(held_out) == 90
    assert trained.isdisjoint(held_out.tolist())


def test_batches_of_a_set_with_groups_hold_each_group_once(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", 300, groups=True)
    config = SMALL.with_overrides({"batch_size": CLASSES - 1})
    objective = objective_for(source, config)
    assert source.groups is not None
    for batch in objective.batches(1):
        assert len(np.unique(source.groups[batch.batch.rows])) == CLASSES - 1


def test_items_without_a_label_are_left_out(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", labels="single")
    labels = np.load(tmp_path / "set" / "labels.npy")
    labels[:60] = -1
    np.save(tmp_path / "set" / "labels.npy", labels)
    objective = objective_for(EmbeddingSet.open(source.folder), SMALL)
    assert all((one.batch.rows >= 60).all() for one in objective.batches(1))


def test_without_held_out_items_nothing_is_validated(tmp_path: Path) -> None:
    config = SMALL.with_overrides({"validation_share": 0.0, "epochs": 2})
    result = train(objective_for(make_set(tmp_path / "set"), config), config, tmp_path / "run")
    assert result.best_epoch == 2
    assert result.best.validation == {}


def test_one_class_is_refused(tmp_path: Path) -> None:
    source = make_set(tmp_path / "set", labels="single")
    np.save(tmp_path / "set" / "labels.npy", np.full(120, 4, dtype=np.int32))
    with pytest.raises(InvalidInputError, match="name 1 classes"):
        objective_for(EmbeddingSet.open(source.folder), SMALL)


def test_missing_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no labels; train on pairs"):
        objective_for(make_set(tmp_path / "set"), SMALL, labels=True)


def views_of(folder: Path, **dims: int) -> EmbeddingSet:
    views = {m: View(m, dim) for m, dim in dims.items()}
    random = np.random.default_rng(0)
    with EmbeddingWriter(folder, views) as writer:
        writer.append({m: random.standard_normal((40, dim)) for m, dim in dims.items()})
    return EmbeddingSet.open(folder)


def test_pairs_of_one_view_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="one view, pairs need two"):
        objective_for(views_of(tmp_path / "set", image=DIM), SMALL)


def test_modalities_of_different_length_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="one length"):
        objective_for(views_of(tmp_path / "set", image=DIM, text=DIM + 1), SMALL)


@pytest.mark.parametrize("labels", [False, True])
def test_fewer_items_than_a_batch_make_smaller_ones(tmp_path: Path, labels: bool) -> None:
    source = make_set(tmp_path / "set", 20, labels="single")
    objective = objective_for(source, TrainingConfig(bits=16, device="cpu"), labels=labels)
    batch, _ = objective.batches(1)
    assert objective.loss(batch).logits[0].shape == (8, 16)
    assert objective.warnings == [
        "image: batches have 8 items instead of 256: there are 19 to train on"
    ]


def test_items_of_a_group_are_right_answers_to_each_other(tmp_path: Path) -> None:
    groups = np.repeat(np.arange(8), 8).astype(np.int32)
    words = np.random.default_rng(0).standard_normal((8, 12)).astype(np.float32)[groups]
    pictures = words + 0.01 * np.random.default_rng(1).standard_normal(words.shape)
    views = {"text": View("text", 12, "float32"), "image": View("image", 12, "float32")}
    with EmbeddingWriter(tmp_path / "set", views, groups=True) as writer:
        writer.append({"text": words, "image": pictures.astype(np.float32)}, None, groups)
    config = TrainingConfig(bits=64, batch_size=4, heads="shared", validation_share=0.5)
    objective = objective_for(EmbeddingSet.open(tmp_path / "set"), config)
    objective.module.eval()
    with torch.inference_mode():
        found = objective.validate()
    assert found is not None
    assert found["mAP"] > 0.9  # each picture of the group counts, not one of them


def test_means_are_per_modality_and_of_training_rows(tmp_path: Path) -> None:
    text, image, _ = embeddings(120)
    held_out = split_rows(make_set(tmp_path / "set"), 0.25, 3)
    means = joint_means([held_out])
    assert np.allclose(means["text"], text[held_out.training].mean(axis=0), atol=1e-3)
    assert np.allclose(means["image"], image[held_out.training].mean(axis=0), atol=1e-6)


def heads(**settings: object) -> CentredHeads:
    config = TrainingConfig(bits=16, **settings)
    return CentredHeads({"text": np.zeros(DIM), "image": np.full(DIM, 0.5)}, config)


def rows(seed: int = 0) -> torch.Tensor:
    return torch.randn(64, DIM, generator=torch.Generator().manual_seed(seed)) + 0.5


def test_heads_are_balanced_after_a_single_batch() -> None:
    module = heads()
    module.train()
    module(rows(), "image")  # running averages now hold a tenth of the truth
    update_batch_norm(module, {"image": rows(), "text": rows(1)})
    module.eval()
    logits = module(rows(), "image")
    torch.testing.assert_close(logits.mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0)
    share = (logits > 0).float().mean(dim=0)
    assert float((share - 0.5).abs().max()) < 0.2


def test_a_shared_head_weighs_its_modalities_alike() -> None:
    module = heads(heads="shared")
    update_batch_norm(module, {"image": rows(), "text": rows(1)[:8]})
    module.eval()
    means = [module(rows(), "image"), module(rows(1)[:8], "text")]
    middle = (means[0].mean(dim=0) + means[1].mean(dim=0)) / 2
    torch.testing.assert_close(middle, torch.zeros(16), atol=1e-5, rtol=0)


def test_weights_are_left_alone() -> None:
    module = heads()
    before = [p.clone() for p in module.parameters()]
    update_batch_norm(module, {"image": rows(), "text": rows(1)})
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
