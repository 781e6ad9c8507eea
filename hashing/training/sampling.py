"""Shuffled batches of embeddings, read nearly sequentially; the next buffer is prefetched.

An epoch shuffles blocks of neighbouring rows, cuts the sequence into buffers and shuffles the
items of each buffer. A buffer is one nearly sequential read; two items can be in one batch
if their blocks are in one buffer. Everything depends on (seed, epoch) alone.

If items have groups (such as species), no batch has two items of a group: their captions are equal,
and a loss that separates codes would separate equal ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.errors import InvalidInputError
from bittern.hashing.training.embedding_sets import EmbeddingSet
from bittern.text import counted

BUFFER_ROWS = 1 << 15
BLOCK_ROWS = 64
GROUPED_BLOCK_ROWS = 16
"""Archives are often sorted by species: smaller blocks bring more groups into a buffer."""
_STEPS = 8
"""Batches per epoch of a set that does not fill one of the settings' size."""
_LEAST_SIZE = 8


@dataclass(frozen=True)
class BufferPlan:
    """One read and its batches.

    Attributes:
        rows: int64 [m], rows to read, ascending.
        batches: int64 [k, size], positions in `rows`.
    """

    rows: NDArray[np.int64]
    batches: NDArray[np.int64]


@dataclass(frozen=True)
class Sampler:
    """Batches of equal size; remaining rows are dropped.

    A set that does not fill one batch has smaller batches (`size`).

    Memory: 8 bytes per row for the order of an epoch.

    Attributes:
        rows: int64, rows to draw from, ascending.
        batch_size: most items per batch.
        seed: of all orders.
        groups: int32 [len(rows)], or None.
        buffer_rows: rows in a buffer, rounded down to whole batches.
    """

    rows: NDArray[np.int64]
    batch_size: int
    seed: int
    groups: NDArray[np.int32] | None = None
    buffer_rows: int = BUFFER_ROWS

    def __post_init__(self) -> None:
        if len(self.rows) < 2:
            raise InvalidInputError(
                f"{counted(len(self.rows), 'item')} to train on: a training needs two or more, "
                "and some hundred to be of use. Bring more, or index with the encoder alone",
                field="source",
            )
        if self.size < 2:
            raise InvalidInputError(
                f"all {len(self.rows)} items to train on are of one group (species, name or "
                "caption): codes are learned by telling groups apart. Bring items of a second one",
                field="source",
            )
        if not self.steps:
            raise InvalidInputError(
                f"a batch of {self.size} items of different groups cannot be made: items of one "
                "group lie together. Lower batch_size, or shuffle the set",
                field="batch_size",
            )

    @cached_property
    def size(self) -> int:
        """Items of each batch: `batch_size`; where the items (groups, if a batch has one item of
        each at most) do not fill that, an eighth of them, for several steps per epoch.
        """
        count = len(self.rows) if self.groups is None else len(np.unique(self.groups))
        if count >= self.batch_size:
            return self.batch_size
        return max(min(count, _LEAST_SIZE), count // _STEPS)

    @property
    def warnings(self) -> list[str]:
        """For the user, if batches are smaller than the settings say."""
        if self.size == self.batch_size:
            return []
        text = (
            f"batches have {self.size} items instead of {self.batch_size}: there are "
            f"{len(self.rows)} to train on"
        )
        if self.groups is not None:
            groups = len(np.unique(self.groups))
            text += f", of {groups} species, names or captions, and a batch has one of each at most"
        return [text]

    @cached_property
    def steps(self) -> int:
        """Batches per epoch; with groups, those of the first pass."""
        if self.groups is None:
            return len(self.rows) // self.size
        return sum(len(buffer.batches) for buffer in self._pass(0, 0))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[BufferPlan]:
        """The buffers of an epoch from batch `start` on, `steps` batches in all."""
        done, passes = 0, 0
        while done < self.steps:
            before = done
            for buffer in self._pass(epoch, passes):
                skip, keep = max(0, start - done), self.steps - done
                done += len(buffer.batches)
                if skip < len(buffer.batches) and keep > 0:
                    yield _narrowed(buffer, slice(skip, keep))
            # With groups, a pass may give fewer batches than the first one: begin another.
            passes += 1
            if done == before and passes > 100:
                raise InvalidInputError(
                    "no batch of different groups could be drawn: lower batch_size",
                    field="batch_size",
                )

    def batches(self, epoch: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
        """The rows of each batch of an epoch, int64 [size], from number `start` on."""
        for buffer in self.epoch(epoch, start):
            yield from buffer.rows[buffer.batches]

    def _pass(self, epoch: int, number: int) -> Iterator[BufferPlan]:
        random = np.random.default_rng([self.seed, epoch, number])
        block = BLOCK_ROWS if self.groups is None else GROUPED_BLOCK_ROWS
        size = max(1, self.buffer_rows // self.size) * self.size
        order = _shuffled_blocks(len(self.rows), block, random)
        for start in range(0, len(order), size):
            within = np.sort(order[start : start + size])
            if self.groups is None:
                count = len(within) // self.size
                dealt = random.permutation(len(within))[: count * self.size]
                batches = dealt.reshape(count, self.size)
            else:
                batches = _dealt_by_group(self.groups[within], self.size, random)
            if len(batches):
                yield BufferPlan(self.rows[within], batches)


def _shuffled_blocks(count: int, block: int, random: np.random.Generator) -> NDArray[np.int64]:
    """0 to count - 1, in blocks in random order."""
    starts = random.permutation(-(-count // block)) * block
    order = (starts[:, None] + np.arange(block)).ravel()
    inside: NDArray[np.int64] = order[order < count]
    return inside


def _dealt_by_group(
    groups: NDArray[np.int32], batch_size: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """The most batches without two items of a group in one of them.

    Items are ordered by group and dealt to the batches in turn. A group has at most as many items
    as there are batches, so they go to different ones.
    """
    shuffled = random.permutation(len(groups))
    _, inverse, sizes = np.unique(groups[shuffled], return_inverse=True, return_counts=True)
    count = _most_batches(sizes, batch_size)
    if not count:
        return np.empty((0, batch_size), dtype=np.int64)
    lot = random.permutation(len(sizes))[inverse]
    by_group = np.argsort(lot, kind="stable")
    ordered = lot[by_group]
    first = np.searchsorted(ordered, ordered, side="left")
    fitting = by_group[np.arange(len(ordered)) - first < count]
    # A random surplus is dropped; the rest stays in the order of groups.
    keep = np.sort(random.permutation(len(fitting))[: count * batch_size])
    dealt = shuffled[fitting[keep]].reshape(batch_size, count).T
    batches: NDArray[np.int64] = np.ascontiguousarray(dealt[random.permutation(count)])
    return batches


def _most_batches(sizes: NDArray[np.int64], batch_size: int) -> int:
    """Largest k for which k batches can be filled when each group gives at most k items."""
    low, high = 0, int(sizes.sum()) // batch_size
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(sizes, middle).sum() >= middle * batch_size:
            low = middle
        else:
            high = middle - 1
    return low


def _narrowed(buffer: BufferPlan, some: slice) -> BufferPlan:
    """Some of the batches, with their rows only."""
    batches = buffer.batches[some]
    if len(batches) == len(buffer.batches):
        return buffer
    used, positions = np.unique(batches, return_inverse=True)
    return BufferPlan(buffer.rows[used], positions.reshape(batches.shape))


@dataclass(frozen=True)
class EmbeddingBatch:
    """Items of one batch.

    Attributes:
        rows: int64 [batch], rows of the set.
        views: per view float32 [batch, dim], on the CPU.
    """

    rows: NDArray[np.int64]
    views: Sequence[torch.Tensor]


def stream(
    source: EmbeddingSet, sampler: Sampler, epoch: int, start: int = 0
) -> Iterator[EmbeddingBatch]:
    """The batches of an epoch, from number `start` on.

    Memory: the buffer in use, the one being read, and its file pages, each
    ``buffer_rows * dim * bytes per value * views``: 3 x 50 MB for one float16 view of 768
    dimensions, for sets of any size.
    """
    plans = sampler.epoch(epoch, start)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="embeddings") as reader:

        def begin() -> tuple[BufferPlan, Future[list[torch.Tensor]]] | None:
            plan = next(plans, None)
            return None if plan is None else (plan, reader.submit(_read, source, plan.rows))

        coming = begin()
        while coming is not None:
            plan, reading = coming
            views = reading.result()
            coming = begin()
            positions = torch.from_numpy(plan.batches)
            for batch, chosen in zip(plan.batches, positions, strict=True):
                yield EmbeddingBatch(
                    plan.rows[batch], [view.index_select(0, chosen).float() for view in views]
                )


def _read(source: EmbeddingSet, rows: NDArray[np.int64]) -> list[torch.Tensor]:
    return [torch.from_numpy(source.read(view, rows)) for view in source.views]


def mixed(steps: Sequence[int], seed: int, epoch: int, start: int) -> tuple[list[int], list[int]]:
    """The set of each batch of an epoch, for training on several sets.

    Args:
        steps: batches per epoch of each set.
        seed: of the training.
        epoch: from 1.
        start: batches done before.

    Returns:
        The number of the set for each batch from `start` on, and the batches of each set before.
    """
    turns = np.repeat(np.arange(len(steps)), steps)
    turns = np.random.default_rng([seed, epoch, 1]).permutation(turns)
    before = np.bincount(turns[:start], minlength=len(steps))
    return turns[start:].tolist(), before.tolist()


def random_numbers(
    seed: int, epoch: int, rows: NDArray[np.int64], choices: int
) -> NDArray[np.int64]:
    """Per row a pseudo-random number below `choices`, from seed, epoch and row alone."""
    state = rows.astype(np.uint64) + np.uint64(1)
    for salt in (seed, epoch):
        state ^= np.uint64(salt * 0x9E3779B97F4A7C15 % 2**64)
        # The finaliser of splitmix64 (Steele, Lea & Flood, OOPSLA 2014).
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state % np.uint64(choices)).astype(np.int64)
