"""The members of a tar file, read from a stream, one after the other and within limits.

`tarfile` keeps a description of every member, takes headers of whatever size into memory, and ends
quietly where a file is damaged in the middle; shards of millions of members from somewhere else
need the opposite. Headers are parsed by its `TarInfo.frombuf`. Nothing is extracted, and links are
never followed. The format: POSIX.1-1988 ustar, POSIX.1-2001 pax, and GNU's long names.
"""

from __future__ import annotations

import bz2
import gzip
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple, cast

from bittern.errors import ManifestError

MAX_NAME_CHARS = 1_024
MAX_HEADER_BYTES = 1 << 20
"""Longest extended header, which holds a long name."""
_BLOCK = 512
_CHUNK_BYTES = 1 << 20
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError)


class Member(NamedTuple):
    """One member of a tar file.

    Attributes:
        name: its path in the file, as it stands there.
        size: bytes.
        is_file: whether it is a plain file: no folder, link or device.
        body: the rest of its bytes; what is not read before the next member is skipped.
    """

    name: str
    size: int
    is_file: bool
    body: Body


class Body:
    """The bytes of a member that are not read yet."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size
        self._padding = -size % _BLOCK

    def chunks(self) -> Iterator[bytes]:
        """The bytes, in pieces.

        Raises:
            ManifestError: the file ends within them.
        """
        while self._left:
            chunk = _read(self._stream, min(self._left, _CHUNK_BYTES))
            self._left -= len(chunk)
            yield chunk

    def skip(self) -> None:
        """Go to where the next header begins."""
        for _ in self.chunks():
            pass
        if self._padding:
            _read(self._stream, self._padding)
            self._padding = 0


def members(stream: IO[bytes]) -> Iterator[Member]:
    """The members of a tar file, also of one packed with gzip or bzip2.

    Raises:
        ManifestError: it is no tar file, damaged, or ends too early; members before that are good.
    """
    stream = _unpacked(stream)
    named: dict[str, str] = {}
    count = 0
    while True:
        block = _read(stream, _BLOCK, may_end=count == 0)
        if not block.strip(b"\0"):
            return
        info = _header(block, count)
        count += 1
        body = Body(stream, info.size if _has_body(info) else 0)
        if info.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            named.update(_pax(_extension(body, info.size)))
        elif info.type == tarfile.XGLTYPE:
            _extension(body, info.size)
        elif info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            longer = _extension(body, info.size).rstrip(b"\0").decode("utf-8", "replace")
            if info.type == tarfile.GNUTYPE_LONGNAME:
                named["path"] = longer
        else:
            size = named.get("size", "")
            if size.isascii() and size.isdigit() and len(size) < 16 and _has_body(info):
                info.size = int(size)
                body = Body(stream, info.size)
            sparse = any(key.startswith("GNU.sparse") for key in named)
            yield Member(named.get("path", info.name), info.size, info.isreg() and not sparse, body)
            named = {}
        body.skip()


def _unpacked(stream: IO[bytes]) -> IO[bytes]:
    head = _fill(stream, _BLOCK)
    whole = cast(IO[bytes], _Joined(head, stream))
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=whole))
    return cast(IO[bytes], bz2.BZ2File(whole)) if head.startswith(b"BZh") else whole


class _Joined:
    """A stream of which the beginning was read already."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1) -> bytes:
        if self._head:
            size = len(self._head) if size < 0 else size
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._stream.read(size)

    def seekable(self) -> bool:
        return False

    def readable(self) -> bool:
        return True

    @property
    def closed(self) -> bool:
        return False


def _fill(stream: IO[bytes], size: int) -> bytes:
    """As many bytes, or what there is."""
    data = b""
    while len(data) < size:
        try:
            more = stream.read(size - len(data))
        except _UNREADABLE as error:
            raise ManifestError(f"it is damaged, or broken off: {error}") from error
        if not more:
            break
        data += more
    return data


def _read(stream: IO[bytes], size: int, *, may_end: bool = False) -> bytes:
    data = _fill(stream, size)
    if len(data) < size:
        what = "it is no tar file" if may_end else "it ends too early: fetch or write it again"
        raise ManifestError(what)
    return data


def _header(block: bytes, count: int) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        what = f"it is damaged behind member {count}" if count else "it is no tar file"
        raise ManifestError(f"{what}: {error}") from error
    if info.size < 0:
        raise ManifestError(f"it is damaged: a member of {info.size} bytes")
    return info


def _has_body(info: tarfile.TarInfo) -> bool:
    without = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE)
    return info.type not in (*without, tarfile.DIRTYPE, tarfile.FIFOTYPE)


def _extension(body: Body, size: int) -> bytes:
    if size > MAX_HEADER_BYTES:
        raise ManifestError(f"a header of {size:,} bytes; the limit is {MAX_HEADER_BYTES:,}")
    return b"".join(body.chunks())


def _pax(data: bytes) -> dict[str, str]:
    """The values of a pax header: ``14 path=a.jpg`` and a line feed, for each of them."""
    values: dict[str, str] = {}
    while data:
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or not len(length) + 1 < int(length) <= len(data):
            raise ManifestError("it is damaged: a pax header that cannot be read")
        key, _, value = data[len(space) + len(length) : int(length) - 1].partition(b"=")
        values[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        data = data[int(length) :]
    return values
