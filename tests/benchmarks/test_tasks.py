from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from bittern.benchmarks.speed.collection import Collection
from bittern.benchmarks.tasks import Task, tasks
from bittern.encoders.base import Modality
from bittern.service.ingest import Embedded
from bittern.service.models import Embedder
from bittern.types import AddResult, AddStatus, MediaItem
from tests.engine.toy import DIM, ToyEncoder


def embedded(name: str, modality: str, label: str, windows: int = 1) -> Embedded:
    item = MediaItem(name, f"{name}.x", modality, metadata={"label": label} if label else {})
    rows = [np.eye(DIM, dtype=np.float32)[i] for i in range(windows)]
    return Embedded(item, [(None, None)] * windows, rows)


def collection(entries: Sequence[Embedded]) -> Collection:
    return Collection(Embedder("toy", lambda name: ToyEncoder()), entries)


def by_name(entries: Sequence[Embedded]) -> dict[str, Task]:
    return {task.name: task for task in tasks(collection(entries))}


PICTURES = [embedded("p1", "image", "red"), embedded("p2", "image", "blue")]
SOUNDS = [embedded("s1", "audio", "red", windows=3), embedded("s2", "audio", "green")]


def test_each_label_is_asked_once_in_words() -> None:
    found = by_name([*PICTURES, embedded("p3", "image", "red")])
    assert found["text→image"].sources == ["blue", "red"]
    assert found["text→image"].relevant.tolist() == [[False, True, False], [True, False, True]]


def test_only_recordings_that_some_picture_answers_are_asked() -> None:
    task = by_name([*PICTURES, *SOUNDS])["audio→image"]
    assert [item.occurrence_id for item in task.sources if isinstance(item, MediaItem)] == ["s1"]
    assert task.relevant.tolist() == [[True, False]]


def test_a_recording_is_one_item_with_all_its_windows() -> None:
    task = by_name(SOUNDS)["text→audio"]
    assert len(task.items) == 2
    assert task.items.owners.tolist() == [0, 0, 0, 1]


def test_a_recording_asks_with_the_mean_of_its_windows_at_unit_norm() -> None:
    task = by_name([*PICTURES, *SOUNDS])["audio→image"]
    expected = np.zeros(DIM)
    expected[:3] = 1 / np.sqrt(3)
    assert task.queries[0] == pytest.approx(expected)


def test_no_direction_is_made_up_where_labels_do_not_meet() -> None:
    assert set(by_name([PICTURES[1], *SOUNDS])) == {"text→image", "text→audio"}


def test_unlabelled_and_failed_items_are_left_out() -> None:
    failed = embedded("bad", "image", "red")
    failed.result = AddResult("bad", AddStatus.FAILED)
    entries = [*PICTURES, embedded("p3", "image", ""), failed]
    items = collection(entries).items(Modality.IMAGE)
    assert items is not None
    assert [item.occurrence_id for item in items.media] == ["p1", "p2"]
