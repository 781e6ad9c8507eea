from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bittern.errors import ModelDamagedError, ModelNotFoundError
from bittern.hashing.hashers import Hasher
from bittern.hashing.saved_model import CARD_FILE, TENSOR_FILE, SavedModel
from bittern.hashing.training_free import fit


def embeddings() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((50, 12)).astype(np.float32)


def saved_model(seed: int = 0, towers: dict[str, str] | None = None) -> SavedModel:
    hasher = fit("pca", {"image": embeddings(), "text": embeddings()}, 16, seed=seed)
    return SavedModel.describe(
        "tiny-16",
        hasher,
        encoder="tiny",
        towers=towers or {"image": "aa", "text": "bb"},
        licence="",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved_model().save(tmp_path / "model")
    return tmp_path / "model"


def test_a_loaded_model_makes_the_same_logits_and_has_the_same_digest(folder: Path) -> None:
    loaded, model = SavedModel.load(folder), saved_model()
    assert isinstance(loaded.hasher, Hasher)
    assert loaded.card == model.card
    x = embeddings()
    assert (loaded.hasher.logits(x, "text") == model.hasher.logits(x, "text")).all()


def test_whatever_decides_the_code_changes_the_digest() -> None:
    digests = {
        saved_model().card.digest,
        saved_model(seed=1).card.digest,
        saved_model(towers={"image": "aa", "text": "cc"}).card.digest,
    }
    assert len(digests) == 3


def test_a_folder_without_a_card_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"model\.json"):
        SavedModel.load(tmp_path)


def test_every_flipped_byte_of_the_tensors_is_noticed(folder: Path) -> None:
    content = bytearray((folder / TENSOR_FILE).read_bytes())
    content[-5] ^= 1
    (folder / TENSOR_FILE).write_bytes(content)
    with pytest.raises(ModelDamagedError, match="digest"):
        SavedModel.load(folder)


@pytest.mark.parametrize("keep", [0, 4, 40, -7])
def test_truncated_tensors_are_refused(folder: Path, keep: int) -> None:
    content = (folder / TENSOR_FILE).read_bytes()
    (folder / TENSOR_FILE).write_bytes(content[:keep])
    with pytest.raises(ModelDamagedError, match=TENSOR_FILE):
        SavedModel.load(folder)


def test_missing_tensors_are_named(folder: Path) -> None:
    (folder / TENSOR_FILE).unlink()
    with pytest.raises(ModelDamagedError, match="missing"):
        SavedModel.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"nosuch": 1}', "null"])
def test_content_that_is_not_a_card_is_refused(folder: Path, text: str) -> None:
    (folder / CARD_FILE).write_text(text)
    with pytest.raises(ModelDamagedError, match="not a model card"):
        SavedModel.load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("bits", 24), ("dim", 13), ("encoder", "other"), ("bits", "16"), ("towers", [])],
)
def test_a_card_that_contradicts_its_tensors_is_refused(
    folder: Path, field: str, value: object
) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    card[field] = value
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(ModelDamagedError):
        SavedModel.load(folder)


@pytest.mark.parametrize("field", ["name", "encoder", "licence"])
def test_a_card_with_half_a_surrogate_pair_is_refused(folder: Path, field: str) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    card[field] = "\ud800"
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(ModelDamagedError, match="not a model card"):
        SavedModel.load(folder)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_card_that_an_editor_saved_in_another_encoding_is_read(
    folder: Path, encoding: str
) -> None:
    card = (folder / CARD_FILE).read_text()
    (folder / CARD_FILE).write_text(card, encoding=encoding)
    assert SavedModel.load(folder).card == saved_model().card


def test_a_newer_format_asks_for_an_upgrade(folder: Path) -> None:
    card = json.loads((folder / CARD_FILE).read_text())
    card["format"] = 99
    (folder / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(ModelDamagedError, match="Upgrade"):
        SavedModel.load(folder)


def test_a_card_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / CARD_FILE).write_text('{"a":' * 100_000)
    with pytest.raises(ModelDamagedError, match="not a model card"):
        SavedModel.load(tmp_path)
