"""The distinct ones among codes, each with the places that hold it.

A graph of nearest neighbours falls apart where many codes are equal: their nearest
neighbours are each other. So each distinct code is one node.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


class DistinctCodes:
    """Nodes: numbers of distinct codes, the same for the same codes whenever they are made.

    Where all codes are distinct, a code's node is its place, and nothing is stored.

    Args:
        codes: uint8 [n, bits/8].
    """

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        self._size = len(codes)
        self._places: NDArray[np.int32] | None = None
        self._starts: NDArray[np.int64] | None = None
        hashes = _hashes(codes)
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        same = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
        # Codes that only share a hash get nodes of their own, one or several.
        same = same[(codes[order[same]] == codes[order[same - 1]]).all(axis=1)]
        if len(same):
            first = np.ones(len(codes) + 1, dtype=bool)
            first[same] = False
            self._starts = np.flatnonzero(first)
            self._places = order.astype(np.int32)

    def __len__(self) -> int:
        return self._size if self._starts is None else len(self._starts) - 1

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        if self._places is None or self._starts is None:
            return 0
        return self._places.nbytes + self._starts.nbytes

    def first_places(self) -> NDArray[np.int64] | None:
        """Where each node's code is found first: int64 [nodes]; None where place is node."""
        if self._places is None or self._starts is None:
            return None
        return self._places[self._starts[:-1]].astype(np.int64)

    def any_of(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether a mask over places holds any place of a node: bool [n] in, bool [nodes] out."""
        if self._places is None or self._starts is None:
            return mask
        held: NDArray[np.bool_] = np.logical_or.reduceat(mask[self._places], self._starts[:-1])
        return held

    def places_of(
        self, nodes: NDArray[np.int64], mask: NDArray[np.bool_] | None, most: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places of some nodes.

        Args:
            nodes: int64 [m].
            mask: bool [n], the places that count; None for all.
            most: the first so many places of a node are enough.

        Returns:
            places int64 [p], and for each the position in `nodes` that it belongs to.
        """
        if self._places is None or self._starts is None:
            owners = np.arange(len(nodes)) if mask is None else np.flatnonzero(mask[nodes])
            return nodes[owners], owners
        begins = self._starts[nodes]
        counts = self._starts[nodes + 1] - begins
        if mask is None:
            counts = np.minimum(counts, most)
        owners = np.repeat(np.arange(len(nodes)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = self._places[begins[owners] + within].astype(np.int64)
        if mask is not None:
            kept = mask[places]
            places, owners = places[kept], owners[kept]
            sizes = np.bincount(owners, minlength=len(nodes))
            rank = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            places, owners = places[rank < most], owners[rank < most]
        return places, owners


def _hashes(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Well-mixed numbers of codes: uint64 [n]."""
    width = -(-codes.shape[1] // 8) * 8
    if width != codes.shape[1]:
        codes = np.pad(codes, ((0, 0), (0, width - codes.shape[1])))
    hashes = np.zeros(len(codes), dtype=np.uint64)
    for word in np.ascontiguousarray(codes).view(np.uint64).T:
        hashes ^= word
        hashes *= _MULTIPLIER
        hashes ^= hashes >> _SHIFT
    return hashes
