"""Saved models whose encoder is put together from towers of tiny checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.encoders.adapters import LoraSettings
from bittern.encoders.assembly import AssembledEncoder, TowerPlan, assemble, begin, plans_to_json
from bittern.encoders.base import Encoder, Media, Modality
from bittern.encoders.catalogue import load_encoder
from bittern.hashing.hashcoder import HashCoder
from bittern.hashing.hashers import Hasher, HybridHasher
from bittern.hashing.learned import LearnedHasher
from bittern.hashing.saved_model import SavedModel, Story
from bittern.hashing.training_free import fit
from bittern.service.ingest.items import decode
from bittern.types import MediaItem
from tests.encoders.tiny import write_clap, write_openclip
from tests.engine.toy import COLOURS, picture, sound

CLIP, CLAP = "tiny-clip", "tiny-clap"
BOTH = f"{CLAP}+{CLIP}"
BITS = 64
LORA = LoraSettings(rank=2, alpha=2, dropout=0.1)
DISTILLED = {
    Modality.TEXT: TowerPlan(CLIP),
    Modality.IMAGE: TowerPlan(CLIP),
    Modality.AUDIO: TowerPlan(CLAP, projection=True),
}
ADAPTED = {Modality.TEXT: TowerPlan(CLIP), Modality.IMAGE: TowerPlan(CLIP, lora=LORA)}
Tensors = dict[str, NDArray[np.float32]]


def write_weights(folder: Path, *, seed: int = 0) -> Path:
    """A folder for `$BITTERN_WEIGHTS`."""
    write_openclip(folder / CLIP, seed=seed)
    write_clap(folder / CLAP, seed=seed)
    return folder


@dataclass
class Trained:
    """What some training has made of towers."""

    name: str
    encoder: str
    plans: Mapping[Modality, TowerPlan]
    tensors: Tensors
    whole: AssembledEncoder

    def saved(self, hasher: str | Hasher = "lsh", **changes: str) -> SavedModel:
        made = hasher_on(self.whole, hasher) if isinstance(hasher, str) else hasher
        return SavedModel.describe(
            changes.get("name", self.name),
            made,
            encoder=changes.get("encoder", self.encoder),
            towers={str(m): digest for m, digest in self.whole.digests.items()},
            licence="none",
            assembly=plans_to_json(self.plans),
            adapters=self.tensors,
            story=Story(metrics={"loss": 0.5, "validation": {"mAP": 0.41}}),
        )


def distilled() -> Trained:
    """The audio tower of one encoder in the space of the other: a sound is where its colour is."""
    clip, clap = load_encoder(CLIP), load_encoder(CLAP)
    seen = clip.encode(Modality.IMAGE, media(clip, Modality.IMAGE)).astype(np.float64)
    heard = clap.encode(Modality.AUDIO, media(clap, Modality.AUDIO)).astype(np.float64)
    tensors = {
        "audio.projection.weight": (seen.T @ np.linalg.pinv(heard.T)).astype(np.float32),
        "audio.projection.bias": np.zeros(clip.dim, np.float32),
    }
    return _trained("heron", BOTH, DISTILLED, tensors)


def adapted() -> Trained:
    """Adapters on the image tower."""
    fresh = begin("fresh", ADAPTED, load_encoder, seed=0).tensors()
    rng = np.random.default_rng(1)
    tensors = {n: rng.normal(0, 0.2, t.shape).astype(np.float32) for n, t in fresh.items()}
    return _trained("egret", CLIP, ADAPTED, tensors)


def _trained(
    name: str, encoder: str, plans: Mapping[Modality, TowerPlan], tensors: Tensors
) -> Trained:
    return Trained(name, encoder, plans, tensors, assemble(name, plans, tensors, load_encoder))


def media(encoder: Encoder, modality: Modality) -> list[Media]:
    """One for each colour, as the encoder takes it."""
    if modality is Modality.TEXT:
        return [f"a {colour} bird" for colour in COLOURS]
    decoded: list[Media] = []
    for colour in COLOURS:
        data = picture(colour) if modality is Modality.IMAGE else sound(colour)
        item = MediaItem(colour, colour, str(modality), data=data)
        decoded += [one.data for one in decode(item, encoder.windowing)]
    return decoded


def hasher_on(encoder: Encoder, kind: str) -> Hasher:
    """A hasher of this kind, centred on what the encoder makes of the colours."""
    sample: dict[str, NDArray[np.float32]] = {
        str(m): encoder.encode(m, media(encoder, m)) for m in sorted(encoder.modalities)
    }
    if kind == "lsh":
        return fit("lsh", sample, BITS)
    if kind == "hybrid":
        return HybridHasher([_head(sample, BITS // 2), fit("lsh", sample, BITS // 2)], [1.0, 0.5])
    return _head(sample, BITS)


def _head(sample: Mapping[str, NDArray[np.float32]], bits: int) -> LearnedHasher:
    torch.manual_seed(0)
    head = HashCoder(next(iter(sample.values())).shape[1], bits)
    means = {modality: rows.mean(axis=0) for modality, rows in sample.items()}
    return LearnedHasher.from_modules(dict.fromkeys(sample, head), means=means)
