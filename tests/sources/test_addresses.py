from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest

from bittern.errors import (
    InvalidInputError,
    ManifestError,
    MediaTooLargeError,
    SourceNotFoundError,
    SourceUnreachableError,
)
from bittern.service.grpc.messages import item_from_wire, modality_to_wire
from bittern.service.sources import SourceOptions, read_source, remote
from bittern.service.sources.addresses import check_prefixes, may_fetch
from bittern.types import AddResult, MediaItem
from bittern.v1 import archive_service_pb2 as pb


class _Pages(http.server.BaseHTTPRequestHandler):
    """Answers by path; counts how often each was requested."""

    requested: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.requested.append(self.path)
        body = b"jpeg" * 10
        status, headers, length = 200, {}, None
        if self.path == "/p/moved.jpg":
            status, headers = 302, {"Location": "/secret/1.jpg"}
        elif self.path in ("/p/flaky.jpg", "/p/down.jpg"):
            status = 200 if "flaky" in self.path and len(self.requested) == 3 else 503
        elif self.path == "/p/cut.jpg":
            length = 1_000
        elif self.path.endswith("gone.jpg"):
            status = 404
        elif self.path == "/p/":
            body = b'<a href="a.jpg">a</a> <a href="/secret/x.jpg">x</a> <a href="../b.jpg">b</a>'
            headers = {"Content-Type": "text/html"}
        elif self.path == "/p/m.csv":
            body = b"media,n\na.jpg,1\n../secret/x.jpg,2\n/etc/x.jpg,3\n"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(remote, "_wait", lambda seconds: None)
    _Pages.requested = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.pipe(
        {
            "/birds/Strix aluco/1.jpg": b"one",
            "/birds/Bubo bubo/2.wav": b"two",
            "/birds/notes.txt": b"",
            "/birds/m.csv": b"media,n\nStrix aluco/1.jpg,1\n",
        }
    )
    yield system
    system.rm("/birds", recursive=True)


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("https://h.org/p/1.jpg", True),
        ("https://H.org:443/p/a/1.jpg?size=large", True),
        ("https://h.org/p", True),
        ("https://h.org/p-private/1.jpg", False),
        ("https://h.org/p/../1.jpg", False),
        ("https://h.org/p/%2e%2e/1.jpg", False),
        ("https://h.org/p/a%2f..%2f1.jpg", False),
        ("https://h.org/p\\..\\1.jpg", False),
        ("http://h.org/p/1.jpg", False),
        ("https://h.org:8443/p/1.jpg", False),
        ("https://h.org.evil.org/p/1.jpg", False),
        ("https://h.org@evil.org/p/1.jpg", False),
        ("https://u:w@h.org/p/1.jpg", False),
        ("https://h.org/p/1.jpg\n", False),
        ("s3://bucket/a/1.jpg", True),
        ("s3://bucket-2/a/1.jpg", False),
        ("s3://bucket/a::file:///etc/passwd", False),
        ("file:///etc/passwd", False),
        ("/etc/passwd", False),
    ],
)
def test_only_what_continues_an_allowed_beginning_is_fetched(address: str, may: bool) -> None:
    assert may_fetch(address, ["https://h.org/p/", "s3://bucket"]) is may
    assert not may_fetch(address, [])


@pytest.mark.parametrize("prefix", ["", "h.org", "https://", "file:///", "https://h.org/?a=", "*"])
def test_a_beginning_that_allows_nothing_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidInputError, match="beginning"):
        check_prefixes([prefix])


def test_media_are_fetched_again_when_that_may_help(host: str) -> None:
    assert remote.fetch_media(f"{host}/p/flaky.jpg", (host,)) == b"jpeg" * 10
    assert _Pages.requested == ["/p/flaky.jpg"] * 3


@pytest.mark.parametrize(
    ("name", "error", "times", "words"),
    [
        ("down.jpg", SourceUnreachableError, 3, "503"),
        ("cut.jpg", SourceUnreachableError, 3, "stopped after 40 of 1,000"),
        ("gone.jpg", SourceNotFoundError, 1, "nothing at"),
        ("moved.jpg", SourceUnreachableError, 1, "/secret/1.jpg"),
    ],
)
def test_a_failed_download_names_its_cause(
    host: str, name: str, error: type[Exception], times: int, words: str
) -> None:
    with pytest.raises(error, match=words):
        remote.fetch_media(f"{host}/p/{name}", (f"{host}/p/",))
    assert _Pages.requested == [f"/p/{name}"] * times


def test_an_address_that_is_not_allowed_is_not_fetched(host: str) -> None:
    for allowed in ((), (f"{host}/q/",), ("https://elsewhere.org/",)):
        with pytest.raises(SourceUnreachableError, match="may not be fetched"):
            remote.fetch_media(f"{host}/p/a.jpg", allowed)
    with pytest.raises(SourceUnreachableError, match="may not be fetched"):
        remote.fetch_media(f"{host}/p/a.jpg")
    assert _Pages.requested == []


def test_a_redirect_to_an_allowed_address_is_followed(host: str) -> None:
    assert remote.fetch_media(f"{host}/p/moved.jpg", (f"{host}/",)) == b"jpeg" * 10


def test_media_have_a_limit(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "IN_MEMORY_BYTES", 10)
    monkeypatch.setattr(remote, "_CHUNK_BYTES", 20)
    monkeypatch.setattr(remote, "MAX_MEDIA_BYTES", 39)
    with pytest.raises(MediaTooLargeError, match="more than 39 bytes"):
        remote.fetch_media(f"{host}/p/a.jpg", (host,))


def test_a_web_page_lists_what_lies_below_it_only(host: str) -> None:
    [item] = read_source(f"{host}/p")
    assert isinstance(item, MediaItem)
    assert (item.media, item.url) == ("a.jpg", f"{host}/p/a.jpg")


def test_a_manifest_at_an_address_names_media_below_it_only(host: str) -> None:
    good, climbing, absolute = read_source(f"{host}/p/m.csv")
    assert isinstance(good, MediaItem)
    assert good.url == f"{host}/p/a.jpg"
    for entry in (climbing, absolute):
        assert isinstance(entry, AddResult)
        assert "not a path below" in entry.message


def test_folders_and_manifests_of_other_systems_are_read(memory: Any) -> None:
    birds = read_source("memory://birds")
    sound, picture = birds
    assert birds.fetch == ("memory://birds",)
    assert isinstance(sound, MediaItem)
    assert isinstance(picture, MediaItem)
    assert sound.media == "Bubo bubo/2.wav"
    assert sound.metadata["species"] == "Bubo bubo"
    assert remote.fetch_media(str(picture.url), birds.fetch) == b"one"
    manifest = read_source("memory://birds/m.csv")
    [row] = manifest
    assert isinstance(row, MediaItem)
    assert remote.fetch_media(str(row.url), manifest.fetch) == b"one"


def test_shards_of_other_systems_are_read(memory: Any, tmp_path: Path) -> None:
    import io
    import tarfile

    with memory.open("/birds/s-0.tar", "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("7.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    for name in ("s-0.tar", "s-{0..0}.tar", "s-*.tar"):
        [item] = read_source(f"memory://birds/{name}")
        assert isinstance(item, MediaItem)
        assert (item.occurrence_id, item.data) == ("7", b"abc")


def test_an_address_that_cannot_be_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="nosuch://"):
        read_source("nosuch://bucket/a")
    with pytest.raises(ManifestError, match="password"):
        read_source("https://me:secret@h.org/a/")
    with pytest.raises(ManifestError, match="copy it"):
        read_source("https://h.org/a.zip", SourceOptions(format="darwin-core"))
    with pytest.raises(SourceNotFoundError):
        read_source("memory://nothing/here")
    (tmp_path / "a.jpg").touch()
    assert len(read_source(f"file://{tmp_path}").listed) == 1


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(address: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(InvalidInputError, match="pip install s3fs"):
        read_source("s3://bucket/birds")


def test_no_address_comes_over_the_wire() -> None:
    assert "url" not in pb.MediaItem.DESCRIPTOR.fields_by_name
    assert "path" not in pb.MediaItem.DESCRIPTOR.fields_by_name
    message = pb.MediaItem(
        occurrence_id="https://h.org/1.jpg",
        media="https://h.org/1.jpg",
        modality=modality_to_wire("image"),
        data=b"x",
    )
    item = item_from_wire(message)
    assert (item.url, item.path, item.media_root) == (None, None, "")
