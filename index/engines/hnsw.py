"""Links of a graph of codes (HNSW), made and followed by Faiss, stored as plain arrays.

Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs", arXiv 1603.09320. Faiss follows links without
looking whether they lead anywhere; so links from outside are checked one by one before it
sees them, and its own file reader is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from index.engines.threads import faiss_threads

LEAST_LINKS, MOST_LINKS = 2, 64


@dataclass(frozen=True)
class Links:
    """Who is linked to whom, on every level.

    A node of `levels[i]` levels has 2 m slots for links on the lowest and m on each of the
    others, all in a row; unused slots hold -1, and nothing after the first is followed.

    Attributes:
        m: links of a node on each level but the lowest.
        levels: uint8 [n], how many levels each node is on, at least 1.
        neighbours: int32 [slots].
        entry: the node where searches begin; -1 where there are no nodes.
    """

    m: int
    levels: NDArray[np.uint8]
    neighbours: NDArray[np.int32]
    entry: int

    def checked(self) -> Links:
        """Return the links if it is safe to follow them.

        Raises:
            ArchiveDamagedError: with what is wrong.
        """
        if not LEAST_LINKS <= self.m <= MOST_LINKS:
            raise _damaged(f"{self.m} links per node; {LEAST_LINKS} to {MOST_LINKS} are possible")
        nodes = len(self.levels)
        if not nodes:
            if len(self.neighbours) or self.entry != -1:
                raise _damaged("links without nodes")
            return self
        slots = _slots_by_levels(self.m)
        highest = int(self.levels.max())
        if not self.levels.min() or highest >= len(slots):
            raise _damaged(f"nodes must be on 1 to {len(slots) - 1} levels")
        ends = np.cumsum(slots[self.levels])
        if int(ends[-1]) != len(self.neighbours):
            raise _damaged(f"{len(self.neighbours)} slots for links, not {int(ends[-1])}")
        if self.neighbours.min() < -1 or self.neighbours.max() >= nodes:
            raise _damaged(f"a link leads beyond the {nodes} nodes")
        if not 0 <= self.entry < nodes or self.levels[self.entry] != highest:
            raise _damaged(f"searches cannot begin at node {self.entry}")
        starts = ends - slots[self.levels]
        for level in range(1, highest):
            begins = starts[self.levels > level] + slots[level]
            linked = self.neighbours[begins[:, None] + np.arange(self.m)]
            if (self.levels[linked[linked >= 0]] <= level).any():
                raise _damaged(f"a link on level {level} leads to a node that is not on it")
        return self


class LinkedCodes:
    """Codes and links in the hands of Faiss.

    Args:
        index: a Faiss `IndexBinaryHNSW`.
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def built(
        cls,
        codes: NDArray[np.uint8],
        *,
        m: int,
        ef_construction: int,
        seed: int,
        threads: int | None,
    ) -> LinkedCodes:
        """Link codes to their neighbours: uint8 [n, bits/8], no two of them equal."""
        import faiss

        library: Any = faiss
        index = library.IndexBinaryHNSW(codes.shape[1] * 8, m)
        index.hnsw.efConstruction = ef_construction
        # Slots that would stay empty are filled: the same bytes, and fewer islands.
        index.keep_max_size_level0 = True
        index.hnsw.rng = library.RandomGenerator(seed)
        if len(codes):
            with faiss_threads(threads):
                index.add(codes)
        return cls(index)

    @classmethod
    def linked(cls, codes: NDArray[np.uint8], links: Links) -> LinkedCodes:
        """Codes with links that are there already.

        Raises:
            ArchiveDamagedError: the links are not safe to follow, or not for these codes.
        """
        import faiss

        links.checked()
        if len(links.levels) != len(codes):
            raise _damaged(f"{len(links.levels)} nodes, but {len(codes)} distinct codes")
        index: Any = faiss.IndexBinaryHNSW(codes.shape[1] * 8, links.m)
        if not len(codes):
            return cls(index)
        index.storage.add(codes)
        index.ntotal = len(codes)
        ends = np.cumsum(_slots_by_levels(links.m)[links.levels])
        hnsw = index.hnsw
        faiss.copy_array_to_vector(links.levels.astype(np.int32), hnsw.levels)
        faiss.copy_array_to_vector(np.concatenate([[0], ends]).astype(np.uint64), hnsw.offsets)
        faiss.copy_array_to_vector(np.ascontiguousarray(links.neighbours), hnsw.neighbors)
        hnsw.entry_point = links.entry
        hnsw.max_level = int(links.levels.max()) - 1
        return cls(index)

    @property
    def links(self) -> Links:
        """The links, copied."""
        import faiss

        hnsw = self._index.hnsw
        return Links(
            m=hnsw.nb_neighbors(1),
            levels=faiss.vector_to_array(hnsw.levels).astype(np.uint8),
            neighbours=faiss.vector_to_array(hnsw.neighbors),
            entry=int(hnsw.entry_point),
        )

    @property
    def nbytes(self) -> int:
        """Bytes that Faiss holds: links, levels, and a copy of the codes."""
        hnsw = self._index.hnsw
        held = hnsw.neighbors.size() * 4 + hnsw.levels.size() * 4 + hnsw.offsets.size() * 8
        return int(held + self._index.ntotal * self._index.code_size)

    def search(
        self,
        codes: NDArray[np.uint8],
        count: int,
        beam: int,
        bitmap: NDArray[np.uint8] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The nearest nodes that following the links comes upon.

        Args:
            codes: uint8 [q, bits/8].
            count: how many of them for each.
            beam: how many nodes are kept in view.
            bitmap: bit i % 8 (little) of byte i // 8 says whether node i may be found; others
                are passed through.

        Returns:
            Hamming distances and nodes, [q, count]; -1 stands for no node.
        """
        import faiss

        selector = None
        if bitmap is not None:
            selector = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))
        library: Any = faiss
        parameters = library.SearchParametersHNSW(efSearch=beam, sel=selector)
        distances, nodes = self._index.search(np.ascontiguousarray(codes), count, params=parameters)
        return distances, nodes


def _slots_by_levels(m: int) -> NDArray[np.int64]:
    """How many slots a node on so many levels has; its length limits the levels."""
    import faiss

    library: Any = faiss
    # Faiss frees the vector with what it belongs to, so that must be held.
    hnsw = library.HNSW(m)
    slots: NDArray[np.int64] = faiss.vector_to_array(hnsw.cum_nneighbor_per_level).astype(np.int64)
    return slots


def _damaged(what: str) -> ArchiveDamagedError:
    return ArchiveDamagedError(f"the graph for searching is damaged: {what}; build it anew")
