"""Kin words from WordNet 3.0 (Debian package `wordnet-base`), read at build time only.

`kin.json` holds for every class of the two classifiers the words for its kind, level by level,
nearest first: mallard; duck; anseriform bird; waterfowl; aquatic bird; bird. WordNet 3.0 is
copyright 2006 by Princeton University.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from bittern.encoders.field_build.vocabulary import (
    KIN,
    SOUND_ONLY,
    Levels,
    bird_names,
    wordnet_offsets,
)
from bittern.encoders.wordnet import INSTALLED, NOUNS, Synset, read_nouns, read_senses

_ANIMAL = "animal"
_TOO_BROAD = frozenset({"chordate", "vertebrate", "invertebrate", "placental", "game", "young"})
_BIRDS = frozenset({"bird"})
_OTHERS_HEARD = frozenset({"frog", "toad", "orthopterous insect", "cicada", "mammal"})
"""The other animals that BirdNET knows: a monarch is a flycatcher here, not a butterfly."""
_ALIASES = {
    "Trig": "cricket",
    "Conehead": "katydid",
    "Shieldback": "katydid",
    "Human vocal": "human",
    "Human non-vocal": "human",
    "Human whistle": "human",
    "Siren": "",
    "Whiteface": "bird",
}
_WORDS_PER_LEVEL = 2
_SHORTEST_ENDING = 4
NO_GENUS = frozenset(name.split()[0] for name in SOUND_ONLY)


class Taxonomy:
    """The animals of WordNet.

    Args:
        folder: with `data.noun` and `index.noun`.
    """

    def __init__(self, folder: Path = INSTALLED) -> None:
        self._synsets = {synset.offset: synset for synset in read_nouns(folder / NOUNS)}
        self._senses: dict[str, list[str]] = {}
        for word, offsets in read_senses(folder / "index.noun").items():
            if animals := [o for o in offsets if self.is_animal(o)]:
                self._senses[word] = animals

    def is_animal(self, offset: str) -> bool:
        """Whether the synset is a kind of animal."""
        return any(_ANIMAL in s.words for s in self._above(offset))

    def animals(self) -> list[Levels]:
        """Every kind of animal: its own words, then those of its kin."""
        kinds = [self.levels(offset) for offset in self._synsets if self.is_animal(offset)]
        return [levels for levels in kinds if levels]

    def levels(self, offset: str) -> Levels:
        """Words for a synset and for the kinds above it, without the broadest."""
        kinds = [self._synsets[offset], *self._above(offset)]
        end = next(i for i, s in enumerate(kinds) if _ANIMAL in s.words)
        kept = [s for s in kinds[:end] if s.words[0] not in _TOO_BROAD]
        found = [list(s.words[:_WORDS_PER_LEVEL]) for s in kept]
        if found and found[-1][0].endswith(" bird"):  # game birds are filed under game
            found.append(["bird"])
        return found

    def levels_of_name(self, scientific: str, common: str) -> Levels:
        """Kin of one of BirdNET's classes, by its names; empty if none is found.

        ``Strix aluco`` has an entry. ``Moluccan Scops-Owl`` and ``Rufous Laughingthrush`` are
        found by their ending, as an owl and a thrush. The levels of several entries of a species
        (the red jungle fowl is also the chicken) are joined.
        """
        for name in (common, common.split()[-1]):
            common = _ALIASES.get(name, common)
        common = common.lower()
        if not common:
            return []
        if offsets := self._senses.get(scientific.lower()):
            return _join([self.levels(o) for o in offsets])
        words = common.replace("-", " ").split()
        endings = [common, *(" ".join(words[start:]) for start in range(len(words)))]
        endings += [words[-1][cut:] for cut in range(1, len(words[-1]) - _SHORTEST_ENDING + 1)]
        found = [self.levels(o) for e in endings for o in self._senses.get(e, [])]
        for kinds in (_BIRDS, _OTHERS_HEARD):
            for levels in found:
                if kinds.intersection(word for level in levels for word in level):
                    return levels
        return []

    def _above(self, offset: str) -> list[Synset]:
        found = []
        synset = self._synsets[offset]
        while above := synset.hypernyms or synset.instance_of:
            synset = self._synsets[above[0]]
            found.append(synset)
        return found


def _join(chains: Sequence[Levels]) -> Levels:
    joined = []
    for level in zip_longest(*chains, fillvalue=[]):
        joined.append(list(dict.fromkeys(word for words in level for word in words)))
    return joined


def write_kin() -> None:
    """Read WordNet and write `kin.json`: each distinct level once, and per class its levels."""
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
    """Fill gaps: a class without kin words takes those of its genus, else it is a bird."""
    shared: dict[str, Levels] = {}
    for genus, levels in zip(genera, kin, strict=True):
        if levels:
            known = shared.get(genus, levels)
            shared[genus] = [level for level in known if level in levels]
    return [
        levels or ([] if genus in NO_GENUS else shared.get(genus) or [["bird"]])
        for genus, levels in zip(genera, kin, strict=True)
    ]
