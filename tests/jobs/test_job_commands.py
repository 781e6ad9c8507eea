from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bittern.cli import main
from bittern.cli.job_screen import stopping
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.run import report_file, run_job
from bittern.service.models.model import Embedders
from tests.engine.toy import ToyEncoder, picture
from tests.jobs.toy_job import fill, save_model


def bittern(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit status of a command that runs with the toy encoder."""
    monkeypatch.setattr(
        "bittern.service.jobs.run.catalogue_encoder", lambda name: ToyEncoder(name=name)
    )
    monkeypatch.setattr(sys, "argv", ["bittern", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Three pictures, a recording and an unusable file."""
    return fill(tmp_path / "media", 3)


@pytest.fixture
def index(tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`bittern index` of the media with the toy model and more options: its exit status."""
    model = save_model(tmp_path / "model")

    def run(*options: object) -> int:
        arguments = [tmp_path / "archive", media, "--model", model]
        return bittern(monkeypatch, "index", *arguments, *options)

    return run


@pytest.mark.parametrize("strict", [False, True])
def test_a_strict_job_does_everything_and_fails_at_its_end(
    tmp_path: Path,
    index: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    strict: bool,
) -> None:
    status = index("--json", "--report", tmp_path / "r.json", *["--strict"] * strict)
    reported = json.loads(capsys.readouterr().out)
    assert status == int(strict)
    assert (reported["items"]["added"], reported["items"]["failed"]) == (4, 1)
    assert json.loads((tmp_path / "r.json").read_text()) == reported
    assert reported["state"] == ("failed" if strict else "done")
    assert reported["error"] == (
        "1 item could not be used, and the job is strict; all others are in the archive"
        if strict
        else ""
    )


def test_a_job_without_a_usable_item_fails(
    tmp_path: Path, media: Path, index: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in media.iterdir():
        path.write_bytes(b"no picture")
    assert index() == 1
    reported = json.loads((tmp_path / "archive" / "reports" / "index.json").read_text())
    assert (reported["state"], reported["error"]) == ("failed", "none of the 5 items could be used")
    assert "error: none of the 5 items could be used" in capsys.readouterr().err


def test_the_screen_shows_why_items_were_skipped_and_the_path_of_the_report(
    tmp_path: Path,
    index: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert index() == 0
    first = capsys.readouterr().err
    assert "skipped:" not in first
    assert "per second" not in first  # it took no time
    monkeypatch.setattr("bittern.cli.job_screen.LONG_S", 0.0)
    assert index() == 0
    reported = capsys.readouterr().err
    assert "skipped: 4 not changed since they were coded" in reported
    assert "per second of work: " in reported
    assert f"report: {tmp_path / 'archive' / 'reports' / 'index.json'}" in reported


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--report", "nowhere/r.json", "there is no folder"),
        ("--workers", 4, "--engine ray"),
        ("--rename", "file", "HEADING=NAME"),
    ],
)
def test_unusable_options_are_refused_before_an_archive_is_made(
    tmp_path: Path,
    index: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: object,
    message: str,
) -> None:
    assert index(option, value) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "archive").exists()


def test_the_report_has_the_state_running_from_the_start(tmp_path: Path, media: Path) -> None:
    model = save_model(tmp_path / "model")
    spec = JobSpec("index", str(tmp_path / "archive"), str(media), model=str(model))
    seen: list[str] = []

    def look(report: JobReport) -> None:
        if not report.done:
            seen.append(json.loads(report_file(spec).read_text())["state"])

    embedders = Embedders(lambda name: ToyEncoder(name=name))
    assert run_job(spec, look, embedders=embedders).state == "done"
    assert seen[0] == "running"


def test_without_a_model_an_archive_is_filled_by_its_own(
    tmp_path: Path,
    media: Path,
    index: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert index("--json") == 0
    first = json.loads(capsys.readouterr().out)
    (media / "new.png").write_bytes(picture("blue"))
    assert bittern(monkeypatch, "index", tmp_path / "archive", media, "--json") == 0
    reported = json.loads(capsys.readouterr().out)
    assert (reported["model"], reported["digest"]) == (first["model"], first["digest"])
    assert reported["items"]["added"] == 1


def test_encode_prints_its_report_for_programs(
    tmp_path: Path,
    media: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = save_model(tmp_path / "model")
    arguments = [media, "--output", tmp_path / "c.parquet", "--model", model, "--json"]
    assert bittern(monkeypatch, "encode", *arguments) == 0
    reported = json.loads(capsys.readouterr().out)
    assert (reported["state"], reported["observations"]) == ("done", 5)
    assert reported["failures"][0]["id"] == "0060-broken.png"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_a_job_after_a_commit_and_the_second_ends_it(number: int) -> None:
    before = signal.getsignal(number)
    with stopping() as cancelled:
        assert not cancelled()
        signal.raise_signal(number)
        assert cancelled()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
