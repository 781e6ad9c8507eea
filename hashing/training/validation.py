"""Mean average precision of codes and floats on held-out items of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError
from bittern.hashing.codes import probabilities
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import EmbeddingSet

MOST_QUERIES = 512
MOST_ITEMS = 4096
"""Most held-out rows that are searched."""
MOST_HELD_OUT = 8192
"""Most rows that `split_rows` holds out."""
_SAMPLE_ROWS = 8192
"""Most training rows of a set that training-free codes are fitted on."""
_BLOCK_CELLS = 1 << 22
_DECIMALS = 9
"""Matrix products round columns differently; equal codes must tie."""
_PLURAL = {"image": "images", "audio": "sounds", "text": "words"}

Floats = NDArray[np.floating]
Logits = Callable[[Floats, str], NDArray[np.floating]]


def average_precisions(distances: Floats, relevant: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average precision per query, over the full ranking, ties broken by row.

    It is the mean, over all relevant rows, of the precision at their ranks.

    Args:
        distances: float [q, n].
        relevant: bool [q, n].

    Returns:
        float64 [q]; NaN where nothing is relevant.
    """
    order = np.argsort(distances, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, distances.shape[1] + 1)
    total = hits.sum(axis=1)
    return np.where(total > 0, (precision * hits).sum(axis=1) / np.maximum(total, 1), np.nan)


def mean_average_precision(
    query_logits: Floats,
    database: Floats,
    relevant: NDArray[np.bool_],
    *,
    excluded: NDArray[np.integer] | None = None,
) -> float:
    """Mean over queries of `average_precisions` by asymmetric distance.

    Queries without a relevant row are left out.

    Args:
        query_logits: float [q, bits].
        database: float [n, bits], whose signs are searched.
        relevant: bool [q, n].
        excluded: int [q], per query a database row that is not ranked (the query itself).

    Raises:
        CodeError: shapes that do not fit together, NaN, or no query with a relevant row.
    """
    queries, bits = np.asarray(query_logits), np.asarray(database) > 0
    if queries.ndim != 2 or bits.ndim != 2 or queries.shape[1] != bits.shape[1]:
        raise CodeError(
            f"queries must be [q, bits] and the database [n, bits], not {list(queries.shape)} "
            f"and {list(bits.shape)}"
        )
    if relevant.shape != (len(queries), len(bits)):
        raise CodeError(f"relevant must be [{len(queries)}, {len(bits)}], not {relevant.shape}")
    if not np.isfinite(queries).all():
        raise CodeError("query logits hold NaN or infinity")
    on = bits.astype(np.float64)
    found = []
    block = max(1, _BLOCK_CELLS // max(1, len(on)))
    for start in range(0, len(queries), block):
        some = slice(start, start + block)
        # Without the term of the distance that is the same for all rows of a query.
        distances = (1.0 - 2.0 * probabilities(queries[some])) @ on.T
        found.append(_ranked(distances, relevant[some], excluded, start))
    return _mean(np.concatenate(found) if found else np.empty(0))


def _ranked(
    distances: Floats,
    relevant: NDArray[np.bool_],
    excluded: NDArray[np.integer] | None,
    start: int = 0,
) -> NDArray[np.float64]:
    """Average precisions of queries from number `start` on, without the excluded rows."""
    distances = np.round(distances, _DECIMALS)
    if excluded is not None:
        rows = np.arange(len(distances))
        columns = excluded[start : start + len(distances)]
        distances[rows, columns] = np.inf
        relevant = relevant.copy()
        relevant[rows, columns] = False
    return average_precisions(distances, relevant)


def _mean(precisions: NDArray[np.float64]) -> float:
    known = precisions[~np.isnan(precisions)]
    if not len(known):
        raise CodeError("no query has a relevant row: there is nothing to average")
    return float(known.mean())


@dataclass(frozen=True)
class Task:
    """Queries, items, and which items are relevant.

    Attributes:
        name: ``words to images``.
        queries: modality and float [q, dim].
        items: modality and float [n, dim].
        relevant: bool [q, n].
        excluded: int [q], per query an item that is not ranked (the query itself); None for none.
    """

    name: str
    queries: tuple[str, Floats]
    items: tuple[str, Floats]
    relevant: NDArray[np.bool_]
    excluded: NDArray[np.integer] | None = None

    def of_codes(self, logits: Logits) -> float:
        """Mean average precision of asymmetric search."""
        queries = logits(self.queries[1], self.queries[0])
        items = logits(self.items[1], self.items[0])
        return mean_average_precision(queries, items, self.relevant, excluded=self.excluded)

    def of_floats(self) -> float:
        """Mean average precision of the cosine of embeddings."""
        cosines = _unit(self.queries[1]) @ _unit(self.items[1]).T
        return _mean(_ranked(-cosines, self.relevant, self.excluded))


def _unit(rows: Floats) -> NDArray[np.float64]:
    """Rows of norm 1; rows of zeros do not change."""
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def measure(tasks: Sequence[Task], logits: Logits) -> dict[str, float]:
    """Mean average precision of codes: ``mAP`` over all tasks, and of each if there are several."""
    if not tasks:
        return {}
    values = {task.name: task.of_codes(logits) for task in tasks}
    mean = {"mAP": float(np.mean(list(values.values())))}
    return mean if len(tasks) == 1 else {**mean, **values}


@dataclass(frozen=True)
class HeldOut:
    """Held-out items of one modality.

    Attributes:
        modality: of the items.
        media: float [n, dim].
        query_modality: ``text``, or the modality itself.
        queries: float [n, dim], one per item; None to query with the items themselves.
        groups: int [n]; items of a group are equally relevant. None: each is its own group.
        membership: bool [n, classes]; items that share a class are equally relevant. Replaces
            `groups`.
        query_class: int [n], class that the query of an item names; with `membership`, `queries`.
    """

    modality: str
    media: Floats
    query_modality: str
    queries: Floats | None = None
    groups: NDArray[np.integer] | None = None
    membership: NDArray[np.bool_] | None = None
    query_class: NDArray[np.integer] | None = None

    def tasks(self) -> list[Task]:
        """The searches among these items that have relevant results."""
        tasks = []
        if self.membership is not None:
            tasks.append(self._by_items(self.membership))
        if self.queries is not None:
            tasks.append(self._by_queries(self.queries))
        return [task for task in tasks if task.relevant.any()]

    def _by_queries(self, queries: Floats) -> Task:
        key = np.arange(len(self.media)) if self.groups is None else self.groups
        if self.membership is not None and self.query_class is not None:
            key = self.query_class
        names, first = np.unique(key, return_index=True)
        chosen = evenly(np.arange(len(names)), MOST_QUERIES)
        names, first = names[chosen], first[chosen]
        relevant = names[:, None] == key
        if self.membership is not None and self.query_class is not None:
            relevant = self.membership[:, names].T
        return Task(
            f"{_PLURAL[self.query_modality]} to {_PLURAL[self.modality]}",
            (self.query_modality, queries[first]),
            (self.modality, self.media),
            relevant,
        )

    def _by_items(self, membership: NDArray[np.bool_]) -> Task:
        queries = np.arange(min(len(self.media), MOST_QUERIES))
        member = membership.astype(np.float32)
        relevant = member[queries] @ member.T > 0
        relevant[queries, queries] = False
        plural = _PLURAL[self.modality]
        return Task(
            f"{plural} to {plural}",
            (self.modality, self.media[queries]),
            (self.modality, self.media),
            relevant,
            excluded=queries,
        )


@dataclass(frozen=True)
class SplitSet:
    """A set of embeddings, split into training and held-out rows.

    Attributes:
        source: the set.
        modality: of the items.
        training: int64, rows to train on, ascending.
        held_out: int64, rows for validation, ascending.
    """

    source: EmbeddingSet
    modality: str
    training: NDArray[np.int64]
    held_out: NDArray[np.int64]

    @property
    def media_view(self) -> str:
        """The last view of the items' modality."""
        return [n for n, view in self.source.views.items() if view.modality == self.modality][-1]

    @property
    def query_view(self) -> str | None:
        """The first text, else the first view; None if there is only one view."""
        texts = [n for n, view in self.source.views.items() if view.modality == "text"]
        first = (texts or list(self.source.views))[0]
        return None if first == self.media_view else first

    def validation(self, most: int = MOST_ITEMS) -> HeldOut | None:
        """The held-out items, `most` of them at most; None if there are fewer than two."""
        rows = evenly(self.held_out, most)
        if len(rows) < 2:
            return None
        view = self.query_view
        return HeldOut(
            modality=self.modality,
            media=self.read(self.media_view, rows),
            query_modality=self.source.views[view].modality if view else self.modality,
            queries=self.read(view, rows) if view else None,
            groups=None if self.source.groups is None else self.source.groups[rows],
            **self._classes(rows),
        )

    def sample(self, most: int) -> dict[str, NDArray[np.float32]]:
        """Per modality float32 [n, dim] of training rows, `most` of them at most."""
        rows = evenly(self.training, most)
        sample = {self.modality: self.read(self.media_view, rows)}
        if view := self.query_view:
            sample.setdefault(self.source.views[view].modality, self.read(view, rows))
        return sample

    def read(self, view: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Rows of a view, float32 [n, dim]."""
        return self.source.read(view, rows).astype(np.float32)

    def _classes(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        found = self.source.classes
        if found is None:
            return {}
        offsets, values = found
        classes = [values[offsets[r] : offsets[r + 1]] for r in rows]
        # Labels may be taxonomy keys, in the millions: only those that occur get a column.
        present, columns = np.unique(np.concatenate(classes), return_inverse=True)
        membership = np.zeros((len(rows), max(1, len(present))), dtype=bool)
        membership[np.repeat(np.arange(len(rows)), [len(c) for c in classes]), columns] = True
        return {"membership": membership, "query_class": membership.argmax(axis=1)}


@dataclass(frozen=True)
class TrainingData:
    """Training data of a hasher.

    Attributes:
        sets: a set of embeddings per modality of media.
        labels: whether items have classes; else captions, or other views.
        means: float64 [dim] of further modalities to code, which no set has; only a shared head
            is trained for them.
    """

    sets: Sequence[SplitSet]
    labels: bool
    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def sample(self) -> dict[str, NDArray[np.float32]]:
        """Per modality float32 [n, dim] of training rows."""
        rows: dict[str, list[NDArray[np.float32]]] = {}
        for one in self.sets:
            for modality, some in one.sample(_SAMPLE_ROWS).items():
                rows.setdefault(modality, []).append(some)
        return {modality: np.concatenate(some) for modality, some in rows.items()}

    def settings(self, config: TrainingConfig) -> dict[str, Any]:
        """Facts of a training that the hasher records."""
        trained_on = "labels" if self.labels else "pairs"
        return {"trained_on": trained_on, "epochs": config.epochs, "seed": config.seed}


def split_rows(source: EmbeddingSet, share: float, seed: int) -> SplitSet:
    """A set with a share of its rows held out at random.

    Args:
        source: its last view other than text is the items' own.
        share: of the rows, at most `MOST_HELD_OUT` of them.
        seed: of the random choice.
    """
    media = [view.modality for view in source.views.values() if view.modality != "text"]
    order = np.random.default_rng([seed, source.rows]).permutation(source.rows)
    count = min(int(source.rows * share), MOST_HELD_OUT)
    return SplitSet(
        source,
        media[-1] if media else "text",
        np.sort(order[count:]).astype(np.int64),
        np.sort(order[:count]).astype(np.int64),
    )


def tasks_of(sets: Sequence[SplitSet], most: int = MOST_ITEMS) -> list[Task]:
    """All searches among held-out rows, `most` of each set at most."""
    validations = [one.validation(most) for one in sets]
    return [task for held_out in validations if held_out is not None for task in held_out.tasks()]


def evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` of the rows, evenly spread."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
