"""The items of one shard through a tower: what comes out, and which of them failed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.progress import Watch
from bittern.benchmarks.eval.embeddings.shards import Content
from bittern.benchmarks.eval.tasks import Contents
from bittern.encoders.base import Modality
from bittern.errors import CodeError, InvalidInputError, PreconditionError
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.prefetch import close_stream
from bittern.service.ingest.report import Cancelled, Stages
from bittern.service.models.loaded import Embedder
from bittern.types import MediaItem

SHARD_ITEMS = {Modality.IMAGE: 1024, Modality.AUDIO: 64, Modality.TEXT: 4096}
"""Items per shard: a kill repeats one at the most. A recording may have a thousand windows."""
TEXT_BATCH = 64
"""Texts per call of a tower."""
_LEAST_NORM = 1e-6


@dataclass(frozen=True)
class Work:
    """What is embedded, and how.

    Attributes:
        embedder: what embeds.
        modality: which of its towers.
        contents: what goes through it.
        cache: where the shards are; made if need be.
        name: what an item is called in messages.
        text_batch: texts per call of the tower.
    """

    embedder: Embedder
    modality: Modality
    contents: Contents | Sequence[MediaItem | str]
    cache: Path
    name: Callable[[int], str]
    text_batch: int = TEXT_BATCH

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.embedder.encoder().dim

    def places(self) -> Iterator[tuple[int, int]]:
        """First and last (exclusive) item of each shard."""
        step = SHARD_ITEMS[self.modality]
        for first in range(0, len(self.contents), step):
            yield first, min(first + step, len(self.contents))


_Made = tuple[list[NDArray[np.float32]], Sequence[tuple[float | None, float | None]], str]
"""Of one item: its embeddings, the spans of its pieces, and why it has none, if so."""


def content_of(work: Work, first: int, last: int, watch: Watch, cancelled: Cancelled) -> Content:
    """Embed the items of one shard.

    Raises:
        PreconditionError: it was cancelled before the last of them.
        CodeError: a tower gives embeddings of another length than it says.
    """
    embeddings: list[NDArray[np.float32]] = []
    owners: list[int] = []
    spans: list[tuple[float, float]] = []
    failed: list[tuple[int, str]] = []
    make = _texts if work.modality == Modality.TEXT else _media
    made = 0
    with closing(make(work, first, last, watch.stages, cancelled)) as stream:
        for place, (rows, times, why) in enumerate(stream):
            made += 1
            why = why or _fault(work, first + place, rows)
            watch.item(failed=bool(why))
            if why:
                failed.append((place, why))
                continue
            embeddings += rows
            owners += [place] * len(rows)
            spans += [(_seconds(start), _seconds(end)) for start, end in times]
    if made < last - first:
        raise stopped(first, len(work.contents))
    return Content(
        items=last - first,
        embeddings=np.stack(embeddings) if embeddings else np.empty((0, work.dim), np.float32),
        owners=np.array(owners, np.int64),
        spans=np.array(spans, np.float32).reshape(-1, 2),
        failed=failed,
    )


def stopped(first: int, total: int) -> PreconditionError:
    """It was cancelled, with everything before item `first` on the disk."""
    return PreconditionError(
        f"embedding was stopped at item {first} of {total}. Run again to go on from there."
    )


def _seconds(value: float | None) -> float:
    return float("nan") if value is None else value


def _fault(work: Work, place: int, rows: Sequence[NDArray[np.float32]]) -> str:
    """What is wrong with what a tower gave for an item; empty if nothing is.

    Raises:
        CodeError: embeddings of another length than the encoder says.
    """
    if not rows:
        return "it is so short that nothing could be embedded"
    for row in rows:
        if row.shape != (work.dim,):
            raise CodeError(
                f"the {work.modality} tower of '{work.embedder.name}' gave {list(row.shape)} for "
                f"'{work.name(place)}', not [{work.dim}]"
            )
        norm = float(np.linalg.norm(row.astype(np.float64)))
        if not np.isfinite(norm) or norm < _LEAST_NORM:
            what = "zeros" if norm < _LEAST_NORM else "NaN or infinity"
            return f"the {work.modality} tower of '{work.embedder.name}' gave {what}"
    return ""


def _media(
    work: Work, first: int, last: int, stages: Stages, cancelled: Cancelled
) -> Generator[_Made, None, None]:
    """Photographs or recordings, in order; ends early where it is cancelled."""
    entries = (_media_item(work.contents[place]) for place in range(first, last))
    stream = embed_items(work.embedder, entries, stages, cancelled=cancelled)
    try:
        for embedded in stream:
            if embedded.result is not None:
                yield [], [], embedded.result.message or embedded.result.reason
            else:
                yield embedded.embeddings, embedded.spans, ""
    finally:
        close_stream(stream)  # and with it the threads that decode


def _media_item(content: MediaItem | str) -> MediaItem:
    assert isinstance(content, MediaItem)  # the digest has been made of it
    return content


def _texts(
    work: Work, first: int, last: int, stages: Stages, cancelled: Cancelled
) -> Generator[_Made, None, None]:
    """Texts, in order; one that the tower refuses fails alone."""
    for begin in range(first, last, work.text_batch):
        if cancelled():
            return
        end = min(begin + work.text_batch, last)
        texts = [str(work.contents[place]).strip() for place in range(begin, end)]
        begun = monotonic()
        yield from _text_batch(work, texts)
        stages["network"].add(len(texts), busy_s=monotonic() - begun)


def _text_batch(work: Work, texts: Sequence[str]) -> Iterator[_Made]:
    usable = [text for text in texts if text]
    whys: dict[int, str] = {}
    rows: list[NDArray[np.float32] | None] = []
    try:
        rows += list(work.embedder.embed(work.modality, usable)) if usable else []
    except InvalidInputError:  # one text spoils the batch: find it
        for number, text in enumerate(usable):
            try:
                rows.append(work.embedder.embed(work.modality, [text])[0])
            except InvalidInputError as error:
                rows.append(None)
                whys[number] = error.message
    number = 0
    for text in texts:
        if not text:
            yield [], [], "it is an empty text"
            continue
        row = rows[number]
        yield ([], [], whys[number]) if row is None else ([row], [(None, None)], "")
        number += 1
