"""The words for what `field` can see and hear: names of classes, of kin, of unknown relatives.

A *concept* is something that a word can ask for: a class of a classifier (tawny owl), a kind
that several classes share (owl, bird of prey, bird), or an animal of WordNet that no classifier
knows, but whose relatives one does (roe deer: ruminants). The last are *relatives' classes*:
numbered from 1,000 on, behind ImageNet's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from bittern.encoders.field_build.classes import ClassName, audio_classes, image_classes, read_kin

KNOWN_IMAGES = 1000
"""Classes of the image network; numbers from here on are relatives' classes."""
MOST_RELATIVES = 12
"""With more classes than these in the nearest kind, it says too little of the animal."""
TEMPLATES = ("a photo of a {}", "the sound of a {}")


@dataclass
class Concept:
    """Something that a word can ask for.

    Attributes:
        captions: words for it, in small letters, the usual one first.
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
    """Add the animals of WordNet that have no class but relatives with one."""
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
