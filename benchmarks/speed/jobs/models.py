"""The models that jobs are measured with: `field`, and BioCLIP's network with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bittern.benchmarks.speed.models import model_of
from bittern.benchmarks.speed.random_weights import write_openclip
from bittern.benchmarks.speed.report import say
from bittern.encoders.base import Encoder, Modality
from bittern.service.models.loaded import Embedder, Model, catalogue_encoder

RANDOM = "bioclip"
"""The network of imageomics/bioclip (arXiv 2311.18803), CLIP's ViT-B/16; weights are random."""


def encoder_loader(weights: Path) -> Callable[[str], Encoder]:
    """Loads `field`, or the network with random weights from this folder."""

    def load(name: str) -> Encoder:
        if name != RANDOM:
            return catalogue_encoder(name)
        from bittern.encoders.openclip import OpenClipEncoder

        return OpenClipEncoder(weights, name=RANDOM, device="cpu")

    return load


def loaded_model(name: str, weights: Path) -> Model:
    """A model of 256 bits whose networks are loaded.

    Args:
        name: ``field`` or `RANDOM`.
        weights: folder of the random weights, written where they are missing.
    """
    if name == RANDOM and not weights.is_dir():
        say("writing a ViT-B/16 with random weights")
        write_openclip(weights)
    embedder = Embedder(name, encoder_loader(weights))
    embedder.encoder()
    rng = np.random.default_rng(0)

    def sample() -> dict[str, np.ndarray]:
        pictures = [rng.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(32)]
        return {"image": embedder.embed(Modality.IMAGE, pictures)}

    return Model(model_of(embedder, sample), embedder)
