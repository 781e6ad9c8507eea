"""`results.json` there and back, the CSV, the Markdown, and how they are put into their place."""

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

from bittern.benchmarks.eval.report import read_results, stored, write_report
from bittern.benchmarks.eval.report.abstract import abstract
from bittern.benchmarks.eval.report.markdown import results_markdown
from bittern.benchmarks.eval.report.stored import results_json
from bittern.benchmarks.eval.report.tables import results_csv
from bittern.benchmarks.eval.report.wording import deviations, ties
from bittern.benchmarks.eval.results import Figure, Results, ShownHit, ShownQuery
from bittern.errors import BitternError, InvalidInputError, LimitExceededError, SourceNotFoundError
from tests.eval.example_results import MEASURES, example_results


@pytest.fixture(scope="module")
def results() -> Results:
    return example_results()


def _small(results: Results, **changes: Any) -> Results:
    return dataclasses.replace(
        results, **{"rows": results.rows[:3], "classes": (), "shown": (), **changes}
    )


def _written(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "results.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def test_results_come_back_from_their_file_to_the_last_bit(
    results: Results, tmp_path: Path
) -> None:
    read = read_results(_written(tmp_path, results_json(results)))

    assert results_json(read) == results_json(results)
    assert read.rows[3].figures["AP_minR@50"] == results.rows[3].figures["AP_minR@50"]
    assert read.tasks == tuple(results.tasks)[:0] + tuple(
        dataclasses.replace(
            t,
            measures=tuple(t.measures),
            groups=tuple(t.groups),
            left_out=tuple(t.left_out),
            notes=tuple(t.notes),
        )
        for t in results.tasks
    )
    assert math.isnan(read.rows[0].figures["P_H2"].expected)


def test_a_lone_half_of_a_surrogate_pair_survives(results: Results, tmp_path: Path) -> None:
    odd = _small(results, about="\ud800 and \x00")

    assert read_results(_written(tmp_path, results_json(odd))).about == "\ud800 and \x00"


def _spoilt(results: Results, path: str, value: Any) -> dict[str, Any]:
    content: Any = json.loads(results_json(_small(results)))
    *way, last = path.split(".")
    inner = content
    for step in way:
        inner = inner[int(step)] if step.isdigit() else inner[step]
    inner[last] = value
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 99),
        ("version", True),
        ("suite", 3),
        ("rows", {"0": 1}),
        ("rows.0.bits", "32"),
        ("rows.0.bits", True),
        ("rows.0.queries", 2**70),
        ("rows.0.bytes_per_item", None),
        ("rows.0.bytes_per_item", "nan"),
        ("rows.0.figures", [1]),
        ("rows.0.extra", 1),
        ("measures", "AP"),
        ("models", [{"name": 1}]),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_place(
    results: Results, tmp_path: Path, path: str, value: Any
) -> None:
    with pytest.raises(InvalidInputError, match=r"results\.json.*cannot be used"):
        read_results(_written(tmp_path, _spoilt(results, path, value)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "null",
        '{"version": 1}',
        '{"version": 1, "version": 1}',
        "[" * 100_000,
        '{"version": ' + "1" * 10_000 + "}",
        '{"version": 1e999}',
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInputError):
        read_results(_written(tmp_path, text))


def test_free_values_that_are_nested_too_deep_are_refused(results: Results, tmp_path: Path) -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    with pytest.raises(InvalidInputError, match="deep"):
        read_results(_written(tmp_path, _spoilt(results, "machine.x", deep)))


def test_a_missing_and_a_huge_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceNotFoundError, match=r"results\.json"):
        read_results(tmp_path / "results.json")
    monkeypatch.setattr(stored, "MOST_BYTES", 100)
    with pytest.raises(LimitExceededError, match="100"):
        read_results(_written(tmp_path, " " * 101))


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
    assert "share of the right items that are among the first 50" in text


@pytest.mark.parametrize(
    ("worst", "best", "shown"),
    [(0.5, 0.5, "–"), (0.5001, 0.5003, "–"), (0.5, 0.502, "0.500 to 0.502")],
)
def test_ties_that_do_not_show_in_three_digits_are_not_told(
    worst: float, best: float, shown: str
) -> None:
    assert ties(Figure(0.5, 0.5, best, worst, 0.4, 0.6)) == shown


def test_deviations_say_over_how_many_seeds_and_splits() -> None:
    figure = Figure(0.5, 0.5, 0.5, 0.5, 0.4, 0.6, 0.004, 0.02)

    assert deviations(figure, 30, 3) == "± 0.004 over 10 seeds, ± 0.020 over 3 splits"
    assert deviations(Figure(*[0.5] * 6), 1, 1) == ""


def test_the_abstract_takes_the_nearest_lengths_and_those_of_a_model_that_has_no_other(
    results: Results,
) -> None:
    rows = [row for row in results.rows if row.bits in (None, 32, 128) and row.system != "learned"]
    saved = [row for row in results.rows if row.system == "learned" and row.bits == 256]

    found = abstract(_small(results, rows=[*rows, *saved]))

    assert found.lengths == [32, 128, 256]
    (figures,) = [figures for name, figures in found.parts[0].systems if name == "learned"]
    assert [figure is not None for figure in figures] == [False, False, True]
    assert "random projection" not in dict(found.parts[0].systems)


def test_each_task_and_model_has_the_measures_of_its_own_task(results: Results) -> None:
    tasks = [results.tasks[0], dataclasses.replace(results.tasks[1], measures=["nDCG@50"])]

    found = abstract(dataclasses.replace(results, tasks=tasks))

    assert found.measures == [MEASURES[0], "nDCG@50"]


def test_names_cannot_leave_their_cells_in_markdown(results: Results) -> None:
    name = "a|b <img src=x> [c](http://d) `e`\n# f"
    row = dataclasses.replace(results.rows[0], system=name)

    text = results_markdown(_small(results, rows=[row, *results.rows[1:3]]))

    (line,) = [line for line in text.splitlines() if line.startswith("| a\\|b")]
    bars = len(re.findall(r"(?<!\\)\|", line))
    assert bars == 5 + len(MEASURES) + 1, line
    assert r"\<img" in line
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
