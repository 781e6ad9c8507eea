from __future__ import annotations

import os
from pathlib import Path

import pytest

from bittern.benchmarks.eval.suites import base as layouts
from bittern.benchmarks.eval.suites.base import DataFile, check_files, skipped_files
from bittern.benchmarks.eval.suites.base import check_layout as check
from bittern.benchmarks.eval.suites.readers import SuiteFile
from bittern.errors import LayoutError

LIST = DataFile("list.json|in/list.json", "what there is", '"list.tar.gz" of the release', "5 MB")
MEDIA = DataFile("media/", "the media", '"media.tar.gz" of the release', "441 GB")
EXTRA = DataFile("extra.csv", "more", "the supplement", "1 kB", optional=True)
LAYOUT = (LIST, MEDIA, EXTRA)


def filled(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


def test_folder_with_all_that_is_needed_is_taken(tmp_path: Path) -> None:
    assert check(filled(tmp_path, "list.json", "media/a.jpg"), LAYOUT, "owls") == tmp_path


def test_file_may_lie_at_any_of_its_alternatives(tmp_path: Path) -> None:
    check(filled(tmp_path, "in/list.json", "media/a.jpg"), LAYOUT, "owls")
    assert layouts.path_of(tmp_path, LIST) == tmp_path / "in/list.json"


def test_empty_folder_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    with pytest.raises(LayoutError, match="lacks 1 of"):
        check(filled(tmp_path, "list.json"), LAYOUT, "owls")


def test_file_in_place_of_a_folder_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="media/: the media"):
        check(filled(tmp_path, "list.json", "media"), LAYOUT, "owls")


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "does not exist"), ("file", "is a file, no folder")]
)
def test_data_folder_that_is_none_is_refused(tmp_path: Path, name: str, message: str) -> None:
    filled(tmp_path, "file")
    with pytest.raises(LayoutError) as refused:
        check(tmp_path / name, LAYOUT, "owls")
    assert message in str(refused.value)
    assert "441 GB" in str(refused.value)


def test_existing_and_missing_files_are_distinguished(tmp_path: Path) -> None:
    filled(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg", "c.jpg")
    (tmp_path / "b/3.jpg").mkdir()
    paths = ["a/1.jpg", "b/2.jpg", "c.jpg", "a/2.jpg", "nowhere/1.jpg", "b/3.jpg", "b/1.jpg"]
    there = check_files(tmp_path, paths, "skip", "images")
    assert there.tolist() == [True, False, True, True, False, False, True]
    assert skipped_files(there, "images") == ["3 of 7 images are missing and were skipped"]


def test_half_of_the_files_missing_is_refused_with_numbers_and_remedy(tmp_path: Path) -> None:
    paths = [f"a/{number}.jpg" for number in range(5000)]
    filled(tmp_path, *paths[::2])
    with pytest.raises(LayoutError) as refused:
        check_files(tmp_path, paths, "error", "images that list.json lists")
    message = str(refused.value)
    assert "2,500 of 5,000 images that list.json lists are missing" in message
    assert "the first: a/1.jpg, a/3.jpg, a/5.jpg; restore them" in message
    assert "--missing skip" in message


def test_all_of_the_files_gone_cannot_be_skipped(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="none of 2 images exists"):
        check_files(tmp_path, ["a/1.jpg", "a/2.jpg"], "skip", "images")


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [f"{folder}/{number}.jpg" for number in range(10) for folder in "ab"]
    filled(tmp_path, *paths)
    listed: list[Path] = []
    scandir = os.scandir

    def counting(folder: Path) -> object:
        listed.append(folder)
        return scandir(folder)

    monkeypatch.setattr("os.scandir", counting)
    assert check_files(tmp_path, paths, "error", "images").all()
    assert sorted(listed) == [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize("path", ["../secret/1.jpg", "a/../../1.jpg", "/etc/passwd"])
def test_path_that_leads_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(LayoutError, match="leads out of the data folder"):
        check_files(tmp_path, [path], "skip", "images")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": [{"id": 1}]}', "nothing in 'b'"),
        ('{"a": [{"id": 1}], "b": []}', "nothing in 'b'"),
        ('{"items": [], "version": 2}', "found keys 'items', 'version'"),
        ('{"a": [{"id": 1}], "b": [7]}', "list.json, b[0]: it is no object"),
        ('[{"a": [{"id": 1}], "b": [{"id": 1}]}]', "no object"),
        ('{"a": [{"id": 1}], "b": [{"id": 1}', "not valid JSON"),
        ('{"a": {"id": 1}, "b": [{"id": 1}]}', "'a' is not a list"),
        ("", "not valid JSON"),
        ("\x00\x01", "not valid JSON"),
    ],
)
def test_json_of_another_layout_is_refused_with_what_was_found(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    with pytest.raises(LayoutError) as refused:
        list(SuiteFile(path, "the release").elements(("a", "b")))
    assert message in str(refused.value)
    assert "take it from the release" in str(refused.value)


def test_elements_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text('{"b": [{"id": 1}], "info": {}, "a": [{"id": 2}, {"id": 3}]}')
    met = [(e.member, e.value["id"]) for e in SuiteFile(path, "the release").elements(("a", "b"))]
    assert met == [("b", 1), ("a", 2), ("a", 3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,name\n1,a\n", "expected columns query_id, name, found columns 'id', 'name'"),
        ("query_id,query_id,name\n1,2,a\n", "expected columns query_id, name"),
        ("query_id,name\n1\n", "line 2: the row has 1 cells, the header 2"),
        ("query_id,name\n1,a\n,b\n", "line 3 has no query_id"),
        ("", "is empty"),
    ],
)
def test_table_of_another_layout_is_refused_with_what_was_found(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "queries.csv"
    path.write_text(content)
    with pytest.raises(LayoutError) as refused:
        list(SuiteFile(path, "the release").rows(("query_id", "name")))
    assert message in str(refused.value)
    assert "queries.csv" in str(refused.value)


def test_table_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "queries.csv"
    path.write_bytes("query_id,name\n1,möwe\n".encode("latin-1"))
    with pytest.raises(LayoutError, match="UTF-8"):
        list(SuiteFile(path, "the release").rows(("query_id", "name")))


def test_rows_of_a_table_are_read_with_further_columns(tmp_path: Path) -> None:
    path = tmp_path / "queries.csv"
    path.write_text(',query_id,name,note\n0,7,"a, b",\n')
    rows = list(SuiteFile(path, "the release").rows(("query_id", "name")))
    assert rows == [(2, {"": "0", "query_id": "7", "name": "a, b"})]
