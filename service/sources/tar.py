"""Tar shards in the layout of webdataset: members of one key follow one another.

``000123.jpg``, ``000123.json`` and ``000123.txt`` are a photograph, its metadata and its caption. A
member's key is its path up to the first dot of its file name. Shards are read as streams; only
recordings that are too large for memory are written to disk. Links are never followed.
https://github.com/webdataset/webdataset describes the layout.

`tarfile` reads the format. Shards are not trusted: `_Bounded` limits the headers of a member, and
`_MemberInfo` raises where `tarfile` would mistake damage for the end of the file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import math
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice, product
from pathlib import Path
from typing import IO, Any, Self, cast

from bittern.errors import BitternError, ManifestError, MediaTooLargeError, SourceNotFoundError
from bittern.index.columns import Value
from bittern.service.sources.base import (
    Listed,
    SourceOptions,
    another_medium,
    failed,
    id_of_name,
    modality_of_suffix,
)
from bittern.service.sources.globs import matcher
from bittern.service.sources.headings import column_names
from bittern.service.sources.remote import MAX_MEDIA_BYTES, open_address, spool, system_of
from bittern.service.sources.spill import Spill
from bittern.types import MediaItem

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2")
MAX_SHARDS = 100_000
MAX_MEMBERS = 10_000_000
"""Most members of a shard."""
MAX_GROUP = 64
"""Most members of one key."""
MAX_SIDECAR_BYTES = 1 << 20
MAX_NAME_CHARS = 1_024
MAX_HEADER_BYTES = 16 << 10
"""Longest header of a member, with a long name. Python before 3.11.10 needs quadratic time."""
MAX_HEADERS_BYTES = 64 << 10
"""Most bytes of all headers of a member."""
_BUFFER_BYTES = 10_240
_CHUNK_BYTES = 1 << 20
_EXTENSIONS = frozenset(
    {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}
    | {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
)
_UNREADABLE = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError)
_MAGIC = re.compile(r"[*?\[{]")
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_TEXTS = {".txt": "caption", ".cls": "label"}


def is_shards(path: Path) -> bool:
    """Whether a path names tar files: one, several (``s-{000..012}.tar``), or a folder of them."""
    if path.is_dir():
        names = [each.name for each in islice(path.iterdir(), 1_000)]
        return any(map(is_tar, names)) and not any(modality_of_suffix(n) for n in names)
    return is_tar(path.name)


def shard_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The photographs and recordings of tar shards, with their bytes.

    The id is the key, or the `occurrenceID` of the JSON member; further media of one key add their
    names. Flat values of the JSON member become metadata, lists and objects are left out;
    ``.txt`` becomes `caption` and ``.cls`` `label`. Other members are skipped.

    Raises:
        SourceNotFoundError: no such shard.
    """
    return _entries(_shards(path), options)


def remote_shard_entries(address: str, options: SourceOptions) -> Iterator[Listed]:
    """As `shard_entries`, for shards at an address."""
    names: list[str] = []
    for each in expanded(address):
        if not re.search(r"[*?\[]", each.partition("://")[2]) or each.startswith("http"):
            names.append(each)
            continue
        system, below = system_of(each)
        names += sorted(system.unstrip_protocol(found) for found in system.glob(below))
    if not names:
        raise SourceNotFoundError(f"there are no tar shards at {address}", field="source")
    return _entries(names, options)


def _entries(shards: list[Path] | list[str], options: SourceOptions) -> Iterator[Listed]:
    """The media of local or remote shards, in their order."""
    include, exclude = matcher(options.include, "include"), matcher(options.exclude, "exclude")
    with Spill() as seen:
        for shard in shards:
            name = shard.name if isinstance(shard, Path) else shard.rpartition("/")[2]
            for listed in _shard(shard, name):
                entry = listed.entry
                if not isinstance(entry, MediaItem):
                    yield listed
                    continue
                if (include and not include(entry.media)) or (exclude and exclude(entry.media)):
                    continue
                if not seen.add_first("media", f"{entry.occurrence_id}\0{entry.media}"):
                    what = f"'{entry.occurrence_id}' with '{entry.media}' is in the shards twice"
                    yield failed(entry.occurrence_id, listed.position, ManifestError(what))
                    continue
                if not seen.add_first("ids", entry.occurrence_id):
                    entry = another_medium(entry)
                    entry = replace(entry, occurrence_id=id_of_name(entry.occurrence_id))
                yield listed._replace(entry=entry)


def expanded(pattern: str) -> list[str]:
    """Braces as lists of names: ``s-{000..012}.tar``, ``{train,val}.tar``.

    Raises:
        ManifestError: more than `MAX_SHARDS` names.
    """
    choices_of: list[list[str]] = []
    at, count = 0, 1
    for match in _BRACES.finditer(pattern):
        choices = (match[3] or "").split(",")
        if match[1]:
            low, high, width = int(match[1]), int(match[2]), len(match[1])
            choices = [f"{n:0{width}d}" for n in range(low, min(high, low + MAX_SHARDS) + 1)]
        choices_of += [[pattern[at : match.start()]], choices]
        at, count = match.end(), count * max(1, len(choices))
        if count > MAX_SHARDS:
            raise ManifestError(f"'{pattern}' names more than {MAX_SHARDS:,} shards")
    return ["".join(chosen) for chosen in product(*choices_of, [pattern[at:]])]


def is_tar(name: str) -> bool:
    """Whether a name ends like that of a tar file."""
    return name.lower().endswith(TAR_SUFFIXES)


def _shards(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(each for each in path.iterdir() if is_tar(each.name))
    elif path.exists() or not _MAGIC.search(str(path)):
        found = [path]
    else:
        found = []
        for each in map(Path, expanded(str(path))):
            magic = _MAGIC.search(each.name) and not each.exists()
            found += sorted(each.parent.glob(each.name)) if magic else [each]
    if not any(each.is_file() for each in found):
        raise SourceNotFoundError(f"there are no tar shards at {path}", field="source")
    return found


def _shard(shard: Path | str, name: str) -> Iterator[Listed]:
    try:
        opened = open_address(shard) if isinstance(shard, str) else shard.open("rb")
    except OSError as error:
        yield failed(name, "", SourceNotFoundError(f"{name} cannot be opened: {error.strerror}"))
        return
    except BitternError as error:
        yield failed(name, "", error)
        return
    with closing(opened):
        yield from _groups(opened, name, str(shard))


def _groups(stream: IO[bytes], name: str, root: str) -> Iterator[Listed]:
    group: _Group | None = None
    try:
        tar = TarStream(stream)
        for count, member in enumerate(tar):
            if count >= MAX_MEMBERS:
                raise ManifestError(f"more than {MAX_MEMBERS:,} members; the rest is skipped")
            if not member.isreg() or member.issparse():
                continue
            key, suffix = _key(member.name)
            if group is None or group.key != key:
                if group is not None:
                    yield from group.entries()
                group = _Group(key, name, root)
            group.take(tar, member, suffix)
    except BitternError as error:
        # The current group may lack members; the groups before are complete.
        yield failed(name, name, error)
        return
    if group is not None:
        yield from group.entries()


class TarStream:
    """The members of a tar file, plain or packed with gzip or bzip2, in their order.

    Its methods raise a `ManifestError` if it is not a tar file, is damaged or ends too early;
    members before that are complete.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._count = 0
        with self._errors():
            self._bounded = _Bounded(_unpacked(stream))
            self._tar = tarfile.open(  # noqa: SIM115  # the stream is closed by who opened it
                fileobj=cast(IO[bytes], self._bounded),
                mode="r|",
                bufsize=_BUFFER_BYTES,
                tarinfo=_MemberInfo,
                encoding="utf-8",
            )

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        while (member := self._next()) is not None:
            yield member

    def chunks(self, member: tarfile.TarInfo) -> Iterator[bytes]:
        """The bytes of the member that was iterated last."""
        with self._errors():
            body = cast(IO[bytes], self._tar.extractfile(member))
            while chunk := body.read(_CHUNK_BYTES):
                yield chunk

    def _next(self) -> tarfile.TarInfo | None:
        with self._errors():
            member = self._tar.next()
            if member is not None and member.size < 0:
                raise tarfile.ReadError(f"a member of {member.size} bytes")
        self._tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
        self._tar.pax_headers = {}
        if member is not None:
            self._count += 1
            self._bounded.allow(member.size)
        return member

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except _EndsTooEarlyError as error:
            what = "it ends too early: download or write it again"
            raise ManifestError(what if self._count else "it is not a tar file") from error
        except _UNREADABLE as error:
            what = f"it is damaged after member {self._count}"
            what = what if self._count else "it is not a tar file"
            raise ManifestError(f"{what}: {str(error)[:200]}") from error


class _EndsTooEarlyError(Exception):
    """The stream ended before the final block of zeros."""


class _Bounded:
    """A stream that refuses to read more bytes than a member and its headers can have."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._left = 0
        self.allow(0)

    def allow(self, size: int) -> None:
        """Allow reading a member of this size, and the headers of the next one."""
        self._left = size + MAX_HEADERS_BYTES + 2 * _BUFFER_BYTES

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise ManifestError(f"a member has headers of more than {MAX_HEADERS_BYTES:,} bytes")
        data = self._stream.read(size)
        if not data:
            raise _EndsTooEarlyError
        return data


class _MemberInfo(tarfile.TarInfo):
    """A member; an invalid header is an error, not the end of the file."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENSIONS and info.size > MAX_HEADER_BYTES:
            raise ManifestError(
                f"a header of {info.size:,} bytes; the limit is {MAX_HEADER_BYTES:,}"
            )
        return info

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def _unpacked(stream: IO[bytes]) -> IO[bytes]:
    whole = io.BufferedReader(cast(io.RawIOBase, stream), _CHUNK_BYTES)
    head = whole.peek(3)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=whole))
    return bz2.BZ2File(whole) if head.startswith(b"BZh") else whole


def _key(name: str) -> tuple[str, str]:
    """Key and suffixes of a member: ``a/1.seg.PNG`` is ``a/1`` and ``.seg.png``."""
    folder, slash, file = name.removeprefix("./").rpartition("/")
    stem, dot, rest = file.partition(".")
    return folder + slash + stem, (dot + rest).lower()


@dataclass
class _Group:
    """The members of one key."""

    key: str
    shard: str
    root: str
    media: list[MediaItem] = field(default_factory=list)
    metadata: dict[str, Value] = field(default_factory=dict)
    problems: list[tuple[str, BitternError]] = field(default_factory=list)
    sidecar_problem: BitternError | None = None
    members: int = 0

    def take(self, tar: TarStream, member: tarfile.TarInfo, suffix: str) -> None:
        """Read a member that is a medium or describes one."""
        name = member.name.removeprefix("./")
        modality = modality_of_suffix(name)
        self.members += 1
        describes = suffix in _TEXTS or suffix.endswith(".json")
        if name.rpartition("/")[2].startswith(".") or (modality is None and not describes):
            return
        try:
            _check(member, name, self.members, modality is not None)
        except BitternError as error:
            self._note(name, error, modality)
            return
        data = spool(tar.chunks(member), name)
        if modality is not None:
            data_or_path = {"data": data} if isinstance(data, bytes) else {"path": data}
            item = MediaItem(self.key, name, modality, media_root=self.root, **data_or_path)
            self.media.append(item)
            return
        try:
            assert isinstance(data, bytes)
            self.metadata.update(_sidecar(data, suffix, name))
        except ManifestError as error:
            self._note(name, error, modality)

    def _note(self, name: str, error: BitternError, modality: str | None) -> None:
        if modality is None:
            self.sidecar_problem = error
        else:
            self.problems.append((name, error))

    def entries(self) -> Iterator[Listed]:
        """Media of the key with their metadata, and its errors."""
        position = f"{self.shard}, {self.key[:MAX_NAME_CHARS]}"
        for name, error in self.problems:
            yield failed(name[:MAX_NAME_CHARS], position, error)
        for item in self.media:
            if self.sidecar_problem is not None:
                yield failed(item.media, position, self.sidecar_problem)
                continue
            metadata = {k: v for k, v in self.metadata.items() if k != "media"}
            own = str(metadata.pop("occurrenceID", "")) or id_of_name(self.key)
            yield Listed(replace(item, occurrence_id=own, metadata=metadata), position)


def _check(member: tarfile.TarInfo, name: str, count: int, is_medium: bool) -> None:
    if len(name) > MAX_NAME_CHARS or not name.isprintable():
        raise ManifestError(
            f"the name of a member is limited to {MAX_NAME_CHARS} printable characters"
        )
    if name.startswith("/") or ".." in name.split("/"):
        raise ManifestError(f"'{name}' leads out of its shard")
    if count > MAX_GROUP:
        raise ManifestError(f"more than {MAX_GROUP} members share the key of '{name}'")
    limit = MAX_MEDIA_BYTES if is_medium else MAX_SIDECAR_BYTES
    if member.size > limit:
        raise MediaTooLargeError(f"'{name}' has {member.size:,} bytes, the limit is {limit:,}")


def _sidecar(data: bytes, suffix: str, name: str) -> dict[str, Value]:
    """The metadata in a JSON or text member."""
    try:
        text = data.decode("utf-8-sig")
        if suffix in _TEXTS:
            return {_TEXTS[suffix]: text.strip()} if text.strip() else {}
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"'{name}' cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ManifestError(f"'{name}' is not a JSON object")
    flat = {k: v for k, v in value.items() if isinstance(v, str | int | float) and v != ""}
    flat = {k: v for k, v in flat.items() if not isinstance(v, float) or math.isfinite(v)}
    return dict(zip(_names(tuple(flat)), flat.values(), strict=True))


@lru_cache(maxsize=256)
def _names(headings: tuple[str, ...]) -> list[str]:
    return column_names(headings, {})
