"""Hybrid codes from an embedding set, and the choice of how to share the bits out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bittern.errors import InvalidInputError
from bittern.hashing.aligned import alignment_map, fit_aligned
from bittern.hashing.hashers import Hasher, HybridHasher
from bittern.hashing.learned import LearnedHasher
from bittern.hashing.saved_model import restore
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import EmbeddingSet, EmbeddingWriter, View
from bittern.hashing.training.heads import objective_for, update_batch_norm
from bittern.hashing.training.hybrid import HybridPlan, fit_hybrid, moments_of
from bittern.hashing.training.plan_choice import choose_plan
from bittern.hashing.training.records import TrainingResult
from bittern.hashing.training.validation import TrainingData, split_rows

DIM, CLASSES, EACH = 12, 20, 12
CONFIG = TrainingConfig(bits=32, epochs=2, batch_size=32, validation_share=0.0, precision="fp32")
PLAN = HybridPlan(learned_share=0.5)


def arrays() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int32]]:
    """Words and pictures of items, and their classes."""
    rng = np.random.default_rng(0)
    names = rng.standard_normal((CLASSES, DIM))
    labels = np.repeat(np.arange(CLASSES), EACH).astype(np.int32)
    distortion = np.eye(DIM) + 0.5 * rng.standard_normal((DIM, DIM))
    pictures = names[labels] @ distortion + 0.5 * rng.standard_normal((len(labels), DIM)) + 1.0
    return names[labels].astype(np.float32), pictures.astype(np.float32), labels


def written(folder: Path, *, labels: bool = True) -> EmbeddingSet:
    words, pictures, classes = arrays()
    views = {"text": View("text", DIM, "float32"), "image": View("image", DIM, "float32")}
    with EmbeddingWriter(folder, views, labels="single" if labels else None) as writer:
        writer.append({"text": words, "image": pictures}, classes if labels else None)
    return EmbeddingSet.open(folder)


def fitted(
    source: EmbeddingSet, config: TrainingConfig, plan: HybridPlan, run: Path
) -> tuple[Hasher, TrainingResult | None]:
    split = split_rows(source, config.validation_share, config.seed)
    data = TrainingData([split], labels=source.labels is not None)
    return fit_hybrid(data, config, plan, run)


def test_classes_weigh_the_same_however_many_items_they_have(tmp_path: Path) -> None:
    source = written(tmp_path / "set")
    _, pictures, labels = arrays()
    few = np.concatenate([np.arange(EACH), np.arange(EACH, len(labels), EACH)])
    mean = moments_of(source, rows=few)["image"].mean_media
    of_classes = [pictures[few][labels[few] == one].mean(axis=0) for one in range(CLASSES)]
    assert np.allclose(mean, np.mean(of_classes, axis=0), atol=1e-5)


def test_folding_the_alignment_into_the_heads_changes_no_logit(tmp_path: Path) -> None:
    source = written(tmp_path / "set")
    moments = moments_of(source)
    module = objective_for(source, CONFIG).align(moments, 0.5)
    words, pictures, _ = arrays()
    module(torch.from_numpy(pictures), "image")  # the batch norms have seen something
    module.eval()
    hasher = module.hasher({})
    for modality, rows in (("text", words), ("image", pictures)):
        with torch.inference_mode():
            expected = module(torch.from_numpy(rows), modality).numpy()
        assert np.allclose(hasher.logits(rows, modality), expected, atol=1e-4)


def test_updated_batch_norms_are_those_of_aligned_media(tmp_path: Path) -> None:
    source = written(tmp_path / "set")
    module = objective_for(source, CONFIG).align(moments_of(source), 0.1)
    words, pictures, _ = arrays()
    update_batch_norm(
        module, {"text": torch.from_numpy(words), "image": torch.from_numpy(pictures)}
    )
    with torch.inference_mode():
        for modality, rows in (("text", words), ("image", pictures)):
            before_norm = module.head(modality).layers[:-1](
                module.centred(torch.from_numpy(rows), modality)
            )
            norm = module.head(modality).layers[-1]
            assert isinstance(norm, torch.nn.BatchNorm1d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert torch.allclose(norm.running_mean, before_norm.mean(dim=0), atol=1e-6)
            assert torch.allclose(norm.running_var, before_norm.var(dim=0), rtol=0.02)


def test_a_short_training_leaves_batch_norms_of_its_weights(tmp_path: Path) -> None:
    source = written(tmp_path / "set")
    plan = HybridPlan(learned_share=1.0)
    hasher, _ = fitted(source, CONFIG.with_overrides({"epochs": 1}), plan, tmp_path / "run")
    words, pictures, _ = arrays()
    for modality, rows in (("text", words), ("image", pictures)):
        assert hasher.logits(rows, modality).std() > 0.4  # running averages leave .1 and less


def test_the_alignment_is_not_trained(tmp_path: Path) -> None:
    source = written(tmp_path / "set")
    moments = moments_of(source)
    objective = objective_for(source, CONFIG)
    module = objective.align(moments, 0.5)
    trained = {id(p) for group in objective.parameter_groups() for p in group["params"]}
    assert trained == {id(p) for p in module.parameters()}
    expected = alignment_map(moments["image"], 0.5)
    assert np.allclose(module.get_buffer("map_image").numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(("share", "kind"), [(0.0, "aligned"), (0.5, "hybrid"), (1.0, "hashcoder")])
def test_the_plan_shares_the_bits_out(tmp_path: Path, share: float, kind: str) -> None:
    source = written(tmp_path / "set")
    plan = HybridPlan(learned_share=share)
    hasher, result = fitted(source, CONFIG, plan, tmp_path / "run")
    assert (hasher.kind, hasher.bits) == (kind, 32)
    assert (result is None) == (share == 0.0)
    again = restore(hasher.tensors(), hasher.config())
    words, pictures, _ = arrays()
    assert np.array_equal(again.logits(words, "text"), hasher.logits(words, "text"))
    assert np.array_equal(again.logits(pictures, "image"), hasher.logits(pictures, "image"))


def test_the_hashers_of_a_hybrid_are_those_of_the_plan(tmp_path: Path) -> None:
    source = written(tmp_path / "set")
    hasher, _ = fitted(source, CONFIG, replace(PLAN, weights=(1.0, 0.5)), tmp_path / "run")
    assert isinstance(hasher, HybridHasher)
    assert [one.bits for one in hasher.hashers] == [16, 16]
    assert list(hasher.weights) == [1.0, 0.5]
    assert isinstance(hasher.hashers[1], LearnedHasher)
    aligned = fit_aligned(moments_of(source), 16, ridge=PLAN.ridge)
    assert np.allclose(hasher.hashers[0].tensors()["map.image"], aligned.maps["image"])


def test_held_out_items_do_not_change_the_code(tmp_path: Path) -> None:
    config = CONFIG.with_overrides({"validation_share": 0.25})
    source = written(tmp_path / "set")
    held_out = split_rows(source, config.validation_share, config.seed).held_out
    words, pictures, labels = arrays()
    pictures[held_out] += 5.0
    views = source.views
    with EmbeddingWriter(tmp_path / "other", dict(views), labels="single") as writer:
        writer.append({"text": words, "image": pictures}, labels)
    plan = HybridPlan(learned_share=0.0)
    first, _ = fitted(source, config, plan, tmp_path / "a")
    second, _ = fitted(EmbeddingSet.open(tmp_path / "other"), config, plan, tmp_path / "b")
    assert np.array_equal(first.tensors()["map.image"], second.tensors()["map.image"])


def test_plans_are_ranked_by_classes_that_were_held_out(tmp_path: Path) -> None:
    source = written(tmp_path / "set")
    good = HybridPlan(ridge=0.5, learned_share=0.0)
    bad = HybridPlan(ridge=1e6, learned_share=0.0)
    learned = HybridPlan(ridge=0.5, learned_share=1.0)
    trials = choose_plan(source, CONFIG, tmp_path / "choice", plans=[bad, learned, good], splits=2)
    scores = [trial.score for trial in trials]
    assert scores == sorted(scores, reverse=True)
    assert {trial.plan for trial in trials} == {good, bad, learned}
    order = [trial.plan for trial in trials]
    assert order.index(good) < order.index(bad)
    assert not (tmp_path / "choice").exists()


@pytest.mark.parametrize(
    "values",
    [
        (0.0, 0.5),
        (float("nan"), 0.5),
        (1.0, -0.1),
        (1.0, 9.0),
        (1.0, 0.5, 0.0),
        (1.0, float("nan")),
    ],
)
def test_plans_that_cannot_be_are_refused(values: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInputError, match="a plan has"):
        HybridPlan(*values)
    with pytest.raises(InvalidInputError, match="two weights"):
        HybridPlan(weights=(1.0, 5.0))


def test_a_choice_without_classes_says_what_to_do_instead(tmp_path: Path) -> None:
    source = written(tmp_path / "set", labels=False)
    with pytest.raises(InvalidInputError, match="give a plan"):
        choose_plan(source, CONFIG, tmp_path / "choice")
    hasher, _ = fitted(source, CONFIG, PLAN, tmp_path / "run")  # pairs do without
    assert hasher.kind == "hybrid"


def test_a_set_without_words_cannot_be_aligned(tmp_path: Path) -> None:
    _, pictures, labels = arrays()
    with EmbeddingWriter(
        tmp_path / "set", {"image": View("image", DIM, "float32")}, labels="single"
    ) as writer:
        writer.append({"image": pictures}, labels)
    with pytest.raises(InvalidInputError, match="views of text and of media"):
        moments_of(EmbeddingSet.open(tmp_path / "set"))


@pytest.mark.parametrize("grouped", [False, True])
def test_a_choice_makes_do_with_smaller_batches_than_the_training(
    tmp_path: Path, grouped: bool
) -> None:
    words, pictures, labels = arrays()
    views = {"text": View("text", DIM, "float32"), "image": View("image", DIM, "float32")}
    with EmbeddingWriter(
        tmp_path / "set", views, labels=None if grouped else "single", groups=grouped
    ) as writer:
        given = (None, labels) if grouped else (labels, None)
        writer.append({"text": words, "image": pictures}, *given)
    config = CONFIG.with_overrides({"batch_size": CLASSES if grouped else len(labels)})
    plans = [HybridPlan(learned_share=1.0)]
    source = EmbeddingSet.open(tmp_path / "set")
    (trial,) = choose_plan(source, config, tmp_path / "choice", plans=plans, splits=1)
    assert 0 < trial.novel <= 1


def test_a_choice_looks_at_the_rows_it_may_look_at(tmp_path: Path) -> None:
    source = written(tmp_path / "set")
    words, pictures, labels = arrays()
    allowed = np.arange(0, len(labels), 2)
    pictures[np.setdiff1d(np.arange(len(labels)), allowed)] = 7.0
    with EmbeddingWriter(tmp_path / "other", dict(source.views), labels="single") as writer:
        writer.append({"text": words, "image": pictures}, labels)
    plans = [HybridPlan(learned_share=0.0)]
    trials = [
        choose_plan(one, CONFIG, tmp_path / "choice", plans=plans, splits=1, rows=allowed)
        for one in (source, EmbeddingSet.open(tmp_path / "other"))
    ]
    assert trials[0] == trials[1]


def test_patience_does_not_reach_trainings_that_hold_nothing_out(tmp_path: Path) -> None:
    config = CONFIG.with_overrides({"validation_share": 0.2, "patience": 1})
    plans = [HybridPlan(learned_share=1.0)]
    assert choose_plan(written(tmp_path / "set"), config, tmp_path / "c", plans=plans, splits=1)
