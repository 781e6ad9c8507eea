"""WordNet's animals and plants: first gloss clauses, found by the names of their groups.

An item is a synset, its text the first clause of its gloss. Its class is the synset that it is
directly a kind of (the first, where there are several), if at least 12 items share it. The query
for a class is the class's own names. Four fifths of the classes are *seen*: half of their items
are for training, labels and names included. Everything else is ranked. One task per random split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import DataFile, Suite, check_options
from bittern.benchmarks.eval.tasks import (
    TEXT,
    Classes,
    Items,
    Protocol,
    QuerySet,
    Relevance,
    Task,
    TrainingSplit,
)
from bittern.benchmarks.eval.tasks.prompts import (
    prompts_note,
    text_queries,
    with_fallbacks,
)
from bittern.encoders.base import AudioWindowing, Media, Modality
from bittern.encoders.wordnet import NOUNS, Synset, find_nouns, read_nouns
from bittern.errors import (
    InvalidInputError,
    LayoutError,
    LimitExceededError,
    SourceNotFoundError,
    UnsupportedModalityError,
)
from bittern.service.models.loaded import Embedder

if TYPE_CHECKING:
    from bittern.encoders.field.networks import MiniLM

FILES = (5, 20)
"""WordNet's lexicographer files of animals and of plants."""
FEWEST = 12
"""Items that a class has at least."""
SEEN_SHARE, TRAINING_SHARE = 0.8, 0.5
"""Of the classes, and of a seen class's items."""
NAME_SIDE, GLOSS_SIDE = TEXT, "gloss"
"""What hashers call the two sides."""
PROMPTS = ("{name}",)
SEEDS_APART = 1_000
"""Between the splits of two seeds, so that they share none."""
_DIM = 384


@dataclass(frozen=True)
class Words:
    """Items and classes.

    Attributes:
        ids: WordNet's names of the items: their offsets in `data.noun`.
        texts: of the items, in WordNet's order.
        labels: int32 [n], the class of each item.
        names: of the classes.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    labels: NDArray[np.int32]
    names: Sequence[str]

    def items(self, rows: NDArray[np.int64]) -> Items:
        """Some of the items."""
        ids = [f"n{self.ids[row]}" for row in rows]
        texts = [self.texts[row] for row in rows]
        return Items(ids, TEXT, texts, self.labels[rows], GLOSS_SIDE)


def collect(synsets: Sequence[Synset], fewest: int = FEWEST) -> Words:
    """Items and their classes.

    Raises:
        InvalidInputError: fewer than two classes are large enough.
    """
    known = {synset.offset for synset in synsets}
    members: dict[str, int] = {}
    for synset in synsets:
        if synset.hypernyms and synset.hypernyms[0] in known:
            members[synset.hypernyms[0]] = members.get(synset.hypernyms[0], 0) + 1
    classes = [s for s in synsets if members.get(s.offset, 0) >= fewest]
    if len(classes) < 2:
        raise InvalidInputError(
            f"{len(classes)} of {len(members)} classes have {fewest} items or more; the "
            "benchmark needs at least two: take more lexicographer files"
        )
    label = {synset.offset: number for number, synset in enumerate(classes)}
    items = [s for s in synsets if s.hypernyms and s.hypernyms[0] in label]
    return Words(
        ids=[s.offset for s in items],
        texts=[s.gloss.split(";", 1)[0].strip() for s in items],
        labels=np.array([label[s.hypernyms[0]] for s in items], dtype=np.int32),
        names=[", ".join(s.words) for s in classes],
    )


def cache_folder() -> Path:
    """Where WordNet is kept between runs."""
    from platformdirs import user_cache_path

    return user_cache_path("bittern") / "words"


@dataclass(frozen=True)
class Split:
    """One random split: rows of items for training and for ranking; seen and novel classes.

    All int64, ascending.
    """

    train_rows: NDArray[np.int64]
    database_rows: NDArray[np.int64]
    seen: NDArray[np.int64]
    novel: NDArray[np.int64]


def split(labels: NDArray[np.int32], count: int, seed: int) -> Split:
    """Split number `seed` of items with these labels, from 0 to `count` - 1.

    Raises:
        InvalidInputError: too few classes, or a class of a single item.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    many = round(SEEN_SHARE * count)
    seen, novel = np.sort(order[:many]), np.sort(order[many:])
    sizes = np.bincount(labels, minlength=count)
    if not (len(seen) and len(novel)) or sizes.min() < 2:
        raise InvalidInputError(
            f"{count} classes of {sizes.min() if count else 0} items or more cannot be split; "
            "it takes three classes of two items"
        )
    halves = []
    for number in seen:
        rows = rng.permutation(np.flatnonzero(labels == number))
        halves.append(rows[: int(len(rows) * TRAINING_SHARE)])
    train = np.sort(np.concatenate(halves))
    return Split(train, np.setdiff1d(np.arange(len(labels)), train), seen, novel)


class WordsSuite(Suite):
    """Kinds of animals and plants by the names of the groups that they belong to.

    Args:
        fewest: items that a class has at least.
    """

    name = "words"
    about = (
        "WordNet 3.0 animals and plants: first gloss clauses found by the name of the group; a "
        "fifth of the groups is novel"
    )
    layout: Sequence[DataFile] = (
        DataFile(
            NOUNS,
            "the nouns of WordNet 3.0",
            "Debian's package wordnet-base, which is fetched where --data is not given",
            "15 MB",
        ),
    )
    needs_data = False
    measures: Sequence[str] = ("AP", "nDCG@50", "P@10", "MRR", "hit@10")

    def __init__(self, fewest: int = FEWEST) -> None:
        self._fewest = fewest

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check options, and that `data.noun` is in the folder, where one is given.

        Raises:
            LayoutError: there is no `data.noun` in the folder that was given.
            InvalidInputError: the suite does not have an option.
        """
        _check_protocol(protocol)
        if data is not None:
            with _as_layout_error():
                find_nouns(data, cache_folder())

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """One task per random split; none for a model without a text tower.

        Raises:
            LayoutError: `data.noun` is missing, cannot be fetched, or is not WordNet's.
            InvalidInputError: the suite does not have an option; too few classes.
        """
        self.check(data, protocol)
        if TEXT not in towers:
            return []
        with _as_layout_error():
            synsets = read_nouns(find_nouns(data, cache_folder()), FILES)
        words = collect(synsets, self._fewest)
        return [_task(words, repeat, protocol) for repeat in range(protocol.repeats)]


@contextmanager
def _as_layout_error() -> Iterator[None]:
    """What is wrong with WordNet's file, as an error about `--data`."""
    try:
        yield
    except SourceNotFoundError as error:
        file = WordsSuite.layout[0]
        raise LayoutError(
            f"{error.message.replace('--wordnet', '--data')} ({file.what}, {file.size}, from "
            f"{file.origin})",
            field="data",
        ) from error
    except (LimitExceededError, InvalidInputError) as error:
        raise LayoutError(error.message, field="data") from error
    except OSError as error:
        raise LayoutError(f"{NOUNS} cannot be read: {error}", field="data") from error


def _check_protocol(protocol: Protocol) -> None:
    check_options(
        "words",
        "its classes are WordNet's groups, a fifth of them novel, drawn at random",
        protocol,
        {
            "level": protocol.level != "species",
            "database": bool(protocol.database),
            "soundscapes": bool(protocol.soundscapes),
            "novel": protocol.novel == "taxonomy",
            "novel-share": not np.isclose(protocol.novel_share, 1 - SEEN_SHARE),
        },
    )


def _task(words: Words, repeat: int, protocol: Protocol) -> Task:
    classes = Classes(words.names, [{"vernacularName": name} for name in words.names])
    chosen = split(words.labels, len(classes), SEEDS_APART * protocol.seed + repeat)

    def queries_for(numbers: NDArray[np.int64]) -> QuerySet:
        return text_queries(classes, numbers, protocol, PROMPTS, NAME_SIDE)

    items, queries = words.items(chosen.database_rows), queries_for(np.arange(len(classes)))
    seen = np.isin(queries.classes, chosen.seen)
    task = Task(
        name="text→text",
        queries=queries,
        items=items,
        relevance=Relevance.by_class(queries.classes, items.classes),
        classes=classes,
        repeat=repeat,
        training=TrainingSplit(words.items(chosen.train_rows), queries_for(chosen.seen)),
        groups={"seen": seen, "novel": ~seen},
        notes=(
            f"split {repeat + 1}: {len(chosen.seen)} classes are seen, {len(chosen.novel)} novel, "
            f"drawn at random; {len(chosen.train_rows):,} items of the seen ones are for training "
            "and not ranked",
            "Everything is fitted on the training half of the seen classes, their names included",
            prompts_note(protocol, PROMPTS, "group's name"),
        ),
    )
    return with_fallbacks(task, protocol, PROMPTS)


# The encoder that belongs to the suite


class MiniLMTower(Embedder):
    """MiniLM-L6 by itself, as an embedder: the text tower of `words`.

    Texts of like length share a batch of 64, which is three times as
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
            from bittern.encoders.field.networks import BATCH, MiniLM

            self._tower = MiniLM(batch=BATCH)
        return self._tower.encode([str(text) for text in batch])


def _digest() -> str:

    from bittern.encoders.field.networks import BATCH, MiniLM
    from bittern.encoders.weights import sha256

    chosen = " ".join(["MiniLM-L6", str(BATCH), *(sha256(path) for path in MiniLM.files())])
    return hashlib.sha256(chosen.encode()).hexdigest()


def embedded_words() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All items and class names, embedded with MiniLM: float32 [n, 384] and [classes, 384].

    Raises:
        SourceNotFoundError, LimitExceededError, InvalidInputError: WordNet cannot be used.
        WeightsMissingError: MiniLM is not installed.
    """
    from bittern.benchmarks.eval.embeddings.encoding import embed_items, embed_queries

    words = collect(read_nouns(find_nouns(None, cache_folder()), FILES))
    classes = Classes(words.names)
    names = text_queries(classes, np.arange(len(classes)), Protocol(), PROMPTS, NAME_SIDE)
    items = words.items(np.arange(len(words.texts)))
    tower, cache = MiniLMTower(), cache_folder()
    rows = embed_items(tower, items, cache)
    return rows.read(np.arange(len(rows))), embed_queries(tower, names, cache)
