"""From a source to a saved model that indexes and answers: heads on embeddings made once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.encoders.base import Encoder, Media, Modality
from bittern.encoders.catalogue import CATALOGUE
from bittern.errors import (
    BitternError,
    InvalidInputError,
    ManifestError,
    ModelNotFoundError,
    SourceNotFoundError,
    TrainingError,
)
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training import loop
from bittern.hashing.training.embedding_sets import EmbeddingSet, EmbeddingWriter, View
from bittern.hashing.training.sampling import random_numbers
from bittern.hashing.training.validation import HeldOut, SplitSet
from bittern.service.training.output_folder import OutputFolder
from bittern.service.training.request import TrainingRequest, encoder_of, gather
from bittern.service.training.train import TrainingReport, train_model
from tests.encoders.tiny import openclip_entry
from tests.engine.toy import DIM, ToyEncoder
from tests.engine.training_media import (
    SPECIES,
    StoppedError,
    stop_at,
    tiny_catalogue,
    training_request,
    write_manifest,
    write_media,
)

SMALL: Mapping[str, Any] = {
    "bits": 16,
    "batch_size": 4,
    "epochs": 2,
    "device": "cpu",
    "validation_share": 0.0,
}


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
def _no_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training does here; one test looks whether it is done."""
    if "story" not in request.node.name:
        monkeypatch.setattr(loop, "draw_plot", lambda *_: None)


class Counting(ToyEncoder):
    """The toy encoder as ``bioclip-2``; captions of different length have different embeddings."""

    def __init__(self, salt: str = "") -> None:
        super().__init__(name="bioclip-2", salt=salt)

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        rows = super().encode(modality, batch)
        if modality is Modality.TEXT:
            rows[:, -1] += [len(str(text)) / 100 for text in batch]
        unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit


def request(source: Path, out: Path, **changes: Any) -> TrainingRequest:
    return training_request(source, out, SMALL, **changes)


def trained(source: Path, out: Path, **changes: Any) -> TrainingReport:
    return train_model(request(source, out, **changes))


def test_a_model_of_pairs_is_saved_with_its_story(photographs: Path, tmp_path: Path) -> None:
    report = trained(photographs, tmp_path / "owls", validation_share=0.25)
    saved = SavedModel.load(tmp_path / "owls")
    card = saved.card
    assert (card.name, card.bits, card.encoder) == ("owls", 16, "bioclip-2")
    assert card.digest == report.card.digest
    assert sorted(card.towers) == ["image", "text"] == sorted(report.card.towers)
    assert card.data["rows"] == {"image": 18}
    assert card.data["rows_held_out"] == {"image": 6}
    assert card.metrics["held_out"][0]["task"] == "words to images"
    assert card.training["batch_size"] == 4
    assert card.licence == CATALOGUE["bioclip-2"].licence
    run = tmp_path / "owls" / "training"
    kept = {"config.json", "log.jsonl", "log.csv", "plot.png", "checkpoint.safetensors"}
    assert kept <= {file.name for file in run.iterdir()}
    lines = (run / "log.jsonl").read_text().splitlines()
    epochs = [line for line in map(json.loads, lines) if line["kind"] == "epoch"]
    assert card.metrics["loss"] == epochs[card.metrics["epoch"] - 1]["loss"]
    (row,) = report.fitted.comparison
    assert (row.queries, row.items) == (6, 6)
    assert row.training_free is not None
    for value in (row.floats, row.training_free, row.learned):
        assert 0 < value <= 1


def test_a_folder_is_a_source_and_both_kinds_of_media_are_trained_on(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = openclip_entry(name="bioclip-2", modalities=tuple(Modality))
    monkeypatch.setitem(CATALOGUE, "bioclip-2", everything)
    report = train_model(request(media, tmp_path / "out"), load=lambda name, device: Counting())
    assert list(report.card.towers) == ["audio", "image", "text"]
    # One window of a second per recording.
    assert report.card.data["rows"] == {"audio": 24, "image": 24}


def test_the_same_command_again_embeds_and_trains_nothing(
    photographs: Path, tmp_path: Path
) -> None:
    first, second = Counting(), Counting()
    wanted = request(photographs, tmp_path / "out")
    before = train_model(wanted, load=lambda name, device: first)
    after = train_model(wanted, load=lambda name, device: second)
    assert first.batches
    assert not second.batches
    assert (before.fitted.was_finished, after.fitted.was_finished) == (False, True)
    assert before.card.digest == after.card.digest


def test_other_towers_embed_the_source_again(photographs: Path, tmp_path: Path) -> None:
    other = Counting(salt="other")
    wanted = request(photographs, tmp_path / "out")
    train_model(wanted, load=lambda name, device: Counting())
    with pytest.raises(TrainingError, match="data was"):
        train_model(wanted, load=lambda name, device: other)
    assert other.batches


def test_a_run_that_was_interrupted_comes_to_the_same_model(
    photographs: Path, tmp_path: Path
) -> None:
    settings = {"epochs": 3, "checkpoint_every": 2, "validation_share": 0.25}
    whole = trained(photographs, tmp_path / "a" / "owls", **settings)
    wanted = request(photographs, tmp_path / "b" / "owls", **settings)
    for step in (3, 7):
        with pytest.raises(StoppedError):
            train_model(wanted, stop_at(step))
        assert not (tmp_path / "b" / "owls" / "model.json").exists()
    resumed = train_model(wanted)
    assert resumed.fitted.resumed
    assert resumed.card.digest == whole.card.digest


def test_another_configuration_on_a_started_folder_is_refused_by_name(
    photographs: Path, tmp_path: Path
) -> None:
    trained(photographs, tmp_path / "out")
    with pytest.raises(TrainingError, match="epochs was 2, is 3"):
        trained(photographs, tmp_path / "out", epochs=3)
    with pytest.raises(TrainingError, match="what was pairs, is labels"):
        trained(photographs, tmp_path / "out", what="labels")


def test_a_folder_that_another_process_trained_in_meanwhile_is_refused(
    photographs: Path, tmp_path: Path
) -> None:
    late = OutputFolder(request(photographs, tmp_path / "out", seed=5))
    trained(photographs, tmp_path / "out")
    content = (tmp_path / "out" / "training" / "request.json").read_text()
    with pytest.raises(TrainingError, match="seed was 0, is 5"), late.held():
        pytest.fail("the folder is another training's")
    assert (tmp_path / "out" / "training" / "request.json").read_text() == content


def test_labels_share_a_head_with_the_words_for_them(photographs: Path, tmp_path: Path) -> None:
    report = trained(photographs, tmp_path / "out", what="labels", validation_share=0.4)
    saved = SavedModel.load(tmp_path / "out")
    assert saved.card.hasher["heads"] == {"image": "image", "text": "image"}
    assert {c.task for c in report.fitted.comparison} == {"images to images", "words to images"}


@pytest.mark.parametrize("labels", ["single", "multi"])
def test_keys_of_a_taxonomy_serve_as_labels(tmp_path: Path, labels: Any) -> None:
    keys = [[5231190], [9206251], [5231190]]
    of_rows: Any = keys if labels == "multi" else np.array(keys, dtype=np.int32).ravel()
    view = {"image": View("image", DIM)}
    with EmbeddingWriter(tmp_path / "set", view, encoder="toy", labels=labels) as writer:
        writer.append({"image": vectors(0)[:3]}, of_rows)
    rows = np.arange(3)
    kept = SplitSet(EmbeddingSet.open(tmp_path / "set"), "image", rows, rows).validation(3)
    assert kept is not None
    assert kept.membership is not None
    assert kept.membership.tolist() == [[True, False], [False, True], [True, False]]


def test_the_length_of_an_embedding_says_nothing() -> None:
    rows = vectors(0)[:20]
    lengths = np.linspace(0.1, 50, 20, dtype=np.float32)[:, None]
    queries = rows + vectors(1)[:20]
    (unit,) = HeldOut("image", rows, "text", queries).tasks()
    (longer,) = HeldOut("image", rows * lengths, "text", queries * lengths[::-1]).tasks()
    assert 0 < unit.of_floats() == longer.of_floats() < 1


def test_labels_that_are_no_words_leave_words_a_mean_of_their_own(
    photographs: Path, tmp_path: Path
) -> None:
    text = photographs.read_text()
    for number, name in enumerate(SPECIES):
        text = text.replace(f",{name}\n", f",{number:05}\n")
    numbers = photographs.with_name("numbers.csv")
    numbers.write_text(text)
    report = trained(numbers, tmp_path / "out", what="labels", validation_share=0.4)
    assert list(report.card.towers) == ["image", "text"]
    assert {c.task for c in report.fitted.comparison} == {"images to images"}


def test_items_of_several_classes_are_trained_on(photographs: Path, tmp_path: Path) -> None:
    several = photographs.with_name("several.csv")
    several.write_text(photographs.read_text().replace(",red fox\n", ",red fox|mammal\n"))
    report = trained(several, tmp_path / "out", what="labels", validation_share=0.4)
    assert report.card.data["rows"]["image"] > 8


def test_unusable_entries_are_skipped_and_named(media: Path, tmp_path: Path) -> None:
    source = write_manifest(tmp_path / "some.csv", media, ".png")
    broken = tmp_path / "broken.png"
    broken.write_bytes((media / SPECIES[0] / "0.png").read_bytes()[:100])
    with source.open("a") as file:
        file.write(f"broken,{broken},red fox,Vulpes vulpes,red fox\n")
        file.write("gone,nowhere.png,red fox,Vulpes vulpes,red fox\n")
    report = trained(source, tmp_path / "out")
    reasons = {s.reason: s.where for s in report.skipped}
    assert len(reasons) == 2
    assert any("nowhere.png" in reason and "line 27" in where for reason, where in reasons.items())
    assert any("broken.png" in reason for reason in reasons)
    assert SavedModel.load(tmp_path / "out").card.data["skipped"] == 2
    with pytest.raises(ManifestError, match=r"nowhere\.png"):
        trained(source, tmp_path / "strict", strict=True)


def test_a_file_that_no_decoder_takes_refuses_a_strict_source(media: Path, tmp_path: Path) -> None:
    source = write_manifest(tmp_path / "some.csv", media, ".png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with source.open("a") as file:
        file.write("broken,broken.png,red fox,Vulpes vulpes,red fox\n")
    with pytest.raises(ManifestError, match=r"1 of 25 files cannot be used.*broken\.png"):
        trained(source, tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict" / "model.json").exists()


def test_the_encoder_is_field_unless_one_is_named_or_a_set_names_its_own(tmp_path: Path) -> None:
    (tmp_path / "set.json").touch()
    assert encoder_of(tmp_path / "birds.csv", None) == "field"
    assert encoder_of(tmp_path / "birds.csv", "bioclip-2") == "bioclip-2"
    assert encoder_of(tmp_path, None) is None


def bad_requests() -> dict[str, tuple[dict[str, Any], type[BitternError], str]]:
    return {
        "nobody": ({"model": "bioclip-9"}, ModelNotFoundError, "no encoder 'bioclip-9'"),
        "bits": ({"bits": 12}, InvalidInputError, r"bits must be.*not 12"),
        "no source": ({"source": Path("nowhere")}, SourceNotFoundError, "nowhere"),
        "adapters": (
            {"model": "field", "lora_rank": 8},
            InvalidInputError,
            r"field cannot take adapters.*bioclip-2",
        ),
        "plants": ({"augmentation": "plants"}, InvalidInputError, "needs --lora"),
        "odd": ({"augmentation": "odd"}, InvalidInputError, "augmentation is one of"),
        "alpha": ({"lora_rank": 16, "lora_alpha": 1.5}, InvalidInputError, "whole number"),
        "hasher": ({"hasher": "pca"}, InvalidInputError, "no hasher 'pca' to be trained"),
        "modality": ({"modality": "text"}, InvalidInputError, "must be image or audio"),
        "share": (
            {"validation_share": 0.001, "must_validate": True},
            InvalidInputError,
            "holds out 0",
        ),
        "no column": ({"caption_column": "poem"}, ManifestError, "vernacularName"),
    }


@pytest.mark.parametrize("case", bad_requests())
def test_a_request_that_cannot_be_met_says_why_and_leaves_nothing(
    photographs: Path, tmp_path: Path, case: str
) -> None:
    changes, error, message = bad_requests()[case]
    with pytest.raises(error, match=message):
        trained(**{"source": photographs, "out": tmp_path / "out", **changes})
    assert not (tmp_path / "out").exists()


def test_one_class_teaches_nothing(media: Path, tmp_path: Path) -> None:
    source = write_manifest(tmp_path / "one.csv", media, ".png", label="bird")
    with pytest.raises(ManifestError, match="one class"):
        trained(source, tmp_path / "out", what="labels")


def test_a_folder_that_holds_something_else_is_left_alone(
    photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").write_text("a bittern boomed")
    with pytest.raises(InvalidInputError, match="not empty"):
        trained(photographs, tmp_path / "notes")
    trained(photographs, tmp_path / "first")
    other = tmp_path / "other"
    SavedModel.load(tmp_path / "first").save(other)
    with pytest.raises(InvalidInputError, match="a model that was not trained here"):
        trained(photographs, other)


def test_a_folder_in_an_archive_is_refused(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "archive" / "models" / "mine"
    (tmp_path / "archive" / "store").mkdir(parents=True)
    (tmp_path / "archive" / "archive.json").write_text("{}")
    with pytest.raises(InvalidInputError, match="is in the archive at"):
        trained(photographs, out)
    assert not out.exists()


def test_a_run_whose_bits_are_all_constant_is_refused_and_leaves_no_model(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bittern.hashing.training.records import BitStatistics

    monkeypatch.setattr(BitStatistics, "collapsed", True)
    with pytest.raises(TrainingError, match=r"collapsed.*rate_weight"):
        trained(photographs, tmp_path / "out")
    assert not (tmp_path / "out" / "model.json").exists()


def write_set(folder: Path, *, encoder: str = "toy", **views: NDArray[np.float32]) -> Path:
    kinds: Any = {name: name.partition("-")[0] for name in views}
    declared = {name: View(kinds[name], DIM) for name in views}
    towers = {kind: f"digest-of-{kind}" for kind in kinds.values()}
    with EmbeddingWriter(folder, declared, encoder=encoder, towers=towers) as writer:
        writer.append(dict(views))
    return folder


def vectors(seed: int) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((40, DIM)).astype(np.float32)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "toy", openclip_entry(name="toy", dim=DIM))


def never(name: str, device: str | None) -> Encoder:
    raise AssertionError("embeddings need no encoder")


@pytest.mark.usefixtures("toy")
def test_embeddings_made_elsewhere_are_trained_on_without_an_encoder(tmp_path: Path) -> None:
    source = write_set(tmp_path / "set", text=vectors(0), image=vectors(1))
    wanted = request(source, tmp_path / "out", model=None, validation_share=0.2)
    report = train_model(wanted, load=never)
    card = SavedModel.load(tmp_path / "out").card
    assert card.encoder == "toy"
    assert card.towers == {"image": "digest-of-image", "text": "digest-of-text"}
    assert report.card.data["rows"] == {"image": 32}
    assert report.fitted.comparison[0].items == 8


@pytest.mark.usefixtures("toy")
def test_a_set_of_another_encoder_or_with_adapters_is_refused(tmp_path: Path) -> None:
    source = write_set(tmp_path / "set", text=vectors(0), image=vectors(1))
    with pytest.raises(InvalidInputError, match="of toy, not of field"):
        train_model(request(source, tmp_path / "a", model="field"), load=never)
    with pytest.raises(InvalidInputError, match="need the media"):
        train_model(request(source, tmp_path / "b", model=None, lora_rank=4), load=never)
    nameless = write_set(tmp_path / "nameless", encoder="", text=vectors(0), image=vectors(1))
    with pytest.raises(InvalidInputError, match="--model"):
        train_model(request(nameless, tmp_path / "c", model=None), load=never)


def test_each_caption_of_an_item_gets_its_turn() -> None:
    rows = np.arange(400)
    by_epoch = np.stack([random_numbers(0, epoch, rows, 4) for epoch in range(1, 21)])
    counts = np.bincount(by_epoch.ravel(), minlength=4)
    assert counts.min() > 0.22 * by_epoch.size
    assert (random_numbers(0, 3, rows[::-1], 4)[::-1] == by_epoch[2]).all()
    assert (random_numbers(1, 3, rows, 4) != by_epoch[2]).any()


def test_settings_come_from_defaults_then_file_then_options(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 9\nbits: 64\nseed: 5\n")
    config, _ = gather(
        "pairs", "field", file, ["seed=6", "learning_rate=1e-4"], {"bits": 128, "size": None}
    )
    assert (config.epochs, config.bits, config.seed, config.size) == (9, 128, 6, "small")
    assert config.learning_rate == 1e-4
    for wrong in ("epochs", "=3", "pochs=3"):
        with pytest.raises(InvalidInputError):
            gather("pairs", "field", None, [wrong], {})
