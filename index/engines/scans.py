"""Scans of one block of codes: each finds candidates, and bounds the distance of all other codes.

Raw codes are scanned in place: by popcount, or by an 8-bit product quantiser whose centroids are
the 256 bytes, so that the codes are its codes. `FastScan` is an additional layout for Faiss's 4-bit
quantiser (Andre et al., "Quicker ADC", arXiv 1812.09162): a code's nibbles are its codes, with the
16 corners of the 4-cube as centroids. It rounds look-up tables to 8 bits. The error is bounded, so
the caller can score the candidates exactly and prove that none is missing.

All functions expect that OpenMP is limited to one thread in the calling thread.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.queries import Queries

_FAST_MAX_BITS = 1024
"""Longest codes of the fast layout: 255 per nibble must fit the scan's 16-bit sums."""
_FAST_MIN_ROWS = 4_096
_FAST_AFTER_QUERIES = 4
"""Making the layout takes as long as about six raw scans."""
_FLOAT32 = 1.2e-7
_FLOAT64 = 2.3e-16
FEWEST = 2
"""For a single nearest, Faiss uses another scan, whose sums overflow from 896 bits on."""
RESERVOIR = 13
"""Faiss's scan that keeps candidates in a reservoir: the fastest for one query and for many."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The nearest codes of a block to one query, according to a scan.

    Attributes:
        positions: int64 [n], positions in the block.
        distances: float64 [n], each off by at most `error`.
        error: in bits.
        floor: lower bound of the distances of all other codes of the block.
    """

    positions: NDArray[np.int64]
    distances: NDArray[np.float64]
    error: float
    floor: float


@dataclass(frozen=True, slots=True)
class ScaledWeights:
    """The weights of queries as single-precision numbers of at most 1.

    Attributes:
        weights: float32 [q, bits].
        scales: float64 [q], what they were divided by.
        bases: float64 [q]; a distance is base - scale * inner product.
        slack: float64 [q], bound of the rounding error of a distance: single precision of the
            products, double precision of the sums.
    """

    weights: NDArray[np.float32]
    scales: NDArray[np.float64]
    bases: NDArray[np.float64]
    slack: NDArray[np.float64]

    @classmethod
    def of(cls, queries: Queries) -> ScaledWeights:
        """Of queries with at least one weight that is not zero."""
        w = queries.weights
        scales = np.abs(w).max(axis=1)
        scaled = (w / scales[:, None]).astype(np.float32)
        total = np.abs(w).sum(axis=1)
        slack = _FLOAT32 * (queries.bits / 4 + 16) * total
        slack += _FLOAT64 * (queries.bits / 4 + 16) * (queries.bits + total)
        return cls(scaled, scales, ((1.0 + w) / 2.0).sum(axis=1), slack)

    def distances(self, query: int, products: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distances from the inner products of one query."""
        distances: NDArray[np.float64] = self.bases[query] - self.scales[query] * products.astype(
            np.float64
        )
        return distances


def gathered(codes: NDArray[np.uint8], positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The codes at these positions, copied: uint8 [n, bits/8]."""
    # Eight times as fast as codes[positions].
    return codes.take(positions, axis=0)


def scan_raw(codes: NDArray[np.uint8], queries: Queries, count: int) -> list[Candidates]:
    """The `count` nearest codes to each query by a scan of uint8 [n, bits/8] in place."""
    count = min(count, len(codes))
    if queries.metric == "hamming":
        return _scan_popcount(codes, queries, count)
    return _scan_bytes(codes, queries, count)


def _scan_popcount(codes: NDArray[np.uint8], queries: Queries, count: int) -> list[Candidates]:
    import faiss

    distances, positions = faiss.knn_hamming(np.ascontiguousarray(queries.codes), codes, count)
    return [
        Candidates(p, d.astype(np.float64), 0.0, np.inf if count == len(codes) else float(d[-1]))
        for p, d in zip(positions, distances, strict=True)
    ]


def _scan_bytes(codes: NDArray[np.uint8], queries: Queries, count: int) -> list[Candidates]:
    import faiss

    scaled = ScaledWeights.of(queries)
    products = np.empty((len(queries), count), dtype=np.float32)
    positions = np.empty((len(queries), count), dtype=np.int64)
    heap = faiss.float_minheap_array_t()
    heap.nh, heap.k = len(queries), count
    heap.val, heap.ids = faiss.swig_ptr(products), faiss.swig_ptr(positions)
    _byte_quantiser(queries.bits).search_ip(
        faiss.swig_ptr(scaled.weights), len(queries), faiss.swig_ptr(codes), len(codes), heap
    )
    found = []
    for query in range(len(queries)):
        distances = scaled.distances(query, products[query])
        slack = float(scaled.slack[query])
        floor = np.inf if count == len(codes) else float(distances[-1]) - slack
        found.append(Candidates(positions[query], distances, slack, floor))
    return found


@functools.cache
def _byte_quantiser(bits: int) -> Any:
    import faiss

    quantiser: Any = faiss.ProductQuantizer(bits, bits // 8, 8)
    corners = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    faiss.copy_array_to_vector(
        np.tile(corners.astype(np.float32), (bits // 8, 1)).ravel(), quantiser.centroids
    )
    return quantiser


def nibble_index(bits: int, coarse: Any, lists: int) -> Any:
    """An empty Faiss `IndexIVFPQ` whose 4-bit quantiser has the nibbles of codes as its codes.

    Args:
        bits: code length.
        coarse: Faiss index of the lists' centroids; the caller keeps it alive.
        lists: how many lists.
    """
    import faiss

    nibbles = bits // 4
    index: Any = faiss.IndexIVFPQ(coarse, bits, lists, nibbles, 4, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = False
    corners = ((np.arange(16)[:, None] >> np.arange(4)) & 1).astype(np.float32)
    faiss.copy_array_to_vector(np.tile(corners, (nibbles, 1)).ravel(), index.pq.centroids)
    index.is_trained = True
    return index


def laid_out(plain: Any) -> Any:
    """Faiss's index for 4-bit scans of the codes in a `nibble_index`.

    The caller keeps the index of the centroids alive.
    """
    import faiss

    index: Any = faiss.IndexIVFPQFastScan(plain)
    index.implem = RESERVOIR
    # These references to the plain index would keep a second copy of all codes in memory.
    index.orig_invlists = None
    del index.referenced_objects
    return index


def release_memory() -> None:
    """Return freed memory to the system; the GNU allocator would keep the size of the codes."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def list_parameters(lists: int, selector: Any) -> Any:
    """Faiss's parameters of a search: number of lists, and a selector of ids (None for all)."""
    import faiss

    make: Any = faiss.SearchParametersIVF
    return make(nprobe=lists, sel=selector)


def rounding_error(scaled: ScaledWeights, query: int) -> float:
    """Bound of the error of a distance by the 8-bit tables: half a step per nibble.

    One step is 1/255 of the widest table's span.
    """
    spans: NDArray[np.float64] = (
        np.abs(scaled.weights[query].astype(np.float64)).reshape(-1, 4).sum(axis=1)
    )
    step = float(spans.max()) / 255.0
    rounding = float(scaled.scales[query]) * 0.5 * step * len(spans)
    return rounding + float(scaled.slack[query])


class FastScan:
    """A copy of codes in the layout for the 4-bit scan.

    Args:
        codes: uint8 [n, bits/8]; copied.
    """

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        import faiss

        bits = codes.shape[1] * 8
        self._coarse = faiss.IndexFlatIP(bits)
        self._coarse.add(np.zeros((1, bits), dtype=np.float32))
        plain = nibble_index(bits, self._coarse, 1)
        positions = np.arange(len(codes), dtype=np.int64)
        plain.invlists.add_entries(0, len(codes), faiss.swig_ptr(positions), faiss.swig_ptr(codes))
        plain.ntotal = len(codes)
        self._index = laid_out(plain)
        del plain
        release_memory()
        self._size = len(codes)
        self.nbytes = codes.nbytes + positions.nbytes

    @staticmethod
    def suits(codes: NDArray[np.uint8]) -> bool:
        """Whether the layout is possible for these codes, and makes their scans faster."""
        return codes.shape[1] * 8 <= _FAST_MAX_BITS and len(codes) >= _FAST_MIN_ROWS

    @staticmethod
    def pays_after(queries: int) -> bool:
        """Whether the layout is worth it after this many queries."""
        return queries >= _FAST_AFTER_QUERIES

    def scan(
        self, queries: Queries, count: int, bitmap: NDArray[np.uint8] | None = None
    ) -> list[Candidates]:
        """The nearest codes to each query by rounded distance, up to `count`.

        Args:
            queries: none of them without any weight.
            count: number for each.
            bitmap: bit i % 8 (little) of byte i // 8 is set if position i is allowed.
        """
        import faiss

        count = min(max(count, FEWEST), self._size)
        scaled = ScaledWeights.of(queries)
        selector = None
        if bitmap is not None:
            selector = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))
        products, positions = self._index.search(
            scaled.weights, count, params=list_parameters(1, selector)
        )
        return [
            rounded_candidates(
                scaled, query, products[query], positions[query], count == self._size
            )
            for query in range(len(queries))
        ]


def rounded_candidates(
    scaled: ScaledWeights,
    query: int,
    products: NDArray[np.float32],
    positions: NDArray[np.int64],
    complete: bool,
) -> Candidates:
    """The candidates of one query from the output of a 4-bit scan, in which -1 is no position.

    Faiss omits codes at the greatest possible distance. So even a scan for all codes has a floor,
    unless it found them all.
    """
    error = rounding_error(scaled, query)
    found = positions >= 0
    distances = scaled.distances(query, products[found])
    if complete and found.all():
        return Candidates(positions, distances, error, np.inf)
    farthest = float(scaled.bases[query]) + float(
        scaled.scales[query] * np.maximum(-scaled.weights[query], 0).sum()
    )
    floor = float(distances.max(initial=-np.inf)) if found.any() else farthest
    return Candidates(positions[found], distances, error, floor - error)
