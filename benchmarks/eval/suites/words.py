"""The words benchmark (`benchmarks.words`): glosses of WordNet found by the names of their groups.

Items, classes and splits are those of `bittern.benchmarks.words`, so figures can be held against
`benchmarks/results/words.json`. Half of the items of the seen classes are for training, labels and
names included; everything else is ranked. One task per random split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.prompts import (
    asked_in_words,
    check_templates,
    told_prompts,
    with_fallbacks,
)
from bittern.benchmarks.eval.suites.base import Piece, Suite
from bittern.benchmarks.eval.tasks import (
    TEXT,
    Asked,
    Classes,
    Items,
    Protocol,
    Relevance,
    Task,
    TrainingPart,
)
from bittern.benchmarks.words import data as wordnet_words
from bittern.benchmarks.words.data import EmbeddedWords, Words, cache_folder, collect
from bittern.benchmarks.words.protocol import SEEN_SHARE, WordsTask, split
from bittern.encoders.base import AudioWindowing, Media, Modality
from bittern.encoders.wordnet import NOUNS, find_nouns, read_nouns
from bittern.errors import (
    InvalidInputError,
    LayoutError,
    LimitExceededError,
    SourceNotFoundError,
    UnsupportedModalityError,
)
from bittern.service.models.loaded import Embedder

if TYPE_CHECKING:
    from bittern.encoders.field.text import MiniLM

NAME_SIDE, GLOSS_SIDE = TEXT, "gloss"
"""What hashers call the two sides, as in `bittern.benchmarks.words.learned`."""
PROMPTS = ("{name}",)
"""The name as it is: no prompt."""
SEEDS_APART = 1_000
"""Between the splits of two seeds, so that they share none."""
_DIM = 384


class WordsSuite(Suite):
    """Kinds of animals and plants by the names of the groups that they belong to.

    Args:
        fewest: items that a class has at the least.
    """

    name = "words"
    about = (
        "WordNet 3.0 animals and plants: first gloss clauses found by the name of the group; a "
        "fifth of the groups is novel"
    )
    pieces: Sequence[Piece] = (
        Piece(
            NOUNS,
            "the nouns of WordNet 3.0",
            "Debian's package wordnet-base, which is fetched where --data is not given",
            "15 MB",
        ),
    )
    needs_data = False
    measures: Sequence[str] = ("AP", "nDCG@50", "P@10", "MRR", "hit@10")

    def __init__(self, fewest: int = wordnet_words.FEWEST) -> None:
        self._fewest = fewest

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Refuse what cannot be run before anything is read.

        Raises:
            LayoutError: there is no `data.noun` in the folder that was given.
            InvalidInputError: the protocol asks for what this suite has not.
        """
        _check_protocol(protocol)
        if data is not None:
            self._nouns(data)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """One task per random split; none for a model without a text tower.

        Raises:
            LayoutError: `data.noun` is missing, cannot be fetched, or is none of WordNet's.
            InvalidInputError: the protocol asks for what this suite has not; too few classes.
        """
        self.check(data, protocol)
        if TEXT not in towers:
            return []
        words, ids = self._read(self._nouns(data))
        # Which rows go where depends on labels alone.
        without = EmbeddedWords(
            words,
            np.empty((len(words.texts), 0), np.float32),
            np.empty((len(words.names), 0), np.float32),
        )
        return [
            _task(
                words, ids, split(without, SEEDS_APART * protocol.seed + repeat), repeat, protocol
            )
            for repeat in range(protocol.repeats)
        ]

    def _nouns(self, data: Path | None) -> Path:
        try:
            return find_nouns(data, cache_folder())
        except SourceNotFoundError as error:
            piece = self.pieces[0]
            raise LayoutError(
                f"{error.message.replace('--wordnet', '--data')} ({piece.what}, {piece.size}, from "
                f"{piece.origin})",
                field="data",
            ) from error

    def _read(self, nouns: Path) -> tuple[Words, tuple[str, ...]]:
        """Items and classes, and the items' offsets in `data.noun`: WordNet's names for them."""
        try:
            synsets = read_nouns(nouns, wordnet_words.FILES)
        except (LimitExceededError, InvalidInputError) as error:
            raise LayoutError(error.message, field="data") from error
        except OSError as error:
            raise LayoutError(f"{nouns} cannot be read: {error}", field="data") from error
        named = [replace(synset, gloss=synset.offset) for synset in synsets]
        return collect(synsets, self._fewest), collect(named, self._fewest).texts


def _check_protocol(protocol: Protocol) -> None:
    if protocol.prompts:
        check_templates(protocol.prompts)
    wrong = {
        "level": protocol.level != "species",
        "database": bool(protocol.database),
        "soundscapes": bool(protocol.soundscapes),
        "novel": protocol.novel == "taxonomy",
        "novel-share": protocol.novel_share != 1 - SEEN_SHARE
        and not np.isclose(protocol.novel_share, 1 - SEEN_SHARE),
    }
    asked = [f"--{option}" for option, is_wrong in wrong.items() if is_wrong]
    if asked:
        raise InvalidInputError(
            f"words has no {' and no '.join(asked)} to choose: its classes are WordNet's groups, a "
            "fifth of them novel, drawn at random; leave the option out",
            field=asked[0].removeprefix("--").replace("-", "_"),
        )


def _task(
    words: Words, ids: Sequence[str], parts: WordsTask, repeat: int, protocol: Protocol
) -> Task:
    classes = Classes(words.names, [{"vernacularName": name} for name in words.names])
    items = _items(words, ids, parts.database_rows)
    asked = _asked(classes, np.arange(len(words.names)), protocol)
    seen = np.isin(asked.classes, parts.seen)
    train = TrainingPart(
        items=_items(words, ids, parts.train_rows),
        queries=_asked(classes, parts.seen, protocol),
    )
    task = Task(
        name="text→text",
        asked=asked,
        items=items,
        relevance=Relevance.by_class(asked.classes, items.classes),
        classes=classes,
        repeat=repeat,
        training=train,
        groups={"seen": seen, "novel": ~seen},
        notes=(
            f"split {repeat + 1}: {len(parts.seen)} classes are seen, {len(parts.novel)} novel, "
            f"drawn at random; {len(parts.train_rows):,} items of the seen ones are for training "
            "and not ranked",
            "Everything is fitted on the training half of the seen classes, their names included",
            told_prompts(protocol, PROMPTS, "group's name"),
        ),
    )
    return with_fallbacks(task, protocol, PROMPTS)


def _items(words: Words, ids: Sequence[str], rows: NDArray[np.int64]) -> Items:
    return Items(
        ids=[f"n{ids[row]}" for row in rows],
        modality=TEXT,
        contents=[words.texts[row] for row in rows],
        classes=words.labels[rows].astype(np.int32),
        side=GLOSS_SIDE,
    )


def _asked(classes: Classes, places: NDArray[np.int64], protocol: Protocol) -> Asked:
    return asked_in_words(classes, places, protocol, PROMPTS, NAME_SIDE)


# The encoder that belongs to the suite


class MiniLMTower(Embedder):
    """MiniLM-L6 by itself, as an embedder: the text tower of `words`.

    Texts of like length share a batch of 64, as in `benchmarks.words`, which is three times as
    fast as one at a time. A text's last bits then depend on what else it is embedded with; on
    one machine the same list of texts gets the same bits.
    """

    def __init__(self) -> None:
        super().__init__("minilm", lambda name: _TextEncoder())


class _TextEncoder:
    """MiniLM as an encoder with one tower."""

    name = "minilm"
    dim = _DIM
    modalities = frozenset({Modality.TEXT})
    windowing: AudioWindowing | None = None

    def __init__(self) -> None:
        self._tower: MiniLM | None = None
        self._digests: dict[Modality, str] = {}

    @property
    def digests(self) -> Mapping[Modality, str]:
        """Of the weights, the tokenizer, and how many texts share a batch."""
        if not self._digests:
            self._digests = {Modality.TEXT: _digest()}
        return self._digests

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        """Embed texts: float32 [n, 384], unit norm.

        Raises:
            UnsupportedModalityError: something else than texts.
            QueryError: a text is too long.
        """
        if modality != Modality.TEXT:
            raise UnsupportedModalityError(f"minilm takes text, not {modality}")
        if self._tower is None:
            from bittern.encoders.field.text import BATCH, MiniLM

            self._tower = MiniLM(batch=BATCH)
        return self._tower.encode([str(text) for text in batch])


def _digest() -> str:
    import hashlib

    from bittern.encoders.field.packages import sha256
    from bittern.encoders.field.text import BATCH, MiniLM

    told = " ".join(["MiniLM-L6", str(BATCH), *(sha256(path) for path in MiniLM.files())])
    return hashlib.sha256(told.encode()).hexdigest()
