"""WordNet's animals and plants: first gloss clauses, found by the names of their groups.

An item is a synset, its text the first clause of its gloss. Its class is its first hypernym, if at
least 12 items share that. The query for a class is the class's own names. Four fifths of the
classes are *seen*: half of their items are for training, labels and names included. Everything
else is ranked. One task per random split.
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

from bittern.benchmarks.eval.suites.base import DataFile, Limit, Pair, Suite
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
    VERBATIM,
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
from bittern.service.models.model import Embedder

if TYPE_CHECKING:
    from bittern.encoders.field.networks import MiniLM

FILES = (5, 20)
"""WordNet's lexicographer files of animals and of plants."""
MIN_ITEMS = 12
"""Items that a class has at least."""
SEEN_SHARE, TRAINING_SHARE = 0.8, 0.5
"""Of the classes, and of a seen class's items."""
NAME_SIDE, GLOSS_SIDE = TEXT, "gloss"
"""Names that hashers have for the two sides."""
_SEED_STEP = 1_000
"""Between the splits of two seeds, so that they share none."""
_DIM = 384
_GROUPS = "its classes are WordNet's groups, a fifth of them novel, drawn at random"


class WordsSuite(Suite):
    """Kinds of animals and plants by the names of the groups that they belong to.

    Args:
        min_items: items that a class has at least.
    """

    name = "words"
    about = (
        "WordNet 3.0 animals and plants: first gloss clauses found by the name of the group; a "
        "fifth of the groups is novel"
    )
    layout = (
        DataFile(
            NOUNS,
            "the nouns of WordNet 3.0",
            "Debian's package wordnet-base, which is fetched where --data is not given",
            "15 MB",
        ),
    )
    limits = (
        *(Limit(name, _GROUPS) for name in ("level", "database", "soundscapes", "novel_share")),
        Limit("novel", _GROUPS, ("random",)),
    )
    needs_data = False
    measures = ("AP", "nDCG@50", "P@10", "MRR", "hit@10")
    pairs = ((TEXT, TEXT),)

    def __init__(self, min_items: int = MIN_ITEMS) -> None:
        self._min_items = min_items

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check options, and that `data.noun` is in the folder, where one is given."""
        self.check_options(protocol)
        if data is not None:
            self.folder(data, protocol)

    def folder(self, data: Path | None, protocol: Protocol) -> Path:
        """`data.noun`, fetched where no folder is given."""
        with _as_layout_error():
            return find_nouns(data, cache_folder())

    def make(self, root: Path, protocol: Protocol, pairs: Sequence[Pair]) -> list[Task]:
        """One task per random split."""
        with _as_layout_error():
            synsets = read_nouns(root, FILES)
        words = collect(synsets, self._min_items)
        return [_task(words, repeat, protocol) for repeat in range(protocol.repeats)]


@contextmanager
def _as_layout_error() -> Iterator[None]:
    """Errors of WordNet's file as errors about `--data`."""
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


def cache_folder() -> Path:
    """Where WordNet is kept between runs."""
    from platformdirs import user_cache_path

    return user_cache_path("bittern") / "words"


def _task(words: Words, repeat: int, protocol: Protocol) -> Task:
    classes = Classes(words.names, [{"vernacularName": name} for name in words.names])
    chosen = split(words.labels, len(classes), _SEED_STEP * protocol.seed + repeat)

    def queries_for(numbers: NDArray[np.int64]) -> QuerySet:
        return text_queries(classes, numbers, protocol, VERBATIM, NAME_SIDE)

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
            prompts_note(protocol, VERBATIM, "group's name"),
        ),
    )
    return with_fallbacks(task, protocol, VERBATIM)


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


def collect(synsets: Sequence[Synset], min_items: int = MIN_ITEMS) -> Words:
    """Items and their classes.

    Raises:
        InvalidInputError: fewer than two classes are large enough.
    """
    known = {synset.offset for synset in synsets}
    members: dict[str, int] = {}
    for synset in synsets:
        if synset.hypernyms and synset.hypernyms[0] in known:
            members[synset.hypernyms[0]] = members.get(synset.hypernyms[0], 0) + 1
    classes = [s for s in synsets if members.get(s.offset, 0) >= min_items]
    if len(classes) < 2:
        raise InvalidInputError(
            f"{len(classes)} of {len(members)} classes have {min_items} items or more; the "
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


# The encoder that belongs to the suite


class MiniLMTower(Embedder):
    """MiniLM-L6 by itself, as an embedder: the text tower of `words`.

    Texts of like length share a batch of 64, which is three times as fast as one at a time. The
    last bits of a text then depend on the other texts of its batch; on one machine the same list
    of texts gets the same bits.
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
