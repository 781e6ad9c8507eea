from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bittern.benchmarks.eval.suites import field as field_media
from bittern.benchmarks.eval.suites.field import SAMPLE, FieldSuite
from bittern.benchmarks.eval.tasks import Protocol, Task
from bittern.errors import LayoutError, LimitExceededError
from bittern.types import MediaItem

ALL = frozenset({"text", "image", "audio"})


def tasks(
    data: Path | None = None, protocol: Protocol | None = None, towers: frozenset[str] = ALL
) -> dict[str, Task]:
    return {t.name: t for t in FieldSuite().tasks(data, protocol or Protocol(), towers)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures of a tern, one of an owl, one of nothing; an owl and a wolf are heard."""
    images = sorted((SAMPLE.parent / "images").iterdir())
    sounds = sorted((SAMPLE.parent / "audio").iterdir())
    rows = [
        ("tern-1", images[0], "tern", "Sterna hirundo", "A. Person"),
        ("tern-2", images[1], "tern", "Sterna paradisaea", ""),
        ("owl-1", images[2], "owl", "Strix aluco", ""),
        ("bare-1", images[3], "", "", ""),
        ("owl-2", sounds[0], "owl", "", ""),
        ("wolf-1", sounds[1], "wolf", "", ""),
    ]
    lines = ["occurrenceID,media,label,scientificName,rightsHolder"]
    for name, source, label, scientific, holder in rows:
        shutil.copy(source, tmp_path / source.name)
        lines.append(f"{name},{source.name},{label},{scientific},{holder}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_the_sample_has_three_tasks() -> None:
    assert tasks().keys() == {"text→image", "text→audio", "audio→image"}


def test_labels_are_searched_and_what_has_the_same_label_is_right(folder: Path) -> None:
    task = tasks(folder)["text→image"]
    assert task.queries.contents == [("owl",), ("tern",)]
    assert list(task.items.ids) == ["tern-1", "tern-2", "owl-1"]
    assert [task.relevance.of(q).tolist() for q in range(2)] == [[2], [0, 1]]


def test_items_without_a_label_are_counted(folder: Path) -> None:
    assert "1 item has no label and is not ranked" in tasks(folder)["text→image"].left_out


def test_recordings_ask_whose_label_some_picture_has(folder: Path) -> None:
    task = tasks(folder)["audio→image"]
    assert list(task.queries.ids) == ["owl-2"]
    assert task.relevance.of(0).tolist() == [2]
    assert any("1 of 2 recordings has a label that no picture" in t for t in task.left_out)


def test_metadata_stay_with_the_media_for_the_report(folder: Path) -> None:
    item = tasks(folder)["text→image"].items.contents[0]
    assert isinstance(item, MediaItem)
    assert item.metadata["scientificName"] == "Sterna hirundo"
    assert item.metadata["rightsHolder"] == "A. Person"


def test_a_scientific_name_is_a_labels_only_where_all_of_its_items_have_it(folder: Path) -> None:
    taxa = tasks(folder)["text→image"].classes.taxa
    assert taxa == [
        {"vernacularName": "owl", "scientificName": "Strix aluco"},
        {"vernacularName": "tern"},
    ]


def test_data_may_name_the_manifest_itself(folder: Path) -> None:
    (folder / "manifest.csv").rename(folder / "mine.csv")
    assert tasks(folder / "mine.csv").keys() == tasks().keys()


def test_a_folder_without_a_manifest_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(
        LayoutError, match=r"lacks the manifest of field:\n  manifest\.csv: a manifest"
    ):
        FieldSuite().check(tmp_path, Protocol())
    with pytest.raises(LayoutError, match="does not exist"):
        FieldSuite().check(tmp_path / "none", Protocol())


def test_a_manifest_without_labels_is_refused(folder: Path) -> None:
    path = folder / "manifest.csv"
    path.write_text(path.read_text().replace("label", "kind"))
    with pytest.raises(LayoutError, match="no column 'label'"):
        tasks(folder)


@pytest.mark.parametrize("content", [b"", b"label,file\nowl,x\n", b"media,label\n\xff,owl\n"])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(LayoutError):
        tasks(tmp_path)


def test_unusable_rows_end_the_run_unless_they_are_skipped(folder: Path) -> None:
    with (folder / "manifest.csv").open("a") as manifest:
        manifest.write("gone-1,gone.jpg,owl,,\n")
    with pytest.raises(LayoutError, match=r"1 entry .*gone\.jpg.*--missing skip"):
        tasks(folder)
    task = tasks(folder, Protocol(missing="skip"))["text→image"]
    assert len(task.items) == 3
    assert any("1 entry of manifest.csv" in line for line in task.left_out)


def test_a_manifest_that_is_too_long_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(field_media, "MAX_ITEMS", 3)
    with pytest.raises(LimitExceededError, match="more than 3 items"):
        tasks(folder)
