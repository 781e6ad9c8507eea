"""Arguments of the Python API: files are read, mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.arguments import read_media
from bittern.client import RemoteArchive
from bittern.errors import (
    MediaTooLargeError,
    QueryError,
    SourceNotFoundError,
    UnreadableMediaError,
)
from tests.service.fake_engine import FakeEngine


def test_a_path_and_its_bytes_ask_the_same(
    remote: RemoteArchive, engine: FakeEngine, tmp_path: Path
) -> None:
    file = tmp_path / "heron.jpg"
    file.write_bytes(b"picture")
    for image in (file, str(file), b"picture", bytearray(b"picture"), memoryview(b"picture")):
        remote.search(image=image)  # type: ignore[arg-type]
    assert [query.image for query in engine.seen] == [b"picture"] * 5


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no\.jpg: there is no such file") as caught:
        read_media(tmp_path / "no.jpg", field="image")
    assert caught.value.field == "image"


def test_a_folder_or_a_device_is_called_no_regular_file(tmp_path: Path) -> None:
    for source in (tmp_path, "/dev/null"):
        with pytest.raises(UnreadableMediaError, match="is not a regular file") as caught:
            read_media(source, field="image")
        assert str(source) in caught.value.message


def test_an_address_is_not_fetched() -> None:
    with pytest.raises(SourceNotFoundError, match="download the file first"):
        read_media("https://example.org/heron.jpg", field="image")


def test_a_path_with_a_zero_byte_is_refused() -> None:
    with pytest.raises((UnreadableMediaError, SourceNotFoundError)):
        read_media("a\0b", field="image")


def test_a_file_over_the_limit_is_refused_with_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "heron.jpg"
    file.write_bytes(bytes(11))
    for source in (file, bytes(11)):
        with pytest.raises(MediaTooLargeError, match="limit of 10 bytes"):
            read_media(source, field="image", max_bytes=10)
    assert read_media(file, field="image", max_bytes=11) == bytes(11)


@pytest.mark.parametrize("source", [3, None, ["a"]])
def test_what_is_neither_path_nor_bytes_is_refused(source: object) -> None:
    with pytest.raises(QueryError, match="path or the bytes"):
        read_media(source, field="image")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["text", "id", "where", "model"])
def test_what_should_be_text_and_is_not_is_refused(remote: RemoteArchive, name: str) -> None:
    given = {"text": "a heron", name: 7} if name != "id" else {"id": 7}
    with pytest.raises(QueryError, match=f"{name} must be text, not int"):
        remote.search(**given)
