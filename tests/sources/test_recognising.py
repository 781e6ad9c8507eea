"""What is said of sources that are of no format, or not of another one."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from bittern.errors import ManifestError
from bittern.service.sources import SourceOptions, read_source
from bittern.service.sources.headings import column_names


@pytest.mark.parametrize("name", ["empty.csv", "empty.parquet", "empty.json", "empty.zip", "empty"])
def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ManifestError, match=r"is empty, a file of 0 bytes"):
        read_source(tmp_path / name)


def test_a_table_of_blank_lines_is_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "blank.csv").write_text("\n\n")
    with pytest.raises(ManifestError, match="is empty: it has no header"):
        read_source(tmp_path / "blank.csv")


def test_a_zip_of_photographs_is_to_be_unpacked_and_a_damaged_one_is_called_so(
    tmp_path: Path,
) -> None:
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("1.jpg", bytes(5_000))
    with pytest.raises(ManifestError, match="unpack it"):
        read_source(path)
    path.write_bytes(path.read_bytes()[:3_000])
    with pytest.raises(ManifestError, match="damaged or incomplete"):
        read_source(path)


@pytest.mark.parametrize(
    ("name", "format_", "words"),
    [
        ("", "coco", "is a folder; the format coco needs a file"),
        ("", "manifest", "is a folder; the format manifest needs a file"),
        ("", "inaturalist", "is a folder; the format inaturalist needs a file"),
        ("1.jpg", "folder", "is a file; the format folder needs a folder"),
    ],
)
def test_a_folder_is_refused_for_a_format_of_files_and_the_other_way_round(
    tmp_path: Path, name: str, format_: str, words: str
) -> None:
    (tmp_path / "1.jpg").write_bytes(b"x")
    with pytest.raises(ManifestError, match=words):
        read_source(tmp_path / name, SourceOptions(format=format_))


def test_only_so_many_columns_are_told_and_that_there_are_more(tmp_path: Path) -> None:
    headings = [f"column {n}" for n in range(30)]
    (tmp_path / "wide.csv").write_text(",".join(headings) + "\n")
    with pytest.raises(ManifestError, match=r"column 19, \.\.\.: name"):
        read_source(tmp_path / "wide.csv")
    with pytest.raises(ManifestError, match=r"column 19, \.\.\.$"):
        column_names(headings, {"file": "media"})


def test_associated_media_with_its_prefix_hold_the_files() -> None:
    assert column_names(["dwc:associatedMedia"], {}) == ["media"]
    address = "http://rs.tdwg.org/dwc/terms/associatedMedia"
    assert column_names([address, "media"], {}) == ["associatedMedia", "media"]


def test_columns_are_renamed_as_the_documentation_says() -> None:
    headings = ["Länge", "物種", "id", "Nest box (old)", "2nd", "Nest box", "nest-box"]
    assert column_names(headings, {}) == [
        "Lange",
        "column_2",
        "id_",
        "Nest_box_old",
        "column_2nd",
        "Nest_box",
        "nest_box_2",
    ]
