"""Everything is ranked, exactly, in bounded memory.

What is stored passes by in tiles. First the distances of the relevant units are noted, then it
is counted how many units of each tile are nearer, or as near. Where all that is stored fits into
memory it is one tile, and both are done at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.ranking.counting import Tile
from bittern.benchmarks.eval.ranking.placed import Nearest, Placed
from bittern.benchmarks.eval.ranking.settings import RADIUS, Limits
from bittern.benchmarks.eval.ranking.stored import Stored
from bittern.benchmarks.eval.ranking.units import Ints, Units, Wanted
from bittern.benchmarks.eval.systems.base import Fitted, Metric
from bittern.errors import InvalidInputError
from bittern.index.engines.threads import for_each, usable_cores

_MOST_QUERIES = 64
"""Asked together; tables of asymmetric distances take 64 KiB for each query at 256 bits."""


@dataclass(frozen=True)
class Asking:
    """What is asked of a system, and by which distance.

    Attributes:
        fitted: the system.
        queries: float32 [q, dim].
        metric: the distance.
    """

    fitted: Fitted
    queries: NDArray[np.float32]
    metric: Metric

    def part(self, queries: Ints) -> Asking:
        """Some of the queries."""
        return Asking(self.fitted, self.queries[queries], self.metric)

    def distances(self, first: int, last: int, stored: NDArray[Any]) -> NDArray[Any]:
        """Of some queries to stored rows, [last - first, n].

        Raises:
            InvalidInputError: one is not finite.
        """
        asked = self.fitted.ask(self.queries[first:last], self.metric)
        found = self.fitted.distances(asked, stored, 0, last - first)
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            query = first + int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
            raise InvalidInputError(
                f"query {query} has {self.metric} distances that are NaN or infinite; look for "
                "embeddings of items, or parameters, that are not finite"
            )
        return found


class Whole:
    """Ranks everything.

    Args:
        asking: what is asked.
        stored: of what.
        units: what is ranked.
        wanted: what is relevant.
        keep: so many of the nearest are told.
        limits: memory and threads.
    """

    def __init__(
        self,
        asking: Asking,
        stored: Stored,
        units: Units,
        wanted: Wanted,
        keep: int,
        limits: Limits,
    ) -> None:
        self._asking = asking
        self._stored = stored
        self._units = units
        self._wanted = wanted
        self._limits = limits
        entries = len(wanted.units)
        self._values = np.full(entries, np.inf)
        self._nearer = np.zeros(entries, np.int64)
        self._before = np.zeros(entries, np.int64)
        self._tied = np.zeros(entries, np.int64)
        self._nearest = Nearest.none(len(wanted), min(keep, len(units)))
        hamming = asking.metric == "symmetric" and (units.windows != "mean" or units.single)
        self._within = np.zeros((len(wanted), 2), np.int64) if hamming else None

    def placed(self) -> Placed:
        """Rank."""
        if self._stored.kept is None:
            self._pass(note=True, count=False)
            self._pass(note=False, count=True)
        else:
            self._pass(note=True, count=True)
        return Placed(
            self._wanted.queries,
            self._wanted.units,
            self._wanted.grades,
            self._nearer,
            self._before,
            self._tied,
            self._nearest,
            self._within,
        )

    def _pass(self, note: bool, count: bool) -> None:
        threads = self._limits.threads or usable_cores()
        for first, last, stored in self._stored.tiles():
            blocks = self._blocks(len(stored), threads)
            # Held here alone: a thread may let go of its work late.
            held = [stored]
            del stored
            for_each(partial(self._block, held, first, last, note, count), blocks, threads)
            held.clear()

    def _block(
        self,
        held: list[NDArray[Any]],
        first: int,
        last: int,
        note: bool,
        count: bool,
        queries: tuple[int, int],
    ) -> None:
        """Some queries in the tile of units `first` to `last - 1`."""
        rows = self._asking.distances(*queries, held[0])
        distances = self._units.reduced(rows, first, last)
        for query in range(*queries):
            found = distances[query - queries[0]]
            if note:
                self._note(query, found, first)
            if count:
                self._count(query, Tile(found, first), rows[query - queries[0]])

    def _blocks(self, rows: int, threads: int) -> list[tuple[int, int]]:
        """Queries that are asked together, first and last."""
        queries = len(self._wanted)
        size = max(1, self._limits.block_bytes // (8 * max(rows, 1)))
        size = min(size, _MOST_QUERIES, max(1, -(-queries // threads)))
        return [(begin, min(begin + size, queries)) for begin in range(0, queries, size)]

    def _note(self, query: int, distances: NDArray[Any], first: int) -> None:
        """Note the distances of relevant units of a tile."""
        begin, end = self._wanted.offsets[query : query + 2]
        units = self._wanted.units[begin:end]
        low, high = np.searchsorted(units, [first, first + len(distances)])
        self._values[begin + low : begin + high] = distances[units[low:high] - first]

    def _count(self, query: int, tile: Tile, rows: NDArray[Any]) -> None:
        begin, end = self._wanted.offsets[query : query + 2]
        values = self._values[begin:end]
        standing = tile.standing(self._wanted.units[begin:end], values)
        self._nearer[begin:end] += standing.nearer
        self._before[begin:end] += standing.before
        self._tied[begin:end] += standing.tied
        if self._within is not None:
            self._within[query, 0] += tile.up_to(np.array([RADIUS]), strictly=False)[0]
            self._within[query, 1] = np.count_nonzero(values <= RADIUS)
        if self._nearest.units.shape[1]:
            self._keep(query, tile, rows)

    def _keep(self, query: int, tile: Tile, rows: NDArray[Any]) -> None:
        """Keep the nearest of this tile and those before."""
        known = self._nearest
        depth = known.units.shape[1]
        # A unit of a later tile comes after its equals.
        chosen = tile.nearest(depth, below=float(known.distances[query, -1]))
        if not len(chosen):
            return
        units = chosen + tile.first
        first_row = int(self._units.starts[tile.first])
        distances = np.concatenate([known.distances[query], tile.distances[chosen]])
        order = np.argsort(distances, kind="stable")[:depth]
        nearest = self._units.nearest_rows(units, rows, first_row)
        known.distances[query] = distances[order]
        known.units[query] = np.concatenate([known.units[query], units])[order]
        known.rows[query] = np.concatenate([known.rows[query], nearest])[order]
