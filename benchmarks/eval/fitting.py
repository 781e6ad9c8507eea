"""A task in one space: its items, queries and training part as vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.asking import embed_asked
from bittern.benchmarks.eval.embeddings.base import EmbeddedRows
from bittern.benchmarks.eval.embeddings.encoding import embed_items
from bittern.benchmarks.eval.embeddings.precomputed import PrecomputedRows
from bittern.benchmarks.eval.measuring import Vectors
from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.request import EvalRequest
from bittern.benchmarks.eval.spaces import Space
from bittern.benchmarks.eval.systems.base import Training
from bittern.benchmarks.eval.tasks import Items, Task, TrainingPart
from bittern.errors import InvalidInputError

NOVEL = "novel"
"""The group of queries whose classes nothing is fitted on."""
OnItems = Callable[[int], None]
"""Called with how many items are embedded."""


def vectors_of(
    task: Task, space: Space, request: EvalRequest, cache: Path, on_items: OnItems
) -> Vectors:
    """Embed what has not been embedded before, and draw what systems are fitted on.

    Raises:
        BitternError: items or queries cannot be embedded.
    """
    protocol = request.protocol
    if task.training is None and protocol.fit_on == "training":
        raise InvalidInputError(
            f"{task.name} has no training split that systems could be fitted on; leave "
            "--fit-on items",
            field="fit_on",
        )
    rows: EmbeddedRows
    if request.embeddings is None:
        rows = _embedded(task.items, space, protocol, cache, on_items)
    else:
        dim = space.towers.encoder().dim
        rows = PrecomputedRows.open(
            request.embeddings, task.items.ids, dim=dim, missing=protocol.missing
        )
    if not len(rows):
        raise InvalidInputError(
            f"none of the {len(task.items)} items of {task.name} could be embedded, the first: "
            f"{rows.failed[0][1] if rows.failed else 'there are none'}"
        )
    asked = embed_asked(space.towers, task.asked, cache)
    if task.training is not None:
        part = _training_rows(task.training, space, protocol, cache, on_items)
        return Vectors(rows, asked, part)
    items = rows.read(drawn_rows(rows_to_fit_on(task, rows), protocol))
    side, asked_side = task.items.side, task.asked.side
    return Vectors(rows, asked, Training(items, side, asked, asked_side))


def _embedded(
    items: Items, space: Space, protocol: Protocol, cache: Path, on_items: OnItems
) -> EmbeddedRows:
    return embed_items(
        space.towers,
        items,
        cache,
        missing=protocol.missing,
        on_progress=lambda progress: on_items(progress.done),
    )


def fitted_on(task: Task, vectors: Vectors) -> str:
    """What systems are fitted on, in a sentence for the report."""
    part = vectors.training
    rows = len(part.items)
    if task.training is None:
        which = "all" if rows == len(vectors.rows) else f"{rows:,} of the"
        without = " (none of novel classes)" if NOVEL in task.groups else ""
        return (
            f"Training-free systems are fitted on {which} {len(vectors.rows):,} rows that are "
            f"searched{without}, without labels; queries are centred on their own mean, over all "
            f"{len(part.queries)}"
        )
    known = "with their classes" if part.labels is not None else "without labels"
    return (
        f"Systems are fitted on {rows:,} rows of a training part that is not searched, {known}; "
        f"queries are centred on the mean of its {len(part.queries):,} queries"
    )


def rows_to_fit_on(task: Task, rows: EmbeddedRows) -> NDArray[np.int64]:
    """Rows of the items that are searched, without those of novel classes."""
    novel = task.groups.get(NOVEL)
    if novel is None:
        return np.arange(len(rows))
    kept = ~np.isin(task.items.classes, task.asked.classes[novel])
    return np.flatnonzero(kept[rows.owners])


def drawn_rows(possible: NDArray[np.int64], protocol: Protocol) -> NDArray[np.int64]:
    """Rows to fit on, ascending: all, or as many as the protocol allows, drawn at random."""
    if len(possible) <= protocol.fit_rows:
        return possible
    rng = np.random.default_rng(protocol.seed)
    return np.sort(rng.choice(possible, protocol.fit_rows, replace=False)).astype(np.int64)


def _training_rows(
    part: TrainingPart, space: Space, protocol: Protocol, cache: Path, on_items: OnItems
) -> Training:
    rows = _embedded(part.items, space, protocol, cache, on_items)
    if not len(rows):
        raise InvalidInputError("nothing of the training split could be embedded")
    chosen = drawn_rows(np.arange(len(rows)), protocol)
    classes = part.items.classes[rows.owners[chosen]]
    return Training(
        items=rows.read(chosen),
        item_side=part.items.side,
        queries=embed_asked(space.towers, part.queries, cache),
        asked_side=part.queries.side,
        labels=_labels(classes, part.queries.classes),
    )


def _labels(classes: NDArray[np.int32], asked: NDArray[np.int32]) -> NDArray[np.int64] | None:
    """Which query names each item's class; None where an item's class is not asked for."""
    order = np.argsort(asked, kind="stable")
    place = np.searchsorted(asked, classes, sorter=order)
    place = order[np.minimum(place, len(order) - 1)]
    if (asked[place] != classes).any() or (classes < 0).any():
        return None
    return place.astype(np.int64)
