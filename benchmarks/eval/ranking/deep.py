"""Rankings to a depth, of given candidates, and re-ranked by float cosine.

Codes are searched by the product's own engine, to a little more than the depth. Where the last
group of equal distances goes on beyond the hits, it matters only if a relevant item is in it: then
more hits are searched for, and in the end all distances of that query are computed.

Candidates: only the items that are given for each query are ranked (INQUIRE-Rerank, arXiv
2411.02537). Re-ranking: the nearest items by code are sorted by float cosine; the others stay
behind them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.rows import EmbeddedRows
from bittern.benchmarks.eval.ranking.units import (
    RADIUS,
    Ints,
    Stored,
    Units,
    Wanted,
    first_least,
    lookup,
    offsets_of,
)
from bittern.benchmarks.eval.ranking.whole import (
    NEAREST,
    Entries,
    Search,
    Whole,
    entries_of,
    joined,
    no_nearest,
)
from bittern.benchmarks.eval.systems.exact import cosine_distances
from bittern.errors import InvalidInputError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.threads import for_each, usable_cores

_MORE = 4
"""How many times as many rows are searched for where it was not enough."""
_SPARE = 32
"""At least so many more than the depth are searched for where distances are whole numbers."""
_HIT_BYTES = 16
_MOST = 1 << 14
"""Most rows that are searched for; beyond it all distances are computed."""


@dataclass(frozen=True)
class _Found:
    """Units that a search found, as compressed sparse rows over queries.

    Attributes:
        offsets: int64 [q + 1].
        nearest: `NEAREST` [f], in order of (distance, unit).
        reach: float64 [q], all units that are nearer are here; infinite where all units are.
    """

    offsets: Ints
    nearest: NDArray[np.void]
    reach: NDArray[np.float64]

    @property
    def counts(self) -> Ints:
        return np.diff(self.offsets)


class Deep:
    """Ranks codes to a depth.

    Args:
        search: the queries; their system makes `Queries` of them.
        stored: codes, kept.
        depth: how deep.
    """

    def __init__(self, search: Search, stored: Stored, depth: int) -> None:
        assert stored.kept is not None
        keep = min(search.keep, depth, len(search.units))
        self._all, self._units, self._depth = replace(search, keep=keep), search.units, depth
        self._stored = stored
        self._codes: NDArray[np.uint8] = stored.kept
        blocks = CodeBlocks.of(np.arange(len(self._codes), dtype=np.int64), self._codes)
        self._engine = FlatEngine(blocks, search.limits.threads)

    @staticmethod
    def suits(search: Search, stored: Stored) -> bool:
        """Whether the engine can rank this."""
        if stored.kept is None or stored.kept.dtype != np.uint8 or search.fitted.bits is None:
            return False
        if search.units.mean and not search.units.single:
            return False
        queries = search.fitted.encode_queries(search.queries[:1], search.metric)
        return isinstance(queries, Queries) and queries.bits == 8 * stored.kept.shape[1]

    def entries(self) -> Entries:
        """Rank all queries, a batch at a time."""
        count, size = len(self._all), self._all.limits.batch
        batches = [np.arange(begin, min(begin + size, count)) for begin in range(0, count, size)]
        return joined([self._batch(self._all.subset(batch)) for batch in batches], batches)

    def _batch(self, search: Search) -> Entries:
        encoded: Queries = search.fitted.encode_queries(search.queries, search.metric)
        count = self._first_count(encoded.metric)
        most = max(count, _MOST)
        waiting = np.arange(len(search))
        subsets, numbers = [], []
        while len(waiting) and count <= most:
            again = []
            for some in self._portions(waiting, count):
                queries, own = encoded.only(some.tolist()), search.wanted.subset(some)
                found = self._search(queries, count)
                subsets.append(self._ranked(found, own, queries.metric))
                numbers.append(some)
                again.append(some[~self._enough(found, queries, own)])
            waiting = np.concatenate(again)
            count *= _MORE
        if len(waiting):
            whole = Whole(search.subset(waiting), self._stored)
            subsets.append(whole.entries().to_depth(self._depth))
            numbers.append(waiting)
        return joined(subsets, numbers)

    def _portions(self, queries: Ints, count: int) -> list[Ints]:
        """Queries that are searched together, so that what is found fits into memory."""
        size = max(1, self._all.limits.block_bytes // (_HIT_BYTES * count))
        return [queries[begin : begin + size] for begin in range(0, len(queries), size)]

    def _first_count(self, metric: str) -> int:
        """Rows that are searched for at first: whole numbers tie often, others hardly ever."""
        spare = max(_SPARE, self._depth // 4) if metric == "hamming" else 1
        return int(np.ceil((self._depth + spare) * self._units.rows / len(self._units)))

    def _search(self, queries: Queries, count: int) -> _Found:
        lists = self._engine.search(queries, count)
        counts = np.array([len(one) for one in lists], dtype=np.int64)
        nearest = np.empty(counts.sum(), NEAREST)
        nearest["row"] = np.concatenate([one.rows for one in lists])
        nearest["distance"] = np.concatenate([one.distances for one in lists])
        reach = nearest["distance"][np.cumsum(counts) - 1]
        reach = np.where(counts == self._units.rows, np.inf, reach)
        if self._units.single:
            nearest["unit"] = nearest["row"]
            return _Found(offsets_of(counts), nearest, reach)
        nearest["unit"] = np.searchsorted(self._units.starts, nearest["row"], "right") - 1
        number = np.repeat(np.arange(len(lists)), counts)
        # A unit's first row in the order of the list is its nearest.
        _, first = np.unique(number * len(self._units) + nearest["unit"], return_index=True)
        first.sort()
        counts = np.bincount(number[first], minlength=len(lists))
        return _Found(offsets_of(counts), nearest[first], reach)

    def _enough(self, found: _Found, queries: Queries, wanted: Wanted) -> NDArray[np.bool_]:
        """For which queries the depth is complete."""
        complete = np.isinf(found.reach)
        deep = found.counts >= self._depth
        last = np.minimum(found.offsets[:-1] + self._depth - 1, len(found.nearest) - 1)
        limits = found.nearest["distance"][last]
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
        units = wanted.units[wanted.of_query(query)]
        if not len(units):
            return False
        rows, begins = self._units.rows_of(units)
        distances = queries.distances(query, self._codes.take(rows, axis=0))
        return bool((np.minimum.reduceat(distances, begins) == distance).any())

    def _ranked(self, found: _Found, wanted: Wanted, metric: str) -> Entries:
        entries = entries_of(found.nearest, found.offsets)
        queries = entries["query"]
        at, relevant = lookup(queries, entries["unit"], wanted, len(self._units))
        within = None
        if metric == "hamming":
            near = found.nearest["distance"] <= RADIUS
            counted = (queries[near], queries[near & relevant])
            within = np.stack([np.bincount(c, minlength=len(wanted)) for c in counted], axis=1)
            within = within.astype(np.int64)
        kept = np.flatnonzero(relevant & (entries["nearer"] < self._depth))
        entries = entries[kept]
        entries["grade"] = wanted.grades[at[kept]]
        return Entries(entries, _first(found, self._all.keep), within)


def _first(found: _Found, keep: int) -> NDArray[np.void]:
    """The first `keep` units of each query."""
    nearest = no_nearest(len(found.reach), keep)
    columns = np.arange(keep)
    known = columns < found.counts[:, None]
    nearest[known] = found.nearest[(found.offsets[:-1, None] + columns)[known]]
    return nearest


def ranked_candidates(search: Search, rows: EmbeddedRows, candidates: Wanted) -> Entries:
    """Rank each query's candidates.

    Args:
        search: the queries.
        rows: embeddings; only those of candidates are read.
        candidates: what is ranked.
    """
    subsets = []
    numbers = [np.array([query]) for query in range(len(search))]
    for number in numbers:
        one = search.subset(number)
        given = candidates.units[candidates.of_query(int(number[0]))]
        own_rows, begins = search.units.rows_of(given)
        among = np.isin(one.wanted.units, given)
        wanted = replace(
            one.wanted,
            offsets=np.array([0, among.sum()]),
            units=np.searchsorted(given, one.wanted.units[among]),
            grades=one.wanted.grades[among],
        )
        # Rows of candidates stand close together here: they are units of a collection of their own.
        units = Units(np.append(begins, len(own_rows)), given, search.units.mean)
        stored = Stored(units, search.fitted.encode_items(rows.read(own_rows)))
        found = Whole(replace(one, units=units, wanted=wanted), stored).entries()
        entries, few = found.relevant.copy(), found.nearest[0].copy()
        entries["unit"] = given[entries["unit"]]
        few["unit"], few["row"] = given[few["unit"]], own_rows[few["row"]]
        nearest = no_nearest(1, min(search.keep, len(search.units)))
        nearest[0, : len(few)] = few
        subsets.append(Entries(entries, nearest, found.within))
    return joined(subsets, numbers)


def reranked(search: Search, entries: Entries, count: int, rows: EmbeddedRows) -> Entries:
    """Rank the `count` nearest units of each query anew, by (1 - cosine, row).

    Args:
        search: the queries.
        entries: the ranking by code, with at least `count` of the nearest, as far as there are.
        count: how many.
        rows: embeddings; those of the nearest are read.

    Raises:
        InvalidInputError: a cosine is not a number.
    """
    units, limits = search.units, search.limits
    top = entries.nearest[:, :count]
    anew = no_nearest(*top.shape)
    each = max(1, top.shape[1] * units.rows // max(len(units), 1))
    size = max(1, limits.block_bytes // (12 * each * rows.dim))
    blocks = [slice(begin, begin + size) for begin in range(0, len(search), size)]

    def block(some: slice) -> None:
        anew[some] = _by_cosine(search.queries[some], top["unit"][some], rows, units, some.start)

    for_each(block, blocks, limits.threads or usable_cores())
    ranked = anew["unit"] >= 0
    first = entries_of(anew[ranked], offsets_of(ranked.sum(axis=1)))
    at, relevant = lookup(first["query"], first["unit"], search.wanted, len(units))
    first = first[relevant]
    first["grade"] = search.wanted.grades[at[relevant]]
    nearest = np.concatenate([anew, entries.nearest[:, count:]], axis=1)
    behind = _behind(entries, anew.shape[1])
    return Entries(np.concatenate([first, behind]), nearest, None)


def _behind(entries: Entries, count: int) -> NDArray[np.void]:
    """Entries that are not among the `count` nearest, whose groups begin behind those."""
    kept = entries.rank > count
    old, rank = entries.relevant[kept], entries.rank[kept]
    found = old.copy()
    found["nearer"] = np.maximum(old["nearer"], count)
    found["before"] = rank - 1 - found["nearer"]
    found["tied"] = old["nearer"] + old["tied"] - found["nearer"]
    return found


def _by_cosine(
    queries: NDArray[np.float32], chosen: Ints, rows: EmbeddedRows, units: Units, first: int
) -> NDArray[np.void]:
    """Units [q, n] (-1 for none) in order of their cosine: `NEAREST` [q, n]."""
    found = no_nearest(*chosen.shape)
    known = chosen >= 0
    if not known.any():
        return found
    numbers, begins = units.rows_of(chosen[known])
    ends = np.append(begins, len(numbers))
    unique, inverse = np.unique(numbers, return_inverse=True)
    embeddings = rows.read(unique)
    of_query = offsets_of(known.sum(axis=1))
    distances = np.empty(len(numbers))
    for query, vector in enumerate(queries):
        own = slice(ends[of_query[query]], ends[of_query[query + 1]])
        distances[own] = cosine_distances(vector[None], embeddings[inverse[own]])[0]
        if not np.isfinite(distances[own]).all():
            raise InvalidInputError(
                f"query {first + query} has cosines that are not numbers; look for embeddings of "
                "items that are not finite"
            )
    nearest = first_least(distances, begins)
    means = np.add.reduceat(distances, begins) / np.diff(ends)
    found["unit"][known] = chosen[known]
    found["distance"][known] = means if units.mean else distances[nearest]
    found["row"][known] = numbers[nearest]
    order = np.lexsort((found["unit"], found["distance"]), axis=1)
    return np.take_along_axis(found, order, axis=1)
