"""Batches of embeddings from disk, with the next buffer read while this one is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.hashing.training.embeddings import EmbeddingSet
from bittern.hashing.training.sampling import BufferPlan, Sampler


@dataclass(frozen=True)
class EmbeddingBatch:
    """Items of one batch.

    Attributes:
        rows: int64 [batch], which items of the set.
        views: per view float32 [batch, dim], on the CPU.
    """

    rows: NDArray[np.int64]
    views: Sequence[torch.Tensor]


@dataclass(frozen=True)
class _Buffer:
    plan: BufferPlan
    views: Sequence[torch.Tensor]


def stream(
    source: EmbeddingSet, sampler: Sampler, epoch: int, start: int = 0
) -> Iterator[EmbeddingBatch]:
    """The batches of an epoch, from number `start` on.

    Memory: the buffer in use, the one being read, and the pages of the file behind it, each
    ``buffer_rows * dim * bytes per value * views``: 3 x 50 MB for one float16 view of 768
    dimensions. It does not grow with the set.
    """
    plans = sampler.epoch(epoch, start)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="embeddings") as reader:
        coming = _ask(reader, source, plans)
        while coming is not None:
            buffer = coming.result()
            coming = _ask(reader, source, plans)
            yield from _batches(buffer)


def _ask(
    reader: ThreadPoolExecutor, source: EmbeddingSet, plans: Iterator[BufferPlan]
) -> Future[_Buffer] | None:
    plan = next(plans, None)
    return None if plan is None else reader.submit(_read, source, plan)


def _read(source: EmbeddingSet, plan: BufferPlan) -> _Buffer:
    return _Buffer(plan, [torch.from_numpy(source.read(v, plan.rows)) for v in source.views])


def _batches(buffer: _Buffer) -> Iterator[EmbeddingBatch]:
    positions = torch.from_numpy(buffer.plan.batches)
    rows = buffer.plan.rows
    for batch, chosen in zip(buffer.plan.batches, positions, strict=True):
        views = [view.index_select(0, chosen).float() for view in buffer.views]
        yield EmbeddingBatch(rows[batch], views)
