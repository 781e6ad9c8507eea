"""The examples that towers are trained on: which items a batch has, and how they look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.encoders.assembly import AssembledEncoder
from bittern.encoders.base import Modality
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.sampling import Sampler
from bittern.service.training.embedding import Embeddings, variant
from bittern.service.training.media import Reader
from bittern.service.training.probing import Part, draw, evenly
from bittern.service.training.validating import HeldOut

MOST_RAW_ITEMS = 1024
"""Held-out rows that are decoded and embedded again after each epoch."""
_ENCODE_AT_A_TIME = 32
_MANY = 1 << 20


@dataclass(frozen=True)
class RawBatch:
    """Items on the device.

    Attributes:
        views: per view its modality and what its tower takes.
        membership: float32 [items, classes]; None for pairs.
    """

    views: Sequence[tuple[str, Any]]
    membership: torch.Tensor | None


class RawPart:
    """The examples of one modality, their batches, and those held out."""

    def __init__(
        self, embedded: Embeddings, part: Part, config: TrainingConfig, encoder: AssembledEncoder
    ) -> None:
        self.embedded, self.part = embedded, part
        self.examples, self.modality = embedded.examples, part.modality
        windowing = encoder.windowing if self.modality == "audio" else None
        self.reader = Reader(embedded, windowing, config.augmentation, config.seed)
        self.items = np.unique(embedded.rows.item[part.training])
        self.classes = {name: number for number, name in enumerate(self.examples.classes)}
        groups = None
        if not self.classes:
            names = [self.examples[int(i)].group for i in self.items]
            groups = np.unique(names, return_inverse=True)[1].astype(np.int32)
        self.sampler = Sampler(self.items, config.batch_size, config.seed, groups)
        augmented = config.augmentation not in ("", "none")
        self.media_views = 2 if self.classes and augmented else 1
        self.has_text = any(e.captions for e in self.examples)

    def captions(self, items: NDArray[np.int64], seed: int, epoch: int) -> list[str]:
        """Per item one of its captions, drawn."""
        numbers = draw(seed, epoch, items, _MANY)
        return [
            variant(self.examples[int(i)].captions, int(n))
            for i, n in zip(items, numbers, strict=True)
        ]

    def held_out(self, encoder: AssembledEncoder) -> HeldOut | None:
        """The held-out items as the towers embed them now."""
        kept = self.part.kept_out(MOST_RAW_ITEMS)
        if kept is None:
            return None
        rows = evenly(self.part.held_out, MOST_RAW_ITEMS)
        items, windows = self.embedded.rows.item[rows], self.embedded.rows.window[rows]
        media: list[NDArray[np.float32]] = []
        for start in range(0, len(rows), _ENCODE_AT_A_TIME):
            some = slice(start, start + _ENCODE_AT_A_TIME)
            batch = [
                self.reader.read(int(i), int(w))
                for i, w in zip(items[some], windows[some], strict=True)
            ]
            media.append(encoder.encode(Modality(self.modality), batch))
        queries = kept.queries
        if self.has_text:
            captions = [variant(self.examples[int(i)].captions, 0) for i in items]
            distinct = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
            embedded = encoder.encode(Modality.TEXT, list(distinct))
            queries = embedded[[distinct[caption] for caption in captions]]
        return replace(kept, media=np.concatenate(media), queries=queries)


def batches_of(part: RawPart, epoch: int, start: int) -> Iterator[NDArray[np.int64]]:
    """The items of each batch of an epoch, int64 [batch], from number `start` on."""
    for buffer in part.sampler.epoch(epoch, start):
        yield from buffer.rows[buffer.batches]
