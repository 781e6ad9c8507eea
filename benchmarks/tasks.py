"""What is asked of a labelled collection: words or recordings, and which items answer them.

Queries are the labels themselves, as plain words (text→image, text→audio), or recordings
(audio→image, those whose label some picture has). What has the same label is relevant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.collection import Collection, Items
from bittern.encoders.base import Modality
from bittern.types import MediaItem


@dataclass(frozen=True)
class Task:
    """Queries of one modality against items of another.

    Attributes:
        asked: modality of the queries.
        target: modality of the items.
        sources: what each query was made of: words, or a recording.
        queries: float32 [q, dim].
        relevant: bool [q, items]; each query has at least one.
        items: what is ranked.
    """

    asked: Modality
    target: Modality
    sources: Sequence[str | MediaItem]
    queries: NDArray[np.float32]
    relevant: NDArray[np.bool_]
    items: Items

    @property
    def name(self) -> str:
        """``text→image`` and the like."""
        return f"{self.asked}→{self.target}"


def tasks(collection: Collection) -> Iterator[Task]:
    """The directions that the encoder's towers and the labels allow."""
    images, sounds = collection.items(Modality.IMAGE), collection.items(Modality.AUDIO)
    if Modality.TEXT in collection.embedder.encoder().modalities:
        if images:
            yield _asked_in_words(collection, Modality.IMAGE, images)
        if sounds:
            yield _asked_in_words(collection, Modality.AUDIO, sounds)
    if images and sounds and np.isin(sounds.labels, images.labels).any():
        yield _asked_by_sound(sounds, images)


def _asked_in_words(collection: Collection, target: Modality, items: Items) -> Task:
    words = sorted(set(items.labels.tolist()))
    return Task(
        asked=Modality.TEXT,
        target=target,
        sources=words,
        queries=collection.texts(words),
        relevant=np.array(words)[:, None] == items.labels[None, :],
        items=items,
    )


def _asked_by_sound(sounds: Items, images: Items) -> Task:
    answerable = np.flatnonzero(np.isin(sounds.labels, images.labels)).tolist()
    return Task(
        asked=Modality.AUDIO,
        target=Modality.IMAGE,
        sources=[sounds.media[i] for i in answerable],
        queries=np.stack([sounds.whole(i) for i in answerable]),
        relevant=sounds.labels[answerable][:, None] == images.labels[None, :],
        items=images,
    )
