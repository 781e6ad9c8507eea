"""`EmbeddedRows` of embeddings that were made before (`bittern.service.ingest.precomputed`)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.rows import checked_rows
from bittern.errors import MediaError
from bittern.service.ingest.precomputed import Precomputed
from bittern.text import agreeing, some_of

_SHOWN = 5


class PrecomputedRows:
    """`EmbeddedRows` of some items."""

    def __init__(
        self,
        source: Precomputed,
        ids: Sequence[str],
        *,
        missing: Literal["error", "skip"] = "error",
    ) -> None:
        """Find the rows of the items.

        Args:
            source: the embeddings.
            ids: of the items, unique, in their order.
            missing: whether items without a row are left in `failed` (``skip``).

        Raises:
            MediaError: items have no row, and `missing` is ``error``.
        """
        found = [source.rows_of(one) for one in ids]
        without = [position for position, rows in enumerate(found) if not len(rows)]
        if without and missing == "error":
            them = agreeing(len(without), "it", "them")
            shown = ", ".join(repr(ids[position]) for position in without[:_SHOWN])
            raise MediaError(
                f"{source.path} has no embedding of {some_of(len(without), len(ids), 'item')}: "
                f"{shown}{', …' if len(without) > _SHOWN else ''}. Embed {them} too, or leave "
                f"{them} out with --missing skip."
            )
        self._source, self.dim = source, source.dim
        self._order = np.concatenate([np.empty(0, np.int64), *found])
        self.owners = np.repeat(np.arange(len(ids)), [len(rows) for rows in found])
        self.spans = source.spans[self._order].astype(np.float32)
        self.failed: Sequence[tuple[int, str]] = [
            (position, f"{source.path} has no embedding of it") for position in without
        ]
        digest = hashlib.sha256(source.digest.encode())
        for chunk in (self._order, self.owners, self.spans):
            digest.update(chunk.tobytes())
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._order)

    def tiles(self, rows: int = 65_536) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """See `EmbeddedRows`."""
        for first in range(0, len(self), rows):
            yield first, self._source.read(self._order[first : first + rows])

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """See `EmbeddedRows`.

        Raises:
            CodeError: there is no such row.
        """
        return self._source.read(self._order[checked_rows(rows, len(self))])
