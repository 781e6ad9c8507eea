"""Media in, embedded observations out: read and decode ahead, cut batches, run the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial

from bittern.encoders.base import Modality
from bittern.errors import BitternError
from bittern.service.ingest.batches import Batches
from bittern.service.ingest.items import Asked, Embedded, Piece, Recheck, decode
from bittern.service.ingest.prefetch import Ahead
from bittern.service.ingest.reading import Loaded, read
from bittern.service.ingest.report import Cancelled, Stages, never, new_stages
from bittern.service.ingest.slots import Bounds, Slot
from bittern.service.models.loaded import Embedder
from bittern.types import AddResult

FLUSH_ITEMS = 64
"""After so many items of the listing, batches run even where they are not full."""


def embed_items(
    embedder: Embedder,
    entries: Iterable[Asked],
    stages: Stages | None = None,
    *,
    cancelled: Cancelled = never,
    fetch: tuple[str, ...] = (),
    bounds: Bounds | None = None,
) -> Iterator[Embedded]:
    """Embed every entry, in order; an item that cannot be used carries the reason.

    The network runs in the caller's thread, everything before it in threads of its own, which
    end with the iterator (close it, if it is not gone through to its end).

    Args:
        embedder: the network.
        entries: photographs, recordings, and results that pass through; gone through lazily, in
            a thread.
        stages: filled in as work goes on.
        cancelled: once it is true, the iterator ends; what was not yielded is dropped.
        fetch: beginnings of addresses that may be fetched.
        bounds: threads and memory; see `bittern.service.ingest.slots`.

    Raises:
        Exception: what the listing has raised, once everything before is embedded; what the
            network has raised, at once.
    """
    stages = stages if stages is not None else new_stages()
    batches = Batches(embedder, stages["network"])
    reading = partial(_read, embedder, fetch)
    beginning = partial(_begin, embedder)
    with Ahead(entries, reading, beginning, stages, cancelled, bounds) as ahead:
        for slot in ahead:
            _take(slot, ahead, batches)
            if (slot.number + 1) % FLUSH_ITEMS == 0 and not cancelled():
                batches.flush()
            if cancelled():
                break
            yield from batches.done()
    if not cancelled():
        batches.flush()
    yield from batches.done()
    if not cancelled():
        ahead.check_listing()


def _take(slot: Slot, ahead: Ahead, batches: Batches) -> None:
    """Hand the pieces of one entry to the network."""
    embedded = _embedded(slot)
    batches.begin(embedded)
    if embedded.result is not None:
        batches.end()
        return
    try:
        for piece in ahead.pieces(slot):
            batches.add(piece)
    except BitternError as error:
        batches.end(error)
        return
    if slot.finished and not slot.pieces:  # else the job is cancelled in the middle of it
        batches.end()


def _embedded(slot: Slot) -> Embedded:
    if slot.loaded is not None:
        loaded = slot.loaded
        return Embedded(
            loaded.item,
            result=slot.result,
            fingerprint=loaded.fingerprint,
            renews=loaded.renews,
        )
    entry = slot.entry.item if isinstance(slot.entry, Recheck) else slot.entry
    if entry is None or isinstance(entry, AddResult):
        return Embedded(None, result=slot.result)
    return Embedded(replace(entry, data=None), result=slot.result)


def _read(embedder: Embedder, fetch: tuple[str, ...], entry: Asked) -> Loaded:
    assert not isinstance(entry, AddResult)
    item = entry.item if isinstance(entry, Recheck) else entry
    if item.modality in set(Modality):
        embedder.require(Modality(item.modality))  # before it is read for nothing
    return read(entry, fetch)


def _begin(embedder: Embedder, loaded: Loaded) -> Iterator[Piece]:
    windowing = embedder.windowing if loaded.item.modality == Modality.AUDIO else None
    return decode(loaded.item, windowing, loaded.source)
