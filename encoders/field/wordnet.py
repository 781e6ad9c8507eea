"""Kin words from WordNet 3.0, read at build time only (Debian package `wordnet-base`).

`kin.json`, which this module writes, holds for every class of the two classifiers the
words for its kind, nearest first: mallard, duck, anseriform bird, waterfowl, bird.
WordNet 3.0 is copyright 2006 by Princeton University; see `docs/field.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DATA_NOUN = Path("/usr/share/wordnet/data.noun")
_ANIMALS = 5
"""Number of the lexicographer file `noun.animal`."""
_TOO_BROAD = frozenset(
    {"animal", "organism", "living thing", "chordate", "vertebrate", "invertebrate", "placental"}
)


@dataclass(frozen=True)
class Synset:
    """One meaning: its words, the file it belongs to, and the offsets of its hypernyms."""

    words: tuple[str, ...]
    lexicographer_file: int
    hypernyms: tuple[str, ...]


class Taxonomy:
    """The animals of WordNet.

    Args:
        data_noun: WordNet's file of noun synsets.
    """

    def __init__(self, data_noun: Path = DATA_NOUN) -> None:
        with data_noun.open(encoding="ascii") as lines:
            self._synsets = dict(_parse(line) for line in lines if line[0] != " ")
        self._by_word: dict[str, list[str]] = {}
        for offset, synset in self._synsets.items():
            if synset.lexicographer_file == _ANIMALS:
                for word in synset.words:
                    self._by_word.setdefault(word.lower(), []).append(offset)

    def is_animal(self, offset: str) -> bool:
        """Whether the synset is an animal or a kind of animal."""
        return self._synsets[offset].lexicographer_file == _ANIMALS

    def animal_names(self) -> list[str]:
        """First word of every animal synset, in the order of the file."""
        return [s.words[0] for s in self._synsets.values() if s.lexicographer_file == _ANIMALS]

    def kin(self, offset: str) -> list[str]:
        """Words for the kinds above a synset, nearest first, without the broadest."""
        found: list[str] = []
        hypernyms = self._synsets[offset].hypernyms
        while hypernyms and self.is_animal(hypernyms[0]):
            above = self._synsets[hypernyms[0]]
            if above.words[0] not in _TOO_BROAD:
                found.append(above.words[0])
            hypernyms = above.hypernyms
        return found

    def kin_of_name(self, *names: str) -> list[str]:
        """Kin of an animal by its names; failing that, by the last words of a name.

        ``Strix aluco`` is an entry of its own; ``Moluccan Scops-Owl`` is found as an owl.
        """
        for name in names:
            if offsets := self._by_word.get(name.lower()):
                return [self._synsets[offsets[0]].words[0], *self.kin(offsets[0])]
        words = names[-1].lower().replace("-", " ").split()
        for start in range(1, len(words)):
            if offsets := self._by_word.get(" ".join(words[start:])):
                return [self._synsets[offsets[0]].words[0], *self.kin(offsets[0])]
        return []


def _parse(line: str) -> tuple[str, Synset]:
    """One line of `data.noun` (the format is that of wndb(5WN))."""
    fields = line.split(" | ")[0].split()
    count = int(fields[3], 16)
    words = tuple(w.replace("_", " ") for w in fields[4 : 4 + 2 * count : 2])
    pointers = fields[5 + 2 * count :]
    quads: Iterable[tuple[str, ...]] = zip(*(iter(pointers),) * 4, strict=False)
    hypernyms = tuple(q[1] for q in quads if q[0] in ("@", "@i"))
    return fields[0], Synset(words, int(fields[1]), hypernyms)
