"""`field`: words, pictures and sounds in one text space, from weights that come with pip."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import (
    PICTURES,
    SOUNDS,
    Audio,
    AudioWindowing,
    Image,
    Media,
    Modality,
    check_images,
    check_texts,
    check_windows,
)
from bittern.encoders.field.concepts import (
    DIM,
    Concepts,
    keep_largest,
    load_concepts,
    mix,
    sigmoid,
    softmax,
    unit,
)
from bittern.encoders.field.networks import FRAME, SAMPLE_RATE, BirdNET, EfficientNetLite2, MiniLM
from bittern.encoders.weights import sha256
from bittern.errors import UnsupportedModalityError

WINDOW_S = 3.0
HOP_S = 3.0
MAX_WINDOW_SAMPLES = 60 * SAMPLE_RATE
"""Longest window that one call embeds."""


class FieldEncoder:
    """The embedded default encoder. Towers load at their first use; calls may be concurrent.

    Args:
        device: torch device of the text and image towers; the audio tower runs on the CPU.
        threads: threads of the audio interpreter.
    """

    name = "field"
    dim = DIM
    modalities = frozenset(Modality)
    windowing: AudioWindowing | None = AudioWindowing(SAMPLE_RATE, WINDOW_S, HOP_S, "silence")

    def __init__(self, device: str = "cpu", threads: int = 2) -> None:
        self._text = MiniLM(device)
        self._image = EfficientNetLite2(device)
        self._audio = BirdNET(threads)

    @cached_property
    def _concepts(self) -> Concepts:
        return load_concepts()

    @cached_property
    def digests(self) -> Mapping[Modality, str]:
        """Hex SHA-256 per tower of weights, label vectors, settings and format version.

        Raises:
            WeightsMissingError: a package is not installed.
        """
        concepts = self._concepts
        return {
            Modality.TEXT: _digest(self._text.files(), concepts.digest("text.mean")),
            Modality.IMAGE: _digest(
                self._image.files(),
                f"{concepts.digest('image.labels', 'image.prior')} {PICTURES}",
            ),
            Modality.AUDIO: _digest(
                self._audio.files(),
                f"{concepts.digest('audio.labels', 'audio.prior')} {self.windowing} {SOUNDS}",
            ),
        }

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        """Embed a batch of one modality.

        Args:
            modality: ``text``, ``image`` or ``audio``.
            batch: `str`; or uint8 [height, width, 3]; or float32 [samples] at 48 kHz, up to
                60 s, processed in frames of 3 s.

        Returns:
            float32 [n, 384], unit norm.

        Raises:
            UnsupportedModalityError: not one of the three.
            QueryError: a text is too long.
            InvalidInputError: an item has the wrong type, dtype or shape.
            WeightsMissingError: a package is not installed.
        """
        if modality not in self.modalities:
            raise UnsupportedModalityError(
                f"field has no {modality!r} tower; it takes text, image and audio"
            )
        if not batch:
            return np.zeros((0, DIM), dtype=np.float32)
        if modality == Modality.TEXT:
            return self._encode_text(check_texts(batch, empty=True))
        if modality == Modality.IMAGE:
            return self._encode_image(check_images(batch))
        return self._encode_audio(check_windows(batch, MAX_WINDOW_SAMPLES, up_to=True))

    def _encode_text(self, batch: Sequence[str]) -> NDArray[np.float32]:
        return unit(self._text.encode(batch) - self._concepts.tensors["text.mean"])

    def _encode_image(self, batch: Sequence[Image]) -> NDArray[np.float32]:
        settings, tensors = self._concepts.settings["image"], self._concepts.tensors
        weights = softmax(self._image.logits(batch), settings["temperature"])
        weights = keep_largest(weights * tensors["image.prior"], settings["top_k"])
        return mix(weights, tensors["image.labels"])

    def _encode_audio(self, batch: Sequence[Audio]) -> NDArray[np.float32]:
        settings, tensors = self._concepts.settings["audio"], self._concepts.tensors
        frames = [_frames(window) for window in batch]
        heard = self._audio.logits(np.concatenate(frames))
        ends = np.cumsum([len(f) for f in frames])
        rows = []
        for end, own in zip(ends, frames, strict=True):
            loudest = heard[end - len(own) : end].max(axis=0, keepdims=True)
            weights = keep_largest(sigmoid(loudest) * tensors["audio.prior"], settings["top_k"])
            rows.append(mix(weights, tensors["audio.labels"])[0])
        return np.stack(rows)


def _digest(files: Sequence[Path], concepts: str) -> str:
    digests = [*(sha256(path) for path in files), concepts]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _frames(window: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut a window into 3 s frames, the last one padded with silence: [n, 144000]."""
    count = max(1, -(-len(window) // FRAME))
    padded = np.zeros(count * FRAME, dtype=np.float32)
    padded[: len(window)] = window
    return padded.reshape(count, FRAME)
