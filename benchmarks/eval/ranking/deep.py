"""Codes are searched by the product's own engine, to a depth, and ties at the depth are exact.

A little more than the depth is asked for. Where the last group of equal distances goes on
beyond what was found, it matters only if a relevant item is in it: then more is asked for, and
in the end all distances of that query are worked out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.ranking.counting import in_lists
from bittern.benchmarks.eval.ranking.placed import Nearest, Placed, joined
from bittern.benchmarks.eval.ranking.settings import RADIUS, Limits
from bittern.benchmarks.eval.ranking.stored import Stored
from bittern.benchmarks.eval.ranking.units import Ints, Units, Wanted, lookup, offsets_of
from bittern.benchmarks.eval.ranking.whole import Asking, Whole
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries

_MORE = 4
"""How many times as many are asked for where it was not enough."""
_SPARE = 32
"""At least so many more than the depth are asked for where distances are whole numbers."""
_HIT_BYTES = 16
_MOST = 1 << 14
"""Most rows that are asked for; beyond it all distances are worked out."""


@dataclass(frozen=True)
class _Found:
    """Units that a search found, as compressed sparse rows over queries.

    Attributes:
        offsets: int64 [q + 1].
        units: int64, in order of (distance, unit).
        distances: float64.
        rows: int64, the nearest row of each unit.
        reach: float64 [q], all units that are nearer are here; infinite where all units are.
    """

    offsets: Ints
    units: Ints
    distances: NDArray[np.float64]
    rows: Ints
    reach: NDArray[np.float64]

    @property
    def counts(self) -> Ints:
        return np.diff(self.offsets)

    @property
    def queries(self) -> Ints:
        return np.repeat(np.arange(len(self.reach)), self.counts)


class Deep:
    """Ranks codes to a depth.

    Args:
        asking: what is asked; its system asks `Queries`.
        stored: codes, kept.
        units: what is ranked: items by their nearest row, or rows.
        depth: how deep.
        limits: memory and threads.
    """

    def __init__(
        self, asking: Asking, stored: Stored, units: Units, depth: int, limits: Limits
    ) -> None:
        assert stored.kept is not None
        self._asking = asking
        self._stored = stored
        self._codes: NDArray[np.uint8] = stored.kept
        self._units = units
        self._depth = depth
        self._limits = limits
        blocks = CodeBlocks.of(np.arange(len(self._codes), dtype=np.int64), self._codes)
        self._engine = FlatEngine(blocks, limits.threads)

    @staticmethod
    def suits(asking: Asking, stored: Stored, units: Units) -> bool:
        """Whether the engine can rank this."""
        if stored.kept is None or stored.kept.dtype != np.uint8 or asking.fitted.bits is None:
            return False
        if units.windows == "mean" and not units.single:
            return False
        asked = asking.fitted.ask(asking.queries[:1], asking.metric)
        return isinstance(asked, Queries) and asked.bits == 8 * stored.kept.shape[1]

    def placed(self, wanted: Wanted, keep: int) -> Placed:
        """Rank all queries, a batch at a time; `keep` of the nearest are told."""
        keep = min(keep, self._depth, len(self._units))
        parts, numbers = [], []
        for begin in range(0, len(wanted), self._limits.batch):
            batch = np.arange(begin, min(begin + self._limits.batch, len(wanted)))
            parts.append(self._batch(self._asking.part(batch), wanted.part(batch), keep))
            numbers.append(batch)
        return joined(parts, numbers)

    def _batch(self, asking: Asking, wanted: Wanted, keep: int) -> Placed:
        asked: Queries = asking.fitted.ask(asking.queries, asking.metric)
        count = self._first_count(asked.metric)
        most = max(count, _MOST)
        waiting = np.arange(len(wanted))
        parts, numbers = [], []
        while len(waiting) and count <= most:
            again = []
            for some in self._portions(waiting, count):
                queries, own = asked.only(some.tolist()), wanted.part(some)
                found = self._search(queries, count)
                parts.append(self._placed(found, own, keep, queries.metric))
                numbers.append(some)
                again.append(some[~self._enough(found, queries, own)])
            waiting = np.concatenate(again)
            count *= _MORE
        if len(waiting):
            parts.append(self._whole(asking.part(waiting), wanted.part(waiting), keep))
            numbers.append(waiting)
        return joined(parts, numbers)

    def _portions(self, queries: Ints, count: int) -> list[Ints]:
        """Queries that are searched together, so that what is found fits into memory."""
        size = max(1, self._limits.block_bytes // (_HIT_BYTES * count))
        return [queries[begin : begin + size] for begin in range(0, len(queries), size)]

    def _first_count(self, metric: str) -> int:
        """Rows that are asked for at first: whole numbers tie often, others hardly ever."""
        spare = max(_SPARE, self._depth // 4) if metric == "hamming" else 1
        return int(np.ceil((self._depth + spare) * self._units.rows / len(self._units)))

    def _search(self, queries: Queries, count: int) -> _Found:
        lists = self._engine.search(queries, count)
        counts = np.array([len(one) for one in lists], dtype=np.int64)
        rows = np.concatenate([one.rows for one in lists])
        distances = np.concatenate([one.distances for one in lists])
        ends = np.cumsum(counts)
        reach = np.where(counts == self._units.rows, np.inf, distances[ends - 1])
        if self._units.single:
            return _Found(offsets_of(counts), rows, distances, rows, reach)
        units = np.searchsorted(self._units.starts, rows, "right") - 1
        number = np.repeat(np.arange(len(lists)), counts)
        # A unit's first row in the order of the list is its nearest.
        _, first = np.unique(number * len(self._units) + units, return_index=True)
        first.sort()
        counts = np.bincount(number[first], minlength=len(lists))
        return _Found(offsets_of(counts), units[first], distances[first], rows[first], reach)

    def _enough(self, found: _Found, queries: Queries, wanted: Wanted) -> NDArray[np.bool_]:
        """Of which queries all that is to be told is known."""
        complete = np.isinf(found.reach)
        deep = found.counts >= self._depth
        last = np.minimum(found.offsets[:-1] + self._depth - 1, len(found.distances) - 1)
        limits = found.distances[last]
        enough = complete | (deep & (found.reach > limits))
        for query in np.flatnonzero(deep & ~enough):
            enough[query] = not self._is_relevant_at(queries, int(query), wanted, limits[query])
        if queries.metric == "hamming":
            enough &= found.reach > RADIUS
        return enough

    def _is_relevant_at(
        self, queries: Queries, query: int, wanted: Wanted, distance: float
    ) -> bool:
        """Whether a relevant unit is at a distance."""
        units = wanted.units[wanted.offsets[query] : wanted.offsets[query + 1]]
        if not len(units):
            return False
        rows, begins = self._units.rows_of(units)
        distances = queries.distances(query, self._codes.take(rows, axis=0))
        return bool((np.minimum.reduceat(distances, begins) == distance).any())

    def _placed(self, found: _Found, wanted: Wanted, keep: int, metric: str) -> Placed:
        standing = in_lists(found.distances, found.offsets)
        queries = found.queries
        at, relevant = lookup(queries, found.units, wanted, len(self._units))
        kept = np.flatnonzero(relevant & (standing.nearer < self._depth))
        within = None
        if metric == "hamming":
            near = found.distances <= RADIUS
            within = np.stack(
                [
                    np.bincount(queries[near], minlength=len(wanted)),
                    np.bincount(queries[near & relevant], minlength=len(wanted)),
                ],
                axis=1,
            ).astype(np.int64)
        return Placed(
            queries[kept],
            found.units[kept],
            wanted.grades[at[kept]],
            standing.nearer[kept],
            standing.before[kept],
            standing.tied[kept],
            _first(found, keep),
            within,
        )

    def _whole(self, asking: Asking, wanted: Wanted, keep: int) -> Placed:
        whole = Whole(asking, self._stored, self._units, wanted, keep, self._limits)
        return whole.placed().to_depth(self._depth)


def _first(found: _Found, keep: int) -> Nearest:
    """The first `keep` units of each query."""
    nearest = Nearest.none(len(found.reach), keep)
    columns = np.arange(keep)
    there = columns < found.counts[:, None]
    places = (found.offsets[:-1, None] + columns)[there]
    nearest.units[there] = found.units[places]
    nearest.distances[there] = found.distances[places]
    nearest.rows[there] = found.rows[places]
    return nearest
