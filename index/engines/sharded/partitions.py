"""Which rows belong to which shard: ranges of equal length, dealt out in turn.

A row never changes its shard, wherever rows are added or deleted; the newest rows are spread
over all shards, and so is what a condition on dates or places selects.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.blocks import BLOCK_ROWS


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Some of one shard's rows, as small as they can be sent.

    Attributes:
        values: int64 [n], the rows; or uint8, a bit (little first) for each row of the shard.
        are_bits: which of both.
    """

    values: NDArray[np.int64] | NDArray[np.uint8]
    are_bits: bool


@dataclass(frozen=True, slots=True)
class Stripes:
    """Ranges of rows, dealt out to shards in turn.

    Attributes:
        shards: how many there are.
        rows: rows of one range.
    """

    shards: int
    rows: int = BLOCK_ROWS

    def condition(self, shard: int) -> str:
        """The rows of a shard, as a condition in the store's SQL."""
        return f"`row` / {self.rows} % {self.shards} = {shard}"

    def split(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Each shard's share of some rows (int64, ascending), ascending."""
        if not len(rows):
            return [rows] * self.shards
        first, last = int(rows[0]) // self.rows, int(rows[-1]) // self.rows
        starts = np.arange(first + 1, last + 1, dtype=np.int64) * self.rows
        ranges = np.split(rows, np.searchsorted(rows, starts))
        return [
            np.concatenate([rows[:0], *ranges[(shard - first) % self.shards :: self.shards]])
            for shard in range(self.shards)
        ]

    def ranges(self, shard: int, end: int) -> NDArray[np.int64]:
        """A shard's ranges below row `end`: int64 [n, 2], first row and the one after the last."""
        step = self.rows * self.shards
        starts = np.arange(shard * self.rows, end, step, dtype=np.int64)
        return np.column_stack([starts, np.minimum(starts + self.rows, end)])

    def packed(self, rows: NDArray[np.int64]) -> PackedRows:
        """Some of one shard's rows (ascending), ready to be sent to it."""
        if not len(rows):
            return PackedRows(rows, are_bits=False)
        places = self._places(rows)
        if 64 * len(rows) <= places[-1] + 1:
            return PackedRows(rows, are_bits=False)
        mask = np.zeros(int(places[-1]) + 1, dtype=bool)
        mask[places] = True
        return PackedRows(np.packbits(mask, bitorder="little"), are_bits=True)

    def unpacked(self, shard: int, packed: PackedRows) -> NDArray[np.int64]:
        """What `packed` was made of: int64 [n], ascending."""
        if not packed.are_bits:
            return np.asarray(packed.values, dtype=np.int64)
        bits = np.unpackbits(np.asarray(packed.values, dtype=np.uint8), bitorder="little")
        places = np.flatnonzero(bits.view(bool))
        ranges = places // self.rows
        return places + (ranges * (self.shards - 1) + shard) * self.rows

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of one shard's rows, counted without the other shards' ranges."""
        # No remainders: NumPy divides by one number several times as fast.
        ranges = rows // self.rows
        return rows - (ranges - ranges // self.shards) * self.rows
