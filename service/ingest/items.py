"""What goes through the pipeline: listed entries, decoded media, embedded items."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.audio import windows
from bittern.encoders.base import SHORTER_SIDE, AudioWindowing, Media, Modality
from bittern.encoders.images import decode_image
from bittern.index.observation import Fingerprint
from bittern.types import AddResult, MediaItem, Observation


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
