from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.soundscapes import Annotations, windows_as_items
from bittern.benchmarks.eval.tasks import Classes, Items, QuerySet, Relevance, Task
from bittern.errors import InvalidInputError, QrelsError

THREE = np.array([[0, 3], [3, 6], [6, 9], [9, 10]], np.float32)


def task(recordings: int, species: int) -> Task:
    queries = QuerySet(
        ids=[f"species {i}" for i in range(species)],
        modality="text",
        contents=[(f"the sound of {i}",) for i in range(species)],
        classes=np.arange(species, dtype=np.int32),
        side="text",
    )
    items = Items(
        ids=[f"r{i}.flac" for i in range(recordings)],
        modality="audio",
        contents=[f"recording {i}" for i in range(recordings)],
        classes=np.full(recordings, -1, np.int32),
        side="audio",
    )
    nothing = Relevance(
        np.zeros(species + 1, np.int64), np.empty(0, np.int64), np.empty(0, np.int32)
    )
    groups = {"seen": np.arange(species) == 0}
    return Task("text→audio", queries, items, nothing, Classes(queries.ids), groups=groups)


def heard_at(*calls: tuple[int, float, float, int]) -> Annotations:
    columns = list(zip(*calls, strict=True)) or [(), (), (), ()]
    return Annotations(
        np.array(columns[0], np.int64),
        np.array(columns[1], np.float64),
        np.array(columns[2], np.float64),
        np.array(columns[3], np.int32),
    )


def windows_of(start: float, end: float) -> list[int]:
    """Which of the windows 0-3, 3-6, 6-9 and 9-10 s are right for a call."""
    windows = windows_as_items(
        task(1, 1), heard_at((0, start, end, 0)), np.zeros(4, np.int64), THREE
    )
    return [int(row) for row in windows.relevance.of(0)]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (1.0, 2.0, [0]),
        (2.0, 8.0, [0, 1, 2]),
        (2.5, 3.5, [0, 1]),  # half a second in each
        (2.6, 4.0, [1]),  # 0.4 s in the first, which is neither half a second nor half of it
        (2.9, 3.3, [1]),  # 0.1 and 0.3 of 0.4 s
        (2.9, 3.1, [0, 1]),  # half of it in each
        (2.999, 3.2, [1]),
        (9.9, 10.0, [3]),
        (8.6, 30.0, [3]),  # beyond the end of the recording: 0.4 s of the third
        (0.0, 10.0, [0, 1, 2, 3]),
    ],
)
def test_a_window_needs_half_a_second_of_a_call_or_half_of_it(
    start: float, end: float, expected: list[int]
) -> None:
    assert windows_of(start, end) == expected


def test_windows_are_items_with_fragments_as_ids() -> None:
    owners = np.array([0, 0, 1], np.int64)
    spans = np.array([[0, 3], [1.5, 4.25], [0, 2]], np.float32)
    windows = windows_as_items(task(2, 2), heard_at((0, 1.6, 2.8, 0), (1, 0, 1, 1)), owners, spans)
    assert windows.items.ids == ["r0.flac#t=0,3", "r0.flac#t=1.5,4.25", "r1.flac#t=0,2"]
    assert windows.items.contents[1] == "recording 0"
    assert windows.relevance.of(0).tolist() == [0, 1]
    assert windows.relevance.of(1).tolist() == [2]
    assert windows.by_window is None
    assert "0.5 s" in windows.notes[-1]


def test_a_window_may_be_right_for_several_species() -> None:
    windows = windows_as_items(
        task(1, 2), heard_at((0, 0, 2, 0), (0, 1, 3, 1)), np.zeros(4, np.int64), THREE
    )
    assert windows.relevance.of(0).tolist() == windows.relevance.of(1).tolist() == [0]


def test_several_calls_in_a_window_count_once() -> None:
    windows = windows_as_items(
        task(1, 1), heard_at((0, 0, 1, 0), (0, 1.5, 2.5, 0)), np.zeros(4, np.int64), THREE
    )
    assert windows.relevance.items.tolist() == [0]


def test_queries_that_no_window_answers_are_left_out_with_their_groups() -> None:
    heard = heard_at((0, 20, 21, 0), (0, 1, 2, 1))
    windows = windows_as_items(task(1, 2), heard, np.zeros(4, np.int64), THREE)
    assert windows.queries.ids == ["species 1"]
    assert "seen" not in windows.groups
    assert any("species 0" in line for line in windows.left_out)


def test_nothing_heard_in_any_window_is_an_error() -> None:
    with pytest.raises(QrelsError, match="relevant"):
        windows_as_items(task(1, 1), heard_at((0, 20, 21, 0)), np.zeros(4, np.int64), THREE)


def test_windows_of_other_recordings_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="other data"):
        windows_as_items(
            task(1, 1), heard_at((0, 1, 2, 0)), np.array([0, 0, 0, 1], np.int64), THREE
        )


def test_recordings_without_windows_answer_nothing() -> None:
    heard = heard_at((0, 0, 1, 0), (1, 0, 1, 0), (2, 0, 1, 0))
    windows = windows_as_items(
        task(3, 1), heard, np.array([0, 2], np.int64), np.array([[0, 3], [0, 3]], np.float32)
    )
    assert windows.relevance.of(0).tolist() == [0, 1]


def cut(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Windows of 3 s every 1.5 s, of recordings of some lengths."""
    owners, spans = [], []
    for recording in range(6):
        length = round(float(rng.uniform(1, 20)), 2)
        for start in np.arange(0, max(length - 1.5, 0.1), 1.5):
            owners.append(recording)
            spans.append((start, min(start + 3, length)))
    return np.array(owners, np.int64), np.array(spans, np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_windows_are_right_as_one_by_one_comparison_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    owners, spans = cut(rng)
    starts = rng.uniform(0, 18, 60).round(2)
    rows = zip(
        rng.integers(0, 6, 60),
        starts,
        starts + rng.uniform(0.05, 4, 60).round(2),
        rng.integers(0, 4, 60),
        strict=True,
    )
    heard = [(int(r), float(s), float(e), int(c)) for r, s, e, c in rows]
    windows = windows_as_items(task(6, 4), heard_at(*heard), owners, spans)
    for position, query in enumerate(windows.queries.ids):
        expected = [
            row
            for row, (owner, (begin, finish)) in enumerate(
                zip(owners.tolist(), spans.tolist(), strict=True)
            )
            if any(
                r == owner
                and f"species {c}" == query
                and min(e, finish) - max(s, begin) >= min(0.5, (e - s) / 2) - 1e-5
                for r, s, e, c in heard
            )
        ]
        assert windows.relevance.of(position).tolist() == expected
