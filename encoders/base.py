"""The interface of encoders: towers that share one embedding space, and checks of their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError, QueryError


class Modality(StrEnum):
    """Input of a tower."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"


Padding = Literal["repeat", "silence"]


@dataclass(frozen=True, slots=True)
class AudioWindowing:
    """How recordings are cut for an encoder with an audio tower.

    Attributes:
        sample_rate: Hz; recordings are resampled to it.
        window_s: length of one window in seconds.
        hop_s: distance between the starts of two windows in seconds.
        padding: how a short last window is filled, as in the tower's training: with its own
            sound, repeated, or with silence.
    """

    sample_rate: int
    window_s: float
    hop_s: float
    padding: Padding = "repeat"


Text = str
Image = NDArray[np.uint8]
"""An upright RGB picture, uint8 [height, width, 3]."""
Audio = NDArray[np.float32]
"""One mono window at the encoder's sample rate, float32 [samples], within [-1, 1]."""
Media = Text | Image | Audio

SHORTER_SIDE = 512
"""Pictures are decoded to at least this many pixels on the shorter side."""
# Decoding decides codes as much as weights do, so these texts are part of the digests of image and
# audio towers. Change them whenever a decoder changes.
PICTURES = f"1: upright 8-bit RGB; reduced by a whole factor, side >= {SHORTER_SIDE}"
SOUNDS = "1: mean of the channels, soxr HQ"


@runtime_checkable
class Encoder(Protocol):
    """Towers for one or more modalities, all into one space of `dim` dimensions."""

    name: str
    """Catalogue name, e.g. ``bioclip-2``."""
    dim: int
    """Length of an embedding."""
    modalities: frozenset[Modality]
    """The towers that this encoder has."""
    windowing: AudioWindowing | None
    """How recordings are cut; None without an audio tower."""

    @property
    def digests(self) -> Mapping[Modality, str]:
        """Per tower, hex SHA-256 of everything that decides its embeddings: weights,
        preprocessing, prompt. Towers may share files, so digests may be equal.
        """
        ...

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        """Embed a batch.

        Args:
            modality: which tower.
            batch: `str` for text, `Image` for pictures, `Audio` windows for sound.

        Returns:
            float32 [n, dim], each row of unit L2 norm; [0, dim] for an empty batch.

        Raises:
            UnsupportedModalityError: there is no such tower.
            InvalidInputError: an item has the wrong dtype or shape.
        """
        ...


def check_texts(batch: Sequence[Media], *, empty: bool = False) -> list[str]:
    """Check that every item is a text, and not empty unless `empty` allows it.

    Raises:
        InvalidInputError: an item is no `str`.
        QueryError: an item is empty.
    """
    texts: list[str] = []
    for i, item in enumerate(batch):
        if not isinstance(item, str):
            raise InvalidInputError(f"item {i} must be a text, not {_describe(item)}", field="text")
        if not empty and not item.strip():
            raise QueryError(f"text {i} is empty; give it at least one word", field="text")
        texts.append(item)
    return texts


def check_images(batch: Sequence[Media]) -> list[Image]:
    """Check that every item is uint8 [h, w, 3].

    Raises:
        InvalidInputError: an item is not.
    """
    images: list[Image] = []
    for i, item in enumerate(batch):
        if not (
            isinstance(item, np.ndarray)
            and item.dtype == np.uint8
            and item.ndim == 3
            and item.shape[2] == 3
            and item.size
        ):
            raise InvalidInputError(
                f"item {i} must be a picture, uint8 [height, width, 3], not {_describe(item)}",
                field="image",
            )
        images.append(item)  # type: ignore[arg-type]
    return images


def check_windows(batch: Sequence[Media], samples: int, *, up_to: bool = False) -> list[Audio]:
    """Check that every item is one window: float32 [samples], finite.

    Args:
        batch: the items.
        samples: length of a window.
        up_to: whether windows may be shorter.

    Raises:
        InvalidInputError: an item is not.
    """
    windows: list[Audio] = []
    for i, item in enumerate(batch):
        if not (
            isinstance(item, np.ndarray)
            and item.dtype == np.float32
            and item.ndim == 1
            and (0 < len(item) <= samples if up_to else len(item) == samples)
        ):
            length = f"up to {samples}" if up_to else samples
            raise InvalidInputError(
                f"item {i} must be one window of sound, float32 [{length}], not "
                f"{_describe(item)}; cut recordings with bittern.encoders.audio.windows",
                field="audio",
            )
        if not np.isfinite(item).all():
            raise InvalidInputError(f"window {i} holds NaN or infinity", field="audio")
        windows.append(item)  # type: ignore[arg-type]
    return windows


def _describe(item: object) -> str:
    if isinstance(item, np.ndarray):
        return f"{item.dtype} {list(item.shape)}"
    return type(item).__name__
