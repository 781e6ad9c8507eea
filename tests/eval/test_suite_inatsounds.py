from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bittern.benchmarks.eval.suites.inatsounds import INatSounds
from bittern.benchmarks.eval.tasks import Protocol, Task
from bittern.errors import InvalidInputError, LayoutError, QrelsError
from bittern.types import MediaItem
from tests.eval.conftest import Miniatures
from tests.eval.miniatures import inatsounds, soundscapes

TOWERS = frozenset({"text", "audio"})


@pytest.fixture
def data(miniatures: Miniatures, tmp_path: Path) -> Path:
    return Path(shutil.copytree(miniatures("inatsounds"), tmp_path / "data"))


def only_task(data: Path | None, **options: Any) -> Task:
    (task,) = INatSounds().tasks(data, Protocol(**options), TOWERS)
    return task


def media_at(task: Task, position: int) -> str:
    item = task.items.contents[position]
    assert isinstance(item, MediaItem)
    return item.media


def right(task: Task) -> dict[str, list[str]]:
    """Which files answer which query."""
    files = [media_at(task, i) for i in range(len(task.items))]
    return {
        name: [files[i] for i in task.relevance.of(q)] for q, name in enumerate(task.queries.ids)
    }


def test_each_evaluated_species_is_answered_by_its_recordings_of_the_test_split(
    data: Path,
) -> None:
    task = only_task(data)
    assert right(task) == {
        "Tawny_Owl": [inatsounds.file_name("test", "owl-1", 0)],
        "Mallard": [inatsounds.file_name("test", "ducks-1", 1)],
        "Greylag_Goose": [inatsounds.file_name("test", "goose-1", 2)],
        "Gray_Wolf": [inatsounds.file_name("test", "wolf-1", 3)],
        "Domestic_Dog": [
            inatsounds.file_name("test", "dog-1", 4),
            inatsounds.file_name("test", "dogs-barking-1", 4),
        ],
        "Domestic_Cat": [
            inatsounds.file_name("test", "cat-1", 5),
            inatsounds.file_name("test", "cat-2", 5),
        ],
    }
    assert task.name == "text→audio"
    assert task.training is None
    assert len(task.items) == 8
    assert "test split is searched" in " ".join(task.notes)


def test_species_are_searched_by_the_sound_of_their_common_name(data: Path) -> None:
    assert only_task(data).queries.contents[0] == ("The sound of Tawny Owl",)
    task = only_task(data, prompts=("{scientific}", "{taxonomy}"), average_prompts=True)
    assert task.queries.contents[0] == (
        "Strix aluco",
        "Animalia Chordata Aves Strigiformes Strigidae Strix aluco",
    )


def test_a_species_without_recordings_is_left_out_and_counted(data: Path) -> None:
    task = only_task(data)
    assert "House_Cricket" not in task.queries.ids
    assert "1 of 7 queries has no relevant item and was left out (House Cricket)" in task.left_out


def test_species_that_are_not_evaluated_are_ranked_and_left_out(data: Path) -> None:
    task = only_task(data, database="train")
    assert "European_Common_Frog" not in task.queries.ids
    assert inatsounds.file_name("train", "frogs-1", 7) in [media_at(task, i) for i in range(6)]
    assert task.relevance.counts.tolist() == [1, 1, 1, 1, 1]


def test_items_are_made_with_names_and_rights(data: Path) -> None:
    item = only_task(data).items.contents[0]
    assert isinstance(item, MediaItem)
    assert item.path is not None
    assert item.path.is_file()
    assert item.metadata["vernacularName"] == "Tawny Owl"
    assert item.metadata["family"] == "Strigidae"
    assert item.metadata["rightsHolder"] == "recordist 0"
    assert item.metadata["license"] == "CC BY-NC 4.0"


def test_the_training_split_is_fitted_on_only_if_the_protocol_says_so(data: Path) -> None:
    training = only_task(data, fit_on="training").training
    assert training is not None
    assert len(training.items) == 6
    names = [training.queries.ids[c] for c in range(len(training.queries))]
    assert names == [
        "Tawny_Owl",
        "Mallard",
        "Domestic_Dog",
        "Domestic_Cat",
        "House_Cricket",
        "European_Common_Frog",
    ]
    assert training.queries.classes.tolist() == training.items.classes.tolist()


def test_novel_species_are_in_no_training_part(data: Path) -> None:
    task = only_task(data, fit_on="training", novel="random", novel_share=0.5)
    assert task.training is not None
    novel = task.queries.classes[task.groups["novel"]]
    assert len(novel)
    assert not np.isin(novel, task.training.items.classes).any()


def test_soundscapes_are_searched_as_well_and_know_what_was_fitted_on(
    data: Path, tmp_path: Path
) -> None:
    folder = soundscapes.build(tmp_path / "soundscapes")
    protocol = Protocol(fit_on="training", soundscapes=str(folder))
    names, windows, recordings = INatSounds().tasks(data, protocol, TOWERS)
    assert [names.name, windows.name, recordings.name] == [
        "text→audio",
        "soundscapes text→audio, windows",
        "soundscapes text→audio, recordings",
    ]
    assert windows.training is not None
    heard = dict(zip(windows.queries.ids, windows.groups["seen"].tolist(), strict=True))
    assert heard == {"Mallard": True, "Tawny_Owl": True, "Graylag_Goose": False}
    mallard = list(windows.classes.names).index("Mallard")
    position = windows.training.items.classes.tolist().index(mallard)
    item = windows.training.items.contents[position]
    assert isinstance(item, MediaItem)
    assert item.metadata["scientificName"] == "Anas platyrhynchos"


def edited(data: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = data / "test.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    "content",
    [b'{"audio": [{"id', b"[" * 100_000, b"\xff\xfe{}", b"[]", b"{}", b"", b'{"audio": 7}'],
)
def test_what_is_no_annotation_file_is_refused(data: Path, content: bytes) -> None:
    (data / "test.json").write_bytes(content)
    with pytest.raises(LayoutError, match=r"test\.json.*take .*2024 release"):
        only_task(data)


def test_a_text_that_is_not_unicode_is_refused(data: Path) -> None:
    edited(data, lambda value: value["audio"][0].update(file_name="test/\ud800.wav"))
    with pytest.raises(LayoutError, match="a text as 'file_name'"):
        only_task(data)


@pytest.mark.parametrize(
    ("member", "row", "wrong"),
    [
        ("audio", {"file_name": "../../etc/passwd"}, "leads out of the data folder"),
        ("audio", {"file_name": "/etc/passwd"}, "leads out of the data folder"),
        ("categories", {"evaluation": None}, "'evaluation' 0 or 1"),
        ("categories", {"audio_dir_name": 7}, "'audio_dir_name'"),
    ],
)
def test_rows_of_another_form_are_refused(
    data: Path, member: str, row: dict[str, Any], wrong: str
) -> None:
    edited(data, lambda value: value[member][0].update(row))
    with pytest.raises(LayoutError, match=wrong):
        only_task(data)


def test_two_recordings_with_one_file_are_refused(data: Path) -> None:
    name = inatsounds.file_name("test", "owl-1", 0)
    edited(data, lambda v: v["audio"][1].update(file_name=name.removeprefix("test/")))
    with pytest.raises(LayoutError, match="two recordings with the file"):
        only_task(data)


@pytest.mark.parametrize(
    ("change", "wrong", "left"),
    [
        (lambda v: v["annotations"].append(v["annotations"][0]), "1 of 9 .* repeats another", 8),
        (lambda v: v["annotations"].pop(0), "1 of 8 .* has no annotation .recording 3000", 7),
    ],
)
def test_every_recording_has_one_annotation_unless_others_are_skipped(
    data: Path, change: Callable[[dict[str, Any]], object], wrong: str, left: int
) -> None:
    edited(data, change)
    with pytest.raises(QrelsError, match=wrong):
        only_task(data)
    task = only_task(data, unknown="skip")
    assert len(task.items) == left
    assert re.search(wrong, " ".join(task.left_out))


def test_splits_of_different_releases_are_refused(data: Path) -> None:
    edited(data, lambda v: v["categories"][0].update(name="Strix nebulosa"))
    with pytest.raises(LayoutError, match=r"category 0 is Strix nebulosa in test\.json"):
        only_task(data, fit_on="training")


def test_file_names_below_the_split_or_the_category_are_found_too(data: Path) -> None:
    def shorten(value: dict[str, Any]) -> None:
        for number, row in enumerate(value["audio"]):
            row["file_name"] = row["file_name"].split("/", 1 + number % 2)[-1]

    expected = right(only_task(data))
    edited(data, shorten)
    assert right(only_task(data)) == expected


def test_only_splits_that_are_used_are_checked_before_a_model_is_loaded(data: Path) -> None:
    (data / "test.json").unlink()
    INatSounds().check(data, Protocol(database="val"))
    for other in (Protocol(), Protocol(database="test")):
        with pytest.raises(LayoutError, match=r"lacks 1 of .*\n.*test\.json"):
            INatSounds().check(data, other)
    (data / "train.json").unlink()
    INatSounds().check(data, Protocol(database="val"))
    with pytest.raises(LayoutError, match=r"train\.json"):
        INatSounds().check(data, Protocol(database="val", fit_on="training"))
    with pytest.raises(InvalidInputError, match="no --database dev"):
        INatSounds().check(data, Protocol(database="dev"))


def test_missing_soundscapes_are_refused_before_a_model_is_loaded(
    data: Path, tmp_path: Path
) -> None:
    with pytest.raises(LayoutError, match="soundscapes"):
        INatSounds().check(data, Protocol(soundscapes=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("windows", "rule"), [("max", "best window"), ("mean", "mean distance"), ("separate", "Every")]
)
def test_notes_tell_the_prompt_and_how_windows_count(data: Path, windows: str, rule: str) -> None:
    notes = " ".join(only_task(data, windows=windows).notes)
    assert "'The sound of {common}'" in notes
    assert rule in notes
    assert "averages over a file's windows" in notes
