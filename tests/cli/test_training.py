from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.hashing.training import loop
from tests.cli.conftest import SAMPLE, Run
from tests.engine.training_media import tiny_catalogue, write_manifest, write_media

SMALL = ("--bits", 16, "--batch-size", 4, "--epochs", 2)


@pytest.fixture(scope="module", autouse=True)
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("trainings")
    write_media(folder / "media", each=2)
    with pytest.MonkeyPatch.context() as patch, tiny_catalogue(folder / "weights"):
        patch.setattr(loop, "draw_plot", lambda *_: None)
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield folder / "media"


@pytest.fixture(scope="module")
def photographs(media: Path) -> Path:
    return write_manifest(media.parent / "photographs.csv", media, ".png")


def test_field_learns_codes_of_the_sample_and_answers_with_them(run: Run, tmp_path: Path) -> None:
    out, archive = tmp_path / "sampled", tmp_path / "archive"
    done = run(
        "train", "pairs", SAMPLE / "manifest.csv", "--model", "field", "--output", out,
        "--modality", "image", "--batch-size", 32, "--epochs", 4, "--validation-share", 0.2,
    )  # fmt: skip
    assert done.status == 0
    for words in ("words to images", "training-free", "learned", "bits: 256", "next:"):
        assert words in done.out
    assert "flatters 'learned' a little" in done.out
    assert f"index my-archive {SAMPLE / 'manifest.csv'} --model {out}" in done.out
    few = tmp_path / "few"
    few.mkdir()
    for name in ("giant-panda-1", "clownfish-1", "cheetah-1", "honey-bee-1"):
        shutil.copy(SAMPLE / "images" / f"{name}.webp", few)
    run("index", archive, few, "--model", out)
    answer = json.loads(run("search", archive, "a giant panda", "-k", 2, "--json").out)
    assert answer["model"] == "sampled"
    assert "giant-panda-1.webp" in {Path(hit["media"]).name for hit in answer["hits"]}


def test_the_json_report_has_the_shape_that_programs_expect(
    run: Run, photographs: Path, tmp_path: Path
) -> None:
    command = ("train", "pairs", photographs, "--model", "bioclip-2", "--output", tmp_path / "out")
    done = run(*command, *SMALL, "--validation-share", 0.5, "--json")
    report = json.loads(done.out)
    assert set(report) == {
        "model", "folder", "digest", "encoder", "bits", "modalities", "items", "held_out",
        "comparison", "metrics", "skipped", "warnings", "seconds", "resumed", "was_finished",
    }  # fmt: skip
    assert set(report["comparison"][0]) == {
        "task", "modality", "queries", "items", "floats", "training_free", "learned",
    }  # fmt: skip
    again = json.loads(run(*command, *SMALL, "--validation-share", 0.5, "--json").out)
    assert (report["was_finished"], again["was_finished"]) == (False, True)
    assert report["digest"] == again["digest"]


def test_a_finished_training_says_so(run: Run, photographs: Path, tmp_path: Path) -> None:
    command = ("train", "pairs", photographs, "--model", "bioclip-2", "--output", tmp_path / "out")
    assert "was finished" not in run(*command, *SMALL).err
    assert "was finished" in run(*command, *SMALL).err


def test_options_win_over_the_settings_file(run: Run, photographs: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("bits: 64\nepochs: 3\nbatch_size: 4\n")
    command = ("train", "pairs", photographs, "--model", "bioclip-2", "--output", tmp_path / "out")
    report = json.loads(
        run(*command, "--config", settings, "--bits", 32, "--set", "epochs=1", "--json").out
    )
    assert report["bits"] == 32
    config = json.loads((tmp_path / "out" / "training" / "config.json").read_text())
    assert (config["bits"], config["epochs"], config["batch_size"]) == (32, 1, 4)


def test_labels_are_trained_on_from_a_folder(run: Run, media: Path, tmp_path: Path) -> None:
    done = run(
        "train", "labels", media, "--model", "bioclip-2", "--output", tmp_path / "out", *SMALL,
        "--lora", "--augment", "plants",
    )  # fmt: skip
    assert done.status == 0
    assert "6 photographs" in done.err
    assert "bioclip-2 has no audio tower" in done.err
    config = json.loads((tmp_path / "out" / "training" / "config.json").read_text())
    assert (config["heads"], config["augmentation"], config["lora_rank"]) == (
        "shared",
        "plants",
        16,
    )


def test_sounds_are_taught_the_space_of_pictures(
    run: Run, photographs: Path, media: Path, tmp_path: Path
) -> None:
    teacher, heard = tmp_path / "pictures", tmp_path / "heard"
    run("train", "pairs", photographs, "--model", "bioclip-2", "--output", teacher, *SMALL)
    recordings = write_manifest(tmp_path / "recordings.csv", media, ".wav")
    done = run(
        "train", "distill", recordings, "--teacher", teacher, "--output", heard,
        "--batch-size", 4, "--epochs", 2, "--validation-share", 0.4,
    )  # fmt: skip
    assert done.status == 0
    assert "floats, taught" in done.out
    assert "index my-archive PHOTOGRAPHS --model" in done.out
    assert "audio, image, text" in done.out


def test_a_small_set_is_trained_on_with_default_settings_and_says_what_that_means(
    run: Run, photographs: Path, tmp_path: Path
) -> None:
    done = run("train", "labels", photographs, "--model", "bioclip-2", "--output", tmp_path / "out")
    assert done.status == 0
    for words in ("6 photographs", "batches have 6 items instead of 256: there are 6 to train on"):
        assert words in done.err
    assert "fewer than 30 queries" in done.out
    assert "--validation-share 0 trains on all items" in done.out


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("pairs PHOTOS --model bioclip-9", 1, "bioclip-9"),
        ("pairs /nowhere --model bioclip-2", 1, "/nowhere"),
        ("pairs PHOTOS --model bioclip-2 --bits 12", 2, "not 12"),
        ("pairs PHOTOS --model bioclip-2 --output PHOTOS", 2, "is a file"),
        ("pairs PHOTOS --model field --lora", 2, "cannot take adapters"),
        ("pairs PHOTOS --model field --augment plants", 2, "--lora"),
        ("pairs PHOTOS --model field --set pochs=3", 2, "pochs"),
        ("pairs PHOTOS --model field --config /no.x", 2, "/no.x"),
        ("labels PHOTOS --model field --label-column x", 2, "'x'"),
        ("distill SOUNDS --teacher nobody --batch-size 4", 1, "nobody"),
        ("distill PHOTOS --teacher nobody", 2, "no audio"),
        ("distill PHOTOS", 2, "--teacher"),
    ],
)
def test_misuse_ends_with_a_message_and_leaves_nothing(
    run: Run,
    photographs: Path,
    media: Path,
    tmp_path: Path,
    command: str,
    status: int,
    message: str,
) -> None:
    sources = {"PHOTOS": photographs, "SOUNDS": media}
    kind, *arguments = [sources.get(word, word) for word in command.split()]
    done = run("train", kind, "--output", tmp_path / "out", *arguments)
    assert (done.status, message in done.err) == (status, True), done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_says_how_to_go_on(
    run: Run, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bittern.service.training import train as running

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "train_model", interrupted)
    done = run("train", "pairs", photographs, "--model", "field", "--output", tmp_path / "out")
    assert done.status == 130
    assert "same command resumes" in done.err
