"""`field`, the embedded default encoder: text, image and audio in one 384-dimensional space.

    encoder = bittern.encoders.field.load()
    encoder.encode(Modality.TEXT, ["a tawny owl calling at night"])

Its weights come with pip packages: MiniLM-L6 reads words, EfficientNet-Lite2 and BirdNET 2.4
turn pictures and sounds into class probabilities, which weight the text vectors of the class
names. Method and results: `docs/background/field.md`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bittern.encoders.field.encoder import FieldEncoder

__all__ = ["calibration", "load"]


def load(device: str | None = None) -> FieldEncoder:
    """Make the encoder; no weights are read before the first `encode`.

    Args:
        device: torch device of the text and image towers; None means ``cpu``, so that codes do
            not depend on the machine's accelerator.
    """
    from bittern.encoders.field.encoder import FieldEncoder

    return FieldEncoder(device or "cpu", min(2, os.cpu_count() or 1))


def calibration() -> dict[str, NDArray[np.float32]]:
    """Embeddings typical of each modality, made without any media.

    Hashers can be fitted to them once, so that codes do not depend on what an archive holds.

    Returns:
        ``text``, ``image`` and ``audio``: float32 [n, 384], unit norm.
    """
    from bittern.encoders.field.concepts import typical_embeddings

    return typical_embeddings()
