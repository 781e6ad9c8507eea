"""Links of a graph of codes (HNSW), made and followed by Faiss, stored as plain arrays.

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs", arXiv 1603.09320. Two things differ:

Links are made by Hamming distance but followed by the weights of the query: an 8-bit product
quantiser whose centroids are the 256 bytes' bits, so that the codes are its codes, gives
Faiss the asymmetric distance (as a squared one: |q - c|^2 with q = (1 + w) / 2 is a constant
less c.w).

Clusters of codes are islands that a descent through upper levels often misses. So these are
dropped; their nodes are all looked at, and a search begins at the nearest of them.

Faiss follows links without looking whether they lead anywhere. Those from outside are
checked before it sees them, and its own file reader is not used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines import planning
from bittern.index.engines.blocks import Block, BlockSelection
from bittern.index.engines.queries import Queries
from bittern.index.engines.rows import RowNumbers
from bittern.index.engines.scans import ScaledWeights
from bittern.index.engines.threads import faiss_threads

LEAST_LINKS, MOST_LINKS = 2, 64
_MOST_ENTRIES = 1 << 16
"""So many codes are looked at in less than 0.1 ms."""
_ENTRIES = 32
"""A search begins at so many nodes."""
_STEP, _LEAST_STEP = 4_096, 64
"""Codes of 256 bits that are linked between two looks at whether that is still wanted.

Measured: 0.3 s on two cores; all of it takes as long as without stopping.
"""
_ROWS_AT_ONCE = 1 << 16
_SEVERAL = 2
"""Faiss's search type that begins one search at several nodes."""
_FLOAT32 = 1.2e-7


@dataclass(frozen=True)
class Links:
    """Which nodes are linked to which, and where searches may begin.

    Attributes:
        neighbours: int32 [n, 2 m], -1 where there is none; after the first -1 nothing counts.
        entries: int32 [e], ascending.
    """

    neighbours: NDArray[np.int32]
    entries: NDArray[np.int32]

    def checked(self) -> Links:
        """Return the links if it is safe to follow them.

        Raises:
            ArchiveDamagedError: with what is wrong.
        """
        nodes, slots = self.neighbours.shape
        if slots % 2 or not LEAST_LINKS <= slots // 2 <= MOST_LINKS:
            raise _damaged(
                f"{slots} slots for links per node; an even number, "
                f"{2 * LEAST_LINKS} to {2 * MOST_LINKS}, is possible"
            )
        if nodes and (self.neighbours.min() < -1 or self.neighbours.max() >= nodes):
            raise _damaged(f"a link leads beyond the {nodes} nodes")
        if bool(nodes) != bool(len(self.entries)) or (np.diff(self.entries) <= 0).any():
            raise _damaged("the nodes where searches begin are not in order")
        if nodes and (self.entries[0] < 0 or self.entries[-1] >= nodes):
            raise _damaged(f"searches cannot begin beyond the {nodes} nodes")
        return self


class LinkedCodes:
    """Codes and links in the hands of Faiss.

    Args:
        codes: uint8 [n, bits/8]; copied.
        links: between them; checked here.

    Raises:
        ArchiveDamagedError: the links are not safe to follow, or not for these codes.
    """

    def __init__(self, codes: NDArray[np.uint8], links: Links) -> None:
        links.checked()
        if len(links.neighbours) != len(codes):
            raise _damaged(f"{len(links.neighbours)} nodes, but {len(codes)} distinct codes")
        # The index refers to the quantiser, which must live as long.
        self._quantiser, self._index = _linked(codes, links.neighbours)
        self._entries = links.entries
        beginning = codes.take(links.entries, axis=0)
        block = Block(RowNumbers.run(0, len(beginning)), beginning)
        self._beginning = BlockSelection(block, None, len(block))

    @classmethod
    def built(
        cls,
        codes: NDArray[np.uint8],
        *,
        m: int,
        ef_construction: int,
        seed: int,
        threads: int | None,
        check: Callable[[], None] | None = None,
    ) -> LinkedCodes:
        """Link codes to their neighbours.

        Args:
            codes: uint8 [n, bits/8], no two of them equal.
            m: half the links of a node.
            ef_construction: nodes kept in view while looking for those to link to.
            seed: of the choice of nodes where searches begin.
            threads: the most threads; None for one per usable core.
            check: called after each few thousand codes; what it raises ends this.
        """
        return cls(codes, _made(codes, m, ef_construction, seed, threads, check))

    @property
    def links(self) -> Links:
        """The links, copied."""
        import faiss

        hnsw = self._index.hnsw
        neighbours = faiss.vector_to_array(hnsw.neighbors)
        return Links(neighbours.reshape(-1, hnsw.nb_neighbors(0)), self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes that are held: links with their numbers, and a copy of the codes."""
        hnsw = self._index.hnsw
        held = hnsw.neighbors.size() * 4 + hnsw.levels.size() * 4 + hnsw.offsets.size() * 8
        block = self._beginning.block
        return int(held + self._quantiser.codes.size() + block.codes.nbytes + block.nbytes)

    def search(
        self, queries: Queries, count: int, beam: int, bitmap: NDArray[np.uint8] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
        """The nearest nodes that following the links comes upon.

        Args:
            queries: none of them without any weight.
            count: how many nodes for each.
            beam: how many nodes are kept in view.
            bitmap: bit i % 8 (little) of byte i // 8 says whether node i may be found; others
                are passed through.

        Returns:
            distances float64 [q, count]; nodes int64 [q, count], -1 for none; and by how much
            each query's distances may be off: float64 [q].
        """
        import faiss

        library: Any = faiss
        selector = None
        if bitmap is not None:
            selector = library.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))
        parameters = library.SearchParametersHNSW(efSearch=beam, sel=selector)
        scaled = ScaledWeights.of(queries)
        points = np.ascontiguousarray((1.0 + scaled.weights) / 2.0, dtype=np.float32)
        begins, far = self._begins(queries, points)
        squares = np.empty((len(queries), count), dtype=np.float32)
        nodes = np.empty((len(queries), count), dtype=np.int64)
        self._index.search_level_0(
            len(queries),
            faiss.swig_ptr(points),
            count,
            faiss.swig_ptr(begins),
            faiss.swig_ptr(far),
            faiss.swig_ptr(squares),
            faiss.swig_ptr(nodes),
            begins.shape[1],
            _SEVERAL,
            parameters,
        )
        squares[nodes < 0] = 0.0
        if queries.metric == "hamming":
            return squares.astype(np.float64), nodes, np.zeros(len(queries))
        lengths = (points.astype(np.float64) ** 2).sum(axis=1)
        products = lengths[:, None] - squares
        distances = scaled.bases[:, None] - scaled.scales[:, None] * products
        error = _FLOAT32 * (queries.bits / 8 + 32) * queries.bits * scaled.scales
        return distances, nodes, error

    def _begins(
        self, queries: Queries, points: NDArray[np.float32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The entries nearest to each query, [q, e], and how far they are as Faiss sees it."""
        count = min(_ENTRIES, len(self._entries))
        nodes = np.full((len(queries), count), -1, dtype=np.int32)
        far = np.zeros((len(queries), count), dtype=np.float32)
        found = planning.scan(self._beginning, queries, count, True)
        for query, one in enumerate(found):
            near = one.places[np.argsort(one.distances)[:count]]
            codes = self._beginning.block.codes[near]
            bits = np.unpackbits(codes, axis=1, bitorder="little")
            nodes[query, : len(near)] = self._entries[near]
            far[query, : len(near)] = ((points[query] - bits) ** 2).sum(axis=1)
        return nodes, far


def _made(
    codes: NDArray[np.uint8],
    m: int,
    ef_construction: int,
    seed: int,
    threads: int | None,
    check: Callable[[], None] | None,
) -> Links:
    import faiss

    if not len(codes):
        return Links(np.empty((0, 2 * m), np.int32), np.empty(0, np.int32))
    library: Any = faiss
    index = library.IndexBinaryHNSW(codes.shape[1] * 8, m)
    hnsw = index.hnsw
    hnsw.efConstruction = ef_construction
    hnsw.rng = library.RandomGenerator(seed)
    # Slots that would stay empty are filled: the same bytes, and fewer islands.
    index.keep_max_size_level0 = True
    # Rows that came together are often alike. Measured on 100,000 sorted codes: linked a step
    # at a time in that order, recall was lower by up to 0.01 than all at once or shuffled.
    order = np.random.default_rng(seed).permutation(len(codes))
    work = max(1.0, ef_construction / 100) * max(1.0, 8 * codes.shape[1] / 256)
    step = max(_LEAST_STEP, int(_STEP / work))
    with faiss_threads(threads):
        for start in range(0, len(codes), step):
            if check is not None:
                check()
            index.add(codes[order[start : start + step]])
    return _lowest(index, order, m)


def _lowest(index: Any, order: NDArray[np.int64], m: int) -> Links:
    """The links of Faiss's lowest level, its node i being node `order[i]`."""
    import faiss

    hnsw = index.hnsw
    starts = faiss.vector_to_array(hnsw.offsets)[:-1].astype(np.int64)
    linked = faiss.vector_to_array(hnsw.neighbors)
    numbers = np.append(order, -1).astype(np.int32)
    neighbours = np.empty((len(order), 2 * m), dtype=np.int32)
    for begin in range(0, len(order), _ROWS_AT_ONCE):
        part = slice(begin, begin + _ROWS_AT_ONCE)
        neighbours[order[part]] = numbers[linked[starts[part, None] + np.arange(2 * m)]]
    levels = faiss.vector_to_array(hnsw.levels)
    level = next(n for n in range(1, 256) if np.count_nonzero(levels > n) <= _MOST_ENTRIES)
    entries = order[levels > level]
    if not len(entries):
        entries = order[[hnsw.entry_point]]
    return Links(neighbours, np.sort(entries).astype(np.int32))


def _linked(codes: NDArray[np.uint8], neighbours: NDArray[np.int32]) -> tuple[Any, Any]:
    """Faiss's quantiser that holds the codes, and its index that holds the links."""
    import faiss

    library: Any = faiss
    nodes, slots = neighbours.shape
    width = codes.shape[1]
    quantiser = library.IndexPQ(width * 8, width, 8, faiss.METRIC_L2)
    corners = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    faiss.copy_array_to_vector(
        np.tile(corners.astype(np.float32), (width, 1)).ravel(), quantiser.pq.centroids
    )
    quantiser.is_trained = True
    index = library.IndexHNSW(quantiser, slots // 2)
    index.is_trained = True
    if nodes:
        quantiser.add_sa_codes(codes)
        index.ntotal = nodes
        hnsw = index.hnsw
        faiss.copy_array_to_vector(np.ones(nodes, np.int32), hnsw.levels)
        faiss.copy_array_to_vector(
            np.arange(0, (nodes + 1) * slots, slots, dtype=np.uint64), hnsw.offsets
        )
        faiss.copy_array_to_vector(np.ascontiguousarray(neighbours).ravel(), hnsw.neighbors)
        hnsw.entry_point, hnsw.max_level = 0, 0
    return quantiser, index


def _damaged(what: str) -> ArchiveDamagedError:
    return ArchiveDamagedError(f"the graph for searching is damaged: {what}; build it anew")
