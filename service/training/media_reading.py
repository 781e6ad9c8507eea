"""Reads media again while towers are trained on them: views of items, and batches prefetched."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.audio import windows
from bittern.encoders.augmentation import PICTURE_SETS, picture_view, sound_view, view_generator
from bittern.encoders.base import SHORTER_SIDE, AudioWindowing, Media
from bittern.encoders.images import decode_image
from bittern.errors import BitternError, TrainingError
from bittern.service.training.embedded_examples import EmbeddedExamples

MOST_RAW_ITEMS = 1024
"""Most held-out rows that are decoded and embedded again after each epoch."""
_PREFETCHED_BATCHES = 2
_ENCODE_AT_A_TIME = 32
_MOST_DECODERS = 16

Plan = TypeVar("Plan")
Made = TypeVar("Made")


@dataclass(frozen=True)
class MediaReader:
    """Reads views of the media of one modality; depends on seed, epoch, item and view alone.

    Attributes:
        embedded: the examples, and their usable windows.
        windowing: of the audio tower; None for photographs.
        augmentation: ``published``, ``plants``, ``sound``, ``none``, or empty for none.
        seed: of the training.
    """

    embedded: EmbeddedExamples
    windowing: AudioWindowing | None
    augmentation: str
    seed: int

    def view(self, item: int, epoch: int, number: int) -> Media:
        """A random view of an item; for a recording, of a random window.

        Raises:
            TrainingError: the file can no longer be read.
        """
        generator = view_generator(self.seed, epoch, item, number)
        first, last = np.searchsorted(self.embedded.item, [item, item + 1])
        usable = self.embedded.window[first:last]
        media: Any = self.read(item, int(usable[int(generator.integers(len(usable)))]))
        if self.augmentation in ("", "none"):
            return cast(Media, media)
        if self.windowing is not None:
            return sound_view(media, self.windowing.sample_rate, generator)
        chosen = PICTURE_SETS.get(self.augmentation)
        return cast(Media, media) if chosen is None else picture_view(media, chosen, generator)

    def read(self, item: int, window: int) -> Media:
        """A photograph, or one window of a recording.

        Raises:
            TrainingError: the file can no longer be read.
        """
        path = self.embedded.examples[item].path
        name = str(path)
        try:
            if self.windowing is None:
                return decode_image(path, name=name, min_side=SHORTER_SIDE)
            found = windows(path, self.windowing, name=name)
            if (one := next(islice(found, window, None), None)) is None:
                raise TrainingError(f"{name} has no window {window} any more")
            return one.samples
        except BitternError as error:
            raise TrainingError(
                f"{name} could be read when this training began, and cannot be now: "
                f"{error.message}. Restore it and run the same command again, or train into "
                "another folder.",
                field="source",
                details={"path": name},
            ) from error

    def encoded(
        self, rows: NDArray[np.int64], encode: Callable[[Sequence[Media]], NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Rows of the embedded set, read again and encoded: float32 [n, dim]."""
        out = []
        for start in range(0, len(rows), _ENCODE_AT_A_TIME):
            some = rows[start : start + _ENCODE_AT_A_TIME]
            positions = zip(self.embedded.item[some], self.embedded.window[some], strict=True)
            out.append(encode([self.read(int(item), int(window)) for item, window in positions]))
        return np.concatenate(out)


def prefetched(plans: Iterable[Plan], make: Callable[[Plan, Executor], Made]) -> Iterator[Made]:
    """The batches that `make` makes of plans, in order, prefetched.

    Args:
        plans: one per batch.
        make: called in a background thread, with threads that decode media.
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
                if len(waiting) > _PREFETCHED_BATCHES:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
