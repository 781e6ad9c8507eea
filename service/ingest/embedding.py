"""Media in, embedded items out: prefetch, cut batches, run the network."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter

from bittern.encoders.base import Modality
from bittern.errors import BitternError, InvalidInputError
from bittern.service.ingest.items import (
    Decoded,
    Embedded,
    Loaded,
    PipelineEntry,
    decode,
    item_of,
    read,
)
from bittern.service.ingest.prefetch import Bounds, Prefetch, Slot
from bittern.service.ingest.report import Cancelled, Stages, StageWork, never, new_stages
from bittern.service.models.model import Embedder
from bittern.types import AddResult

NETWORK_BATCH = 16
"""Pictures or windows per call of a network."""
BATCH_BYTES = 128 << 20
"""A batch of this size runs even with fewer than `NETWORK_BATCH` pictures."""
FLUSH_ITEMS = 64
"""After this many listed items, batches run even if they are not full."""


def embed_items(
    embedder: Embedder,
    entries: Iterable[PipelineEntry],
    stages: Stages | None = None,
    *,
    cancelled: Cancelled = never,
    fetch: tuple[str, ...] = (),
    bounds: Bounds | None = None,
) -> Iterator[Embedded]:
    """Embed every entry, in order; a failed item carries the reason.

    The network runs in the caller's thread, the stages before it in background threads. They end
    with the iterator: close it, unless it is exhausted.

    Args:
        embedder: the network.
        entries: photographs, recordings, and results that pass through; iterated lazily, in a
            thread.
        stages: counts the work.
        cancelled: once it is true, the iterator ends; remaining items are dropped.
        fetch: address prefixes that may be fetched.
        bounds: threads and memory; see `bittern.service.ingest.prefetch`.

    Raises:
        Exception: an error of the listing, once everything before it is embedded; an error of
            the network, at once.
    """
    stages = stages if stages is not None else new_stages()
    batches = NetworkBatches(embedder, stages["network"])
    read_one, decode_one = partial(_read, embedder, fetch), partial(_decode, embedder)
    waiting: deque[Embedded] = deque()  # in order, until they are embedded or have failed
    with Prefetch(entries, read_one, decode_one, stages, cancelled, bounds) as prefetch:
        for count, slot in enumerate(prefetch, 1):
            embedded = _not_yet_embedded(slot)
            waiting.append(embedded)
            for one in prefetch.decoded(slot):
                batches.add(embedded, one)
            if slot.error is not None:
                _fail(embedded, slot.error)
            if cancelled():
                waiting.pop()  # it may lack windows
                break
            if count % FLUSH_ITEMS == 0:
                batches.flush()
            yield from _leading(waiting)
    if not cancelled():
        batches.flush()
    yield from _leading(waiting)
    if not cancelled():
        prefetch.check_listing()


def _read(embedder: Embedder, fetch: tuple[str, ...], entry: PipelineEntry) -> Loaded:
    assert not isinstance(entry, AddResult)
    item = item_of(entry)
    if item is not None and item.modality in set(Modality):
        embedder.require(Modality(item.modality))  # before reading the file
    return read(entry, fetch)


def _decode(embedder: Embedder, loaded: Loaded) -> Iterator[Decoded]:
    windowing = embedder.windowing if loaded.item.modality == Modality.AUDIO else None
    return decode(loaded.item, windowing, loaded.source)


def _not_yet_embedded(slot: Slot) -> Embedded:
    if slot.loaded is not None:
        loaded = slot.loaded
        return Embedded(
            loaded.item, result=slot.result, fingerprint=loaded.fingerprint, renews=loaded.renews
        )
    item = None if slot.entry is None else item_of(slot.entry)
    return Embedded(item and replace(item, data=None), result=slot.result)


def _leading(waiting: deque[Embedded]) -> Iterator[Embedded]:
    """Remove and return the first items, up to one that still waits for the network."""
    while waiting and (waiting[0].result or len(waiting[0].embeddings) == len(waiting[0].spans)):
        yield waiting.popleft()


class NetworkBatches:
    """Collects pictures and windows into batches, one per modality.

    Batches depend on the items alone, never on timing.
    """

    def __init__(self, embedder: Embedder, work: StageWork) -> None:
        self._embedder, self._work = embedder, work
        self._waiting: dict[Modality, list[tuple[Embedded, Decoded]]] = {}

    def add(self, embedded: Embedded, one: Decoded) -> None:
        """Add a picture or window of an item; runs the batch if that fills it."""
        assert embedded.item is not None
        modality = Modality(embedded.item.modality)
        batch = self._waiting.setdefault(modality, [])
        batch.append((embedded, one))
        embedded.spans.append((one.start_s, one.end_s))
        if len(batch) >= NETWORK_BATCH or sum(each.nbytes for _, each in batch) >= BATCH_BYTES:
            self._run(modality)

    def flush(self) -> None:
        """Run the batches that are not full."""
        for modality in list(self._waiting):
            self._run(modality)

    def _run(self, modality: Modality) -> None:
        batch = self._waiting.pop(modality)
        begun = perf_counter()
        try:
            embeddings = self._embedder.embed(modality, [one.data for _, one in batch])
        except InvalidInputError as error:
            if len(batch) == 1:
                _fail(batch[0][0], error)
                return
            for single in batch:  # find the item that fails
                self._waiting[modality] = [single]
                self._run(modality)
            return
        self._work.add(len(batch), busy_s=perf_counter() - begun)
        for (embedded, _), embedding in zip(batch, embeddings, strict=True):
            embedded.embeddings.append(embedding)


def _fail(embedded: Embedded, error: BitternError) -> None:
    assert embedded.item is not None
    embedded.result = AddResult.failure(embedded.item.occurrence_id, error)
