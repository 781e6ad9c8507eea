from __future__ import annotations

import json
from pathlib import Path

import pytest

from bittern.benchmarks.__main__ import main


def test_search_prints_a_table_and_writes_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "search.json"
    arguments = ["search", "--rows", "3000", "--rounds", "1", "--only", "filters", "grid"]
    assert main([*arguments, "--json", str(file)]) == 0
    written = json.loads(file.read_text())["search"]
    printed = capsys.readouterr().out
    assert "Filtered / unfiltered" in printed
    assert "Targets" in printed
    assert written["machine"]["cores"] >= 1
    assert written["values"]["settings"]["rows"] == 3000
    assert written["values"]["failed"] == []
    (filters,) = written["values"]["filters"]
    assert filters["right"] == 1.0
    assert {len(times) for times in filters["seconds"].values()} == {1}
    assert filters["tables"][0]["rows"][0]["100%"] > 0


def test_a_table_that_does_not_exist_is_named_with_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["search", "--only", "speed"]) == 1
    assert "unknown table 'speed'; known tables: exact" in capsys.readouterr().err


def test_a_benchmark_that_does_not_exist_is_named_with_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["speed"])
    assert "unknown benchmark 'speed'; known: encode" in capsys.readouterr().err


def test_a_manifest_that_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encode", "--manifest", str(tmp_path / "none.csv")]) == 1
    assert "none.csv" in capsys.readouterr().err
