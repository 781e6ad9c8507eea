"""Items over the toy encoder, and ways of hurting what was made of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings import encoding as work
from bittern.benchmarks.eval.tasks import Items
from bittern.encoders.base import Media, Modality
from bittern.service.models.model import Embedder
from bittern.types import MediaItem
from tests.engine.toy import COLOURS, ToyEncoder, picture, sound


class Counting(ToyEncoder):
    """Counts what it embeds; does something before its nth item."""

    def __init__(self, at: int = -1, then: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.at, self.then = at, then

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        if len(self.batches) == self.at:
            self.at = -1
            self.then()
        return super().encode(modality, batch)

    @property
    def layout(self) -> int:
        return sum(size for _, size in self.batches)


def embedder(encoder: ToyEncoder) -> Embedder:
    return Embedder(encoder.name, lambda name: encoder)


def images(count: int, broken: Sequence[int] = ()) -> Items:
    """Pictures that all differ, some of them damaged."""
    colours = list(COLOURS)
    data = [picture(colours[n % 3], jitter=n) for n in range(count)]
    for position in broken:
        data[position] = data[position][: len(data[position]) // 2]
    names = [f"p{n}" for n in range(count)]
    media = [MediaItem(n, f"{n}.png", "image", data=d) for n, d in zip(names, data, strict=True)]
    return Items(names, "image", media, np.zeros(count, np.int32), "image")


def recordings(*colours: tuple[str, ...]) -> Items:
    """Recordings, one second per colour."""
    names = [f"r{n}" for n in range(len(colours))]
    media = [
        MediaItem(n, f"{n}.wav", "audio", data=sound(*c))
        for n, c in zip(names, colours, strict=True)
    ]
    return Items(names, "audio", media, np.zeros(len(names), np.int32), "audio")


def texts(*words: str) -> Items:
    names = [f"t{n}" for n in range(len(words))]
    return Items(names, "text", words, np.zeros(len(words), np.int32), "text")


@contextmanager
def small_shards(items: int) -> Iterator[None]:
    """Shards of so few items."""
    before = dict(work.SHARD_ITEMS)
    work.SHARD_ITEMS.update(dict.fromkeys(Modality, items))
    try:
        yield
    finally:
        work.SHARD_ITEMS.update(before)


def shard_files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


class ArrayRows:
    """`EmbeddedRows` over an array."""

    def __init__(
        self,
        embeddings: NDArray[np.floating],
        owners: NDArray[np.integer] | None = None,
        spans: NDArray[np.floating] | None = None,
        failed: Sequence[tuple[int, str]] = (),
    ) -> None:
        self._embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
        rows, self.dim = self._embeddings.shape
        given = np.arange(rows) if owners is None else owners
        times = np.full((rows, 2), np.nan) if spans is None else spans
        self.owners: NDArray[np.int64] = given.astype(np.int64)
        self.spans: NDArray[np.float32] = times.astype(np.float32)
        self.failed: Sequence[tuple[int, str]] = tuple(failed)
        self.digest = hashlib.sha256(self._embeddings.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._embeddings)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for first in range(0, len(self), rows):
            yield first, self._embeddings[first : first + rows]

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        taken: NDArray[np.float32] = self._embeddings[rows]
        return taken
