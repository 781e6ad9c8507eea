"""Windows of recordings as items of their own (`--windows separate`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows
from bittern.benchmarks.eval.tasks import AUDIO, Protocol, Relevance, Task
from bittern.benchmarks.eval.tasks.windows import windows_of
from bittern.errors import InvalidInputError


class EachAnItem:
    """The same rows, each an item of its own."""

    def __init__(self, rows: EmbeddedRows) -> None:
        self.dim = rows.dim
        self.owners: NDArray[np.int64] = np.arange(len(rows))
        self.spans = rows.spans
        self.failed = rows.failed
        self.digest = f"{rows.digest}-each"
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """See `EmbeddedRows.tiles`."""
        return self._rows.tiles(rows)

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `EmbeddedRows.read`."""
        return self._rows.read(rows)


def with_windows(task: Task, rows: EmbeddedRows, protocol: Protocol) -> tuple[Task, EmbeddedRows]:
    """The task as the protocol wants windows: as it is, or with every window an item.

    Only recordings have windows; other items stay as they are. A task that knows what is heard
    when says itself which windows are right (`Task.by_window`); otherwise a window is right
    where its recording is.

    Raises:
        InvalidInputError: candidates were given per recording.
    """
    if task.by_window is not None:
        return task.by_window(rows.owners, rows.spans), EachAnItem(rows)
    if protocol.windows != "separate" or task.items.modality != AUDIO:
        return task, rows
    if task.candidates is not None:
        raise InvalidInputError(
            f"the candidates of {task.name} are recordings; they cannot be ranked window by "
            "window: leave --windows max or mean"
        )
    owners = rows.owners
    items = task.items
    of_windows = windows_of(items, owners, rows.spans)
    relevance = _of_rows(task.relevance, owners, len(items))
    return replace(task, items=of_windows, relevance=relevance), EachAnItem(rows)


def _of_rows(relevance: Relevance, owners: NDArray[np.int64], items: int) -> Relevance:
    """The windows of the items that are right."""
    starts = np.searchsorted(owners, np.arange(items), "left")
    ends = np.searchsorted(owners, np.arange(items), "right")
    counts = (ends - starts)[relevance.items]
    of_entry = np.repeat(np.arange(len(relevance.items)), counts)
    within = np.arange(len(of_entry)) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = starts[relevance.items][of_entry] + within
    ends_of = np.concatenate([[0], np.cumsum(counts)])
    return Relevance(
        ends_of[relevance.offsets].astype(np.int64),
        rows.astype(np.int64),
        relevance.grades[of_entry],
    )
