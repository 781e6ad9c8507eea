"""Which queries are shown: a rule chooses, not somebody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from bittern.benchmarks.eval.aggregate import Line, Measured
from bittern.benchmarks.eval.cells import Cell, Ranked, Variant
from bittern.benchmarks.eval.results import Row
from bittern.benchmarks.eval.showing import chosen, shown_queries
from bittern.types import MediaItem
from tests.engine.toy import picture
from tests.eval.test_windows import a_task, rows_of


def test_some_of_the_best_of_the_middling_and_of_the_worst_are_shown() -> None:
    values = np.linspace(0.0, 1.0, 101)
    assert chosen(values) == [100, 99, 51, 50, 1, 0]


def test_few_queries_are_all_shown_best_first() -> None:
    assert chosen(np.array([0.1, 0.9, 0.5])) == [1, 2, 0]


def test_equal_queries_are_taken_by_position() -> None:
    assert chosen(np.full(9, 0.5)) == [0, 1, 3, 4, 7, 8]


def test_undefined_queries_count_as_the_worst() -> None:
    assert chosen(np.array([np.nan, 0.2, 0.4, 0.1]), 3) == [2, 3, 0]


def test_a_hit_without_a_row_has_no_times_and_media_in_memory_get_a_file(tmp_path: Path) -> None:
    task = a_task()
    data = picture("red")
    media = [MediaItem(n, f"{n}.a-very-long-suffix", "audio", data=data) for n in "abcd"]
    task = replace(task, items=replace(task.items, contents=media))
    ranked = Ranked(
        values={"AP": np.full((4, 1, 2), 0.5)},
        hits=np.array([[0, 1], [2, -1]], dtype=np.int32),
        distances=np.array([[0.1, 0.2], [0.3, np.inf]]),
        rows=np.array([[1, -1], [2, -1]]),
        search_ms=None,
        bytes_per_item=2.0,
    )
    row = Row("t", "all", "m", "ITQ", "symmetric", 16, 2.0, 0, 1, 2, 2, None, {})
    line = Line(row, "AP", ("heron", "owl"), np.arange(2), np.array([0.5, 0.5]))
    measured = Measured(task, Cell({}, {Variant("symmetric"): ranked}))
    first, second = shown_queries(measured, line, rows_of(), tmp_path / "media")
    assert [(hit.id, hit.start_s, hit.end_s) for hit in first.hits] == [
        ("a", 2.5, 5.5), ("b", None, None),
    ]  # fmt: skip
    assert [hit.id for hit in second.hits] == ["c"]
    [written] = (tmp_path / "media").iterdir()
    assert written.read_bytes() == data
    assert len(written.suffix) <= 8
    assert {hit.media for hit in (*first.hits, *second.hits)} == {str(written)}
