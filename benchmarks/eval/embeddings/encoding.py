"""Items of a task through a tower, shard after shard; what is there already is not done again.

A run that is interrupted, by whatever means, goes on at the first shard that is not whole. A
shard that is damaged is made again, with a line in the log, and so is nothing else. Where batches
are cut depends on the shard alone, so embeddings do not depend on how often a run was stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Literal

from bittern.benchmarks.eval.embeddings.contents import contents_digest, tower_print
from bittern.benchmarks.eval.embeddings.progress import OnProgress, Watch
from bittern.benchmarks.eval.embeddings.rows import ShardedRows
from bittern.benchmarks.eval.embeddings.shards import (
    Shard,
    read_shard,
    record_file,
    remove_leftovers,
    write_shard,
)
from bittern.benchmarks.eval.embeddings.work import Work, content_of, stopped
from bittern.benchmarks.eval.tasks import Items
from bittern.encoders.base import Modality
from bittern.errors import ArchiveDamagedError, InvalidInputError, MediaError
from bittern.service.ingest.report import Cancelled, never
from bittern.service.models.loaded import Embedder
from bittern.text import agreeing, some_of

Missing = Literal["error", "skip"]
_FAILURES_SHOWN = 5
_log = logging.getLogger(__name__)


def embed_items(
    embedder: Embedder,
    items: Items,
    cache: Path,
    *,
    on_progress: OnProgress = lambda progress: None,
    cancelled: Cancelled = never,
    missing: Missing = "error",
) -> ShardedRows:
    """Embed what is not in the cache yet, and open everything.

    Photographs and recordings go through the product's own pipeline, texts through the tower in
    batches of 64.

    Args:
        embedder: what embeds.
        items: of a task.
        cache: folder of the cache; see the package.
        on_progress: called about twice a second, first while the cache is looked through, once
            before anything is embedded, whenever a shard is on the disk, and at the end.
        cancelled: once it is true, nothing more is begun; whole shards are kept.
        missing: what becomes of items that cannot be embedded: ``skip`` leaves them in `failed`;
            ``error`` ends with an error, once everything else has been embedded.

    Raises:
        UnsupportedModalityError, WeightsMissingError: no tower for these items.
        LimitExceededError: the disk has no room for the embeddings.
        MediaError: items cannot be embedded, and `missing` is ``error``.
        PreconditionError: it was cancelled.
        InvalidInputError: a content is of another modality than the items.
    """
    if missing not in ("error", "skip"):
        raise InvalidInputError(f"missing must be error or skip, not {missing!r}", field="missing")
    modality = Modality(items.modality)
    work = Work(embedder, modality, items.contents, cache, lambda place: items.ids[place])
    rows = embed(work, on_progress=on_progress, cancelled=cancelled)
    if rows.failed and missing == "error":
        raise MediaError(failures(rows.failed, items.ids, cache), field="missing")
    return rows


def failures(failed: Sequence[tuple[int, str]], ids: Sequence[str], cache: Path) -> str:
    """A message that names the first few items that failed, and what can be done."""
    shown = "; ".join(f"{ids[place]!r}: {why}" for place, why in failed[:_FAILURES_SHOWN])
    more = len(failed) - _FAILURES_SHOWN
    also = f"; and {more} more" if more > 0 else ""
    return (
        f"{some_of(len(failed), len(ids), 'item')} could not be embedded: {shown}{also}. Leave "
        f"{agreeing(len(failed), 'it', 'them')} out with --missing skip, or mend "
        f"{agreeing(len(failed), 'this file', 'these files')}: what has changed is "
        f"embedded anew, the rest is kept in {cache}"
    )


def embed(
    work: Work,
    *,
    on_progress: OnProgress = lambda progress: None,
    cancelled: Cancelled = never,
) -> ShardedRows:
    """Open the shards of `work`, making those that are not there; see `embed_items`."""
    tower = tower_print(work.embedder, work.modality, work.text_batch)
    folder = _folder(work.cache, f"{work.modality}-{tower[:16]}")
    watch = Watch(len(work.contents), work.dim, folder, on_progress)
    digests: list[str] = []
    shards: list[Shard | None] = []
    for first, last in work.places():
        if cancelled():
            raise stopped(first, len(work.contents))
        contents = map(work.contents.__getitem__, range(first, last))
        digests.append(contents_digest(tower, contents, work.modality))
        shards.append(_found(folder, digests[-1], last - first, work.dim))
        watch.look_up(last, shards[-1])
    watch.begin()
    for number, (first, last) in enumerate(work.places()):
        if shards[number] is None:
            # Of two shards with the same contents the second one is there by now.
            shards[number] = _found(folder, digests[number], last - first, work.dim)
            watch.look_up(watch.looked_up, shards[number])
        if shards[number] is None:
            content = content_of(work, first, last, watch, cancelled)
            write_shard(folder, digests[number], content)
            shards[number] = read_shard(folder, digests[number], last - first, work.dim)
            watch.tell(at_once=True)
    watch.tell(at_once=True)
    whole = [shard for shard in shards if shard is not None]
    if len(whole) < len(shards):
        raise ArchiveDamagedError(f"shards vanished from {folder} while it was filled; run again")
    return ShardedRows(whole, work.dim, sha256("".join([tower, *digests]).encode()).hexdigest())


def _folder(cache: Path, name: str) -> Path:
    """The folder of a tower, made if need be and cleared of what killed runs left.

    Raises:
        InvalidInputError: there can be no such folder.
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
    """A shard that is there and whole."""
    try:
        return read_shard(folder, digest, items, dim)
    except ArchiveDamagedError as error:
        _log.warning("%s; it is made again", error)
        record_file(folder, digest).unlink(missing_ok=True)
        return None
