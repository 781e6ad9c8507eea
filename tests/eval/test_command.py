"""`bittern eval` as its users meet it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bittern.cli.evaluating import _print_results
from tests.cli.conftest import Run, run
from tests.eval.example_results import example_results
from tests.eval.toy_runs import manifest, towers

__all__ = ["run"]


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    towers(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return manifest(tmp_path / "data")


COMMAND = ("eval", "field", "--data", "data/manifest.csv", "--cache", "cache", "--bits", "8,16")


def test_a_run_prints_its_figures_and_leaves_a_report(run: Run, tmp_path: Path) -> None:
    done = run(*COMMAND, "--systems", "float32,hb", "--output", "run")
    assert done.status == 0
    assert "text→image: AP, 3 queries" in done.out
    assert "Hashing-Baseline  asymmetric" in done.out
    assert "report: run/index.html" in done.err
    here = {path.name for path in (tmp_path / "run").iterdir()}
    assert {
        "index.html", "results.json", "results.csv", "results.md", "plots", "trec", "run.json",
    } <= here  # fmt: skip
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["command"].startswith("bittern eval field --data manifest.csv --bits 8,16")
    assert str(tmp_path) not in (tmp_path / "run" / "index.html").read_text()
    for name in ("results.md", "results.json", "results.csv"):
        assert str(tmp_path) not in (tmp_path / "run" / name).read_text()


def test_a_group_of_all_queries_has_no_table_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    results = example_results()
    task = results.tasks[0]
    every = task.groups[0].queries
    groups = [*(replace(g, queries=every) for g in task.groups[:2]), *task.groups[2:]]
    _print_results(replace(results, tasks=[replace(task, groups=groups)]))
    printed = capsys.readouterr().out
    assert [group.name for group in groups] == ["all", "seen", "novel"]
    assert ", seen: " not in printed
    assert (printed.count(f"{task.name}: "), printed.count(", novel: ")) == (1, 1)


def test_a_program_gets_results_json_and_nothing_else(run: Run, tmp_path: Path) -> None:
    done = run(*COMMAND, "--systems", "float32", "--output", "run", "--json")
    assert json.loads(done.out) == json.loads((tmp_path / "run" / "results.json").read_text())


def test_an_error_says_what_stopped_a_run_and_what_to_do(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bittern.benchmarks.eval.run.measured_cell", stop)
    done = run(*COMMAND, "--output", "run")
    assert done.status == 130
    assert "The same command continues the run" in done.err


def test_embeddings_that_were_made_before_are_taken_and_those_not_used_are_counted(
    run: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    ids = [f"{colour}-{n}png" for colour in ("red", "green", "blue") for n in range(3)]
    ids += [name.replace("png", "wav") for name in ids]
    rng = np.random.default_rng(3)
    ids.append("nobody")
    rows = rng.standard_normal((19, 12)).astype(np.float32)
    np.save(folder / "embeddings.npy", rows / np.linalg.norm(rows, axis=1, keepdims=True))
    (folder / "ids.txt").write_text("\n".join(ids) + "\n")
    done = run(*COMMAND, "--systems", "float32", "--output", "run", "--embeddings", "made")
    assert done.status == 0, done.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["rows"][0]["figures"]["AP"]["expected"] < 0.9  # random vectors know no colours
    assert "--embeddings made" in results["command"]
    assert "of made were not used" in done.out
    assert "10 of 19 rows" in done.out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--output is missing"),
        (("--output", "run", "--windows", "median"), "'median' is not one of 'max'"),
        (("--output", "run", "--bits", "many"), "--bits must be whole numbers separated by commas"),
        (("--output", "run", "--bits", "12"), "12"),
        (("--output", "run", "--measures", "mAP@10"), "AP_minR@k"),
        (
            ("--output", "run", "--systems", "bloom"),
            "unknown system 'bloom'; choose from float32",
        ),
        (("--output", "run", "--missing", "guess"), "'guess' is not one of 'error', 'skip'"),
    ],
)
def test_unknown_names_are_refused_with_those_that_exist(
    run: Run, options: tuple[str, ...], message: str
) -> None:
    done = run("eval", "field", "--data", "data/manifest.csv", *options)
    assert done.status == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_an_unknown_suite_is_refused_with_those_that_exist(run: Run) -> None:
    done = run("eval", "imagenet", "--output", "run")
    assert done.status == 2
    assert "choose one of inquire, inat24, inatsounds, ssw60" in done.err


def test_missing_files_are_listed_line_by_line(run: Run, tmp_path: Path) -> None:
    done = run("eval", "ssw60", "--data", "data", "--output", "run")
    assert done.status == 2
    lines = done.err.splitlines()
    assert any(line.strip().startswith("taxa.csv: ") for line in lines)
    assert any("audio_ml" in line for line in lines)
    assert not (tmp_path / "run").exists()


def test_the_layout_of_a_suite_is_shown_without_running_it(run: Run) -> None:
    done = run("eval", "inquire", "--layout")
    assert done.status == 0
    assert "AP_minR@50" in done.out
    assert "441 GB" in done.out
