"""One item on its way: listed, read, decoded, embedded.

Pictures and short recordings are read at once, so the decoded bytes are the hashed ones. A long
recording is hashed in chunks and then decoded from its file: it never fills the memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128

from bittern.encoders.audio import windows
from bittern.encoders.base import SHORTER_SIDE, AudioWindowing, Media, Modality
from bittern.encoders.images import ImageLimits, decode_image
from bittern.encoders.recordings import AudioLimits
from bittern.errors import (
    DuplicateObservationError,
    MediaTooLargeError,
    SourceNotFoundError,
    UnreadableMediaError,
)
from bittern.index.observation import Fingerprint
from bittern.service.limits import check_item
from bittern.types import AddResult, AddStatus, MediaItem, Observation

WHOLE_BYTES = 32 << 20
"""Recordings up to this size are read at once."""
_CHUNK_BYTES = 1 << 20
UNCHANGED = "UNCHANGED"
"""Reason of a skip: the file has not changed since it was coded."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """An item that was coded before; its file may have changed since.

    Attributes:
        item: the photograph or recording.
        before: fingerprint of the file that was coded.
        moved: whether the folder has changed. Then equal time and size prove nothing: recorders
            write files of equal length under the same names.
        changed: what to do if the content differs: ``renew`` replaces the stored rows,
            ``refuse`` fails the item.
    """

    item: MediaItem
    before: Fingerprint
    moved: bool
    changed: Literal["renew", "refuse"]


PipelineEntry = MediaItem | AddResult | Recheck
"""An entry after the comparison with the stored items."""


def item_of(entry: PipelineEntry) -> MediaItem | None:
    """The photograph or recording of an entry; None for a result."""
    item = entry.item if isinstance(entry, Recheck) else entry
    return item if isinstance(item, MediaItem) else None


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
        from bittern.service.sources.remote import fetch_media

        source = fetch_media(item.url, fetch)
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
    error = DuplicateObservationError(
        f"a file named '{name}' is in the archive already, from {root}. If this is another file, "
        "as on a second memory card, index the folder above both, or a manifest that gives each "
        "an occurrenceID. If the file has moved, --on-duplicate overwrite replaces the stored one"
    )
    return AddResult.failure(name, error)


@dataclass(frozen=True, slots=True)
class Decoded:
    """The input of the network for one observation: a picture, or one window of a recording."""

    data: Media
    start_s: float | None = None
    end_s: float | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.data.nbytes if isinstance(self.data, np.ndarray) else len(self.data)


@dataclass
class Embedded:
    """One entry after the network.

    Attributes:
        item: the photograph or recording, without its bytes; None if the entry was a result.
        spans: start and end of each window, in seconds; (None, None) for a photograph.
        embeddings: one float32 [dim] per span.
        result: the final result, if there are no embeddings.
        fingerprint: of the media file, where it was read.
        renews: whether it replaces stored rows, since the file has changed.
    """

    item: MediaItem | None
    spans: list[tuple[float | None, float | None]] = field(default_factory=list)
    embeddings: list[NDArray[np.float32]] = field(default_factory=list)
    result: AddResult | None = None
    fingerprint: Fingerprint | None = None
    renews: bool = False

    def stacked(self) -> NDArray[np.float32]:
        """The embeddings as one array, float32 [spans, dim]."""
        return np.stack(self.embeddings)

    def observations(self) -> list[Observation]:
        """One observation per span; each window of a longer recording has its own id."""
        item = self.item
        if item is None or self.result is not None:
            return []
        return [
            Observation(
                id=item.occurrence_id if len(self.spans) == 1 else fragment_id(item, start, end),
                occurrence_id=item.occurrence_id,
                modality=item.modality,
                media=item.media,
                media_root=item.media_root,
                start_s=start,
                end_s=end,
                metadata=item.metadata,
            )
            for start, end in self.spans
        ]


def fragment_id(item: MediaItem, start_s: float | None, end_s: float | None) -> str:
    """Id of one window: the occurrence with a W3C media fragment, ``crow-1#t=0,3``."""
    return f"{item.occurrence_id}#t={_seconds(start_s)},{_seconds(end_s)}"


def _seconds(value: float | None) -> str:
    return f"{value or 0.0:.3f}".rstrip("0").rstrip(".")


def decode(
    item: MediaItem, windowing: AudioWindowing | None, source: bytes | Path | None = None
) -> Iterator[Decoded]:
    """Decode one item, lazily.

    Args:
        item: a photograph or recording.
        windowing: how recordings are cut for the encoder.
        source: the file's bytes, or its path; None for the item's own data or path.

    Raises:
        MediaError: the item cannot be used.
    """
    if source is None:
        assert item.data is not None or item.path is not None  # `check_item` requires one
        source = bytes(item.data) if item.data is not None else Path(item.path or "")
    if item.modality == Modality.IMAGE:
        yield Decoded(decode_image(source, name=item.media, min_side=SHORTER_SIDE))
        return
    assert windowing is not None
    for window in windows(source, windowing, name=item.media):
        yield Decoded(window.samples, window.start_s, window.end_s)
