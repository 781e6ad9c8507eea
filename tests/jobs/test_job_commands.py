from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from bittern.cli import main
from bittern.cli.job_screen import stopping
from tests.engine.toy import ToyEncoder, picture
from tests.jobs.toy_job import fill, save_model


def bittern(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of a command that runs with the toy encoder."""
    monkeypatch.setattr("service.jobs.run.catalogue_encoder", lambda name: ToyEncoder(name=name))
    monkeypatch.setattr(sys, "argv", ["bittern", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize("strict", [False, True])
def test_a_strict_job_does_everything_and_fails_at_its_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    strict: bool,
) -> None:
    media, model = fill(tmp_path / "media", 3), save_model(tmp_path / "model")
    asked = [
        tmp_path / "archive",
        media,
        "--model",
        model,
        "--json",
        "--report",
        tmp_path / "r.json",
    ]
    status = bittern(monkeypatch, "index", *asked, *["--strict"] * strict)
    told = json.loads(capsys.readouterr().out)
    assert status == int(strict)
    assert (told["items"]["added"], told["items"]["failed"]) == (4, 1)
    assert json.loads((tmp_path / "r.json").read_text()) == told


def test_without_a_model_an_archive_is_filled_by_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    media, model = fill(tmp_path / "media", 3), save_model(tmp_path / "model")
    asked = [tmp_path / "archive", media, "--json"]
    assert bittern(monkeypatch, "index", *asked, "--model", model) == 0
    first = json.loads(capsys.readouterr().out)
    (media / "new.png").write_bytes(picture("blue"))
    assert bittern(monkeypatch, "index", *asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["model"], told["digest"]) == (first["model"], first["digest"])
    assert told["items"]["added"] == 1


def test_encode_tells_programs_what_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    media, model = fill(tmp_path / "media", 3), save_model(tmp_path / "model")
    asked = [media, "--out", tmp_path / "c.parquet", "--model", model, "--json"]
    assert bittern(monkeypatch, "encode", *asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["observations"]) == ("done", 5)
    assert told["failures"][0]["id"] == "0060-broken.png"


def test_a_column_that_names_nothing_is_a_misuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [tmp_path / "archive", fill(tmp_path / "media", 1), "--column", "file"]
    assert bittern(monkeypatch, "index", *asked) == 2
    assert "HEADING=NAME" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_a_job_to_stop_and_the_second_ends_it(number: int) -> None:
    before = signal.getsignal(number)
    with stopping() as cancelled:
        assert not cancelled()
        signal.raise_signal(number)
        assert cancelled()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
