"""The interface of encoders: towers that share one embedding space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


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
