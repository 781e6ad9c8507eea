"""The interface of embeddings, and windows of recordings as items (`--windows separate`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol as Interface

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks import AUDIO, Protocol, Relevance, Task, ranges
from bittern.errors import CodeError, InvalidInputError


class EmbeddedRows(Interface):
    """Embeddings of a sequence of items: one row per photograph, text, or window of a recording.

    Rows of an item stand together, items in order.

    Attributes:
        dim: length of an embedding.
        owners: int64 [rows], the item of each row, not falling.
        spans: float32 [rows, 2], start and end in seconds of each window; NaN where there is none.
        failed: items that have no row, and why: (item, sentence).
        digest: hex SHA-256 of the embedded contents, the tower and the windowing.
    """

    dim: int
    owners: NDArray[np.int64]
    spans: NDArray[np.float32]
    failed: Sequence[tuple[int, str]]
    digest: str

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All rows in order: number of the first row, and float32 [<= rows, dim]; one tile is in
        memory at a time.
        """
        ...

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Some rows, float32 [len(rows), dim], in the order given."""
        ...


def checked_rows(rows: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """Row numbers below `count` as int64 [n].

    Raises:
        CodeError: not one-dimensional, or no such row.
    """
    wanted = np.asarray(rows).astype(np.int64)
    if wanted.ndim != 1 or (len(wanted) and not 0 <= wanted.min() <= wanted.max() < count):
        raise CodeError(f"rows must be [n], from 0 to {count - 1}")
    return wanted


class WindowRows:
    """`EmbeddedRows` of which each row is an item of its own."""

    def __init__(self, rows: EmbeddedRows) -> None:
        self.dim = rows.dim
        self.owners: NDArray[np.int64] = np.arange(len(rows))
        self.spans = rows.spans
        self.failed = rows.failed
        self.digest = f"{rows.digest}-each"
        self.tiles = rows.tiles
        self.read = rows.read

    def __len__(self) -> int:
        return len(self.owners)


def with_windows(task: Task, rows: EmbeddedRows, protocol: Protocol) -> tuple[Task, EmbeddedRows]:
    """The task as it is, or with every window an item if the protocol or the task wants that.

    Only recordings have windows. A task with times of its judgements decides itself which windows
    are relevant (`Task.by_window`); otherwise a window is relevant where its recording is.

    Raises:
        InvalidInputError: candidates were given per recording.
    """
    if task.by_window is not None:
        return task.by_window(rows.owners, rows.spans), WindowRows(rows)
    if protocol.windows != "separate" or task.items.modality != AUDIO:
        return task, rows
    if task.candidates is not None:
        raise InvalidInputError(
            f"the candidates of {task.name} are recordings; they cannot be ranked window by "
            "window: leave --windows max or mean"
        )
    items = np.arange(len(task.items))
    starts = np.searchsorted(rows.owners, items, "left")
    sizes = (np.searchsorted(rows.owners, items, "right") - starts)[task.relevance.items]
    relevance = Relevance.from_pairs(
        np.repeat(task.relevance.queries, sizes),
        ranges(starts[task.relevance.items], sizes),
        len(task.queries),
        np.repeat(task.relevance.grades, sizes),
    )
    windows = task.items.over_windows(rows.owners, rows.spans)
    return replace(task, items=windows, relevance=relevance), WindowRows(rows)
