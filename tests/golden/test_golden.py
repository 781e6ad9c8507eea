"""Archives of earlier releases open, answer as they did then, and can be written to."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import xxhash

from bittern.errors import ArchiveVersionError
from bittern.index.archive import Archive
from tests.golden.make import HERON, answers, photo

ARCHIVES = sorted(Path(__file__).parent.glob("format-*/*.tar.gz"))
NEWEST = "store/observations.lance/_versions"


@dataclass
class Golden:
    path: Path
    expected: dict[str, Any]


@pytest.fixture(params=ARCHIVES, ids=lambda path: f"{path.parent.name}-{path.name[:-7]}")
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Golden:
    packed: Path = request.param
    with tarfile.open(packed) as tar:
        tar.extractall(tmp_path, filter="data")
    expected = packed.with_name(packed.name.replace(".tar.gz", ".json")).read_text("utf-8")
    return Golden(tmp_path / "golden", json.loads(expected))


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def contents(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): xxhash.xxh3_128_hexdigest(file.read_bytes())
        for file in path.rglob("*")
        if file.is_file()
    }


def test_there_are_golden_archives() -> None:
    assert ARCHIVES


def test_it_answers_as_it_did_and_nothing_is_written(golden: Golden) -> None:
    before = contents(golden.path)
    with Archive.open(golden.path) as archive:
        assert as_json(answers(archive)) == golden.expected
        assert archive.verify() == []
    assert contents(golden.path) == before


def test_it_can_be_written_to(golden: Golden) -> None:
    known = [row["id"] for row in golden.expected["rows"]]
    with Archive.open(golden.path, write=True) as archive:
        assert as_json(answers(archive)) == golden.expected
        archive.add([photo("today", HERON, habitat="fen", rain=0.5)], model=HERON.digest)
        archive.delete([known[0]])
        assert archive.verify() == []
    with Archive.open(golden.path) as archive:
        assert archive.verify() == []
        after = answers(archive)
    assert [row["id"] for row in after["rows"]] == [*known[1:], "today"]
    assert as_json(after["rows"][:-1]) == golden.expected["rows"][1:]
    for name, codes in golden.expected["codes"].items():
        codes.pop(known[0], None)
        after["codes"][name].pop("today", None)
        assert after["codes"][name] == codes


def test_a_newer_format_is_refused_and_left_alone(golden: Golden) -> None:
    header = golden.path / "archive.json"
    value = json.loads(header.read_text("utf-8"))
    header.write_text(json.dumps({**value, "format_version": 99, "xxh3": "new"}), "utf-8")
    before = contents(golden.path)
    for write in (False, True):
        with pytest.raises(ArchiveVersionError, match=r"format version 99.*pip install -U"):
            Archive.open(golden.path, write=write)
    assert contents(golden.path) == before
