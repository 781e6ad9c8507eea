"""Items and queries of a task through a tower, shard after shard; finished shards are reused.

A run that is interrupted goes on at the first shard that is not finished. A damaged shard is made
again, with a line in the log. Batches depend on the shard alone, so embeddings do not depend on how
often a run was stopped.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.shards import (
    Content,
    Shard,
    ShardedRows,
    contents_digest,
    read_shard,
    record_file,
    remove_leftovers,
    tower_print,
    write_shard,
)
from bittern.benchmarks.eval.tasks import IMAGE, TEXT, Contents, Items, QuerySet, ranges
from bittern.encoders.base import Modality
from bittern.errors import (
    ArchiveDamagedError,
    CodeError,
    InvalidInputError,
    LimitExceededError,
    MediaError,
    QueryError,
)
from bittern.service.ingest import embedding
from bittern.service.ingest.prefetch import close_stream
from bittern.service.models.model import Embedder
from bittern.text import agreeing, counted, some_of
from bittern.types import MediaItem

SHARD_ITEMS = {Modality.IMAGE: 1024, Modality.AUDIO: 64, Modality.TEXT: 4096}
"""Items per shard: a kill repeats one at the most. A recording may have a thousand windows."""
TEXT_BATCH = 64
"""Texts per call of a tower."""
ALONE = 2_048
"""So many different prompts go through the tower each by itself, as a search embeds them. More go
in batches of 64, padded to the longest among them, which may change the last bits of a float."""
OnItems = Callable[[int], None]
"""Called with how many items are done."""
_LEAST_NORM = 1e-6
_FAILURES_SHOWN = 5
_log = logging.getLogger(__name__)


def embed_items(
    embedder: Embedder,
    items: Items,
    cache: Path,
    *,
    on_items: OnItems = lambda done: None,
    missing: Literal["error", "skip"] = "error",
) -> ShardedRows:
    """Embed the items that are not in the cache yet, and open all shards.

    Photographs and recordings go through the product's own pipeline, texts through the tower in
    batches of 64.

    Args:
        embedder: encoder with the tower.
        items: of a task.
        cache: folder of the cache; see the package.
        on_items: called with how many items are done, those in the cache included.
        missing: what becomes of items that cannot be embedded: ``skip`` leaves them in `failed`;
            ``error`` ends with an error, once everything else has been embedded.

    Raises:
        UnsupportedModalityError, WeightsMissingError: no tower for these items.
        LimitExceededError: the disk has no room for the embeddings.
        MediaError: items cannot be embedded, and `missing` is ``error``.
        InvalidInputError: a content is of another modality than the items.
    """
    modality = Modality(items.modality)
    work = _Work(embedder, modality, items.contents, cache, lambda position: items.ids[position])
    rows = _embed(work, on_items)
    if rows.failed and missing == "error":
        number = len(rows.failed)
        shown = "; ".join(
            f"{items.ids[position]!r}: {why}" for position, why in rows.failed[:_FAILURES_SHOWN]
        )
        more = f"; and {number - _FAILURES_SHOWN} more" if number > _FAILURES_SHOWN else ""
        raise MediaError(
            f"{some_of(number, len(items), 'item')} could not be embedded: {shown}{more}. Leave "
            f"{agreeing(number, 'it', 'them')} out with --missing skip, or mend "
            f"{agreeing(number, 'this file', 'these files')}: changed files are embedded anew, the "
            f"rest is kept in {cache}",
            field="missing",
        )
    return rows


def embed_queries(embedder: Embedder, queries: QuerySet, cache: Path) -> NDArray[np.float32]:
    """Embed queries, float32 [q, dim], unit norm.

    A query of several prompts, or of a recording of several windows, is the mean of their
    embeddings, scaled to unit norm, as in a search. A prompt that several queries share is
    embedded once.

    Args:
        embedder: encoder with the tower.
        queries: the queries.
        cache: the same as that of the items.

    Raises:
        QueryError: a query that cannot be embedded, by name.
        UnsupportedModalityError, WeightsMissingError: no tower for these queries.
        LimitExceededError: the disk is full.
    """
    if not len(queries):
        return np.empty((0, embedder.encoder().dim), np.float32)
    contents, members = _different_contents(queries)
    first_query = {content: q for q in reversed(range(len(members))) for content in members[q]}

    def name(position: int) -> str:
        return queries.ids[first_query[position]]

    batch = 1 if len(contents) <= ALONE else TEXT_BATCH
    rows = _embed(_Work(embedder, Modality(queries.modality), contents, cache, name, batch))
    if rows.failed:
        position, why = rows.failed[0]
        kind = {TEXT: "text", IMAGE: "photograph"}.get(queries.modality, "recording")
        raise QueryError(
            f"query '{name(position)}' cannot be embedded: {why}. Correct it, or leave it out; "
            f"{some_of(len(rows.failed), len(contents), kind)} failed.",
            field="queries",
        )
    return _means(rows, members, queries.ids)


def _different_contents(queries: QuerySet) -> tuple[list[MediaItem | str], list[list[int]]]:
    """All different prompts, or all media; and the positions of each query's contents in them."""
    if queries.modality == TEXT:
        positions: dict[str, int] = {}
        members = []
        for name, prompts in zip(queries.ids, queries.contents, strict=True):
            if not isinstance(prompts, tuple) or not prompts:
                raise QueryError(
                    f"query '{name}' is in words and has none; give it a prompt", field="queries"
                )
            members.append([positions.setdefault(p.strip(), len(positions)) for p in prompts])
        return list(positions), members
    media: list[MediaItem | str] = []
    for name, content in zip(queries.ids, queries.contents, strict=True):
        if not isinstance(content, MediaItem):
            raise QueryError(
                f"query '{name}' is of the modality {queries.modality} and has no file; give it "
                "one",
                field="queries",
            )
        media.append(content)
    return media, [[query] for query in range(len(media))]


def _means(
    rows: ShardedRows, members: Sequence[Sequence[int]], names: Sequence[str]
) -> NDArray[np.float32]:
    """Of each query the mean over the rows of its contents, of unit norm, float32 [q, dim]."""
    sizes = np.bincount(rows.owners)
    starts = np.cumsum(sizes) - sizes
    means = np.empty((len(members), rows.dim), np.float32)
    for query, contents in enumerate(members):
        mean = rows.read(ranges(starts[contents], sizes[contents])).mean(axis=0)
        norm = float(np.linalg.norm(mean))
        if norm < _LEAST_NORM:
            raise QueryError(
                f"the embeddings of query '{names[query]}' cancel one another out: their mean is "
                "zero. Use fewer prompts.",
                field="queries",
            )
        means[query] = mean / norm
    return means


# Shards of a sequence of contents


@dataclass(frozen=True)
class _Work:
    """Contents and the tower that embeds them.

    Attributes:
        embedder: encoder with the tower.
        modality: which of its towers.
        contents: media or texts.
        cache: folder of the shards; made if need be.
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

    def shards(self) -> Iterator[tuple[int, int]]:
        """First and last (exclusive) item of each shard."""
        step = SHARD_ITEMS[self.modality]
        for first in range(0, len(self.contents), step):
            yield first, min(first + step, len(self.contents))


def _embed(work: _Work, on_items: OnItems = lambda done: None) -> ShardedRows:
    """Open the shards of `work`, making those that are missing; see `embed_items`."""
    tower = tower_print(work.embedder, work.modality, work.text_batch)
    folder = _folder(work.cache, f"{work.modality}-{tower[:16]}")
    digests: list[str] = []
    shards: list[Shard | None] = []
    done = 0
    for first, last in work.shards():
        contents = map(work.contents.__getitem__, range(first, last))
        digests.append(contents_digest(tower, contents, work.modality))
        shards.append(_found(folder, digests[-1], last - first, work.dim))
        done += last - first if shards[-1] else 0
        on_items(done)
    _check_room(work, folder, len(work.contents) - done)
    for number, (first, last) in enumerate(work.shards()):
        if shards[number] is not None:
            continue
        # Of two shards with the same contents the second one is on the disk by now.
        shards[number] = _found(folder, digests[number], last - first, work.dim)
        if shards[number] is None:
            content = _content_of(work, first, last, lambda more, done=done: on_items(done + more))  # type: ignore[misc]
            write_shard(folder, digests[number], content)
            shards[number] = read_shard(folder, digests[number], last - first, work.dim)
        done += last - first
        on_items(done)
    whole = [shard for shard in shards if shard is not None]
    if len(whole) < len(shards):
        raise ArchiveDamagedError(f"shards vanished from {folder} while it was filled; run again")
    return ShardedRows(whole, work.dim, sha256("".join([tower, *digests]).encode()).hexdigest())


def _folder(cache: Path, name: str) -> Path:
    """The folder of a tower, made if need be and cleared of leftovers of killed runs.

    Raises:
        InvalidInputError: the folder cannot be made.
    """
    folder = cache / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
    except OSError as error:
        raise InvalidInputError(
            f"{cache} cannot be the cache of embeddings: {error}. Choose a folder that can be "
            "written to.",
            field="cache",
        ) from error
    return folder


def _found(folder: Path, digest: str, items: int, dim: int) -> Shard | None:
    """A shard of the cache, if it is whole."""
    try:
        return read_shard(folder, digest, items, dim)
    except ArchiveDamagedError as error:
        _log.warning("%s; it is made again", error)
        record_file(folder, digest).unlink(missing_ok=True)
        return None


def _check_room(work: _Work, folder: Path, left: int) -> None:
    """Refuse to begin what the disk cannot hold; recordings count one window each.

    Raises:
        LimitExceededError: with the sizes and a remedy.
    """
    needed, free = left * work.dim * 4, shutil.disk_usage(folder).free
    if needed > free:
        raise LimitExceededError(
            f"{counted(left, 'embedding')} of {work.dim} float32 "
            f"{agreeing(left, 'needs', 'need')} {needed / 1e9:.1f} GB, the disk of {folder} has "
            f"{free / 1e9:.1f} GB left. Make room, or keep the cache on another disk.",
            details={"needed": str(needed), "free": str(free)},
        )
    if left:
        _log.info(
            "embedding %d of %d items: at least %d MB below %s",
            left, len(work.contents), needed // 10**6, folder,
        )  # fmt: skip


# The contents of one shard

_Made = tuple[list[NDArray[np.float32]], Sequence[tuple[float | None, float | None]], str]
"""Of one item: its embeddings, the spans of its windows, and why it has none, if so."""


def _content_of(work: _Work, first: int, last: int, on_item: OnItems) -> Content:
    """Embed the items of one shard.

    Raises:
        CodeError: a tower gives embeddings of another length than it says.
    """
    embeddings: list[NDArray[np.float32]] = []
    owners: list[int] = []
    spans: list[tuple[float | None, float | None]] = []
    failed: list[tuple[int, str]] = []
    make = _texts if work.modality == Modality.TEXT else _media
    with closing(make(work, first, last)) as stream:
        for position, (rows, times, why) in enumerate(stream):
            why = why or _fault(work, first + position, rows)
            on_item(position + 1)
            if why:
                failed.append((position, why))
                continue
            embeddings += rows
            owners += [position] * len(rows)
            spans += times
    return Content(
        items=last - first,
        embeddings=np.stack(embeddings) if embeddings else np.empty((0, work.dim), np.float32),
        owners=np.array(owners, np.int64),
        spans=np.array(spans, np.float32).reshape(-1, 2),  # None is NaN
        failed=failed,
    )


def _fault(work: _Work, position: int, rows: Sequence[NDArray[np.float32]]) -> str:
    """Why the embeddings of an item are unusable; empty if they are not.

    Raises:
        CodeError: embeddings of another length than the encoder says.
    """
    if not rows:
        return "it is so short that nothing could be embedded"
    for row in rows:
        if row.shape != (work.dim,):
            raise CodeError(
                f"the {work.modality} tower of '{work.embedder.name}' gave {list(row.shape)} for "
                f"'{work.name(position)}', not [{work.dim}]"
            )
        norm = float(np.linalg.norm(row.astype(np.float64)))
        if not np.isfinite(norm) or norm < _LEAST_NORM:
            values = "zeros" if norm < _LEAST_NORM else "NaN or infinity"
            return f"the {work.modality} tower of '{work.embedder.name}' gave {values}"
    return ""


def _media(work: _Work, first: int, last: int) -> Generator[_Made, None, None]:
    """Photographs or recordings, in order."""
    entries = (_media_item(work.contents[position]) for position in range(first, last))
    stream = embedding.embed_items(work.embedder, entries)
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


def _texts(work: _Work, first: int, last: int) -> Generator[_Made, None, None]:
    """Texts, in order; one that the tower refuses fails alone."""
    for begin in range(first, last, work.text_batch):
        positions = range(begin, min(begin + work.text_batch, last))
        texts = [str(work.contents[position]).strip() for position in positions]
        made = iter(_text_rows(work, [text for text in texts if text]))
        for text in texts:
            row = next(made) if text else "it is an empty text"
            yield ([], [], row) if isinstance(row, str) else ([row], [(None, None)], "")


def _text_rows(work: _Work, texts: Sequence[str]) -> list[NDArray[np.float32] | str]:
    """The embedding of each text, or why it has none."""
    try:
        return list(work.embedder.embed(work.modality, texts)) if texts else []
    except InvalidInputError as error:  # one text spoils the batch: find it
        if len(texts) == 1:
            return [error.message]
        return [row for text in texts for row in _text_rows(work, [text])]
