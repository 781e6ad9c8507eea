"""The interface of embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError


class EmbeddedRows(Protocol):
    """Embeddings of a sequence of items: one row per photograph, text, or window of a recording.

    Rows of an item stand together, items in order.

    Attributes:
        dim: length of an embedding.
        owners: int64 [rows], the item of each row, not falling.
        spans: float32 [rows, 2], start and end in seconds of each window; NaN where there is none.
        failed: items that have no row, and why: (item, sentence).
        digest: hex SHA-256 of what was embedded, by which tower, how cut.
    """

    dim: int
    owners: NDArray[np.int64]
    spans: NDArray[np.float32]
    failed: Sequence[tuple[int, str]]
    digest: str

    def __len__(self) -> int:
        """Rows."""
        ...

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """All rows in order: number of the first row, and float32 [<= rows, dim]; one tile is in
        memory at a time.
        """
        ...

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """Some rows, float32 [len(rows), dim], in the order given."""
        ...


def checked_rows(rows: NDArray[np.integer], there_are: int) -> NDArray[np.int64]:
    """Row numbers as int64 [n].

    Raises:
        CodeError: not one-dimensional, or no such row.
    """
    wanted = np.asarray(rows).astype(np.int64)
    if wanted.ndim != 1 or (len(wanted) and not 0 <= wanted.min() <= wanted.max() < there_are):
        raise CodeError(f"rows must be [n], from 0 to {there_are - 1}")
    return wanted
