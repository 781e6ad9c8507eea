from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import bittern
from bittern.cli import main

SAMPLE = Path(bittern.__file__).parent / "sample"
FEW = ("cheetah-1", "goose-1", "honey-bee-1", "giant-panda-1", "clownfish-1", "dog-1", "frogs-1")


@dataclass
class Done:
    """What a run of the command printed, and its exit status."""

    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process."""

    def run_command(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["bittern", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Done(int(ended.value.code or 0), captured.out, captured.err)

    return run_command


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some photographs and clips of the sample, and three rows that cannot be used."""
    folder = tmp_path_factory.mktemp("manifest")
    with (SAMPLE / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen = [r for r in rows if r["occurrenceID"] in FEW]
    for row in chosen:
        row["media"] = str(SAMPLE / row["media"])
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF broken")
    (folder / "empty.wav").touch()
    names = {"broken": "broken.jpg", "empty": "empty.wav", "missing": "missing.png"}
    bad = [{**dict.fromkeys(rows[0], ""), "occurrenceID": i, "media": m} for i, m in names.items()]
    path = folder / "few.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([*chosen, *bad])
    return path


@pytest.fixture(scope="session")
def archive(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the manifest, made by the command."""
    path = tmp_path_factory.mktemp("archive") / "few"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bittern", "index", str(path), str(manifest)])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return path
