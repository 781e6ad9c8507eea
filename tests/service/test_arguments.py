"""Arguments of the Python API: files are read, mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

import bittern.api
from bittern.api import read_media
from bittern.client import RemoteArchive
from bittern.errors import (
    MediaTooLargeError,
    QueryError,
    SourceNotFoundError,
    UnreadableMediaError,
)
from tests.service.fake_archive import FakeArchive


def test_a_path_and_its_bytes_ask_the_same(
    remote: RemoteArchive, engine: FakeArchive, tmp_path: Path
) -> None:
    file = tmp_path / "heron.jpg"
    file.write_bytes(b"picture")
    for image in (file, str(file), b"picture", bytearray(b"picture"), memoryview(b"picture")):
        remote.search(image=image)  # type: ignore[arg-type]
    assert [query.image for query in engine.seen] == [b"picture"] * 5


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no\.jpg: there is no such file") as caught:
        read_media(tmp_path / "no.jpg", "image")
    assert caught.value.field == "image"


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
        read_media(source, "image")  # type: ignore[arg-type]
