"""Media in, embedded observations out: decode ahead, cut batches, run the network.

Decoding runs a few items ahead in its own threads while the network works on the batch
before. Items keep their order and batches are cut the same way each time, so that the same
source gives the same rows and, as far as floats allow, the same codes. Long recordings are
streamed window by window; no more than a few decoded items are in memory at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bittern.errors import BitternError, InvalidInputError
from encoders.audio import probe, windows
from encoders.base import AudioWindowing, Media, Modality
from encoders.decoding import SHORTER_SIDE
from encoders.images import decode_image
from index.observation import AddResult, AddStatus, Observation
from service.limits import check_item
from service.models import Embedder
from service.requests import MediaItem

NETWORK_BATCH = 16
"""Pieces per call of a network."""
FLUSH_ITEMS = 64
"""After so many items, batches run even where they are not full."""
DECODE_AHEAD = 8
"""Items decoded before the network asks for them."""
DECODE_THREADS = 2
STREAM_AFTER_S = 120.0
"""Recordings longer than this are decoded while the network works, not ahead of it."""

Entry = MediaItem | AddResult
"""Something to be embedded, or what became of it already (skipped, or a bad manifest row)."""


@dataclass(frozen=True)
class Piece:
    """What one observation is made of: a picture, or one window of a recording."""

    data: Media
    start_s: float | None = None
    end_s: float | None = None


@dataclass
class Embedded:
    """One entry and what became of it.

    Attributes:
        item: the photograph or recording; None if the entry was a result already.
        pieces: start and end of each piece, in seconds; None for a photograph.
        embeddings: one float32 [dim] per piece.
        result: why there are no embeddings, if so.
    """

    item: MediaItem | None
    pieces: list[tuple[float | None, float | None]] = field(default_factory=list)
    embeddings: list[NDArray[np.float32]] = field(default_factory=list)
    result: AddResult | None = None

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


@dataclass
class StageTimes:
    """Where the time went, in seconds: waiting for a decoded item, network, hash, commit."""

    decode_wait_s: float = 0.0
    network_s: float = 0.0
    hash_s: float = 0.0
    commit_s: float = 0.0
    pieces: int = 0


def embed_items(
    embedder: Embedder, entries: Iterable[Entry], times: StageTimes | None = None
) -> Iterator[Embedded]:
    """Embed every entry, in order; an item that cannot be used carries the reason.

    Args:
        embedder: the network.
        entries: photographs, recordings, and results that pass through.
        times: filled in as work goes on.
    """
    batches = _Batches(embedder, times or StageTimes())
    for count, (entry, pieces) in enumerate(_decoded_ahead(embedder, entries, batches.times), 1):
        batches.take(entry, pieces)
        if count % FLUSH_ITEMS == 0:
            batches.flush()
        yield from batches.done()
    batches.flush()
    yield from batches.done()


def decode(item: MediaItem, windowing: AudioWindowing | None) -> Iterator[Piece]:
    """The pieces of one item, lazily.

    Raises:
        MediaError: the item cannot be used.
    """
    if item.modality == Modality.IMAGE:
        yield Piece(decode_image(_file(item), name=item.media, min_side=SHORTER_SIDE))
        return
    assert windowing is not None
    for window in windows(_file(item), windowing, name=item.media):
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


Pieces = Iterator[Piece] | BitternError
_Ahead = deque[tuple[Entry, "Future[Pieces] | None"]]


def _decoded_ahead(
    embedder: Embedder, entries: Iterable[Entry], times: StageTimes
) -> Iterator[tuple[Entry, Pieces]]:
    """Entries with their pieces, in order, decoded a few items ahead of the caller."""
    with ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode") as pool:
        ahead: _Ahead = deque()
        for entry in entries:
            if isinstance(entry, MediaItem):
                ahead.append((entry, pool.submit(_start, embedder, entry)))
            else:
                ahead.append((entry, None))
            if len(ahead) >= DECODE_AHEAD:
                yield _next_decoded(ahead, times)
        while ahead:
            yield _next_decoded(ahead, times)


def _next_decoded(ahead: _Ahead, times: StageTimes) -> tuple[Entry, Pieces]:
    entry, future = ahead.popleft()
    if future is None:
        return entry, iter(())
    begun = perf_counter()
    pieces = future.result()
    times.decode_wait_s += perf_counter() - begun
    return entry, pieces


def _start(embedder: Embedder, item: MediaItem) -> Pieces:
    """Decode an item whole, or a long recording as far as its first window."""
    try:
        check_item(item)
        modality = Modality(item.modality)
        embedder.require(modality)
        windowing = embedder.windowing if modality == Modality.AUDIO else None
        pieces = decode(item, windowing)
        if modality == Modality.AUDIO and _is_long(item):
            return chain([next(pieces)], pieces)
        return iter(list(pieces))
    except BitternError as error:
        return error


def _is_long(item: MediaItem) -> bool:
    return probe(_file(item), name=item.media).duration_s > STREAM_AFTER_S


class _Batches:
    """Collects pieces into network batches, one per modality, and keeps items in order."""

    def __init__(self, embedder: Embedder, times: StageTimes) -> None:
        self.times = times
        self._embedder = embedder
        self._items: deque[Embedded] = deque()
        self._waiting: dict[Modality, list[tuple[Embedded, Media]]] = {}

    def take(self, entry: Entry, pieces: Pieces) -> None:
        """Queue an entry's pieces, running each batch as it fills up."""
        if isinstance(entry, AddResult):
            self._items.append(Embedded(None, result=entry))
            return
        embedded = Embedded(entry)
        self._items.append(embedded)
        if isinstance(pieces, BitternError):
            _fail(embedded, pieces)
            return
        try:
            for piece in pieces:
                self._queue(embedded, piece)
        except BitternError as error:
            _fail(embedded, error)

    def _queue(self, embedded: Embedded, piece: Piece) -> None:
        assert embedded.item is not None
        modality = Modality(embedded.item.modality)
        batch = self._waiting.setdefault(modality, [])
        batch.append((embedded, piece.data))
        embedded.pieces.append((piece.start_s, piece.end_s))
        if len(batch) >= NETWORK_BATCH:
            self._run(modality)

    def flush(self) -> None:
        """Run what is queued."""
        for modality in list(self._waiting):
            self._run(modality)

    def done(self) -> Iterator[Embedded]:
        """The leading items whose pieces are all through."""
        while self._items and (
            self._items[0].result is not None
            or len(self._items[0].embeddings) == len(self._items[0].pieces)
        ):
            yield self._items.popleft()

    def _run(self, modality: Modality) -> None:
        batch = self._waiting.pop(modality)
        begun = perf_counter()
        try:
            embeddings = self._embedder.embed(modality, [data for _, data in batch])
        except InvalidInputError as error:
            if len(batch) == 1:
                _fail(batch[0][0], error)
                return
            for single in batch:  # one piece spoils the batch: find it
                self._waiting[modality] = [single]
                self._run(modality)
            return
        self.times.network_s += perf_counter() - begun
        self.times.pieces += len(batch)
        for (embedded, _), embedding in zip(batch, embeddings, strict=True):
            embedded.embeddings.append(embedding)


def _fail(embedded: Embedded, error: BitternError) -> None:
    """Give up on an item, whatever of it was embedded already."""
    assert embedded.item is not None
    embedded.result = AddResult(
        embedded.item.occurrence_id,
        AddStatus.FAILED,
        reason=error.reason,
        message=error.message,
    )
