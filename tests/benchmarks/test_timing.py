from __future__ import annotations

import json

import numpy as np
import pytest

from bittern.benchmarks.speed.harness import (
    Cell,
    Options,
    Ratio,
    Report,
    Rounds,
    Spread,
    Table,
    interleaved,
    short,
    to_json,
)


def test_contestants_take_turns() -> None:
    calls: list[str] = []
    rounds = interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, warmup=1
    )
    assert calls == ["a", "b"] * 3
    assert {name: len(times) for name, times in rounds.seconds.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_taken_round_by_round() -> None:
    # One slow round slows down both: the ratio does not notice.
    rounds = Rounds({"a": np.array([2.0, 20.0, 2.0]), "b": np.array([1.0, 10.0, 1.0])})
    assert rounds.ratio("a", "b").median == pytest.approx(2.0)
    assert rounds.ratio("a", "b").high == pytest.approx(2.0)


def test_a_table_that_fails_does_not_stop_the_others() -> None:
    report = Report("search", "")

    def broken() -> None:
        raise RuntimeError("no room")

    report.attempt("exact", broken)
    report.attempt("disk", lambda: report.add("disk", Table("disk", {}, [])))
    targets = [Ratio("memory", "bits / 8", 2.0, "<= 2.5"), Ratio("a", "b", Spread(1, 1, 1))]
    report.add_targets("archives", targets)
    disk, last, failed = report.finish().tables
    assert disk.title == "disk"
    assert list(last.cells()) == [
        ["archives"],
        ["  memory", "bits / 8", "2.00", "<= 2.5"],
    ]
    assert failed.rows == [["exact failed: RuntimeError: no room"]]


def test_a_table_prints_numbers_by_the_format_of_their_column_and_keeps_all_digits() -> None:
    rows: list[list[Cell]] = [["a", 1 / 3, Spread(1.0, 0.5, 2.0)], [], ["b", None, 7]]
    table = Table("times", {"": "", "ms": ".2f", "ratio": ".1f"}, rows)
    assert list(table.cells()) == [["a", "0.33", "1.0 (0.5-2.0)"], [], ["b", "", "7.0"]]
    written = json.loads(json.dumps(table.to_json(), default=to_json))
    assert written["rows"] == [
        {"": "a", "ms": 1 / 3, "ratio": {"median": 1.0, "low": 0.5, "high": 2.0}},
        {"": "b", "ms": None, "ratio": 7},
    ]


def test_tables_are_chosen_among_the_known_ones() -> None:
    assert Options().chosen_tables(("exact", "disk")) == ("exact", "disk")
    assert Options(tables=["disk"]).chosen_tables(("exact", "disk")) == ["disk"]


def test_numbers_of_rows_are_short() -> None:
    assert [short(rows) for rows in (999, 1_500, 100_000, 2_000_000)] == [
        "999",
        "1.5k",
        "100k",
        "2M",
    ]
