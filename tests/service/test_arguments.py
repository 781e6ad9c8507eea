"""Arguments of the Python API: files are read, mistakes are named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bittern.api
from bittern.api import read_media
from bittern.client import RemoteArchive
from bittern.errors import (
    BitternError,
    FilterError,
    InvalidInputError,
    LimitExceededError,
    MediaTooLargeError,
    QueryError,
    SourceNotFoundError,
    UnreadableMediaError,
)
from bittern.types import MediaItem
from tests.service.fake_archive import FakeArchive


def test_a_path_and_its_bytes_are_the_same_query(
    remote: RemoteArchive, served: FakeArchive, tmp_path: Path
) -> None:
    file = tmp_path / "heron.jpg"
    file.write_bytes(b"picture")
    for image in (file, str(file), b"picture", bytearray(b"picture"), memoryview(b"picture")):
        remote.search(image=image)  # type: ignore[arg-type]
    assert [query.inputs[0].value for query in served.seen] == [b"picture"] * 5


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no\.jpg: there is no such file") as caught:
        read_media(tmp_path / "no.jpg", "image")
    assert caught.value.field == "image"


def test_an_empty_file_is_named(tmp_path: Path, remote: RemoteArchive) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(QueryError, match=r"empty\.jpg is empty"):
        remote.search(image=tmp_path / "empty.jpg")


def test_a_folder_or_a_device_is_called_no_regular_file(tmp_path: Path) -> None:
    for source in (tmp_path, "/dev/null"):
        with pytest.raises(UnreadableMediaError, match="is not a regular file") as caught:
            read_media(source, "image")
        assert str(source) in caught.value.message


def test_an_address_is_not_fetched() -> None:
    with pytest.raises(SourceNotFoundError, match="download the file first"):
        read_media("https://example.org/heron.jpg", "image")


def test_a_path_with_a_zero_byte_is_refused() -> None:
    with pytest.raises((UnreadableMediaError, SourceNotFoundError)):
        read_media("a\0b", "image")


def test_a_file_over_the_limit_is_refused_with_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "heron.jpg"
    file.write_bytes(bytes(11))
    monkeypatch.setattr(bittern.api, "MAX_MEDIA_BYTES", 11)
    assert read_media(file, "image") == bytes(11)
    monkeypatch.setattr(bittern.api, "MAX_MEDIA_BYTES", 10)
    for source in (file, bytes(11)):
        with pytest.raises(MediaTooLargeError, match="limit of 10 bytes"):
            read_media(source, "image")


@pytest.mark.parametrize("source", [3, None, ["a"]])
def test_what_is_neither_path_nor_bytes_is_refused(source: object) -> None:
    with pytest.raises(QueryError, match="path or the bytes"):
        read_media(source, "image")


def test_a_file_is_not_taken_for_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remote: RemoteArchive, served: FakeArchive
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "call.m4a").touch()
    (tmp_path / "owl").mkdir()
    for text, kind in (
        ("Heron.JPG", "image"), ("dir/call.wav ", "audio"), ("call.m4a", "image or audio"),
    ):  # fmt: skip
        with pytest.raises(QueryError, match=f"is a file, not words: give it as {kind}$"):
            remote.search(text)
        with pytest.raises(QueryError, match="not words"):
            remote.search("a heron", minus={"text": text})
    for text in ("owl", "St. Helena plover", "a/b", "x" * 1_999 + "."):
        remote.search(text)
    assert len(served.seen) == 4


Call = Callable[[Any], object]
"""A call on an archive, with arguments that no type checker accepts."""

MISTAKES: dict[str, tuple[Call, type[BitternError], str]] = {
    "no query": (lambda a: a.search(), QueryError, "nothing to search with"),
    "empty lists": (lambda a: a.search([], id=()), QueryError, "nothing to search with"),
    "a list with a number": (lambda a: a.search(["red", 5]), QueryError, "text must be text"),
    "a list with nothing": (lambda a: a.search(id=["x", None]), QueryError, "not NoneType"),
    "a list to encode": (lambda a: a.encode(["red"]), QueryError, "text must be text, not list"),
    "minus words without their kind": (
        lambda a: a.search("red", minus="blue"),
        QueryError,
        "minus must be a dictionary, such as {'text': 'a nest'}, not str",
    ),
    "minus of an unknown kind": (
        lambda a: a.search("red", minus={"words": "blue"}),
        QueryError,
        "not 'words'",
    ),
    "nothing to encode": (lambda a: a.encode(), QueryError, "none of them"),
    "a long where to list": (lambda a: list(a.list("x" * 10_001)), FilterError, "limit is 10000"),
    "a where that is a number": (lambda a: list(a.list(5)), QueryError, "where must be text"),
    "a long model to encode": (
        lambda a: a.encode("red", model="x" * 5_000),
        QueryError,
        "5000 characters",
    ),
    "a long model to add": (lambda a: a.add([], model="x" * 5_000), QueryError, "5000 characters"),
    "getting a number": (lambda a: a.get(5), QueryError, "id must be text, not int"),
    "deleting a number": (lambda a: a.delete(5), QueryError, "not int"),
    "deleting a number of several": (lambda a: a.delete(["red.png", 5]), QueryError, "not int"),
    "deleting too much": (
        lambda a: a.delete(["x"] * 10_001),
        LimitExceededError,
        "10001 ids were given, the limit is 10000",
    ),
    "large pages": (lambda a: a.list(page_size=1_001), QueryError, "from 1 to 1000, not 1001"),
    "adding a number": (lambda a: a.add(5), InvalidInputError, "not int"),
    "adding an item by itself": (
        lambda a: a.add(MediaItem("x", "x", "image")),
        InvalidInputError,
        "not MediaItem",
    ),
    "adding numbers": (lambda a: a.add([5]).wait(), InvalidInputError, "item 0 is int"),
    "adding an item whose id is a list": (
        lambda a: a.add([MediaItem(["x"], "x", "image")], on_duplicate="skip").wait(),  # type: ignore[arg-type]
        InvalidInputError,
        "occurrence_id of item 0 must be text, not list",
    ),
    "endless batches": (
        lambda a: a.add([], batch_size=10**30),
        QueryError,
        "batch_size must be a whole number from 1 to 1000000",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused_before_anything_is_sent(
    remote: RemoteArchive, served: FakeArchive, mistake: str
) -> None:
    call, error, words = MISTAKES[mistake]
    with pytest.raises(error, match=re.escape(words)) as caught:
        call(remote)
    assert type(caught.value) is error
    assert (served.seen, served.added, len(served.observations)) == ([], [], 20)
