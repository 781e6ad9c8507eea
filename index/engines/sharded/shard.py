"""What one actor does: it holds the codes of its rows and searches them.

Nothing here knows Ray; an actor is a `Shard` in a process of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowSet
from bittern.index.engines.sharded.partitions import PackedRows, Stripes
from bittern.index.engines.sharded.sources import Known, Source
from bittern.types import Metric

_REMEMBERED_ROW_SETS = 16


class GenerationGoneError(Exception):
    """A shard does not hold the generation that it was asked about."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries as they are sent to a shard: what their distances are computed from, exactly.

    Attributes:
        metric: ``asymmetric`` or ``hamming``.
        values: float64 [q, bits] weights, or uint8 [q, bits/8] codes.
    """

    metric: Metric
    values: NDArray[np.float64] | NDArray[np.uint8]

    @classmethod
    def of(cls, queries: Queries) -> Asked:
        """What must be sent of them."""
        hamming = queries.metric == "hamming"
        return cls(queries.metric, queries.codes if hamming else queries.weights)

    def queries(self) -> Queries:
        """The same queries again."""
        if self.metric == "hamming":
            return Queries.of_codes(np.asarray(self.values, dtype=np.uint8))
        return Queries.of_weights(np.asarray(self.values, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Found:
    """What a shard found, as it is sent back: all queries in three arrays.

    Attributes:
        counts: int64 [q].
        distances: float64 [sum of counts].
        rows: int64 [sum of counts].
    """

    counts: NDArray[np.int64]
    distances: NDArray[np.float64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, nearest: Sequence[Nearest]) -> Found:
        """What must be sent of it."""
        return cls(
            np.array([len(one) for one in nearest], dtype=np.int64),
            np.concatenate([np.empty(0), *(one.distances for one in nearest)]),
            np.concatenate([np.empty(0, np.int64), *(one.rows for one in nearest)]),
        )

    def nearest(self) -> list[Nearest]:
        """For each query what was found."""
        ends = np.cumsum(self.counts)[:-1]
        distances, rows = np.split(self.distances, ends), np.split(self.rows, ends)
        return [Nearest(d, r) for d, r in zip(distances, rows, strict=True)]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a shard holds of a generation.

    Attributes:
        version: the generation.
        bits: code length.
        codes: how many.
        last_row: the greatest row number; -1 where there is none.
        nbytes: bytes of the codes.
    """

    version: int
    bits: int
    codes: int
    last_row: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Limits:
    """The rows that one shard may find.

    Attributes:
        token: names the set of rows, so that what is worked out for it is used again.
        rows: the shard's share of it.
    """

    token: int
    rows: PackedRows


class Shard:
    """Holds the codes of some rows, and searches them.

    Args:
        number: which shard this is.
        stripes: which rows belong to which shard.
        threads: the most threads of one search.
    """

    def __init__(self, number: int, stripes: Stripes, threads: int) -> None:
        self._number = number
        self._stripes = stripes
        self._threads = threads
        self._engines: dict[int, FlatEngine] = {}
        self._row_sets: dict[int, RowSet] = {}
        self._loading = threading.Lock()
        self._remembering = threading.Lock()

    def load(self, source: Source, version: int, serving: int) -> Loaded:
        """Take up a generation, so that searches can name it.

        Args:
            source: where its codes are.
            version: the generation.
            serving: the one that searches name now; it stays, all others are let go.
        """
        with self._loading:
            if version not in self._engines:
                newest = max((v for v in self._engines if v < version), default=None)
                known = None if newest is None else Known(newest, self._engines[newest].blocks)
                blocks = source.read(version, self._stripes, self._number, known)
                # Replaced as a whole: searches read it meanwhile.
                self._engines = {v: e for v, e in self._engines.items() if v == serving} | {
                    version: FlatEngine(blocks, self._threads)
                }
            blocks = self._engines[version].blocks
            return Loaded(version, blocks.bits, len(blocks), blocks.last_row, blocks.nbytes)

    def search(self, version: int, asked: Asked, k: int, limits: Limits | None) -> Found:
        """The k nearest of this shard's rows; see `SearchEngine.search`.

        Raises:
            GenerationGoneError: it does not hold this version.
        """
        engine = self._engine(version)
        return Found.of(engine.search(asked.queries(), k, self._rows(limits)))

    def within(self, version: int, asked: Asked, radius: float, limits: Limits | None) -> Found:
        """The rows up to a distance, of this shard's; see `SearchEngine.within`.

        Raises:
            GenerationGoneError: it does not hold this version.
        """
        engine = self._engine(version)
        return Found.of(engine.within(asked.queries(), radius, self._rows(limits)))

    def nbytes(self, version: int) -> int:
        """Bytes besides the codes."""
        return self._engine(version).nbytes

    def process(self) -> int:
        """The number of its process."""
        return os.getpid()

    def watch(self) -> None:
        """Never returns: whoever waits for it learns at once when the process ends."""
        threading.Event().wait()

    def _engine(self, version: int) -> FlatEngine:
        engine = self._engines.get(version)
        if engine is None:
            raise GenerationGoneError(f"shard {self._number} does not hold version {version}")
        return engine

    def _rows(self, limits: Limits | None) -> RowSet | None:
        if limits is None:
            return None
        with self._remembering:
            known = self._row_sets.get(limits.token)
            if known is None:
                known = RowSet(self._stripes.unpacked(self._number, limits.rows))
                while len(self._row_sets) >= _REMEMBERED_ROW_SETS:
                    self._row_sets.pop(next(iter(self._row_sets)))
                self._row_sets[limits.token] = known
        return known
