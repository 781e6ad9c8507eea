"""What goes through the pipeline: items, the pieces they are decoded into, what came of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.audio import windows
from bittern.encoders.base import AudioWindowing, Media, Modality
from bittern.encoders.decoding import SHORTER_SIDE
from bittern.encoders.images import decode_image
from bittern.index.observation import Fingerprint
from bittern.types import AddResult, MediaItem, Observation


@dataclass(frozen=True, slots=True)
class Recheck:
    """An item that was coded before, and has to be compared with what it was then.

    Attributes:
        item: the photograph or recording.
        before: what its file was.
        moved: whether it was in another folder. Time and size tell nothing then: recorders give
            files of one length the same names, on cards that keep time to two seconds.
        changed: what to do if its content is another now: ``renew`` codes it again in the place
            of what is there, ``refuse`` fails it.
    """

    item: MediaItem
    before: Fingerprint
    moved: bool
    changed: Literal["renew", "refuse"]


Entry = MediaItem | AddResult
"""Something to be embedded, or what became of it already (skipped, or a bad manifest row)."""
Asked = MediaItem | AddResult | Recheck
"""The same, with items that may have changed since."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one observation is made of: a picture, or one window of a recording."""

    data: Media
    start_s: float | None = None
    end_s: float | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.data.nbytes if isinstance(self.data, np.ndarray) else len(self.data)


@dataclass
class Embedded:
    """One entry and what became of it.

    Attributes:
        item: the photograph or recording, without its bytes; None if the entry was a result
            already.
        pieces: start and end of each piece, in seconds; None for a photograph.
        embeddings: one float32 [dim] per piece.
        result: why there are no embeddings, if so.
        fingerprint: of the media file, where it was read.
        renews: whether it takes the place of what was coded before its file changed.
    """

    item: MediaItem | None
    pieces: list[tuple[float | None, float | None]] = field(default_factory=list)
    embeddings: list[NDArray[np.float32]] = field(default_factory=list)
    result: AddResult | None = None
    fingerprint: Fingerprint | None = None
    renews: bool = False

    def stacked(self) -> NDArray[np.float32]:
        """The embeddings as one array, float32 [pieces, dim]."""
        return np.stack(self.embeddings)

    def observations(self) -> list[Observation]:
        """One observation per piece; windows of a longer recording have ids of their own."""
        item = self.item
        if item is None or self.result is not None:
            return []
        return [
            Observation(
                id=item.occurrence_id if len(self.pieces) == 1 else fragment_id(item, start, end),
                occurrence_id=item.occurrence_id,
                modality=item.modality,
                media=item.media,
                media_root=item.media_root,
                start_s=start,
                end_s=end,
                metadata=item.metadata,
            )
            for start, end in self.pieces
        ]


def decode(
    item: MediaItem, windowing: AudioWindowing | None, source: bytes | Path | None = None
) -> Iterator[Piece]:
    """The pieces of one item, lazily.

    Args:
        item: a photograph or recording.
        windowing: how the encoder wants recordings cut.
        source: the file's bytes, or where it is; None for what the item says.

    Raises:
        MediaError: the item cannot be used.
    """
    source = _file(item) if source is None else source
    if item.modality == Modality.IMAGE:
        yield Piece(decode_image(source, name=item.media, min_side=SHORTER_SIDE))
        return
    assert windowing is not None
    for window in windows(source, windowing, name=item.media):
        yield Piece(window.samples, window.start_s, window.end_s)


def fragment_id(item: MediaItem, start_s: float | None, end_s: float | None) -> str:
    """Id of one window: the occurrence with a W3C media fragment, ``crow-1#t=0,3``."""
    return f"{item.occurrence_id}#t={_seconds(start_s)},{_seconds(end_s)}"


def _seconds(value: float | None) -> str:
    return f"{value or 0.0:.3f}".rstrip("0").rstrip(".")


def _file(item: MediaItem) -> bytes | Path:
    """Bytes or path of an item that `check_item` lets through."""
    if item.data is not None:
        return bytes(item.data)
    assert item.path is not None
    return Path(item.path)
