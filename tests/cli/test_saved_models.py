"""Saved models on the command line: listed, named, used, and refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from bittern.cli.listing import model_table
from bittern.encoders.catalogue import CATALOGUE
from bittern.hashing.saved_model import ADAPTER_FILE, CARD_FILE, TENSOR_FILE, SavedModel
from bittern.service.models.saved import SavedModelInfo, encoders, headline
from bittern.service.training.output_folder import REQUEST_FILE, RUN
from tests.cli.conftest import Run
from tests.encoders.tiny import clap_entry, openclip_entry
from tests.engine.assembled import CLAP, CLIP, distilled, write_weights
from tests.engine.toy import fill_folder, sound


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_weights(tmp_path_factory.mktemp("weights"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CATALOGUE, CLIP, openclip_entry())
        patch.setitem(CATALOGUE, CLAP, clap_entry())
        patch.setenv("BITTERN_WEIGHTS", str(folder))
        patch.setenv("HF_HUB_CACHE", str(folder / "no-cache"))
        patch.delenv("BITTERN_MODELS", raising=False)
        yield folder


@pytest.fixture(scope="module")
def heron() -> SavedModel:
    return distilled().saved("hashcoder")


@pytest.fixture
def here(heron: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one saved model in `models/` and media beside it."""
    heron.save(tmp_path / "models" / "heron-64")
    fill_folder(tmp_path / "media")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(run: Run, *arguments: object) -> dict[str, dict[str, object]]:
    done = run("models", "--json", *arguments)
    assert done.status == 0
    return {row.get("folder", row["name"]): row for row in json.loads(done.out)}


def test_encoders_keep_their_keys_and_come_first(run: Run, here: Path) -> None:
    rows = json.loads(run("models", "--json").out)
    assert [row["name"] for row in rows[: len(CATALOGUE)]] == list(CATALOGUE)
    old = {"name", "modalities", "dim", "licence", "ready", "where", "message", "bring"}
    assert all(old <= set(row) for row in rows)
    kinds = [row["kind"] for row in rows]
    assert kinds == ["encoder"] * len(CATALOGUE) + ["shipped"] * 3 + ["saved"]


def test_a_saved_model_is_listed_with_what_it_is(run: Run, here: Path) -> None:
    row = listed(run)["models/heron-64"]
    assert row["name"] == "heron"
    assert (row["bits"], row["hasher"], row["dim"]) == (64, "hashcoder", 24)
    assert row["modalities"] == ["text", "image", "audio"]
    assert row["encoders"] == [CLAP, CLIP]
    assert (row["ready"], row["damaged"]) == (True, False)
    assert (row["metric"], row["value"]) == ("validation.mAP", 0.41)
    shown = run("models").out
    for word in ("heron", "hashcoder", f"{CLAP} + {CLIP}", "mAP .41", "models/heron-64"):
        assert word in shown


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_is_readable_on_a_narrow_terminal(
    run: Run, here: Path, heron: SavedModel, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    measured = {"held_out": [{"task": "words to sounds", "mAP": 0.5, "mAP_learned": 0.397}]}
    card = replace(heron.card, name="hoots", metrics=measured)
    replace(heron, card=card).save(here / "models" / "hoots")
    monkeypatch.setattr("bittern.cli.output.out", Console(width=columns, highlight=False))
    lines = [line.split() for line in run("models").out.splitlines()]
    for bits in ("64", "128", "256"):
        whole = [f"field-{bits}", "text,", "image,", "audio", bits, "hybrid", "field", "here"]
        assert whole in lines
    words = {word for line in lines for word in line}
    assert {"words", "sounds", "mAP", ".40"} <= words
    assert "models/hoots" in words or columns < 100


def test_commands_to_copy_are_not_wrapped_on_a_narrow_terminal(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = Console(stderr=True, width=40, highlight=False, force_terminal=True)
    monkeypatch.setattr("bittern.cli.output.err", narrow)
    wanted = [info.bring for info in encoders() if not info.ready]
    assert any(len(line) > 40 for line in wanted)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", run("models").err).splitlines()
    assert {f"  {line}" for line in wanted} <= set(lines)


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("held_out.words to sounds.mAP_learned", 0.397, "words to sounds mAP .40"),
        ("validation.mAP", 0.999, "mAP 0.999"),
        ("validation.mAP", 1.0, "mAP 1"),
        ("best.recall@10", -0.5, "best recall@10 -0.5"),
        ("accuracy", 0.0, "accuracy .00"),
    ],
)
def test_a_figure_is_shown_in_short(metric: str, value: float, shown: str) -> None:
    info = SavedModelInfo("hoots", "saved", "models/hoots", metric=metric, value=value)
    measured = model_table([info]).columns[-1]
    assert [str(cell) for cell in measured.cells] == [shown]


def test_every_folder_is_listed_once(
    run: Run, here: Path, heron: SavedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    heron.save(here / "runs" / "one")
    monkeypatch.setenv("BITTERN_MODELS", str(here / "models"))
    single, folder = here / "runs" / "one", here / "runs"
    rows = listed(run, "--folder", folder, "--folder", single)
    folders = [row["folder"] for row in rows.values() if row["kind"] == "saved"]
    assert folders == ["models/heron-64", str(single)]
    assert run("models", "--folder", here / "nowhere").status == 1


def test_missing_weights_are_listed(
    run: Run, here: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "few").mkdir()
    (here / "few" / CLIP).symlink_to(weights / CLIP)
    monkeypatch.setenv("BITTERN_WEIGHTS", str(here / "few"))
    row = listed(run)["models/heron-64"]
    assert (row["ready"], row["damaged"]) == (False, False)
    assert f"the weights of '{CLAP}'" in str(row["message"])


def test_damaged_models_are_listed_with_the_reason(run: Run, here: Path) -> None:
    names = ("no-adapters", "no-card", "nonsense", "cut")
    for name in names:
        shutil.copytree(here / "models" / "heron-64", here / "models" / name)
    (here / "models" / "no-adapters" / ADAPTER_FILE).unlink()
    (here / "models" / "no-card" / CARD_FILE).unlink()
    (here / "models" / "nonsense" / CARD_FILE).write_text("{")
    cut = here / "models" / "cut" / TENSOR_FILE
    cut.write_bytes(cut.read_bytes()[:100])
    (here / "models" / "notes").mkdir()  # no model at all, so no damaged one either
    rows = listed(run)
    assert not rows["models/heron-64"]["damaged"]
    for name, reason in zip(names, (ADAPTER_FILE, CARD_FILE, CARD_FILE, TENSOR_FILE), strict=True):
        row = rows[f"models/{name}"]
        assert (row["name"], row["damaged"], row["ready"]) == (name, True, False)
        assert reason in str(row["message"])
    assert "models/notes" not in rows
    done = run("models")
    assert done.status == 0
    assert "models/cut: " in done.out


def test_a_name_cannot_colour_the_terminal(run: Run, here: Path, heron: SavedModel) -> None:
    named = replace(heron, card=replace(heron.card, name="\x1b[31mred heron"))
    named.save(here / "models" / "red")
    shown = run("models").out
    assert "red heron" in shown
    assert "\x1b" not in shown


def test_a_saved_model_indexes_searches_and_encodes(run: Run, here: Path) -> None:
    done = run("index", "birds", "media", "--model", "heron-64", "--json")
    assert done.status == 0
    report = json.loads(done.out)
    assert (report["model"], report["items"]["added"]) == ("heron", 7)
    shutil.rmtree(here / "models")
    (here / "call.wav").write_bytes(sound("green"))
    done = run("search", "birds", "--audio", "call.wav", "--target", "image", "--json")
    answer = json.loads(done.out)
    assert (answer["model"], answer["hits"][0]["id"]) == ("heron", "green.png")
    assert len(json.loads(run("search", "birds", "an owl", "--json").out)["hits"]) == 3
    assert "sound" in run("verify", "birds").out


def test_a_saved_model_encodes_media(run: Run, here: Path) -> None:
    done = run("encode", "media", "--model", "models/heron-64", "--output", "codes.parquet")
    assert (done.status, "7 observations coded by heron" in done.err) == (0, True)


def test_a_model_that_cannot_work_here_leaves_no_archive_behind(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITTERN_WEIGHTS", str(write_weights(here / "other", seed=1)))
    done = run("index", "birds", "media", "--model", "heron-64")
    assert done.status == 1
    assert "train the model again" in done.err
    assert not (here / "birds").exists()
    (here / "models" / "heron-64" / ADAPTER_FILE).unlink()
    done = run("index", "birds", "media", "--model", "models/heron-64")
    assert done.status == 1
    assert ADAPTER_FILE in done.err
    assert not (here / "birds").exists()


def test_a_training_that_is_not_finished_is_no_model_yet(run: Run, here: Path) -> None:
    (here / "models" / "begun" / "training").mkdir(parents=True)
    done = run("encode", "media", "--model", "models/begun", "--output", "codes.parquet")
    assert "there is no model 'models/begun'" in done.err
    (here / "models" / "begun" / RUN / REQUEST_FILE).touch()
    for name in ("begun", "models/begun"):
        done = run("encode", "media", "--model", name, "--output", "codes.parquet")
        assert done.status == 1
        assert "models/begun holds an unfinished training" in done.err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--model", CLIP, "--set", "device=cuda:7"), "the setting is device cuda:7"),
        (("--model", CLIP, "--set", "device=cpu", "--set", "precision=fp16"), "needs a GPU"),
        (("--model", "models/heron-64"), f"name one of its encoders, {CLAP} or {CLIP}"),
        (("--model", "heron-64"), "'heron-64' is a trained model"),
        (("--model", "field-256"), "name its encoder, field"),
        (("--model", "heron"), "there is no encoder 'heron'"),
    ],
)
def test_a_training_that_cannot_work_here_makes_no_folder(
    run: Run,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    reason: str,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    (here / "media" / "captions.csv").write_text("media,caption\nred.png,a red bird\n")
    done = run("train", "pairs", here / "media" / "captions.csv", "--output", "new", *options)
    assert done.status in (1, 2)
    assert reason in done.err
    assert not (here / "new").exists()


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({}, None),
        ({"loss": 1.0}, None),
        ({"loss": 1.0, "epoch": 5}, None),
        (
            {
                "validation": {"mAP": 0.3},
                "held_out": [{"task": "text-image", "mAP_floats": 0.5, "mAP_learned": 0.4}],
            },
            ("held_out.text-image.mAP_learned", 0.4),
        ),
        ({"recall@10": 0.5, "best": {"mAP": 0.4}}, ("best.mAP", 0.4)),
        ({"mAP": float("nan"), "text": "0.9", "ok": True, "recall": 0.2}, ("recall", 0.2)),
        ({"mAP": 10**400, "mAP@10": ["x"], "accuracy": 1}, ("accuracy", 1.0)),
    ],
)
def test_the_headline_is_the_most_telling_figure(
    metrics: dict[str, object], expected: tuple[str, float] | None
) -> None:
    assert headline(metrics) == expected
