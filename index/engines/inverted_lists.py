"""Inverted lists over binary codes: few of them are scanned, by the 4-bit scan.

Codes are put into lists by spherical k-means on their bits (as 1 and -1): each belongs to the
centroid, of length 1, with which it has the greatest inner product, and a query looks into the
lists that are so for its weights. Within a list the scan is that of the exact engine
(`index.engines.scans`), so symmetric and asymmetric queries, with and without a filter, run on
one index. How many lists a wanted recall takes is measured when the index is built, for
queries near and far (`bittern.index.engines.difficulty`), and kept with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import Block, CodeBlocks
from bittern.index.engines.difficulty import Difficulty, K
from bittern.index.engines.ivf import Allowed, ApproximateEngine, WithEffort
from bittern.index.engines.marks import marks_of_codes
from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowNumbers
from bittern.index.engines.scans import (
    FEWEST,
    Candidates,
    ScaledWeights,
    gathered,
    give_back_freed,
    laid_out,
    list_parameters,
    nibble_index,
    rounded_candidates,
)
from bittern.index.engines.threads import faiss_threads

Check = Callable[[], None]
MIN_LISTS, MAX_LISTS = 16, 8_192
_ROWS_PER_LIST_TRAINED = 40
_TRAINING_ROUNDS = 8
_BATCH = 1 << 15


@dataclass(frozen=True)
class _Lists:
    """What the index is made of, as plain arrays.

    Attributes:
        centroids: float32 [lists, bits].
        members: uint16 [n], the list of each place.
    """

    centroids: NDArray[np.float32]
    members: NDArray[np.uint16]


class InvertedLists:
    """See the module; made by `build`, `extended` or `from_arrays`.

    Args:
        base: the codes, without tombstones.
        lists: where each of them belongs.
        difficulty: recall by number of lists scanned; measured if it is not given.
        check: called while it is measured; raises to end it.
    """

    kind = "ivf"
    most = 0.25
    """Where a greater share of the lists would have to be scanned, exact search is as fast."""

    def __init__(
        self,
        base: CodeBlocks,
        lists: _Lists,
        difficulty: Difficulty | None = None,
        check: Check | None = None,
    ) -> None:
        self.base = base
        self._lists = lists
        self._index, self._coarse = _filled(base, lists)
        self.difficulty = difficulty or Difficulty.measured(
            base, _efforts(len(lists.centroids)), self._searched, self.closeness, check or _go_on
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
            lists: how many; None for a number that suits the size.
            seed: of the choice of training codes.
            threads: the most threads while building; None for one per usable core.
            check: called every second or so while building; raises to end it.
        """
        base = CodeBlocks(blocks.bits, blocks.blocks)
        count = lists or lists_for(len(base))
        with faiss_threads(threads):
            centroids = _trained(base, count, seed, check or _go_on)
            members = _assigned(base, centroids, check or _go_on)
        return cls(base, _Lists(centroids, members), check=check)

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
        parts = []
        with faiss_threads(threads):
            for block in base.blocks:
                if block in known:
                    start = int(known[block])
                    parts.append(self._lists.members[start : start + len(block)])
                else:
                    one = CodeBlocks(base.bits, [block])
                    parts.append(_assigned(one, self._lists.centroids, check or _go_on))
        members = np.concatenate(parts) if parts else np.empty(0, np.uint16)
        return InvertedLists(base, _Lists(self._lists.centroids, members), check=check)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes besides the codes: the laid-out codes, their places, the lists."""
        row = self.base.width + 8 + self._lists.members.itemsize
        return len(self.base) * row + self._lists.centroids.nbytes

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything but the codes, to be stored."""
        return {
            "centroids": self._lists.centroids,
            "members": self._lists.members,
            **self.difficulty.arrays(),
        }

    @classmethod
    def from_arrays(cls, base: CodeBlocks, arrays: Mapping[str, NDArray[Any]]) -> InvertedLists:
        """Made of stored arrays and the codes that they were stored for.

        Raises:
            ArchiveDamagedError: they do not fit together.
        """
        base = CodeBlocks(base.bits, base.blocks)
        centroids, members = _checked_lists(arrays, base.bits, len(base))
        return cls(base, _Lists(centroids, members), Difficulty.from_arrays(arrays))

    @classmethod
    def restored(
        cls,
        blocks: CodeBlocks,
        rows: NDArray[np.int64],
        marks: NDArray[np.uint16],
        arrays: Mapping[str, NDArray[Any]],
    ) -> InvertedLists:
        """Made of arrays that were stored for some of the codes; the others are assigned now.

        Args:
            blocks: the codes of a generation.
            rows: int64 [n], ascending: what the stored members belong to.
            marks: uint16 [n]: of their codes then (see `bittern.index.engines.marks`).
            arrays: of `arrays`.

        Raises:
            ArchiveDamagedError: they do not fit together.
        """
        centroids, members = _checked_lists(arrays, blocks.bits, len(rows))
        base = CodeBlocks(blocks.bits, blocks.blocks)
        known = RowNumbers(rows)
        parts = [_members_of(block, known, members, marks, centroids) for block in base.blocks]
        lists = _Lists(centroids, np.concatenate(parts) if parts else np.empty(0, np.uint16))
        return cls(base, lists, Difficulty.from_arrays(arrays))

    def pays(self, k: int, allowed: Allowed, recall: float) -> bool:
        """Whether it can be faster than exact search; `candidates` knows it of each query."""
        return self._lists_for(1, k, allowed) is not None

    def candidates(
        self, queries: Queries, count: int, allowed: Allowed, recall: float
    ) -> list[Candidates | None]:
        """See `Structure.candidates`; None for a query that is as fast to answer exactly."""
        efforts = [self.difficulty.effort(c, recall) for c in self.closeness(queries).tolist()]
        lists = [e and self._lists_for(e, count // 2, allowed) for e in efforts]
        found: list[Candidates | None] = [None] * len(queries)
        for number in {n for n in lists if n}:
            chosen = [query for query, n in enumerate(lists) if n == number]
            part = queries if len(chosen) == len(queries) else queries.only(chosen)
            for query, one in zip(chosen, self.scan(part, count, allowed, number), strict=True):
                found[query] = one
        return found

    def closeness(self, queries: Queries) -> NDArray[np.float64]:
        """How close each query comes to a list: float64 [q], at most 1."""
        sizes = np.abs(queries.weights).sum(axis=1)
        weights = (queries.weights / sizes[:, None]).astype(np.float32)
        products, _ = self._coarse.search(weights, 1)
        return np.asarray(products[:, 0], dtype=np.float64)

    def scan(self, queries: Queries, count: int, allowed: Allowed, lists: int) -> list[Candidates]:
        """Candidates from so many lists."""
        import faiss

        scaled = ScaledWeights.of(queries)
        selector = None
        if (bitmap := allowed.bitmap) is not None:
            selector = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))
        products, places = self._index.search(
            scaled.weights,
            max(min(count, allowed.count), FEWEST),
            params=list_parameters(min(lists, len(self._lists.centroids)), selector),
        )
        return [
            rounded_candidates(scaled, query, products[query], places[query], False)
            for query in range(len(queries))
        ]

    def _lists_for(self, effort: int, k: int, allowed: Allowed) -> int | None:
        """How many lists to scan; None where exact search is as fast.

        The k nearest of a share of the rows lie as far out as the k / share nearest of all.
        """
        share = allowed.count / max(len(self.base), 1)
        wider = max(1.0, k / share / K) if share else 1.0
        lists = int(np.ceil(effort * wider))
        return lists if lists <= self.most * len(self._lists.centroids) else None

    def _searched(self, queries: Queries, effort: int) -> list[Nearest]:
        """The nearest by an effort, to measure it."""
        everything = Allowed(None, len(self.base))
        engine = ApproximateEngine(
            WithEffort(self, lambda q, n, _: self.scan(q, n, everything, effort)),
            self.base,
            threads=1,
            always=True,
        )
        return engine.search(queries, K)


def _checked_lists(
    arrays: Mapping[str, NDArray[Any]], bits: int, count: int
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Stored centroids, and the lists of so many codes."""
    try:
        centroids, members = arrays["centroids"], arrays["members"]
    except KeyError as error:
        raise ArchiveDamagedError(f"the stored lists lack {error}") from None
    fits = (
        centroids.dtype == np.float32
        and centroids.ndim == 2
        and centroids.shape[1] == bits
        and 1 <= len(centroids) <= MAX_LISTS
        and np.isfinite(centroids).all()
        and members.dtype == np.uint16
        and members.shape == (count,)
        and (not count or int(members.max()) < len(centroids))
    )
    if not fits:
        raise ArchiveDamagedError(
            f"the stored lists ({centroids.dtype} {list(centroids.shape)}, {members.dtype} "
            f"{list(members.shape)}) are not those of {count} codes of {bits} bits"
        )
    return np.ascontiguousarray(centroids), members


def _members_of(
    block: Block,
    known: RowNumbers,
    members: NDArray[np.uint16],
    marks: NDArray[np.uint16],
    centroids: NDArray[np.float32],
) -> NDArray[np.uint16]:
    """The list of each row of a block: what is known of its code, else what is nearest."""
    stored = known.places_of(block.rows.array())
    here = block.rows.places_of(known.at(stored))
    same = marks_of_codes(gathered(block.codes, here)) == marks[stored]
    found = np.empty(len(block), dtype=np.uint16)
    found[here[same]] = members[stored[same]]
    new = np.ones(len(block), dtype=bool)
    new[here[same]] = False
    if new.any():
        places = np.flatnonzero(new)
        fresh = Block(RowNumbers.run(0, len(places)), gathered(block.codes, places))
        found[places] = _assigned(CodeBlocks(8 * block.codes.shape[1], [fresh]), centroids)
    return found


def lists_for(rows: int) -> int:
    """A power of two near 1.5 times the square root of the number of rows."""
    wanted = 1.5 * max(rows, 1) ** 0.5
    return int(np.clip(2 ** round(np.log2(wanted)), MIN_LISTS, MAX_LISTS))


def _efforts(lists: int) -> list[int]:
    return [1 << power for power in range(lists.bit_length()) if 1 << power <= lists]


def _signs(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    bits = np.unpackbits(codes, axis=1, bitorder="little")
    return 2.0 * bits.astype(np.float32) - 1.0


def _trained(base: CodeBlocks, lists: int, seed: int, check: Check) -> NDArray[np.float32]:
    import faiss

    rng = np.random.default_rng(seed)
    size = min(len(base), lists * _ROWS_PER_LIST_TRAINED)
    sample = _signs(base.codes_at(np.sort(rng.choice(len(base), size, replace=False))))
    lists = min(lists, size)
    centroids = sample[np.sort(rng.choice(size, lists, replace=False))]
    # Round by round, since Faiss cannot be interrupted.
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
    """Nothing ends the building."""


def _assigned(
    base: CodeBlocks, centroids: NDArray[np.float32], check: Check = _go_on
) -> NDArray[np.uint16]:
    """The list of each place: uint16 [n]."""
    import faiss

    nearest: Any = faiss.IndexFlatIP(base.bits)
    nearest.add(centroids)
    parts = []
    for block in base.blocks:
        for begin in range(0, len(block), _BATCH):
            check()
            _, found = nearest.search(_signs(block.codes[begin : begin + _BATCH]), 1)
            parts.append(found[:, 0].astype(np.uint16))
    return np.concatenate(parts) if parts else np.empty(0, np.uint16)


def _filled(base: CodeBlocks, lists: _Lists) -> tuple[Any, Any]:
    """Faiss's index of the codes in their lists, and its index of the centroids."""
    import faiss

    coarse: Any = faiss.IndexFlatIP(base.bits)
    coarse.add(lists.centroids)
    plain = nibble_index(base.bits, coarse, len(lists.centroids))
    order = np.argsort(lists.members, kind="stable").astype(np.int64)
    ends = np.cumsum(np.bincount(lists.members, minlength=len(lists.centroids)))
    codes = base.codes_at(order)
    begin = 0
    for number, end in enumerate(ends):
        if end > begin:
            places, listed = order[begin:end], codes[begin:end]
            plain.invlists.add_entries(
                number, len(places), faiss.swig_ptr(places), faiss.swig_ptr(listed)
            )
        begin = int(end)
    plain.ntotal = len(base)
    index = laid_out(plain)
    del plain, codes, order
    give_back_freed()
    return index, coarse
