"""Adapters trained from the media themselves, and an audio tower taught another encoder's space."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bittern.encoders.base import Modality
from bittern.encoders.catalogue import load_encoder
from bittern.errors import InvalidInputError, ModelNotFoundError, TrainingError
from bittern.hashing.aligned import AlignedHasher
from bittern.hashing.hashcoder import HashCoder
from bittern.hashing.hashers import Hasher, HybridHasher, LinearHasher
from bittern.hashing.learned import LearnedHasher
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training import loop
from bittern.index.archive import Archive
from bittern.query import Query
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.indexing import index_source
from bittern.service.local.archive import LocalArchive
from bittern.service.models.model import Embedders
from bittern.service.sources import read_source
from bittern.service.training import train
from bittern.service.training.embedded_examples import MOST_WINDOWS
from bittern.service.training.output_folder import OutputFolder
from bittern.service.training.request import TrainingRequest
from bittern.service.training.train import TrainingReport, train_model
from bittern.types import AddStatus
from tests.engine.training_media import (
    SPECIES,
    StoppedError,
    stop_at,
    tiny_catalogue,
    training_request,
    write_manifest,
    write_media,
)

SMALL = {
    "bits": 16,
    "batch_size": 4,
    "epochs": 2,
    "device": "cpu",
    "validation_share": 0.25,
    "log_every": 1,
}


@pytest.fixture(scope="module", autouse=True)
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("towers")
    write_media(folder / "media", each=2)
    with tiny_catalogue(folder / "weights"):
        yield folder / "media"


@pytest.fixture(scope="module")
def photographs(media: Path) -> Path:
    return write_manifest(media.parent / "photographs.csv", media, ".png")


@pytest.fixture(scope="module")
def recordings(media: Path) -> Path:
    return write_manifest(media.parent / "recordings.csv", media, ".wav")


@pytest.fixture(scope="module", autouse=True)
def _no_plots() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "draw_plot", lambda *_: None)
        yield


def request(source: Path, out: Path, **changes: Any) -> TrainingRequest:
    return training_request(source, out, SMALL, **changes)


def trained(source: Path, out: Path, **changes: Any) -> TrainingReport:
    return train_model(request(source, out, **changes))


@pytest.fixture(scope="module")
def adapted(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with adapters, trained without interruption.

    Without validation the last epoch counts; of random towers the first, which trains heads
    alone, may well be the best.
    """
    out = tmp_path_factory.mktemp("adapted") / "owls"
    trained(photographs, out, lora=True, checkpoint_every=1, validation_share=0)
    return out


@pytest.fixture(scope="module")
def teacher(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "pictures"
    trained(photographs, out)
    return out


def found(archive: Path, source: Path, model: Path, query: Query) -> list[str]:
    """Ids of what a query finds among what a model indexed."""
    with Archive.create(archive) as opened:
        engine = LocalArchive(opened)
        report = index_source(engine, read_source(source).entries, IndexOptions(model=str(model)))
        assert report.items[AddStatus.FAILED] == 0
        return [hit.observation.id for hit in engine.answer(query).hits]


def test_adapters_change_embeddings_and_leave_the_base_as_it_was(adapted: Path) -> None:
    saved = SavedModel.load(adapted)
    before = load_encoder("bioclip-2", device="cpu")
    words = ["a photo of red fox", "a photo of tawny owl"]
    bare = before.encode(Modality.TEXT, words)
    embedder = Embedders(lambda name: load_encoder(name, device="cpu")).of(saved)
    after = embedder.embed(Modality.TEXT, words)
    assert np.abs(after - bare).max() > 1e-4
    np.testing.assert_array_equal(before.encode(Modality.TEXT, words), bare)
    assert saved.card.towers["text"] != before.digests[Modality.TEXT]
    assert saved.card.towers["text"] == embedder.digest(Modality.TEXT)
    assert any(np.abs(t).max() > 0 for n, t in saved.adapters.items() if n.endswith(".B"))


def test_adapters_wait_for_their_epoch(photographs: Path, tmp_path: Path) -> None:
    trained(photographs, tmp_path / "out", lora=True, epochs=1)
    adapters = SavedModel.load(tmp_path / "out").adapters
    assert adapters
    assert all(np.abs(t).max() == 0 for n, t in adapters.items() if n.endswith(".B"))


def test_a_model_with_adapters_indexes_and_answers(
    adapted: Path, photographs: Path, tmp_path: Path
) -> None:
    ids = found(tmp_path / "archive", photographs, adapted, Query(text="a red fox", k=12))
    assert len(ids) == 12


def test_a_killed_run_with_adapters_comes_to_the_same_model(
    adapted: Path, photographs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "owls"
    wanted = request(photographs, out, lora=True, checkpoint_every=1, validation_share=0)
    for step in (2, 3):  # the second epoch, the first to train adapters, begins at the third
        with pytest.raises(StoppedError):
            train_model(wanted, stop_at(step))
    report = train_model(wanted)
    assert report.fitted.resumed
    assert report.card.digest == SavedModel.load(adapted).card.digest


def test_a_file_that_vanishes_while_towers_are_trained_is_named(
    media: Path, tmp_path: Path
) -> None:
    shutil.copytree(media, tmp_path / "media")
    source = write_manifest(tmp_path / "some.csv", tmp_path / "media", ".png")
    gone = tmp_path / "media" / SPECIES[1] / "0.png"
    wanted = request(source, tmp_path / "out", lora=True, validation_share=0)

    def progress(stage: str, done: int, total: int, note: str) -> None:
        if (stage, done) == ("encoding", total):
            for file in (tmp_path / "media" / SPECIES[1]).glob("*.png"):
                file.unlink()

    with pytest.raises(TrainingError, match=rf"{SPECIES[1]}.*could be read when this training"):
        train_model(wanted, progress)
    assert not gone.exists()


def test_labels_of_recordings_train_an_audio_tower(recordings: Path, tmp_path: Path) -> None:
    report = trained(
        recordings, tmp_path / "out", what="labels", model="biolingual", lora=True,
        augmentation="sound", validation_share=0.0,
    )  # fmt: skip
    saved = SavedModel.load(tmp_path / "out")
    assert list(report.card.towers) == ["audio", "text"]
    assert saved.card.assembly["audio"]["lora"]["rank"] == 16


@pytest.mark.parametrize("seed", range(3))
def test_codes_of_a_dozen_recordings_use_their_bits_from_the_first_epoch_on(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Three batches make an epoch, in which the heads' weights move far."""
    judged: list[list[int]] = []
    monkeypatch.setattr(
        loop._Run, "_judge", lambda _, bits: judged.append([len(view.dead) for view in bits])
    )
    trained(
        recordings, tmp_path / "out", what="labels", model="biolingual", lora=True,
        augmentation="sound", validation_share=0.0, seed=seed,
    )  # fmt: skip
    assert len(judged) == 2
    for _, *audio in judged:
        assert max(audio) < 8


def test_a_long_recording_is_a_few_windows(media: Path, tmp_path: Path) -> None:
    import soundfile

    folder = tmp_path / "media"
    shutil.copytree(media, folder)
    noise = np.random.default_rng(0).standard_normal(4000 * 2 * (MOST_WINDOWS + 9)) * 0.1
    soundfile.write(folder / SPECIES[0] / "long.wav", noise, 4000)
    source = write_manifest(tmp_path / "long.csv", folder, ".wav")
    report = trained(source, tmp_path / "out", model="biolingual", validation_share=0.0)
    assert report.card.data["rows"] == {"audio": 12 + MOST_WINDOWS}


@pytest.mark.parametrize("lora", [False, True])
def test_a_student_lets_sounds_find_pictures(
    teacher: Path, recordings: Path, photographs: Path, media: Path, tmp_path: Path, lora: bool
) -> None:
    report = trained(
        recordings, tmp_path / "heard", what="distill", model="biolingual",
        teacher=str(teacher), lora=lora,
    )  # fmt: skip
    assert list(report.card.towers) == ["audio", "image", "text"]
    card = SavedModel.load(tmp_path / "heard").card
    taught = SavedModel.load(teacher).card
    assert card.encoder == "bioclip-2+biolingual"
    assert card.assembly["audio"]["projection"] is True
    assert {m: card.towers[m] for m in ("text", "image")} == dict(taught.towers)
    sound = (media / SPECIES[0] / "0.wav").read_bytes()
    query = Query(audio=sound, target="image", k=3)
    assert len(found(tmp_path / "archive", photographs, tmp_path / "heard", query)) == 3


def test_a_student_of_adapters_keeps_the_teachers(
    adapted: Path, recordings: Path, tmp_path: Path
) -> None:
    trained(
        recordings, tmp_path / "heard", what="distill", model="biolingual", teacher=str(adapted)
    )
    before, after = SavedModel.load(adapted), SavedModel.load(tmp_path / "heard")
    for name, tensor in before.adapters.items():
        np.testing.assert_array_equal(after.adapters[name], tensor)
    assert after.card.towers["image"] == before.card.towers["image"]


def test_distilling_teaches_recordings_their_captions(
    teacher: Path, recordings: Path, tmp_path: Path
) -> None:
    """On what it was trained on; the tiny towers know nothing that carries over."""
    report = trained(
        recordings, tmp_path / "heard", what="distill", model="biolingual",
        teacher=str(teacher), epochs=60, validation_share=0.0, learning_rate=5e-3,
    )  # fmt: skip
    assert report.card.metrics["loss"] < 0.8
    assert report.card.metrics["scale"] > 10


def test_others_are_kept_out_of_the_folder_until_the_student_is_saved(
    teacher: Path, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"what": "distill", "model": "biolingual", "teacher": str(teacher)}
    wanted = request(recordings, tmp_path / "out", **settings)
    story = train._story

    def looked_at(*given: Any) -> dict[str, Any]:
        with pytest.raises(TrainingError, match="another process"), OutputFolder(wanted).held():
            pass
        return {**story(*given), "looked": True}

    monkeypatch.setattr(train, "_story", looked_at)
    train_model(wanted)
    assert SavedModel.load(tmp_path / "out").card.data["looked"]


def test_teachers_and_students_that_will_not_do_are_refused(
    teacher: Path, recordings: Path, photographs: Path, tmp_path: Path
) -> None:
    def attempt(source: Path = recordings, **changes: Any) -> None:
        settings = {"model": "biolingual", "teacher": str(teacher), **changes}
        trained(source, tmp_path / "out", what="distill", **settings)

    with pytest.raises(ModelNotFoundError, match="nobody"):
        attempt(teacher="nobody")
    with pytest.raises(InvalidInputError, match="no audio tower"):
        attempt(model="bioclip-2")
    with pytest.raises(InvalidInputError, match="12 image, and no audio"):
        attempt(photographs)
    trained(recordings, tmp_path / "ears", model="biolingual")
    with pytest.raises(InvalidInputError, match="no image tower"):
        attempt(teacher=str(tmp_path / "ears"))
    assert not (tmp_path / "out").exists()


def hashers() -> dict[str, Hasher]:
    random = np.random.default_rng(0)
    means = {m: random.standard_normal(6).astype(np.float32) for m in ("text", "image")}
    linear = LinearHasher("pca", random.standard_normal((6, 8)).astype(np.float32), means)
    learned = LearnedHasher.from_modules({m: HashCoder(6, 8) for m in means}, means)
    matrix = random.standard_normal((6, 8)).astype(np.float32)
    aligned = AlignedHasher(
        dict.fromkeys(means, matrix), {m: -(mean @ matrix) for m, mean in means.items()}
    )
    return {
        "linear": linear,
        "learned": learned,
        "aligned": aligned,
        "hybrid": HybridHasher([linear, learned], [1.0, 0.5]),
    }


@pytest.mark.parametrize("kind", ["linear", "learned", "aligned", "hybrid"])
def test_a_new_modality_is_coded_as_the_one_it_is_like(kind: str) -> None:
    hasher = hashers()[kind]
    mean = np.arange(6, dtype=np.float32)
    wider = hasher.with_modality("audio", "text", mean)
    assert wider.modalities == ["audio", "image", "text"]
    assert hasher.modalities == ["image", "text"]
    x = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    centre = np.float32(0) + _mean_of(hasher)
    np.testing.assert_allclose(
        wider.logits(x + mean, "audio"), hasher.logits(x + centre, "text"), atol=2e-4
    )
    np.testing.assert_array_equal(wider.logits(x, "image"), hasher.logits(x, "image"))


def _mean_of(hasher: Hasher) -> Any:
    first = hasher.hashers[0] if isinstance(hasher, HybridHasher) else hasher
    means = hashers()["linear"].means if isinstance(first, AlignedHasher) else first.means  # type: ignore[attr-defined]
    return means["text"]
