"""The stage of the network: pieces into batches, one batch per modality, embeddings out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from time import perf_counter

from bittern.encoders.base import Media, Modality
from bittern.errors import BitternError, InvalidInputError
from bittern.service.ingest.items import Embedded, Piece
from bittern.service.ingest.report import StageWork
from bittern.service.models.loaded import Embedder
from bittern.types import AddResult, AddStatus

NETWORK_BATCH = 16
"""Pieces per call of a network."""
BATCH_BYTES = 128 << 20
"""A batch of very large pictures runs before it has so many pieces."""


class Batches:
    """Collects pieces into network batches, one per modality, and keeps items in order.

    Where a batch is cut depends on the pieces alone, never on when they come.
    """

    def __init__(self, embedder: Embedder, work: StageWork) -> None:
        self._embedder, self._work = embedder, work
        self._items: deque[Embedded] = deque()
        self._waiting: dict[Modality, list[tuple[Embedded, Media]]] = {}
        self._bytes: dict[Modality, int] = {}
        self._open: Embedded | None = None

    def begin(self, embedded: Embedded) -> None:
        """The next item; its pieces follow, until it is closed."""
        self._items.append(embedded)
        self._open = embedded

    def end(self, error: BitternError | None = None) -> None:
        """The item has no more pieces; with an error it fails, whatever came before."""
        if error is not None and self._open is not None:
            fail(self._open, error)
        self._open = None

    def add(self, piece: Piece) -> None:
        """One more piece of the item at hand; runs the batch that it fills."""
        embedded = self._open
        assert embedded is not None
        assert embedded.item is not None
        modality = Modality(embedded.item.modality)
        batch = self._waiting.setdefault(modality, [])
        batch.append((embedded, piece.data))
        embedded.pieces.append((piece.start_s, piece.end_s))
        self._bytes[modality] = self._bytes.get(modality, 0) + piece.nbytes
        if len(batch) >= NETWORK_BATCH or self._bytes[modality] >= BATCH_BYTES:
            self._run(modality)

    def flush(self) -> None:
        """Run what is queued."""
        for modality in list(self._waiting):
            self._run(modality)

    def done(self) -> Iterator[Embedded]:
        """The leading items whose pieces are all through."""
        while self._items and self._items[0] is not self._open and _is_through(self._items[0]):
            yield self._items.popleft()

    def _run(self, modality: Modality) -> None:
        batch = self._waiting.pop(modality)
        self._bytes[modality] = 0
        begun = perf_counter()
        try:
            embeddings = self._embedder.embed(modality, [data for _, data in batch])
        except InvalidInputError as error:
            if len(batch) == 1:
                fail(batch[0][0], error)
                return
            for single in batch:  # one piece spoils the batch: find it
                self._waiting[modality] = [single]
                self._run(modality)
            return
        self._work.add(len(batch), busy_s=perf_counter() - begun)
        for (embedded, _), embedding in zip(batch, embeddings, strict=True):
            embedded.embeddings.append(embedding)


def _is_through(embedded: Embedded) -> bool:
    return embedded.result is not None or len(embedded.embeddings) == len(embedded.pieces)


def fail(embedded: Embedded, error: BitternError) -> None:
    """Give up on an item, whatever of it was embedded already."""
    assert embedded.item is not None
    embedded.result = AddResult(
        embedded.item.occurrence_id, AddStatus.FAILED, reason=error.reason, message=error.message
    )
