"""Inverted lists over binary codes: a query scans few of them, by the 4-bit scan.

Codes are clustered by spherical k-means on their bits (as 1 and -1). A code belongs to the list
whose centroid, of length 1, has the greatest inner product with it; a query scans the lists whose
centroids have the greatest inner products with its weights. Within a list the scan is that of the
exact engine (`scans`), so symmetric and asymmetric queries, with and without a filter, use one
index. The number of lists for a wanted recall is measured when the index is built (`calibration`)
and stored with it.

The stored index holds the row numbers of its codes and a 16-bit checksum of each code, to detect
overwritten rows. So a later generation can use the index of an earlier one, and only assigns new
and changed rows to lists. Damaged lists cost recall or speed only, since distances are computed
from the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import Block, CodeBlocks, RowNumbers
from bittern.index.engines.calibration import Calibration, K
from bittern.index.engines.queries import Queries
from bittern.index.engines.scans import (
    FEWEST,
    Candidates,
    gathered,
    laid_out,
    list_parameters,
    nibble_index,
    release_memory,
    rounded_candidates,
)
from bittern.index.engines.search_engine import Nearest
from bittern.index.engines.stored_lists import (
    MAX_LISTS,
    checked_lists,
    marks_of_blocks,
    marks_of_codes,
    rows_of,
    runs_of,
)
from bittern.index.engines.threads import faiss_threads

Check = Callable[[], None]
MIN_LISTS = 16
_ROWS_PER_LIST_TRAINED = 40
_TRAINING_ROUNDS = 8
_BATCH = 1 << 15
_MOST_SHARE = 0.25
"""If a greater share of the lists had to be scanned, exact search is as fast."""
_TIMES, _PLUS = 2, 100
"""Candidates per query: (times k, plus)."""


@dataclass(frozen=True)
class Allowed:
    """The allowed rows among those of an index.

    Attributes:
        mask: bool [n] over the index's positions; None for all.
        count: number of allowed rows.
    """

    mask: NDArray[np.bool_] | None
    count: int

    @cached_property
    def bitmap(self) -> NDArray[np.uint8] | None:
        """The mask in bits, bit i % 8 (little) of byte i // 8 for position i; None for all."""
        return None if self.mask is None else np.packbits(self.mask, bitorder="little")


@dataclass(frozen=True)
class _Lists:
    """The lists as plain arrays.

    Attributes:
        centroids: float32 [lists, bits].
        assigned: uint16 [n], the list of each position.
    """

    centroids: NDArray[np.float32]
    assigned: NDArray[np.uint16]


class InvertedLists:
    """See the module; made by `build`, `extended` or `restored`.

    Args:
        base: the codes, without tombstones.
        lists: the list of each code.
        calibration: recall by number of lists; measured if it is not given.
        check: called during the measurement; raises to end it.
    """

    def __init__(
        self,
        base: CodeBlocks,
        lists: _Lists,
        calibration: Calibration | None = None,
        check: Check | None = None,
    ) -> None:
        self.base = base
        self._lists = lists
        self._index, self._coarse = _filled(base, lists)
        self.calibration = calibration or Calibration.measured(
            base, _probes(len(lists.centroids)), self._measured, self.closeness, check or _go_on
        )

    @classmethod
    def build(
        cls,
        blocks: CodeBlocks,
        *,
        lists: int | None = None,
        seed: int = 0,
        threads: int | None = None,
        check: Check | None = None,
    ) -> InvertedLists:
        """Build over the codes of a generation.

        Args:
            blocks: at least as many codes as lists.
            lists: number of lists; None for a number by size.
            seed: of the choice of training codes.
            threads: most threads while building; None for one per usable core.
            check: called every second or so while building; raises to end it.
        """
        base = CodeBlocks(blocks.bits, blocks.blocks)
        with faiss_threads(threads):
            centroids = _trained(base, lists or lists_for(len(base)), seed, check or _go_on)
            assigned = _assigned(base, centroids, check or _go_on)
        return cls(base, _Lists(centroids, assigned), check=check)

    def extended(
        self, blocks: CodeBlocks, *, threads: int | None = None, check: Check | None = None
    ) -> InvertedLists:
        """The index of a later generation: same centroids, only new codes are assigned.

        Args:
            blocks: the later generation.
            threads: see `build`.
            check: see `build`.
        """
        base = CodeBlocks(blocks.bits, blocks.blocks)
        known = dict(zip(self.base.blocks, self.base.starts, strict=False))
        assigned = [np.empty(0, np.uint16)]
        with faiss_threads(threads):
            for block in base.blocks:
                if block in known:
                    start = int(known[block])
                    assigned.append(self._lists.assigned[start : start + len(block)])
                else:
                    one = CodeBlocks(base.bits, [block])
                    assigned.append(_assigned(one, self._lists.centroids, check or _go_on))
        lists = _Lists(self._lists.centroids, np.concatenate(assigned))
        return InvertedLists(base, lists, check=check)

    @property
    def nbytes(self) -> int:
        """Bytes besides the codes: their layout for scans, their positions, the lists."""
        row = self.base.width + 8 + self._lists.assigned.itemsize
        return len(self.base) * row + self._lists.centroids.nbytes

    # Storage

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays to store: everything but the codes, with their row numbers."""
        rows = [np.empty(0, np.int64), *(block.rows.array() for block in self.base.blocks)]
        return {
            "centroids": self._lists.centroids,
            "members": self._lists.assigned,
            **self.calibration.arrays(),
            "runs": runs_of(np.concatenate(rows)),
            "marks": marks_of_blocks(self.base),
        }

    @classmethod
    def restored(cls, blocks: CodeBlocks, arrays: Mapping[str, NDArray[Any]]) -> InvertedLists:
        """From arrays that this or an earlier generation has stored.

        Args:
            blocks: the codes of a generation.
            arrays: see `arrays`.

        Raises:
            ArchiveDamagedError: they are inconsistent.
        """
        marks = arrays.get("marks")
        if marks is None or "runs" not in arrays:
            raise ArchiveDamagedError("the stored index lacks its row numbers")
        if marks.dtype != np.uint16 or marks.ndim != 1:
            raise ArchiveDamagedError("the stored index has no valid marks of its codes")
        known = RowNumbers(rows_of(arrays["runs"], len(marks)))
        stored = _Lists(*checked_lists(arrays, blocks.bits, len(marks)))
        base = CodeBlocks(blocks.bits, blocks.blocks)
        assigned = [_reassigned(block, known, marks, stored) for block in base.blocks]
        lists = _Lists(stored.centroids, np.concatenate([np.empty(0, np.uint16), *assigned]))
        return cls(base, lists, Calibration.from_arrays(arrays))

    # Search

    def is_faster(self, k: int, allowed: Allowed) -> bool:
        """Whether it can be faster than exact search; `nearest` decides for each query."""
        return self._scanned(1, k, allowed) is not None

    def nearest(
        self,
        queries: Queries,
        k: int,
        allowed: Allowed,
        *,
        recall: float = 1.0,
        lists: int | None = None,
    ) -> list[Nearest | None]:
        """The likely k nearest of the allowed rows, with exact distances.

        Expects that OpenMP is limited to one thread.

        Args:
            queries: none of them without any weight.
            k: number of rows.
            allowed: the allowed rows.
            recall: wanted share of the true nearest.
            lists: number of lists to scan; None for the number for the recall.

        Returns:
            None for a query that exact search finds as fast, or whose lists have fewer than
            min(k, allowed) rows.
        """
        count = _TIMES * k + _PLUS
        if lists is None:
            found = self._candidates(queries, count, allowed, recall)
        else:
            found = [*self._scan(queries, count, allowed, lists)]
        wanted = min(k, allowed.count)
        nearest: list[Nearest | None] = []
        for query, one in enumerate(found):
            scored = None if one is None else self._scored(queries, query, one, k)
            nearest.append(scored if scored and len(scored) == wanted else None)
        return nearest

    def closeness(self, queries: Queries) -> NDArray[np.float64]:
        """Closeness of queries to the lists (see `calibration`): float64 [q], at most 1."""
        sizes = np.abs(queries.weights).sum(axis=1)
        weights = (queries.weights / sizes[:, None]).astype(np.float32)
        products, _ = self._coarse.search(weights, 1)
        return np.asarray(products[:, 0], dtype=np.float64)

    def _candidates(
        self, queries: Queries, count: int, allowed: Allowed, recall: float
    ) -> Sequence[Candidates | None]:
        """Candidates for a recall; None for a query that exact search finds as fast."""
        needed = [self.calibration.lists(c, recall) for c in self.closeness(queries).tolist()]
        lists = [n and self._scanned(n, count // 2, allowed) for n in needed]
        found: list[Candidates | None] = [None] * len(queries)
        for number in {n for n in lists if n}:
            chosen = [query for query, n in enumerate(lists) if n == number]
            batch = queries if len(chosen) == len(queries) else queries.only(chosen)
            for query, one in zip(chosen, self._scan(batch, count, allowed, number), strict=True):
                found[query] = one
        return found

    def _scanned(self, lists: int, k: int, allowed: Allowed) -> int | None:
        """The number of lists to scan for the k nearest; None if exact search is as fast.

        The k nearest of a share of the rows are as far as the k / share nearest of all.
        """
        share = allowed.count / max(len(self.base), 1)
        wider = max(1.0, k / share / K) if share else 1.0
        scanned = int(np.ceil(lists * wider))
        return scanned if scanned <= _MOST_SHARE * len(self._lists.centroids) else None

    def _scan(self, queries: Queries, count: int, allowed: Allowed, lists: int) -> list[Candidates]:
        """Candidates from this many lists."""
        import faiss

        scaled = queries.scaled
        selector = None
        if (bitmap := allowed.bitmap) is not None:
            selector = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))
        products, positions = self._index.search(
            scaled.weights,
            max(min(count, allowed.count), FEWEST),
            params=list_parameters(min(lists, len(self._lists.centroids)), selector),
        )
        return [
            rounded_candidates(scaled, query, products[query], positions[query], False)
            for query in range(len(queries))
        ]

    def _scored(self, queries: Queries, query: int, found: Candidates, k: int) -> Nearest:
        """The k nearest candidates by exact distance."""
        highest = found.distances + found.error
        limit = np.partition(highest, k - 1)[k - 1] if len(highest) > k else np.inf
        positions = found.positions[found.distances - found.error <= limit]
        distances = queries.distances(query, self.base.codes_at(positions))
        return Nearest.of(distances, self.base.rows_at(positions), k)

    def _measured(self, queries: Queries, lists: int) -> list[Nearest | None]:
        """The nearest by scanning this many lists, to measure their recall."""
        with faiss_threads(1):
            return self.nearest(queries, K, Allowed(None, len(self.base)), lists=lists)


def lists_for(rows: int) -> int:
    """A power of two near 1.5 times the square root of the number of rows."""
    wanted = 1.5 * max(rows, 1) ** 0.5
    return int(np.clip(2 ** round(np.log2(wanted)), MIN_LISTS, MAX_LISTS))


# Building


def _probes(lists: int) -> list[int]:
    """Numbers of lists whose recall is measured: powers of two."""
    return [1 << power for power in range(lists.bit_length()) if 1 << power <= lists]


def _signs(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    bits = np.unpackbits(codes, axis=1, bitorder="little")
    return 2.0 * bits.astype(np.float32) - 1.0


def _trained(base: CodeBlocks, lists: int, seed: int, check: Check) -> NDArray[np.float32]:
    """Centroids of spherical k-means: float32 [lists, bits]."""
    import faiss

    rng = np.random.default_rng(seed)
    size = min(len(base), lists * _ROWS_PER_LIST_TRAINED)
    sample = _signs(base.codes_at(np.sort(rng.choice(len(base), size, replace=False))))
    lists = min(lists, size)
    centroids = sample[np.sort(rng.choice(size, lists, replace=False))]
    # One round at a time, since Faiss cannot be interrupted.
    for turn in range(_TRAINING_ROUNDS):
        check()
        kmeans: Any = faiss.Kmeans(
            base.bits,
            lists,
            niter=1,
            seed=seed + turn,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=_ROWS_PER_LIST_TRAINED,
        )
        kmeans.train(sample, init_centroids=centroids)
        centroids = np.ascontiguousarray(kmeans.centroids, dtype=np.float32)
    return centroids


def _go_on() -> None:
    """The default check: never ends a build."""


def _assigned(
    base: CodeBlocks, centroids: NDArray[np.float32], check: Check = _go_on
) -> NDArray[np.uint16]:
    """The list of each position: uint16 [n]."""
    import faiss

    nearest: Any = faiss.IndexFlatIP(base.bits)
    nearest.add(centroids)
    assigned = [np.empty(0, np.uint16)]
    for block in base.blocks:
        for begin in range(0, len(block), _BATCH):
            check()
            _, found = nearest.search(_signs(block.codes[begin : begin + _BATCH]), 1)
            assigned.append(found[:, 0].astype(np.uint16))
    return np.concatenate(assigned)


def _filled(base: CodeBlocks, lists: _Lists) -> tuple[Any, Any]:
    """Faiss's index of the codes in their lists, and its index of the centroids."""
    import faiss

    coarse: Any = faiss.IndexFlatIP(base.bits)
    coarse.add(lists.centroids)
    plain = nibble_index(base.bits, coarse, len(lists.centroids))
    order = np.argsort(lists.assigned, kind="stable").astype(np.int64)
    ends = np.cumsum(np.bincount(lists.assigned, minlength=len(lists.centroids)))
    codes = base.codes_at(order)
    begin = 0
    for number, end in enumerate(ends):
        if end > begin:
            positions, listed = order[begin:end], codes[begin:end]
            plain.invlists.add_entries(
                number, len(positions), faiss.swig_ptr(positions), faiss.swig_ptr(listed)
            )
        begin = int(end)
    plain.ntotal = len(base)
    index = laid_out(plain)
    del plain, codes, order
    release_memory()
    return index, coarse


def _reassigned(
    block: Block, known: RowNumbers, marks: NDArray[np.uint16], stored: _Lists
) -> NDArray[np.uint16]:
    """The list of each row of a block: the stored one if the code is unchanged, else a new one."""
    old = known.positions_of(block.rows.array())
    now = block.rows.positions_of(known.at(old))
    same = marks_of_codes(gathered(block.codes, now)) == marks[old]
    assigned = np.empty(len(block), dtype=np.uint16)
    assigned[now[same]] = stored.assigned[old[same]]
    new = np.ones(len(block), dtype=bool)
    new[now[same]] = False
    if new.any():
        positions = np.flatnonzero(new)
        fresh = Block(RowNumbers.run(0, len(positions)), gathered(block.codes, positions))
        blocks = CodeBlocks(8 * block.codes.shape[1], [fresh])
        assigned[positions] = _assigned(blocks, stored.centroids)
    return assigned
