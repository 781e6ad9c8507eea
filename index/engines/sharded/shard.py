"""One shard: its rows, its codes and its searches, without Ray.

Rows are distributed over shards in partitions of equal length. A row never changes its shard; new
rows are spread over all shards, and so are the rows that a condition on dates or regions selects.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.blocks import BLOCK_ROWS, Block, CodeBlocks, RowNumbers
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest, RowSet

_CACHED_ROW_SETS = 16


@dataclass(frozen=True, slots=True)
class Partitions:
    """Ranges of rows, assigned to shards in turn.

    Attributes:
        shards: number of shards.
        rows: rows of one partition.
    """

    shards: int
    rows: int = BLOCK_ROWS

    def condition(self, shard: int) -> str:
        """The rows of a shard, as a condition in the store's SQL."""
        return f"`row` / {self.rows} % {self.shards} = {shard}"

    def split(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The rows of each shard among some (int64, ascending), ascending."""
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
        """A shard's partitions below row `end`: int64 [n, 2], first row and first row after it."""
        step = self.rows * self.shards
        starts = np.arange(shard * self.rows, end, step, dtype=np.int64)
        return np.column_stack([starts, np.minimum(starts + self.rows, end)])

    def packed(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | NDArray[np.uint8]:
        """Some of one shard's rows (ascending), compressed: int64 [n], or a bit for each row.

        Bits are little first, and skip the rows of other shards.
        """
        if not len(rows):
            return rows
        # Without remainders, which NumPy computes several times as slowly.
        partition = rows // self.rows
        positions = rows - (partition - partition // self.shards) * self.rows
        if 64 * len(rows) <= positions[-1] + 1:
            return rows
        mask = np.zeros(int(positions[-1]) + 1, dtype=bool)
        mask[positions] = True
        return np.packbits(mask, bitorder="little")

    def unpacked(
        self, shard: int, packed: NDArray[np.int64] | NDArray[np.uint8]
    ) -> NDArray[np.int64]:
        """The rows that were packed: int64 [n], ascending."""
        if packed.dtype == np.int64:
            return np.asarray(packed, dtype=np.int64)
        bits = np.unpackbits(np.asarray(packed, dtype=np.uint8), bitorder="little")
        positions = np.flatnonzero(bits.view(bool))
        partition = positions // self.rows
        return positions + (partition * (self.shards - 1) + shard) * self.rows

    def blocks(self, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> CodeBlocks:
        """Codes of one shard as blocks. Full partitions become blocks whose rows take no memory."""
        if 4 * self.rows < BLOCK_ROWS:
            return CodeBlocks.of(rows, codes)
        cuts = np.flatnonzero(np.diff(rows // self.rows)) + 1
        blocks = [
            Block(RowNumbers(rows[start:end]), codes[start:end])
            for start, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)
            if end > start
        ]
        return CodeBlocks(codes.shape[1] * 8, blocks)


class Source(Protocol):
    """Reads the codes of a shard in its process; sent as a pickle."""

    def read(
        self,
        version: int,
        partitions: Partitions,
        shard: int,
        before: tuple[int, CodeBlocks] | None,
    ) -> CodeBlocks:
        """One shard's codes of one generation.

        Args:
            version: the generation.
            partitions: the rows of the shards.
            shard: number of the shard.
            before: an earlier generation in the shard, whose blocks can be shared.

        Raises:
            ArchiveDamagedError: they cannot be read.
        """
        ...


class GenerationGoneError(Exception):
    """A shard does not hold the generation that a search names."""


@dataclass(frozen=True, slots=True)
class ShardRows:
    """The rows that one shard may return.

    Attributes:
        token: identifies the set of rows, for caching.
        packed: the shard's rows of it, see `Partitions.packed`.
    """

    token: int
    packed: NDArray[np.int64] | NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The codes of a generation in a shard.

    Attributes:
        version: the generation.
        bits: code length.
        codes: number of codes.
        last_row: the greatest row number; -1 if there is none.
    """

    version: int
    bits: int
    codes: int
    last_row: int


class Shard:
    """Holds the codes of its rows, and searches them.

    Args:
        number: of this shard.
        partitions: the rows of the shards.
        threads: most threads of one search.
    """

    def __init__(self, number: int, partitions: Partitions, threads: int) -> None:
        self._number = number
        self._partitions = partitions
        self._threads = threads
        self._engines: dict[int, FlatEngine] = {}
        self._row_sets: dict[int, RowSet] = {}
        self._loading = threading.Lock()
        self._caching = threading.Lock()

    def load(self, source: Source, version: int, serving: int) -> Loaded:
        """Load a generation, so that searches can name it.

        Args:
            source: reads its codes.
            version: the generation.
            serving: the one that searches name now; all others are dropped.
        """
        with self._loading:
            if version not in self._engines:
                newest = max((v for v in self._engines if v < version), default=None)
                before = None if newest is None else (newest, self._engines[newest].blocks)
                blocks = source.read(version, self._partitions, self._number, before)
                # Replaced as a whole: searches read it meanwhile.
                self._engines = {v: e for v, e in self._engines.items() if v == serving} | {
                    version: FlatEngine(blocks, self._threads)
                }
            blocks = self._engines[version].blocks
            return Loaded(version, blocks.bits, len(blocks), blocks.last_row)

    def search(
        self, version: int, queries: Queries, k: int, rows: ShardRows | None
    ) -> list[Nearest]:
        """The k nearest of this shard's rows; see `SearchEngine.search`.

        Raises:
            GenerationGoneError: it does not hold this version.
        """
        return self._engine(version).search(queries, k, self._row_set(rows))

    def process(self) -> int:
        """The number of its process."""
        return os.getpid()

    def _engine(self, version: int) -> FlatEngine:
        engine = self._engines.get(version)
        if engine is None:
            raise GenerationGoneError(f"shard {self._number} does not hold version {version}")
        return engine

    def _row_set(self, rows: ShardRows | None) -> RowSet | None:
        if rows is None:
            return None
        with self._caching:
            cached = self._row_sets.get(rows.token)
            if cached is None:
                cached = RowSet(self._partitions.unpacked(self._number, rows.packed))
                while len(self._row_sets) >= _CACHED_ROW_SETS:
                    self._row_sets.pop(next(iter(self._row_sets)))
                self._row_sets[rows.token] = cached
        return cached
