"""Held-out items asked for by words (or by other items): how well floats and codes answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.hashing.training.validation import mean_average_precision
from bittern.hashing.training_free import fit
from bittern.service.training.request import Comparison

MOST_QUERIES = 512
MOST_ITEMS = 4096
"""Held-out rows that are asked of; more would only take time."""
FIT_ROWS = 8192
"""Training rows that the training-free codes are fitted on."""
_PLURAL = {"image": "images", "audio": "sounds", "text": "words"}

Floats = NDArray[np.floating]
Logits = Callable[[Floats, str], NDArray[np.floating]]


@dataclass(frozen=True)
class HeldOut:
    """Held-out items of one modality.

    Attributes:
        modality: of the items.
        media: float [n, dim].
        asking: what is asked with: ``text``, or the modality itself.
        queries: float [n, dim], per item something that asks for it; None asks with the items.
        groups: int [n]; items of a group are equally right. None: each is its own group.
        membership: bool [n, classes]; items that share a class are equally right. Counts
            instead of `groups` where it is there.
        asked: int [n], class that an item's own query names; with `membership` and `queries`.
    """

    modality: str
    media: Floats
    asking: str
    queries: Floats | None = None
    groups: NDArray[np.integer] | None = None
    membership: NDArray[np.bool_] | None = None
    asked: NDArray[np.integer] | None = None

    def tasks(self) -> list[Task]:
        """The ways of asking for these items that have an answer."""
        tasks = []
        if self.queries is not None:
            tasks.append(self._by_queries(self.queries))
        if self.membership is not None:
            tasks.insert(0, self._by_items(self.membership))
        return [task for task in tasks if task.relevant.any()]

    def _by_queries(self, queries: Floats) -> Task:
        key = np.arange(len(self.media)) if self.groups is None else self.groups
        if self.membership is not None and self.asked is not None:
            key = self.asked
        names, first = np.unique(key, return_index=True)
        if len(names) > MOST_QUERIES:  # evenly over all of them
            chosen = np.linspace(0, len(names) - 1, MOST_QUERIES).round().astype(np.int64)
            names, first = names[chosen], first[chosen]
        relevant = names[:, None] == key
        if self.membership is not None and self.asked is not None:
            relevant = self.membership[:, names].T
        return Task(
            f"{_PLURAL[self.asking]} to {_PLURAL[self.modality]}",
            (self.asking, queries[first]),
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
class Task:
    """Questions, items, and which items are right.

    Attributes:
        name: ``words to images``.
        queries: modality and float [q, dim].
        items: modality and float [n, dim].
        relevant: bool [q, n].
        excluded: int [q], per query an item that is left out (itself); None for none.
    """

    name: str
    queries: tuple[str, Floats]
    items: tuple[str, Floats]
    relevant: NDArray[np.bool_]
    excluded: NDArray[np.integer] | None = None

    def of_codes(self, logits: Logits) -> float:
        """MAP of asymmetric search."""
        asked, held = logits(self.queries[1], self.queries[0]), logits(self.items[1], self.items[0])
        return mean_average_precision(asked, held, self.relevant, excluded=self.excluded)

    def of_floats(self) -> float:
        """MAP of the cosine of embeddings; ties are broken by the item's row."""
        queries = _unit(self.queries[1])
        distance = -np.round(queries @ _unit(self.items[1]).T, 9)
        relevant = self.relevant.copy()
        if self.excluded is not None:
            rows = np.arange(len(queries))
            distance[rows, self.excluded] = np.inf
            relevant[rows, self.excluded] = False
        answered = relevant.any(axis=1)
        return _mean_average_precision(distance[answered], relevant[answered])


def _unit(rows: Floats) -> NDArray[np.float64]:
    """Rows of norm 1; one of zeros stays as it is."""
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    return unit


def _mean_average_precision(distance: Floats, relevant: NDArray[np.bool_]) -> float:
    order = np.argsort(distance, axis=1, kind="stable")
    hits = np.take_along_axis(relevant, order, axis=1)
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    return float(((precision * hits).sum(axis=1) / hits.sum(axis=1)).mean())


def measure(tasks: Sequence[Task], logits: Logits) -> dict[str, float]:
    """MAP of codes: ``mAP``, the mean over tasks, and each task's where there are several."""
    if not tasks:
        return {}
    values = {task.name: task.of_codes(logits) for task in tasks}
    mean = {"mAP": float(np.mean(list(values.values())))}
    return mean if len(tasks) == 1 else {**mean, **values}


def compare(
    before: Sequence[Task],
    after: Sequence[Task],
    learned: Logits,
    sample: Mapping[str, Floats],
    bits: int,
    seed: int,
) -> list[Comparison]:
    """Learned codes beside floats and training-free codes, on the same held-out items.

    Args:
        before: tasks with the embeddings of the towers as they are in the catalogue.
        after: the same tasks with those of the towers as trained.
        learned: logits of embeddings `after`.
        sample: per modality training embeddings, for the training-free codes; empty for none.
        bits: code length.
        seed: of the random rotation.
    """
    free = None
    if sample:
        basis = [m for m in sorted(sample) if m != "text"] or sorted(sample)
        free = fit("pca", dict(sample), bits, seed=seed, basis=basis)
    return [
        Comparison(
            task=old.name,
            modality=old.items[0],
            queries=len(old.relevant),
            items=len(old.items[1]),
            floats=old.of_floats(),
            training_free=None if free is None else old.of_codes(free.logits),
            learned=new.of_codes(learned),
        )
        for old, new in zip(before, after, strict=True)
    ]
