"""`results.json` there and back, the CSV, the Markdown, and how they are written."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from bittern.benchmarks.eval.report import write_report
from bittern.benchmarks.eval.report.abstract import abstract
from bittern.benchmarks.eval.report.page import results_markdown
from bittern.benchmarks.eval.report.wording import NONE, deviations, ties
from bittern.benchmarks.eval.report.writing import results_csv, results_json
from bittern.benchmarks.eval.results import (
    Results,
    Score,
    ShownHit,
    ShownQuery,
)
from bittern.errors import BitternError, InvalidInputError
from tests.eval.example_results import MEASURES, SOUNDS, example_results


@pytest.fixture(scope="module")
def results() -> Results:
    return example_results()


def _small(results: Results, **changes: Any) -> Results:
    return dataclasses.replace(
        results, **{"rows": results.rows[:3], "classes": (), "shown": (), **changes}
    )


def test_results_json_holds_every_field_to_the_last_bit(results: Results) -> None:
    read = json.loads(results_json(results))

    figure = results.rows[3].figures["AP_minR@50"]
    assert read["rows"][3]["figures"]["AP_minR@50"] == dataclasses.asdict(figure)
    assert read["rows"][0]["figures"]["P_H2"]["expected"] == "NaN"
    assert set(read) == {"version", *(field.name for field in dataclasses.fields(Results))}


def test_a_lone_half_of_a_surrogate_pair_survives(results: Results) -> None:
    odd = _small(results, about="\ud800 and \x00")

    assert json.loads(results_json(odd))["about"] == "\ud800 and \x00"


def test_the_csv_has_one_line_per_row_and_measure_with_every_digit(results: Results) -> None:
    lines = list(csv.DictReader(io.StringIO(results_csv(results), newline="")))

    assert len(lines) == len(results.rows) * len(MEASURES)
    line, row = lines[3 * len(MEASURES)], results.rows[3]
    assert (line["system"], line["bits"], line["measure"]) == (row.system, "32", MEASURES[0])
    figure = row.figures[MEASURES[0]]
    for name in ("ranked", "expected", "best", "worst", "low", "high", "deviation"):
        assert float(line[name]) == getattr(figure, name)
    assert lines[4]["measure"] == "P_H2"
    assert lines[4]["expected"] == ""


def test_no_cell_of_the_csv_is_a_formula(results: Results) -> None:
    rows = [dataclasses.replace(results.rows[0], system='=HYPERLINK("x")', model="@a\r\n,b")]

    line = next(csv.DictReader(io.StringIO(results_csv(_small(results, rows=rows)), newline="")))

    assert line["system"] == '\'=HYPERLINK("x")'
    assert line["model"].startswith("'@a")


def test_a_group_with_floats_only_has_a_line_beside_groups_with_codes(results: Results) -> None:
    floats = [row for row in results.rows if row.task == results.rows[0].task or row.bits is None]

    text = results_markdown(_small(results, rows=floats))

    assert len(abstract(_small(results, rows=floats)).lengths) > 1
    assert f"| {NONE} | {NONE} | {NONE} |\n| {SOUNDS} | seen |" in text


def test_markdown_has_every_system_of_every_task_and_group(results: Results) -> None:
    text = results_markdown(results)

    titles = ("All systems, all: 60", "All systems, seen: 45", "All systems, novel: 15")
    assert [text.count(f"<summary>{title} queries</summary>") for title in titles] == [2, 2, 2]
    figure = results.rows[3].figures[MEASURES[0]]
    cell = f"{figure.expected:.3f} [{figure.low:.3f} to {figure.high:.3f}]"
    tied = f"ties {figure.worst:.3f} to {figure.best:.3f}"
    assert f"{cell}; {tied}; ± 0.004 over 10 seeds" in text
    assert sum(line.startswith("| Hashing-Baseline") for line in text.splitlines()) == 2 * 3 * 8


def test_markdown_begins_with_the_main_systems_and_says_how_figures_came_by(
    results: Results,
) -> None:
    text = results_markdown(results)

    first = next(line for line in text.splitlines() if line.startswith("| text→image"))
    assert first.startswith("| text→image | all | AP")
    assert "| 60 | 24\\* | 0.031 | 0.610 [" in first
    assert first.count(" to ") == 3  # float32, 64 and 256 bits
    assert "sign-flip" in text
    assert "BCa, 2,000 resamples" in text
    assert "Family: codes and Hashing-Baseline of the same length" in text
    assert "Recall\\@50: " in text


@pytest.mark.parametrize(
    ("worst", "best", "shown"),
    [(0.5, 0.5, "–"), (0.5001, 0.5003, "–"), (0.5, 0.502, "0.500 to 0.502")],
)
def test_ties_that_do_not_show_in_three_digits_are_not_shown(
    worst: float, best: float, shown: str
) -> None:
    assert ties(Score(0.5, 0.5, best, worst, 0.4, 0.6)) == shown


def test_deviations_say_over_how_many_seeds_and_splits() -> None:
    figure = Score(0.5, 0.5, 0.5, 0.5, 0.4, 0.6, 0.004, 0.02)

    assert deviations(figure, 30, 3) == "± 0.004 over 10 seeds, ± 0.020 over 3 splits"
    assert deviations(Score(*[0.5] * 6), 1, 1) == ""


def test_the_abstract_takes_the_nearest_lengths_and_those_of_a_model_that_has_no_other(
    results: Results,
) -> None:
    rows = [row for row in results.rows if row.bits in (None, 32, 128) and row.system != "learned"]
    saved = [row for row in results.rows if row.system == "learned" and row.bits == 256]

    found = abstract(_small(results, rows=[*rows, *saved]))

    assert found.lengths == [32, 128, 256]
    (figures,) = [figures for name, figures in found.blocks[0].systems if name == "learned"]
    assert [figure is not None for figure in figures] == [False, False, True]
    assert "random projection" not in dict(found.blocks[0].systems)


def test_each_task_and_model_has_the_measures_of_its_own_task(results: Results) -> None:
    tasks = [results.tasks[0], dataclasses.replace(results.tasks[1], measures=["nDCG@50"])]

    found = abstract(dataclasses.replace(results, tasks=tasks))

    assert found.measures == [MEASURES[0], "nDCG@50"]


def test_names_cannot_leave_their_cells_in_markdown(results: Results) -> None:
    name = "a|b <img src=x> [c](http://d) `e`\n# f"
    row = dataclasses.replace(results.rows[0], system=name)

    hostile = dataclasses.replace(results, command="bittern eval <svg onload=alert(1)>")
    text = results_markdown(_small(hostile, rows=[row, *results.rows[1:3]]))

    assert "<svg" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("| a\\|b")]
    bars = len(re.findall(r"(?<!\\)\|", line))
    assert bars == 5 + len(MEASURES) + 1, line
    assert "&lt;img" in line
    assert r"\[c\]" in line
    assert "http://" not in line
    assert "\n# f" not in text


def test_a_report_is_the_same_to_the_last_byte_when_written_again(
    results: Results, tmp_path: Path
) -> None:
    first = write_report(results, tmp_path / "a")
    second = write_report(results, tmp_path / "b")

    assert first[0].name == "index.html"
    assert {"results.json", "results.csv", "results.md"} < {path.name for path in first}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    assert not list(tmp_path.rglob("*.partial"))


def test_plots_of_an_earlier_report_go_and_files_of_others_stay(
    results: Results, tmp_path: Path
) -> None:
    (tmp_path / "plots").mkdir()
    for name in ("77-bytes-old.svg", "mine.svg"):
        (tmp_path / "plots" / name).write_text("x")

    files = write_report(_small(results), tmp_path)

    left = {path.name for path in (tmp_path / "plots").iterdir()}
    assert left == {"mine.svg", *(f.name for f in files if f.suffix == ".svg")}


def test_a_folder_that_cannot_be_written_is_refused(results: Results, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInputError, match="another folder"):
        write_report(_small(results), tmp_path / "file" / "report")


def test_a_run_without_rows_still_has_a_report(results: Results, tmp_path: Path) -> None:
    empty = _small(results, rows=(), measures=(), comparisons=(), tasks=(), models=())

    files = write_report(empty, tmp_path)

    assert {path.name for path in files} == {
        "index.html", "results.json", "results.csv", "results.md",
    }  # fmt: skip


def test_infinite_and_missing_figures_are_shown_as_such(results: Results, tmp_path: Path) -> None:
    odd = dataclasses.replace(
        results.rows[0], search_ms=math.nan, bytes_per_item=math.inf, figures={}
    )
    hit = ShownHit(1, "x", True, math.inf, "text", "", text="t")
    query = ShownQuery("t", "q", "t", "", "s", math.nan, 1, [hit])
    try:
        write_report(_small(results, rows=[odd], shown=[query]), tmp_path)
    except BitternError as error:  # pragma: no cover - says which
        pytest.fail(str(error))
    assert "inf" in (tmp_path / "index.html").read_text(encoding="utf-8")
