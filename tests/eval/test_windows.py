"""Windows of recordings as items of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bittern.benchmarks.eval.embeddings.rows import with_windows
from bittern.benchmarks.eval.tasks import Classes, Items, Protocol, QuerySet, Relevance, Task
from bittern.errors import InvalidInputError
from tests.eval.embedding_toys import ArrayRows

SEPARATE = Protocol(windows="separate")
OWNERS = np.array([0, 0, 2, 3, 3, 3])


def a_task(modality: str = "audio") -> Task:
    classes = np.array([0, 1, 1, 0], dtype=np.int32)
    wanted = np.array([0, 1], dtype=np.int32)
    return Task(
        name="text→audio",
        queries=QuerySet(["heron", "owl"], "text", [("heron",), ("owl",)], wanted, "text"),
        items=Items(["a", "b", "c", "d"], modality, ["A", "B", "C", "D"], classes, modality),
        relevance=Relevance.by_class(wanted, classes),
        classes=Classes(["heron", "owl"]),
    )


def rows_of(spans: bool = True) -> ArrayRows:
    starts = np.array([0, 2.5, 0, 0, 3, 6], dtype=np.float32)
    times = np.stack([starts, starts + 3], axis=1) if spans else np.full((6, 2), np.nan)
    vectors = np.eye(6, 8, dtype=np.float32)
    return ArrayRows(vectors, OWNERS, times.astype(np.float32))


def test_each_window_is_an_item_named_by_its_recording_and_its_times() -> None:
    task, rows = with_windows(a_task(), rows_of(), SEPARATE)
    assert list(task.items.ids) == [
        "a#t=0,3", "a#t=2.5,5.5", "c#t=0,3", "d#t=0,3", "d#t=3,6", "d#t=6,9",
    ]  # fmt: skip
    assert [task.items.contents[i] for i in range(6)] == ["A", "A", "C", "D", "D", "D"]
    assert rows.owners.tolist() == list(range(6))
    assert task.items.classes.tolist() == [0, 0, 1, 0, 0, 0]


def test_a_window_is_right_where_its_recording_is() -> None:
    task, _ = with_windows(a_task(), rows_of(), SEPARATE)
    assert task.relevance.of(0).tolist() == [0, 1, 3, 4, 5]
    assert task.relevance.of(1).tolist() == [2]  # the recording without windows has none
    assert task.relevance.grades.tolist() == [1] * 6


def test_grades_go_to_all_windows_of_a_recording() -> None:
    task = a_task()
    graded = replace(task.relevance, grades=np.array([3, 1, 2, 2], dtype=np.int32))
    task, _ = with_windows(replace(task, relevance=graded), rows_of(), SEPARATE)
    assert task.relevance.grades.tolist() == [3, 3, 1, 1, 1, 2]


def test_recordings_stay_items_where_windows_are_put_together() -> None:
    task, rows = a_task(), rows_of()
    for windows in ("max", "mean"):
        assert with_windows(task, rows, Protocol(windows=windows)) == (task, rows)


def test_photographs_have_no_windows() -> None:
    task, rows = a_task("image"), rows_of(spans=False)
    assert with_windows(task, rows, SEPARATE) == (task, rows)


def test_candidates_per_recording_cannot_be_ranked_by_window() -> None:
    task = replace(a_task(), candidates=a_task().relevance)
    with pytest.raises(InvalidInputError, match="leave --windows max or mean"):
        with_windows(task, rows_of(), SEPARATE)


def test_a_task_that_knows_what_is_heard_when_says_itself_what_is_right() -> None:
    seen = []

    def by_window(owners: np.ndarray, spans: np.ndarray) -> Task:
        seen.append((owners.tolist(), spans.shape))
        return replace(a_task(), name="by window")

    task, rows = with_windows(replace(a_task(), by_window=by_window), rows_of(), Protocol())
    assert (task.name, rows.owners.tolist()) == ("by window", list(range(6)))
    assert seen == [(OWNERS.tolist(), (6, 2))]


def test_windows_of_unknown_times_get_the_number_of_their_row() -> None:
    task, _ = with_windows(a_task(), rows_of(spans=False), SEPARATE)
    assert list(task.items.ids)[:3] == ["a#window=0", "a#window=1", "c#window=2"]


def test_windows_as_items_are_not_taken_for_recordings_with_the_same_rows() -> None:
    rows = rows_of()
    _, each = with_windows(a_task(), rows, SEPARATE)
    assert each.digest != rows.digest
    np.testing.assert_array_equal(each.read(np.array([4, 1])), rows.read(np.array([4, 1])))
