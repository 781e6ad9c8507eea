"""The commands about time, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from bittern.cli.app import app
from bittern.index.archive import Archive
from tests.index.samples import OWL, ids, photo

runner = CliRunner()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Archive.create(tmp_path / "marsh") as made:
        made.register_model(OWL, {"card.json": b"{}"})
        made.add([photo("a"), photo("b")], model=OWL.digest)
    return tmp_path / "marsh"


def run(*arguments: object) -> Result:
    return runner.invoke(app, [str(argument) for argument in arguments])


def test_a_snapshot_is_taken_listed_restored_and_dropped(path: Path) -> None:
    taken = run("snapshots", path, "--take", "spring", "--note", "as found", "--json")
    assert taken.exit_code == 0, taken.output
    [printed] = json.loads(taken.output)["snapshots"]
    assert printed["name"] == "spring"
    assert printed["note"] == "as found"
    assert printed["rows"] == {"image": 2, "audio": 0}
    assert printed["models"][0]["name"] == OWL.name
    with Archive.open(path, write=True) as archive:
        archive.delete(["a"])
    restored = run("restore", path, "spring", "--json")
    assert json.loads(restored.output)["observations"] == 2
    with Archive.open(path) as archive:
        assert ids(archive) == ["a", "b"]
    listed = json.loads(run("snapshots", path, "--drop", "spring", "--all", "--json").output)
    names = [info["name"] for info in listed["snapshots"]]
    assert "spring" not in names
    assert None in names
    assert any(name and name.startswith("before-restore-") for name in names)


def test_snapshots_are_a_table_for_people(path: Path) -> None:
    run("snapshots", path, "--take", "spring")
    shown = run("snapshots", path, "--all")
    assert "spring" in shown.output


def test_names_of_snapshots_stay_whole_on_a_narrow_terminal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "before-the-cleaning-of-june-2026-at-the-marsh"
    run("snapshots", path, "--take", name, "--note", "a note of several words that is long")
    monkeypatch.setattr("bittern.cli.output.out", Console(width=80, highlight=False))
    shown = run("snapshots", path, "--all").output.splitlines()
    assert any(line.split(" ")[0] == name for line in shown)


def test_a_backup_says_what_it_copied_and_renews_itself(path: Path, tmp_path: Path) -> None:
    first = json.loads(run("backup", path, tmp_path / "copy", "--json").output)
    second = json.loads(run("backup", path, tmp_path / "copy", "--json").output)
    assert first["copied"] > 0
    assert (second["copied"], second["reused"]) == (0, first["copied"])
    assert "unchanged" in run("backup", path, tmp_path / "copy").output


def test_statistics_of_a_snapshot_are_shown(path: Path) -> None:
    run("snapshots", path, "--take", "spring")
    with Archive.open(path, write=True) as archive:
        archive.delete(["a"])
    now = json.loads(run("stats", path, "--json").output)
    then = json.loads(run("stats", path, "--snapshot", "spring", "--json").output)
    assert now["observations"]["image"] == 1
    assert then["observations"]["image"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["snapshots", "{path}", "--take", "a b"],
        ["snapshots", "{path}", "--take", "x", "--drop", "x"],
        ["snapshots", "{path}", "--note", "x"],
        ["backup", "{path}", "{path}/inside"],
        ["reencode", "{path}", "--model", "field", "--hasher", "magic"],
        ["restore", "localhost:50051", "spring"],
    ],
)
def test_misuse_is_reported_as_such(path: Path, arguments: list[str]) -> None:
    failed = run(*(argument.format(path=path) for argument in arguments))
    assert failed.exception is not None
    assert "error" in type(failed.exception).__name__.lower() or failed.exit_code == 2


@pytest.mark.parametrize("command", ["snapshots", "restore", "backup", "reencode"])
def test_help_shows_an_example(command: str) -> None:
    assert f"Example: bittern {command}" in run(command, "--help").output or (
        command == "snapshots"
    )
