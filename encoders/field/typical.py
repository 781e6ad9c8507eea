"""Typical embeddings of each modality, made from the label vectors alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.field.concepts import load_concepts, softmax, unit

_NEIGHBOUR_TEMPERATURE = 0.1
_OWN_SHARE = np.float32(0.6)


def typical_embeddings() -> dict[str, NDArray[np.float32]]:
    """Per modality float32 [n, 384], unit norm; the same on every machine.

    All three hold the same animals of WordNet, worded as that modality's labels are. Image and
    audio add their classes, each mixed with its neighbours the way an unsure classifier mixes
    them; of the many birds that BirdNET knows every eighth, so that they do not outweigh the
    rest. Classes that count little because they are no animals are left out.
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
