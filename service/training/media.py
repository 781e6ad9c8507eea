"""Media read again and again while towers are trained: decoded, augmented, a few batches ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.audio import windows
from bittern.encoders.augmentation import picture_augmentation, sound_augmentation, view_generator
from bittern.encoders.base import SHORTER_SIDE, AudioWindowing, Media
from bittern.encoders.images import decode_image
from bittern.errors import BitternError, TrainingError
from bittern.service.training.embedding import Embeddings
from bittern.service.training.examples import Example

BATCHES_AHEAD = 2
_MOST_DECODERS = 16

Plan = TypeVar("Plan")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Reader:
    """Views of the media of one modality.

    What it returns follows from seed, epoch, item and view alone, whichever thread asks.

    Attributes:
        embedded: the examples, and which windows of them can be used.
        windowing: of the audio tower; None for photographs.
        augmentation: ``published``, ``plants``, ``sound`` or ``none``.
        seed: of the training.
    """

    embedded: Embeddings
    windowing: AudioWindowing | None
    augmentation: str
    seed: int

    def view(self, item: int, epoch: int, number: int) -> Media:
        """A view of an item: of a recording, one window, drawn from those it has.

        Raises:
            TrainingError: the file can no longer be read.
        """
        generator = view_generator(self.seed, epoch, item, number)
        usable = self.windows_of(item)
        window = int(usable[int(generator.integers(len(usable)))])
        media: Any = self.read(item, window)
        if self.windowing is None:
            name = self.augmentation if self.augmentation in ("published", "plants") else "none"
            return picture_augmentation(name)(media, generator)
        name = "none" if self.augmentation in ("", "none") else "masking"
        return sound_augmentation(name, self.windowing.sample_rate)(media, generator)

    def windows_of(self, item: int) -> NDArray[np.int64]:
        """The windows of an item that were embedded, int64, one or more."""
        rows = self.embedded.rows
        first, last = np.searchsorted(rows.item, [item, item + 1])
        return rows.window[first:last]

    def read(self, item: int, window: int) -> Media:
        """A photograph, or one window of a recording, as it is.

        Raises:
            TrainingError: the file can no longer be read.
        """
        example = self.embedded.examples[item]
        try:
            return _decoded(example, window, self.windowing)
        except BitternError as error:
            raise TrainingError(
                f"{example.path} could be read when this training began, and cannot be now: "
                f"{error.message}. Bring it back and give the same command, or train anew "
                "into another folder.",
                field="source",
                details={"path": str(example.path)},
            ) from error


def _decoded(example: Example, window: int, windowing: AudioWindowing | None) -> Media:
    name = str(example.path)
    if windowing is None:
        return decode_image(example.path, name=name, min_side=SHORTER_SIDE)
    found = next(islice(windows(example.path, windowing, name=name), window, None), None)
    if found is None:
        raise TrainingError(f"{name} has no window {window} any more")
    return found.samples


def prefetched(plans: Iterable[Plan], make: Callable[[Plan, Executor], Made]) -> Iterator[Made]:
    """What `make` makes of each plan, in order, some plans ahead of whoever takes it.

    Args:
        plans: what is to be made.
        make: called in a thread of its own, with threads that decode media.
    """
    count = max(2, min(os.cpu_count() or 2, _MOST_DECODERS))
    with (
        ThreadPoolExecutor(count, thread_name_prefix="decode") as decoders,
        ThreadPoolExecutor(1, thread_name_prefix="prepare") as preparing,
    ):
        waiting: deque[Future[Made]] = deque()
        try:
            for plan in plans:
                waiting.append(preparing.submit(make, plan, decoders))
                if len(waiting) > BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def membership_of(examples: Sequence[Example], classes: Mapping[str, int]) -> NDArray[np.float32]:
    """float32 [items, classes among them], 1 where the item is of the class."""
    member = np.zeros((len(examples), len(classes)), dtype=np.float32)
    for row, example in enumerate(examples):
        for label in example.labels:
            member[row, classes[label]] = 1.0
    return member[:, member.any(axis=0)]
