from __future__ import annotations

import numpy as np
import pytest

from bittern.benchmarks.speed.harness import (
    Options,
    Ratio,
    Report,
    Rounds,
    Spread,
    Table,
    interleaved,
    short,
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
    report.attempt("disk", lambda: report.tables.append(Table("disk", [], [])))
    targets = [Ratio.once("memory", "bits / 8", 2.0, 2.5), Ratio("a", "b", Spread(1, 1, 1))]
    report.add_targets("archives", targets)
    disk, last, failed = report.finish().tables
    assert disk.title == "disk"
    assert [row[0] for row in last.rows] == ["archives", "  memory"]
    assert last.rows[1][2:] == ["2.00 (2.00-2.00)", "<= 2.5"]
    assert failed.rows == [["exact failed: RuntimeError: no room"]]
    assert set(report.values["seconds"]) == {"exact", "disk"}


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
