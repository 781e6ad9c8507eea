from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from bittern.benchmarks.eval.suites.soundscapes import Soundscapes
from bittern.benchmarks.eval.tasks import Protocol, Task
from bittern.errors import InvalidInputError, LayoutError, QrelsError
from bittern.types import MediaItem
from tests.eval.conftest import Miniatures
from tests.eval.miniatures import relevant, soundscapes

TOWERS = frozenset({"text", "audio"})
FIRST, SECOND, THIRD = soundscapes.HEARD


@pytest.fixture
def data(miniatures: Miniatures, tmp_path: Path) -> Path:
    return Path(shutil.copytree(miniatures("soundscapes"), tmp_path / "data"))


def tasks(data: Path | None, **options: Any) -> list[Task]:
    return Soundscapes().tasks(data, Protocol(**options), TOWERS)


def test_recordings_answer_for_every_species_that_is_heard_in_them(data: Path) -> None:
    windows, recordings = tasks(data)
    assert [windows.name, recordings.name] == ["text→audio, windows", "text→audio, recordings"]
    assert relevant(recordings) == {
        "Mallard": [FIRST, SECOND],
        "Tawny_Owl": [FIRST],
        "Graylag_Goose": [SECOND],
    }
    assert recordings.items.ids == [FIRST, SECOND, THIRD]
    assert recordings.by_window is None
    assert windows.by_window is not None


def test_only_windows_are_items_where_these_are_separate(data: Path) -> None:
    (task,) = tasks(data, windows="separate")
    assert task.by_window is not None


def test_unheard_species_and_unidentified_sounds_are_counted(data: Path) -> None:
    _, recordings = tasks(data)
    assert any("American Crow" in line for line in recordings.left_out)
    assert (
        "1 of 6 annotations marks a sound that the annotators could not identify (????); it is "
        "left out"
    ) in recordings.left_out


def test_recordings_are_read_in_their_folder(data: Path) -> None:
    item = tasks(data)[0].items.contents[2]
    assert isinstance(item, MediaItem)
    assert item.path == data / "soundscape_data" / THIRD
    assert item.path.read_bytes()[:4] == b"fLaC"


def test_genera_can_be_searched_and_families_cannot(data: Path) -> None:
    _, recordings = tasks(data, level="genus")
    assert relevant(recordings) == {"Anas": [FIRST, SECOND], "Strix": [FIRST], "Anser": [SECOND]}
    with pytest.raises(InvalidInputError, match="family"):
        tasks(data, level="family")


def test_an_annotated_recording_that_is_gone_ends_the_run_or_is_left_out(data: Path) -> None:
    (data / "soundscape_data" / FIRST).unlink()
    with pytest.raises(LayoutError, match=f"1 of 2 recordings.*{FIRST}"):
        tasks(data)
    _, recordings = tasks(data, missing="skip")
    assert relevant(recordings) == {"Mallard": [SECOND], "Graylag_Goose": [SECOND]}
    assert any("1 of 2 recordings" in line for line in recordings.left_out)


def annotated(data: Path, *rows: str) -> None:
    path = data / "annotations.csv"
    path.write_text(path.read_text(encoding="utf-8") + "\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        (f"{FIRST},1,2,300,8000,grebit1", r"'grebit1' \(1\)"),
        (f"{FIRST},3,2,300,8000,gragoo", "ends before it begins.* in line 8"),
        (f"{FIRST},2,2,300,8000,gragoo", "ends before it begins"),
        (f"{FIRST},-1,2,300,8000,gragoo", "ends before it begins"),
        (f"{FIRST},nan,2,300,8000,gragoo", "ends before it begins"),
        (f"{FIRST},1,inf,300,8000,gragoo", "ends before it begins"),
    ],
)
def test_annotations_that_cannot_be_used_are_refused_or_left_out(
    data: Path, row: str, wrong: str
) -> None:
    expected = relevant(tasks(data)[1])
    annotated(data, row)
    with pytest.raises(QrelsError, match=wrong):
        tasks(data)
    _, recordings = tasks(data, unknown="skip")
    assert relevant(recordings) == expected
    assert any(sentence.startswith("1 of 7 annotations") for sentence in recordings.left_out)


def test_a_repeated_annotation_counts_once(data: Path) -> None:
    expected = relevant(tasks(data)[1])
    annotated(data, f"{FIRST},1.0,3.5,200,900,tawowl1")
    _, recordings = tasks(data)
    assert relevant(recordings) == expected
    assert "1 of 7 annotations repeats another and counts once" in recordings.left_out


def test_annotations_of_nothing_are_refused(data: Path) -> None:
    headings = soundscapes.ANNOTATION_HEADINGS
    (data / "annotations.csv").write_text(f"{headings}\n{FIRST},1,2,3,4,????\n", encoding="utf-8")
    with pytest.raises(QrelsError, match="no annotation of a species"):
        tasks(data)


def test_notes_say_that_other_windows_are_other_items(data: Path) -> None:
    windows, recordings = tasks(data)
    assert any("not ranked on the same items" in note for note in windows.notes)
    assert not any("not ranked on the same items" in note for note in recordings.notes)
    assert any("'The sound of {common}'" in note for note in recordings.notes)
