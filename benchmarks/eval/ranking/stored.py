"""What a system stores, tile by tile: kept where it is small, else made anew each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.base import EmbeddedRows
from bittern.benchmarks.eval.ranking.settings import Limits
from bittern.benchmarks.eval.ranking.units import Units
from bittern.benchmarks.eval.systems.base import Fitted


class Clock:
    """Seconds since it was made, without those spent `aside`."""

    def __init__(self) -> None:
        self._begun = perf_counter()
        self._aside = 0.0

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Work that is not counted."""
        begun = perf_counter()
        try:
            yield
        finally:
            self._aside += perf_counter() - begun

    @property
    def seconds(self) -> float:
        """Counted so far."""
        return perf_counter() - self._begun - self._aside


class Stored:
    """Rows as a system stores them, in tiles that hold whole units.

    Args:
        fitted: the system.
        rows: embeddings.
        units: what is ranked.
        limits: what may be kept.
        clock: reading and storing is not counted.

    Attributes:
        kept: all rows, where they may be kept; else None.
    """

    def __init__(
        self, fitted: Fitted, rows: EmbeddedRows, units: Units, limits: Limits, clock: Clock
    ) -> None:
        self._fitted = fitted
        self._rows = rows
        self._units = units
        self._limits = limits
        self._clock = clock
        with clock.aside():
            self.kept = self._all()

    def tiles(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """First and last unit of each tile, and their rows. Only one is in memory at a time if
        the caller lets go of it.
        """
        if self.kept is not None:
            yield 0, len(self._units), self.kept
            return
        anew = self._anew()
        while True:
            with self._clock.aside():
                tile = next(anew, None)
            if tile is None:
                return
            first, last, stored = tile
            del tile
            yield first, last, stored
            del stored

    def _all(self) -> NDArray[Any] | None:
        kept: NDArray[Any] | None = None
        for first, tile in self._rows.tiles(self._limits.tile_rows):
            stored = self._fitted.store(tile)
            del tile
            if kept is None:
                if stored.nbytes / max(len(stored), 1) * len(self._rows) > self._limits.kept_bytes:
                    return None
                kept = np.empty((len(self._rows), *stored.shape[1:]), stored.dtype)
            kept[first : first + len(stored)] = stored
            del stored
        return kept

    def _anew(self) -> Iterator[tuple[int, int, NDArray[Any]]]:
        """Tiles end where units do: rows of a unit that goes on are put before the next tile."""
        starts = self._units.starts
        over: NDArray[Any] | None = None
        unit = 0
        for first, tile in self._rows.tiles(self._limits.tile_rows):
            stored = self._fitted.store(tile)
            end = first + len(tile)
            del tile
            if over is not None:
                stored = np.concatenate([over, stored])
            last = int(np.searchsorted(starts, end, "right")) - 1
            complete = int(starts[last] - starts[unit])
            over = stored[complete:].copy() if complete < len(stored) else None
            if last > unit:
                yield unit, last, stored[:complete]
                unit = last
            del stored
