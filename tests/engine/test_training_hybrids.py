"""Aligned and hybrid codes, from a source to a model that is restored and used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bittern.errors import InvalidInputError, TrainingError
from bittern.hashing.hashers import HybridHasher
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training import loop, plan_choice
from bittern.hashing.training.embedding_sets import EmbeddingSet, EmbeddingWriter, View
from bittern.hashing.training.hybrid import HybridPlan
from bittern.hashing.training.plan_choice import PLAN_FILE
from bittern.service.training.train import TrainingReport, train_model
from tests.encoders.tiny import OPENCLIP_DIM
from tests.engine.training_media import (
    tiny_catalogue,
    training_request,
    write_manifest,
    write_media,
)

CLASSES, EACH = 14, 8


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_media(tmp_path_factory.mktemp("sources") / "media")


@pytest.fixture(scope="module")
def photographs(media: Path) -> Path:
    return write_manifest(media.parent / "photographs.csv", media, ".png")


@pytest.fixture(autouse=True, scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with tiny_catalogue(tmp_path_factory.mktemp("weights")):
        yield


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "draw_plot", lambda *_: None)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with enough groups to hold some out."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(CLASSES), EACH).astype(np.int32)
    words = rng.standard_normal((CLASSES, OPENCLIP_DIM))[groups]
    pictures = words @ rng.standard_normal((OPENCLIP_DIM, OPENCLIP_DIM)) + 1.0
    pictures += 0.3 * rng.standard_normal(pictures.shape)
    folder = tmp_path_factory.mktemp("sets") / "set"
    views = {"text": View("text", OPENCLIP_DIM), "image": View("image", OPENCLIP_DIM)}
    with EmbeddingWriter(folder, views, encoder="bioclip-2", groups=True) as writer:
        writer.append({"text": words, "image": pictures}, None, groups)
    return folder


def trained(source: Path, out: Path, hasher: str, **changes: Any) -> TrainingReport:
    settings = {
        "bits": 32, "batch_size": 6, "epochs": 1, "device": "cpu", "validation_share": 0.0
    }  # fmt: skip
    return train_model(training_request(source, out, settings, hasher=hasher, **changes))


def test_aligned_codes_need_no_batches(photographs: Path, tmp_path: Path) -> None:
    report = trained(photographs, tmp_path / "out", "aligned", batch_size=256)
    saved = SavedModel.load(tmp_path / "out")
    assert (saved.hasher.kind, saved.hasher.bits) == ("aligned", 32)
    assert sorted(report.card.towers) == ["image", "text"]
    assert 0 <= saved.card.metrics["bit_balance"] <= 1


def test_the_card_says_that_species_were_too_few_to_choose_on(
    photographs: Path, tmp_path: Path
) -> None:
    trained(photographs, tmp_path / "out", "hybrid")
    saved = SavedModel.load(tmp_path / "out")
    assert isinstance(saved.hasher, HybridHasher)
    assert [one.kind for one in saved.hasher.hashers] == ["aligned", "hashcoder"]
    assert [one.bits for one in saved.hasher.hashers] == [24, 8]
    plan = saved.card.metrics["plan"]
    assert "6 classes are too few" in plan["not_chosen"]
    assert (plan["aligned_bits"], plan["learned_bits"]) == (24, 8)


def test_a_plan_is_chosen_on_species_that_are_held_out(embeddings: Path, tmp_path: Path) -> None:
    trained(embeddings, tmp_path / "out", "hybrid", validation_share=0.2)
    card = SavedModel.load(tmp_path / "out").card
    found = card.metrics["plan"]
    assert found["plans"] == len(plan_choice.PLANS_OF["hybrid"])
    assert 0 < found["held_out_novel"] <= 1
    assert card.metrics["held_out"][0]["mAP_learned"] > 0
    assert "epoch_chosen_on_held_out" not in card.metrics  # there was one only
    assert not (tmp_path / "out" / "training" / "choice").exists()


@pytest.mark.parametrize("kind", ["aligned", "hashcoder"])
def test_held_out_items_do_not_change_the_model(
    embeddings: Path, tmp_path: Path, kind: str
) -> None:
    trained(embeddings, tmp_path / "a", kind, validation_share=0.2)
    source = EmbeddingSet.open(embeddings)
    order = np.random.default_rng([0, source.rows]).permutation(source.rows)
    held_out = order[: int(source.rows * 0.2)]
    rows = np.arange(source.rows)
    pictures = source.read("image", rows).astype(np.float32)
    pictures[held_out] += 3.0
    with EmbeddingWriter(
        tmp_path / "set", dict(source.views), encoder="bioclip-2", groups=True
    ) as writer:
        writer.append({"text": source.read("text", rows), "image": pictures}, None, source.groups)
    trained(tmp_path / "set", tmp_path / "b", kind, validation_share=0.2)
    first, second = (SavedModel.load(tmp_path / name).hasher.tensors() for name in "ab")
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["aligned", "hashcoder"])
def test_a_card_says_whether_held_out_items_chose_the_epoch(
    embeddings: Path, tmp_path: Path, kind: str
) -> None:
    report = trained(embeddings, tmp_path / "out", kind, validation_share=0.2, epochs=2)
    metrics = SavedModel.load(tmp_path / "out").card.metrics
    chosen = True if kind == "hashcoder" else None
    assert metrics.get("epoch_chosen_on_held_out") is chosen
    assert report.card.metrics.get("epoch_chosen_on_held_out") is chosen


def test_a_run_that_is_repeated_is_the_same_model_and_chooses_nothing_anew(
    embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("aligned", "hybrid"):
        first = trained(embeddings, tmp_path / kind, kind)
        with monkeypatch.context() as patch:
            patch.setattr(plan_choice, "choose_plan", pytest.fail)
            again = trained(embeddings, tmp_path / kind, kind, log_every=7)
        assert again.card.digest == first.card.digest
        assert again.fitted.was_finished


def test_plans_that_come_to_the_same_bits_are_tried_once() -> None:
    plans = plan_choice.PLANS_OF["hybrid"]
    assert plan_choice.distinct(plans, 256) == list(plans)
    assert [(plan.ridge, plan.learned_share) for plan in plan_choice.distinct(plans, 8)] == [
        (0.5, 0.0), (1.0, 0.0), (2.0, 0.0), (4.0, 0.0),
    ]  # fmt: skip
    learned_alone = [HybridPlan(1.0, 1.0), HybridPlan(2.0, 1.0), HybridPlan(1.0, 1.0, 2.0)]
    assert plan_choice.distinct(learned_alone, 64) == [learned_alone[0], learned_alone[2]]


@pytest.fixture(scope="module")
def finished(embeddings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "out"
    trained(embeddings, out, "aligned")
    return out


@pytest.mark.parametrize(
    "damage",
    [
        *("", "{}", "[1]", '{"plan": {"weights": [1]}}', "[" * 10_000),
        {"ridge": float("nan")},
        {"ridge": float("inf")},
        {"learned_share": 9},
        {"learned_ridge": -1},
        {"weights": 5},
        {"weights": [5, 5]},
    ],
)
def test_a_damaged_plan_is_refused(
    embeddings: Path, finished: Path, tmp_path: Path, damage: str | dict[str, Any]
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    path = tmp_path / "out" / "training" / PLAN_FILE
    record = json.loads(path.read_text())
    assert record["plan"]["learned_share"] == 0.0
    if isinstance(damage, dict):
        damage = json.dumps({**record, "plan": {**record["plan"], **damage}})
    path.write_text(damage)
    with pytest.raises(TrainingError, match="damaged"):
        trained(embeddings, tmp_path / "out", "aligned")


def test_a_finished_model_that_left_no_checkpoint_is_not_replaced_by_another(
    embeddings: Path, tmp_path: Path
) -> None:
    first = trained(embeddings, tmp_path / "out", "aligned")
    with pytest.raises(TrainingError, match="seed was 0, is 5") as caught:
        trained(embeddings, tmp_path / "out", "aligned", seed=5)
    assert caught.value.field == "seed"
    with pytest.raises(TrainingError, match="hasher was aligned, is hashcoder"):
        trained(embeddings, tmp_path / "out", "hashcoder")
    assert SavedModel.load(tmp_path / "out").card.digest == first.card.digest
    assert trained(embeddings, tmp_path / "out", "aligned").fitted.was_finished


def test_photographs_without_words_cannot_be_aligned(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(4), 8).astype(np.int32)
    rows = np.random.default_rng(0).standard_normal((32, OPENCLIP_DIM))
    views = {"image": View("image", OPENCLIP_DIM)}
    with EmbeddingWriter(tmp_path / "set", views, encoder="bioclip-2", labels="single") as writer:
        writer.append({"image": rows}, labels)
    with pytest.raises(InvalidInputError, match="views of text and of media"):
        trained(tmp_path / "set", tmp_path / "out", "aligned", what="labels")


def test_items_that_are_all_alike_leave_no_model(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((32, OPENCLIP_DIM))
    same = rows[:1] + 1e-4 * rows
    views = {"text": View("text", OPENCLIP_DIM), "image": View("image", OPENCLIP_DIM)}
    with EmbeddingWriter(tmp_path / "set", views, encoder="bioclip-2") as writer:
        writer.append({"text": np.repeat(rows[:1], 32, axis=0), "image": same})
    with pytest.raises(TrainingError, match="all alike"):
        trained(tmp_path / "set", tmp_path / "out", "aligned")
    assert not (tmp_path / "out" / "model.json").exists()


def test_adapters_are_trained_with_heads_only(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="heads of the kind hashcoder, not hybrid"):
        trained(photographs, tmp_path / "out", "hybrid", lora=True)


def test_an_unknown_kind_is_refused_with_the_choices(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="hashcoder, aligned, hybrid"):
        trained(photographs, tmp_path / "out", "oracle")
