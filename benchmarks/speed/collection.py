"""A labelled manifest, embedded once by the product's own pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import bittern
from bittern.benchmarks.speed.report import say
from bittern.encoders.base import Modality
from bittern.errors import ManifestError
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Embedded
from bittern.service.models.loaded import Embedder, catalogue_encoder
from bittern.service.sources import read_source
from bittern.types import MediaItem

SAMPLE = Path(bittern.__file__).parent / "sample" / "manifest.csv"
"""The sample media that ship with Bittern."""


@dataclass(frozen=True)
class Items:
    """The photographs, or the recordings, of a collection.

    Attributes:
        media: one per item, in the order of the manifest.
        labels: relevance class of each item.
        embeddings: float32 [rows, dim], one row per observation.
        owners: int64 [rows], the item of each row.
    """

    media: Sequence[MediaItem]
    labels: NDArray[np.str_]
    embeddings: NDArray[np.float32]
    owners: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def whole(self, item: int) -> NDArray[np.float32]:
        """One item as a query, float32 [dim]: the mean over its windows, as the engine takes it."""
        mean = self.embeddings[self.owners == item].mean(axis=0)
        whole: NDArray[np.float32] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return whole


@dataclass(frozen=True)
class Collection:
    """An embedded manifest.

    Attributes:
        embedder: what embedded it.
        embedded: the pipeline's answer per entry, failures too.
    """

    embedder: Embedder
    embedded: Sequence[Embedded]

    @property
    def failed(self) -> int:
        """How many entries could not be used."""
        return sum(e.result is not None for e in self.embedded)

    def items(self, modality: Modality) -> Items | None:
        """The labelled items of one modality; None if there are none."""
        chosen = [
            (e.item, e.stacked())
            for e in self.embedded
            if e.item is not None and e.result is None and e.item.modality == modality
        ]
        chosen = [(item, rows) for item, rows in chosen if item.metadata.get("label")]
        if not chosen:
            return None
        return Items(
            media=[item for item, _ in chosen],
            labels=np.array([str(item.metadata["label"]) for item, _ in chosen]),
            embeddings=np.concatenate([rows for _, rows in chosen]),
            owners=np.repeat(np.arange(len(chosen)), [len(rows) for _, rows in chosen]),
        )

    def embeddings(self) -> dict[str, NDArray[np.float32]]:
        """Per modality that there are items of, float32 [rows, dim]."""
        found = {m: self.items(m) for m in (Modality.IMAGE, Modality.AUDIO)}
        return {str(m): items.embeddings for m, items in found.items() if items}

    def texts(self, words: Sequence[str]) -> NDArray[np.float32]:
        """Text queries, float32 [n, dim], each embedded by itself as a search does."""
        return np.concatenate([self.embedder.embed(Modality.TEXT, [word]) for word in words])


def media_of(manifest: Path) -> list[MediaItem]:
    """The usable rows of a manifest.

    Raises:
        SourceNotFoundError, ManifestError: it cannot be read.
    """
    return [entry for entry in read_source(manifest) if isinstance(entry, MediaItem)]


def load_embedder(encoder: str) -> Embedder:
    """The encoder, with its weights checked for.

    Raises:
        WeightsMissingError: they are not on this machine.
    """
    embedder = Embedder(encoder, catalogue_encoder)
    embedder.encoder()
    return embedder


def embed_manifest(manifest: Path, encoder: str) -> Collection:
    """Embed a manifest with a column `label`.

    Raises:
        ManifestError: no row has a label.
        SourceNotFoundError, WeightsMissingError: something is not there.
    """
    source = read_source(manifest)
    if not any(isinstance(e, MediaItem) and e.metadata.get("label") for e in source):
        raise ManifestError(
            f"{manifest} has no column 'label' with relevance classes; add one", field="label"
        )
    embedder = load_embedder(encoder)
    say(f"embedding {len(source.listed)} items with {encoder}")
    return Collection(embedder, list(embed_items(embedder, source)))
