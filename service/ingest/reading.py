"""The read stage: files, bytes and addresses in, content and fingerprint out.

Pictures and short recordings are read at once, so the decoded bytes are the hashed ones. A long
recording is hashed in chunks and then decoded from its file: it never fills the memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from xxhash import xxh3_128

from bittern.encoders.images import ImageLimits
from bittern.encoders.recordings import AudioLimits
from bittern.errors import (
    DuplicateObservationError,
    MediaTooLargeError,
    SourceNotFoundError,
    UnreadableMediaError,
)
from bittern.index.observation import Fingerprint
from bittern.service.ingest.items import Recheck
from bittern.service.limits import check_item
from bittern.types import AddResult, AddStatus, MediaItem

WHOLE_BYTES = 32 << 20
"""Recordings up to this size are read at once."""
_CHUNK_BYTES = 1 << 20
UNCHANGED = "UNCHANGED"
"""Reason of a skip: the file has not changed since it was coded."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An item that has been read.

    Attributes:
        item: without its bytes.
        source: the bytes, or the path of the file.
        fingerprint: of the file.
        renews: whether its content differs from the stored one.
        result: its result, if there is nothing to decode.
    """

    item: MediaItem
    source: bytes | Path
    fingerprint: Fingerprint | None
    renews: bool = False
    result: AddResult | None = None

    @property
    def held_bytes(self) -> int:
        """Bytes in memory."""
        return len(self.source) if isinstance(self.source, bytes) else 0


def read(entry: MediaItem | Recheck, fetch: tuple[str, ...] = ()) -> Loaded:
    """Read an item.

    Args:
        entry: the item.
        fetch: address prefixes that may be fetched.

    Raises:
        InvalidInputError: no path, data or address that may be fetched.
        MediaError: it cannot be read, or is too large.
        SourceNotFoundError: there is no such file.
        SourceUnreachableError: its address may not be fetched, or does not answer.
    """
    if isinstance(entry, MediaItem):
        check_item(entry, fetched=bool(fetch))
        return _load(entry, fetch)
    check_item(entry.item, fetched=bool(fetch))
    if not entry.moved and _same_times(entry):
        return _unchanged(entry)
    loaded = _load(entry.item, fetch)
    now = loaded.fingerprint
    if now is not None and now.content == entry.before.content:
        return _unchanged(entry)
    if entry.changed == "refuse":
        return Loaded(loaded.item, b"", now, result=another_file(entry.item))
    return replace(loaded, renews=True)


def _load(item: MediaItem, fetch: tuple[str, ...]) -> Loaded:
    if item.data is not None:
        data = bytes(item.data)
        return Loaded(replace(item, data=None), data, fingerprint_of(data))
    if item.path is None and item.url is not None:
        from bittern.service.sources.remote import open_media

        source = open_media(item, fetch)
        if isinstance(source, bytes):
            return Loaded(item, source, fingerprint_of(source))
        loaded = _load_file(item, source)  # a temporary file: its time means nothing
        assert loaded.fingerprint is not None
        return replace(loaded, fingerprint=replace(loaded.fingerprint, modified_ns=None))
    assert item.path is not None
    return _load_file(item, Path(item.path))


def _load_file(item: MediaItem, path: Path) -> Loaded:
    name = item.media
    if not path.exists():
        raise SourceNotFoundError(f"{name}: there is no file {path}", field="source")
    if not path.is_file():
        raise UnreadableMediaError(f"{name}: {path} is not a regular file")
    try:
        with path.open("rb") as stream:
            stat = path.stat()
            if stat.st_size > _limit(item):
                raise MediaTooLargeError(
                    f"{name}: {stat.st_size} bytes, the limit for {_KINDS[item.modality]} is "
                    f"{_limit(item)}",
                    details={"bytes": str(stat.st_size), "limit": str(_limit(item))},
                )
            if item.modality == "image" or stat.st_size <= WHOLE_BYTES:
                data = stream.read(stat.st_size + 1)
                return Loaded(item, data, fingerprint_of(data, stat.st_mtime_ns))
            digest, size = xxh3_128(), 0
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
            return Loaded(item, path, Fingerprint(digest.hexdigest(), size, stat.st_mtime_ns))
    except OSError as error:
        raise UnreadableMediaError(f"{name}: {path} cannot be read: {error}") from error


_KINDS = {"image": "a picture", "audio": "a recording"}


def _limit(item: MediaItem) -> int:
    return ImageLimits().max_bytes if item.modality == "image" else AudioLimits().max_bytes


def fingerprint_of(data: bytes, modified_ns: int | None = None) -> Fingerprint:
    """Fingerprint of a file in memory."""
    return Fingerprint(xxh3_128(data).hexdigest(), len(data), modified_ns)


def _same_times(entry: Recheck) -> bool:
    """Whether size and time of the file are as before; does not read it."""
    path, before = entry.item.path, entry.before
    if path is None or before.modified_ns is None:
        return False
    try:
        stat = Path(path).stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (before.size, before.modified_ns)


def _unchanged(entry: Recheck) -> Loaded:
    name = entry.item.occurrence_id
    message = f"'{name}' is in the archive already, and has not changed"
    result = AddResult(name, AddStatus.SKIPPED, reason=UNCHANGED, message=message)
    return Loaded(replace(entry.item, data=None), b"", entry.before, result=result)


def another_file(item: MediaItem, root: str = "another folder") -> AddResult:
    """A failure: another file of this name is in the archive.

    An item without an `occurrenceID` is identified by its path below the indexed folder. The same
    path below another folder may be another file, so it must not be skipped silently.
    """
    name = item.occurrence_id
    return AddResult(
        name,
        AddStatus.FAILED,
        reason=DuplicateObservationError("").reason,
        message=(
            f"a file named '{name}' is in the archive already, from {root}. If this is another "
            "file, as on a second memory card, index the folder above both, or a manifest that "
            "gives each an occurrenceID. If the file has moved, --on-duplicate overwrite replaces "
            "the stored one"
        ),
    )
