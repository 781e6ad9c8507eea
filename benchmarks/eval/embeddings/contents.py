"""What tells whether something was embedded before: digests over towers and contents.

Of a tower: its digest (weights and preprocessing), how it wants recordings cut, and how many
pieces go through it at a time, for the last bits of floats depend on that. Not which device ran
it: where the last bits of two devices may not mix, use a cache each.

Of a content:

    text            the text
    bytes           their XXH3 (128 bits)
    file            its absolute path, its size, and when it was changed, to the nanosecond
    file not there  its path, and that it is not there
    address         the address

Files are not read for this: five million cost one `stat` each, which is a minute or two. A file
that changes changes its time; one that is replaced with its size and time kept is not noticed.
Folders that were moved are embedded again, unless they are linked to where they were: names,
sizes and times alone do not tell recordings apart, for recorders number their files from 1.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from xxhash import xxh3_128_hexdigest

from bittern.benchmarks.eval.tasks import TEXT
from bittern.encoders.base import Modality
from bittern.errors import InvalidInputError
from bittern.service.ingest.embedding import FLUSH_ITEMS, NETWORK_BATCH
from bittern.service.models.loaded import Embedder
from bittern.types import MediaItem

_FORMAT = 1


def tower_print(embedder: Embedder, modality: Modality, text_batch: int) -> str:
    """Hex SHA-256 of everything but the contents that decides embeddings.

    Args:
        embedder: what embeds.
        modality: which of its towers.
        text_batch: texts that go through it at a time.

    Raises:
        UnsupportedModalityError: there is no such tower.
    """
    embedder.require(modality)
    windowing = embedder.windowing if modality == Modality.AUDIO else None
    batching = f"{text_batch}" if modality == Modality.TEXT else f"{NETWORK_BATCH} {FLUSH_ITEMS}"
    told = (str(_FORMAT), str(modality), embedder.digest(modality), repr(windowing), batching)
    return _digest(told)


def contents_digest(tower: str, contents: Iterable[MediaItem | str], modality: str) -> str:
    """Name of a shard: hex SHA-256 of a tower's print and what goes through it, in order.

    Raises:
        InvalidInputError: a content is of another modality.
    """
    return _digest((tower, *(_print(content, modality) for content in contents)))


def _print(content: MediaItem | str, modality: str) -> str:
    if isinstance(content, str):
        if modality != TEXT:
            raise InvalidInputError(f"a text, {content!r:.80}, stands among {modality} items")
        return f"text {content}"
    if content.modality != modality:
        raise InvalidInputError(
            f"{content.media!r} is of the modality {content.modality!r}, it stands among "
            f"{modality} items"
        )
    if content.data is not None:
        return f"bytes {xxh3_128_hexdigest(content.data)}"
    if content.path is None:
        return f"address {content.url}"
    return _file_print(content.path)


def _file_print(path: Path) -> str:
    whole = os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps "..", resolve asks the disk
    try:
        stat = os.stat(whole)  # noqa: PTH116 - five million times
    except (OSError, ValueError):
        return f"missing {whole}"
    return f"file {stat.st_size} {stat.st_mtime_ns} {whole}"


def _digest(told: Iterable[str]) -> str:
    """Lengths go in too: no two sequences run into the same bytes."""
    digest = hashlib.sha256()
    for part in told:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
