"""The interface of embeddings, and embeddings in memory."""

from __future__ import annotations

import hashlib
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


class ArrayRows:
    """`EmbeddedRows` over an array."""

    def __init__(
        self,
        embeddings: NDArray[np.floating],
        owners: NDArray[np.integer] | None = None,
        spans: NDArray[np.floating] | None = None,
        failed: Sequence[tuple[int, str]] = (),
    ) -> None:
        """Take over arrays.

        Args:
            embeddings: float [rows, dim], unit norm.
            owners: int [rows], the item of each row, not falling; None for one row each.
            spans: float [rows, 2], seconds; None where there are none.
            failed: items that have no row, and why.

        Raises:
            CodeError: shapes that do not fit, owners that fall, NaN or infinity.
        """
        self._embeddings = np.ascontiguousarray(embeddings, dtype=np.float32)
        if self._embeddings.ndim != 2 or not np.isfinite(self._embeddings).all():
            raise CodeError(
                f"embeddings must be finite and [rows, dim], not {list(self._embeddings.shape)}; "
                "look for NaN and infinity"
            )
        rows, self.dim = self._embeddings.shape
        given = np.arange(rows) if owners is None else np.asarray(owners)
        self.owners: NDArray[np.int64] = given.astype(np.int64)
        times = np.full((rows, 2), np.nan) if spans is None else np.asarray(spans)
        self.spans: NDArray[np.float32] = times.astype(np.float32)
        if self.owners.shape != (rows,) or self.spans.shape != (rows, 2):
            raise CodeError(
                f"{rows} rows need owners [{rows}] and spans [{rows}, 2], not "
                f"{list(self.owners.shape)} and {list(self.spans.shape)}"
            )
        if (np.diff(self.owners) < 0).any() or (self.owners < 0).any():
            raise CodeError("owners must be 0 or more and must not fall; sort the rows by item")
        self.failed: Sequence[tuple[int, str]] = tuple(failed)
        digest = hashlib.sha256(f"arrays {rows} {self.dim} {self.failed!r} ".encode())
        for array in (self._embeddings, self.owners, self.spans):
            digest.update(array.tobytes())
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._embeddings)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """See `EmbeddedRows`; these tiles are views, do not write to them."""
        for first in range(0, len(self), rows):
            yield first, self._embeddings[first : first + rows]

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `EmbeddedRows`.

        Raises:
            CodeError: there is no such row.
        """
        taken: NDArray[np.float32] = self._embeddings[checked_rows(rows, len(self))]
        return taken


def checked_rows(rows: NDArray[np.integer], there_are: int) -> NDArray[np.int64]:
    """Row numbers as int64 [n].

    Raises:
        CodeError: not one-dimensional, or no such row.
    """
    wanted = np.asarray(rows).astype(np.int64)
    if wanted.ndim != 1 or (len(wanted) and not 0 <= wanted.min() <= wanted.max() < there_are):
        raise CodeError(f"rows must be [n], from 0 to {there_are - 1}")
    return wanted
