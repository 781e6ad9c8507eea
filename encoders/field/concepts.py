"""From class probabilities to the shared text space: label vectors and their mixture.

Convex combination of semantic embeddings ("ConSE", Norouzi et al., arXiv 1312.5650): an
item's embedding is the mean of the text vectors of its classes, weighted by probability. The
vectors beside this module were built by `python -m bittern.encoders.field_build`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ModelDamagedError

FORMAT_VERSION = 1
"""Of the tensors, the card, and how pictures and sounds are prepared; part of the digests."""
DIM = 384
LABELS = Path(__file__).with_name("labels.safetensors")
CARD = Path(__file__).with_name("labels.json")


@dataclass(frozen=True)
class Concepts:
    """Label vectors and settings, shared by the towers.

    Attributes:
        tensors: `text.mean` [384], `image.labels` [1000, 384], `image.prior` [1000],
            `audio.labels` [6522, 384], `audio.prior` [6522], and `calibration.text`,
            `calibration.image`, `calibration.audio` [n, 384]; all float32. Label vectors are
            centred already.
        settings: parameters of the mixture.
    """

    tensors: Mapping[str, NDArray[np.float32]]
    settings: Mapping[str, Any]

    def digest(self, *names: str) -> str:
        """Hex SHA-256 of the named tensors, the settings and the format version."""
        state = hashlib.sha256(json.dumps(dict(self.settings), sort_keys=True).encode())
        state.update(f"field format {FORMAT_VERSION}".encode())
        for name in names:
            tensor = self.tensors[name]
            state.update(f"{name}{tensor.shape}".encode())
            state.update(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
        return state.hexdigest()


@cache
def load_concepts() -> Concepts:
    """Read the label vectors.

    Raises:
        ModelDamagedError: a file is missing, or does not match its card.
    """
    from safetensors.numpy import load

    try:
        card = json.loads(CARD.read_text(encoding="utf-8"))
        blob = LABELS.read_bytes()
    except (OSError, ValueError) as error:
        raise ModelDamagedError(
            f"the label vectors of field cannot be read ({error}); reinstall bittern-search"
        ) from error
    found = hashlib.sha256(blob).hexdigest()
    if found != card.get("sha256") or card.get("format_version") != FORMAT_VERSION:
        raise ModelDamagedError(
            f"{LABELS.name} (SHA-256 {found[:12]}…) is not the file that {CARD.name} describes "
            f"({str(card.get('sha256'))[:12]}…, format {card.get('format_version')}); "
            "reinstall bittern-search, or run: python -m bittern.encoders.field_build"
        )
    tensors = {name: np.asarray(t, dtype=np.float32) for name, t in load(blob).items()}
    return Concepts(tensors, card["settings"])


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows scaled to L2 norm 1: float [n, d] in, float32 [n, d] out."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)


def keep_largest(weights: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    """Zero all but the k largest of each row: float [n, c] in and out."""
    if k >= weights.shape[1]:
        return weights
    bar = np.partition(weights, -k, axis=1)[:, -k][:, None]
    return np.where(weights >= bar, weights, np.float32(0.0))


def softmax(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """Probabilities of exclusive classes: float32 [n, c] in and out."""
    scaled = (logits - logits.max(axis=1, keepdims=True)) / np.float32(temperature)
    e = np.exp(scaled)
    return np.asarray(e / e.sum(axis=1, keepdims=True), dtype=np.float32)


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of independent classes: float32 [n, c] in and out."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -60.0, 60.0))), dtype=np.float32)


def mix(weights: NDArray[np.float32], labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted mean of label vectors, unit norm: weights [n, c], labels [c, d] -> [n, d].

    Row by row: a product of whole matrices rounds differently for different n.
    """
    return unit(np.stack([row @ labels for row in weights]))


_NEIGHBOUR_TEMPERATURE = 0.1
_OWN_SHARE = np.float32(0.6)


def typical_embeddings() -> dict[str, NDArray[np.float32]]:
    """Per modality float32 [n, 384], unit norm; the same on every machine.

    All three hold the same animals of WordNet, worded like that modality's labels. Image and audio
    add their animal classes, each mixed with its neighbours, as by an unsure classifier; of
    BirdNET's many birds every eighth, so that they do not outweigh the rest.
    """
    tensors = load_concepts().tensors
    out = {"text": unit(tensors["calibration.text"])}
    for modality, step in (("image", 1), ("audio", 8)):
        labels = tensors[f"{modality}.labels"][tensors[f"{modality}.prior"] >= 1.0]
        animals = unit(tensors[f"calibration.{modality}"])
        out[modality] = np.concatenate([animals, _blurred(labels[::step])])
    return out


def _blurred(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    directions = unit(labels)
    around = softmax(directions @ directions.T, _NEIGHBOUR_TEMPERATURE) @ directions
    return unit(_OWN_SHARE * directions + (1 - _OWN_SHARE) * unit(around))
