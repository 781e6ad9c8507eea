"""Media with a manifest: complete, safe, and read again by `bittern index`."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bittern.errors import InvalidInputError, SourceNotFoundError
from bittern.index.archive import Archive
from bittern.service.export.folder import (
    Medium,
    media_of_hits,
    media_of_observations,
    write_folder,
)
from bittern.service.sources import read_source
from bittern.types import Exported, Hit, MediaItem, Observation

COLUMNS = ["scientificName", "license", "rightsHolder", "type", "Rank", "captive"]
Export = Callable[..., Exported]


@pytest.fixture
def export(marsh: Archive, tmp_path: Path) -> Export:
    def run(where: str | None = None, to: Path = tmp_path / "out") -> Exported:
        seen = marsh.list(where=where).observations
        return write_folder(media_of_observations(seen), to, COLUMNS)

    return run


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_folder_holds_copies_and_a_manifest(export: Export, media: Path, tmp_path: Path) -> None:
    done = export()
    out = tmp_path / "out"
    assert (done.observations, done.missing, done.path) == (3, 1, out)
    heron, owl, frogs = table(out / "manifest.csv")
    assert heron["media"] == "media/heron.jpg"
    assert (heron["license"], heron["rightsHolder"]) == ("CC-BY-4.0", "A. Person")
    assert (heron["type"], frogs["type"], heron["captive"]) == ("StillImage", "Sound", "false")
    assert owl["license"] == "CC0-1.0"
    assert (out / heron["media"]).read_bytes() == b"picture of a heron"
    (out / heron["media"]).write_bytes(b"cut")
    assert (media / "heron.jpg").read_bytes() == b"picture of a heron"


def test_media_that_are_missing_are_listed_with_the_reason(export: Export, tmp_path: Path) -> None:
    export()
    [lost] = table(tmp_path / "out" / "missing.csv")
    assert lost["occurrenceID"] == "nowhere"
    assert "there is no file" in lost["reason"]
    export("occurrenceID = 'heron'", tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == [
        "manifest.csv",
        "media",
    ]


def test_the_manifest_can_be_indexed_again(export: Export, tmp_path: Path) -> None:
    export()
    items = read_source(tmp_path / "out" / "manifest.csv").entries
    assert all(isinstance(item, MediaItem) for item in items)
    [heron, _, frogs] = [item for item in items if isinstance(item, MediaItem)]
    assert (heron.occurrence_id, heron.modality) == ("heron", "image")
    assert heron.metadata["scientificName"] == "Ardea cinerea"
    assert (frogs.occurrence_id, frogs.modality) == ("frogs", "audio")


def test_hits_of_one_recording_are_one_row_with_their_windows(
    marsh: Archive, tmp_path: Path
) -> None:
    seen = {o.id: o for o in marsh.list().observations}
    order = ["frogs#t=3,6", "heron", "frogs#t=0,3"]
    hits = [Hit(rank, 10.0 * rank, seen[id_]) for rank, id_ in enumerate(order, 1)]
    write_folder(media_of_hits(hits), tmp_path / "out", COLUMNS, hits=True)
    frogs, heron = table(tmp_path / "out" / "manifest.csv")
    assert (frogs["rank"], frogs["distance"], frogs["windows"]) == ("1", "10", "3-6; 0-3")
    assert (heron["rank"], heron["windows"]) == ("2", "")
    assert "Rank" not in frogs


def test_existing_folders_are_never_overwritten(export: Export, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInputError, match="exists already"):
        export()
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInputError, match="exists already"):
        export(to=tmp_path / "file")
    with pytest.raises(InvalidInputError, match="there is no folder"):
        export(to=tmp_path / "no" / "out")


def test_where_nothing_can_be_copied_nothing_is_left(export: Export, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"none of the 1 media .*there is no file"):
        export("occurrenceID = 'nowhere'")
    assert not list(tmp_path.glob("out*"))


def test_nothing_is_left_of_an_export_that_breaks_off(marsh: Archive, tmp_path: Path) -> None:
    def broken() -> object:
        yield Medium(marsh.get("heron"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(broken(), tmp_path / "out", COLUMNS)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("out*"))


def test_an_export_of_nothing_is_a_manifest_without_rows(export: Export, tmp_path: Path) -> None:
    assert export("false").observations == 0
    assert table(tmp_path / "out" / "manifest.csv") == []


@pytest.mark.parametrize(
    ("media", "root", "words"),
    [
        ("../secret.jpg", "here", "leads out of the folder"),
        ("a/../../secret.jpg", "here", "leads out of the folder"),
        ("secret.txt", "here", "not that of a photograph"),
        ("secret.jpg", "", "does not know where"),
        ("folder.jpg", "here", "there is no file"),
        ("x\0.jpg", "here", ""),
        ("x" * 400 + ".jpg", "here", ""),
    ],
)
def test_media_are_not_taken_from_anywhere(
    media: str, root: str, words: str, tmp_path: Path
) -> None:
    here = tmp_path / "here"
    (here / "folder.jpg").mkdir(parents=True)
    for path in (tmp_path / "secret.jpg", here / "secret.txt"):
        path.write_bytes(b"secret")
    seen = Observation("a", "a", "image", media, str(tmp_path / root) if root else "")
    with pytest.raises(SourceNotFoundError) as caught:
        write_folder([Medium(seen)], tmp_path / "out", [])
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("names", "safe"),
    [
        (["a/x.jpg", "b/x.jpg", "c/X.JPG"], ["x.jpg", "x-2.jpg", "X-3.JPG"]),
        (["x.jpg", "x-2.jpg", "y/x.jpg"], ["x.jpg", "x-2.jpg", "x-3.jpg"]),
        (["-rf .jpg", "è ü.png", "Übung 1.jpg"], ["rf.jpg", "è_ü.png", "Übung_1.jpg"]),
        (["U\u0308.png", "Ü.png", "鳥:*?.png"], ["Ü.png", "Ü-2.png", "鳥.png"]),
        (["鳥" * 80 + ".png"], ["鳥" * 66 + ".png"]),
        (["con.jpg", ".hidden.jpg", "=1.jpg"], ["con_.jpg", "hidden.jpg", "1.jpg"]),
        (["w" * 200 + ".jpeg"], ["w" * 100 + ".jpeg"]),
    ],
)
def test_file_names_are_safe_and_each_is_given_once(
    names: list[str], safe: list[str], tmp_path: Path
) -> None:
    seen = []
    for number, name in enumerate(names):
        path = tmp_path / "in" / str(number) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        seen.append(Medium(Observation(f"{number}", f"{number}", "image", str(path))))
    write_folder(seen, tmp_path / "out", [])
    rows = table(tmp_path / "out" / "manifest.csv")
    assert [row["media"] for row in rows] == [f"media/{name}" for name in safe]
    assert [(tmp_path / "out" / row["media"]).read_bytes().decode() for row in rows] == names


def test_media_are_copied_only_from_folders_that_are_named(tmp_path: Path) -> None:
    seen = []
    for folder in ("mine", "private"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.jpg").write_bytes(folder.encode())
        seen.append(Medium(Observation(folder, folder, "image", "x.jpg", str(tmp_path / folder))))
    (tmp_path / "mine" / "link.jpg").symlink_to(tmp_path / "private" / "x.jpg")
    seen.append(Medium(Observation("l", "l", "image", "link.jpg", str(tmp_path / "mine"))))
    done = write_folder(seen, tmp_path / "out", [], below=[tmp_path / "mine"])
    assert (done.observations, done.missing) == (1, 2)
    assert done.copied_from == (str(tmp_path / "mine"),)
    lost = table(tmp_path / "out" / "missing.csv")
    assert [row["occurrenceID"] for row in lost] == ["private", "l"]
    assert all("outside the folders" in row["reason"] for row in lost)
    everything = write_folder(seen, tmp_path / "all", [])
    assert everything.copied_from == (str(tmp_path / "mine"), str(tmp_path / "private"))
    with pytest.raises(InvalidInputError, match="there is no folder"):
        write_folder(seen, tmp_path / "no", [], below=[tmp_path / "nowhere"])


def test_formulas_in_a_manifest_are_text(marsh: Archive, tmp_path: Path) -> None:
    heron = marsh.get("heron")
    evil = replace(heron, metadata={"scientificName": "=1+1"})
    write_folder([Medium(evil)], tmp_path / "out", COLUMNS)
    [row] = table(tmp_path / "out" / "manifest.csv")
    assert row["scientificName"] == "'=1+1"
