"""Who may see what: the split into training and database, and the measure.

Four fifths of the classes are *seen*: half of their items are for training, the other half is
database. The rest of the classes is *novel*: all of their items are database, and neither
items nor names are seen in training. Every class name is a query to the whole database; mean
average precision (trec_eval's: AP divides by the number of relevant items) is told apart for
seen and novel classes. Equal distances are ordered by row.

A method is handed `Training` and nothing else. Where it has something to choose, it splits
that once more (`inner_split`), by the same rules: some seen classes play novel ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.words.data import EmbeddedWords
from bittern.errors import InvalidInputError
from bittern.hashing.codes import asymmetric_distance, hamming_distance, pack
from bittern.hashing.hashers import Hasher

SEEN_SHARE = 0.8
"""Of the classes."""
TRAINING_SHARE = 0.5
"""Of a seen class's items."""
QUERY, ITEM = "query", "item"
"""What the two sides are called where a hasher has a centre or a head for each."""


@dataclass(frozen=True)
class Training:
    """All that a method may look at.

    Attributes:
        items: float32 [m, dim], embeddings of training items.
        labels: int64 [m], class of each, 0 to s - 1.
        queries: float32 [s, dim], embeddings of the seen classes' names.
        texts: of the items.
        names: of the classes.
    """

    items: NDArray[np.float32]
    labels: NDArray[np.int64]
    queries: NDArray[np.float32]
    texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class WordsTask:
    """One split.

    Attributes:
        item_embeddings: float32 [n, dim].
        labels: int64 [n], class of each item.
        queries: float32 [classes, dim], the names of the classes.
        train_rows: int64, items for training, ascending.
        database_rows: int64, items that are searched, ascending; all others.
        seen: int64, classes with items in training, ascending.
        novel: int64, all other classes, ascending.
        texts: of the items.
        names: of the classes.
        asked_otherwise: float32 [classes, dim], queries in place of the names.
    """

    item_embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    queries: NDArray[np.float32]
    train_rows: NDArray[np.int64]
    database_rows: NDArray[np.int64]
    seen: NDArray[np.int64]
    novel: NDArray[np.int64]
    texts: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    asked_otherwise: NDArray[np.float32] | None = None

    @property
    def asked(self) -> NDArray[np.float32]:
        """One query per class, float32 [classes, dim]: its name, or else what was given."""
        return self.queries if self.asked_otherwise is None else self.asked_otherwise

    @property
    def database(self) -> NDArray[np.float32]:
        """Embeddings of what is searched: float32 [d, dim]."""
        return self.item_embeddings[self.database_rows]

    @property
    def relevant(self) -> NDArray[np.bool_]:
        """Which of the database answers which query: bool [classes, d]."""
        classes = np.arange(len(self.queries))
        return np.equal(self.labels[self.database_rows], classes[:, None])

    def training(self) -> Training:
        """What methods are handed; classes are numbered anew, in the order of `seen`."""
        rows, seen = self.train_rows, self.seen
        return Training(
            items=self.item_embeddings[rows],
            labels=np.searchsorted(seen, self.labels[rows]),
            queries=self.queries[seen],
            texts=_chosen(self.texts, rows),
            names=_chosen(self.names, seen),
        )


@dataclass(frozen=True)
class Quality:
    """Mean average precision of the queries for seen and for novel classes.

    Attributes:
        seen: mean over the seen classes.
        novel: mean over the novel classes.
        precisions: float64 [classes], average precision of each query.
    """

    seen: float
    novel: float
    precisions: NDArray[np.float64]


def split(words: EmbeddedWords, seed: int) -> WordsTask:
    """The benchmark's split number `seed`.

    Raises:
        InvalidInputError: too few classes, or a class of a single item.
    """
    given = Training(
        words.items, words.words.labels, words.queries, words.words.texts, words.words.names
    )
    return replace(_split(given, seed), asked_otherwise=words.asked)


def inner_split(training: Training, seed: int) -> WordsTask:
    """A split of the training items alone, by the same rules, to choose settings on.

    Raises:
        InvalidInputError: too few classes, or a class of a single item.
    """
    return _split(training, seed)


def _split(given: Training, seed: int) -> WordsTask:
    count = len(given.queries)
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    many = round(SEEN_SHARE * count)
    seen, novel = np.sort(order[:many]), np.sort(order[many:])
    sizes = np.bincount(given.labels, minlength=count)
    if not (len(seen) and len(novel)) or sizes.min() < 2:
        raise InvalidInputError(
            f"{count} classes of {sizes.min() if count else 0} items or more cannot be split; "
            "it takes three classes of two items"
        )
    halves = []
    for number in seen:
        rows = rng.permutation(np.flatnonzero(given.labels == number))
        halves.append(rows[: int(len(rows) * TRAINING_SHARE)])
    train = np.sort(np.concatenate(halves))
    return WordsTask(
        item_embeddings=given.items,
        labels=given.labels,
        queries=given.queries,
        train_rows=train,
        database_rows=np.setdiff1d(np.arange(len(given.labels)), train),
        seen=seen,
        novel=novel,
        texts=given.texts,
        names=given.names,
    )


def evaluate(task: WordsTask, distances: NDArray[np.floating] | NDArray[np.integer]) -> Quality:
    """Rank the database for every query.

    Args:
        task: the split.
        distances: [classes, d], of each query to each row of the database; smaller is nearer.

    Raises:
        InvalidInputError: wrong shape, or a distance is not a number.
    """
    relevant = task.relevant
    if distances.shape != relevant.shape:
        raise InvalidInputError(
            f"distances must be {list(relevant.shape)}, not {list(distances.shape)}"
        )
    if np.isnan(distances).any():
        raise InvalidInputError("a distance is not a number: nothing can be ranked by it")
    order = np.argsort(distances, axis=1, kind="stable")  # equal distances: by row
    ranked = np.take_along_axis(relevant, order, axis=1)
    precision = np.cumsum(ranked, axis=1) / np.arange(1, ranked.shape[1] + 1)
    precisions = (precision * ranked).sum(axis=1) / ranked.sum(axis=1)
    return Quality(
        seen=float(precisions[task.seen].mean()),
        novel=float(precisions[task.novel].mean()),
        precisions=precisions,
    )


def evaluate_logits(
    task: WordsTask, queries: NDArray[np.floating], database: NDArray[np.floating]
) -> dict[str, Quality]:
    """Codes of the database, searched by both distances.

    Args:
        task: the split.
        queries: float [classes, bits], logits.
        database: float [d, bits], logits of which the signs are kept.

    Returns:
        ``asymmetric`` and ``symmetric``.

    Raises:
        CodeError: shapes disagree, or a logit is not finite.
    """
    codes = pack(database)
    asymmetric = np.stack([asymmetric_distance(z, codes) for z in queries])
    return {
        "asymmetric": evaluate(task, asymmetric),
        "symmetric": evaluate(task, hamming_distance(pack(queries), codes)),
    }


def evaluate_hasher(
    task: WordsTask, hasher: Hasher, query: str = QUERY, item: str = ITEM
) -> dict[str, Quality]:
    """A hasher's codes; `query` and `item` are its modalities for the two sides."""
    return evaluate_logits(
        task, hasher.logits(task.asked, query), hasher.logits(task.database, item)
    )


def _chosen(texts: Sequence[str], rows: NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(texts[row] for row in rows) if texts else ()
