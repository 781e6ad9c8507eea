"""Scans of one block of codes: each finds candidates, and bounds the distance of all other codes.

Raw codes are scanned in place: by popcount, or by an 8-bit product quantiser whose centroids are
the 256 bytes, so that the codes are its codes. `FastScan` and `RangeScan` are additional layouts
for Faiss's 4-bit quantiser (Andre et al., "Quicker ADC", arXiv 1812.09162): a code's nibbles are
its codes, with the 16 corners of the 4-cube as centroids. It rounds look-up tables to 8 bits. The
error is bounded, so the caller can score the candidates exactly and prove that none is missing.

All functions expect that OpenMP is limited to one thread in the calling thread.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.index.engines.queries import Queries, ScaledWeights
from bittern.index.engines.threads import faiss_threads

_FAST_MAX_BITS = 1024
"""Longest codes of the fast layout: 255 per nibble must fit the scan's 16-bit sums."""
_FAST_MIN_ROWS = 4_096
_FAST_AFTER_QUERIES = 4
"""Making the layout takes as long as about six raw scans."""
FEWEST = 2
"""For a single nearest, Faiss uses another scan, whose sums overflow from 896 bits on."""
RESERVOIR = 13
"""Faiss's scan of inverted lists that keeps candidates in a reservoir."""
_LAYOUTS = (32, 13), (32, 15), (64, 14), (64, 15)
"""Faiss's layouts and scans without lists: rows of one block of the layout, and implementation."""
_TRIED_ROWS, _TRIED_COUNT, _TRIED_TURNS = 1 << 16, 100, 7
_MORE_ROWS = 4
"""Times as many rows are tried without a layout: their scan takes longer to get going."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The nearest codes of a block to one query, according to a scan.

    Attributes:
        positions: int64 [n], positions in the block.
        distances: float64 [n], each off by at most `error`.
        error: in bits.
        floor: lower bound of the distances of all other codes of the block that can be among the
            nearest that are searched for.
    """

    positions: NDArray[np.int64]
    distances: NDArray[np.float64]
    error: float
    floor: float


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

    scaled = queries.scaled
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
    return _with_corners(index)


def _with_corners(index: Any) -> Any:
    """A Faiss index whose product quantiser gets the corners of the 4-cube as centroids."""
    import faiss

    corners = ((np.arange(16)[:, None] >> np.arange(4)) & 1).astype(np.float32)
    faiss.copy_array_to_vector(np.tile(corners, (index.pq.M, 1)).ravel(), index.pq.centroids)
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


class FastScan:
    """A copy of codes in the layout for the 4-bit scan.

    Args:
        codes: uint8 [n, bits/8]; copied.
    """

    def __init__(self, codes: NDArray[np.uint8]) -> None:
        self._index = _laid_out_in_blocks(codes, *_fastest_layout(codes.shape[1] * 8))
        release_memory()
        self._size = len(codes)
        self.nbytes = codes.nbytes

    @staticmethod
    def suits(codes: NDArray[np.uint8]) -> bool:
        """Whether the layout is possible for these codes, and makes their scans faster."""
        return codes.shape[1] * 8 <= _FAST_MAX_BITS and len(codes) >= _FAST_MIN_ROWS

    @staticmethod
    def pays_after(queries: int) -> bool:
        """Whether the layout is worth it after this many queries."""
        return queries >= _FAST_AFTER_QUERIES

    def scan(self, queries: Queries, count: int) -> list[Candidates]:
        """The nearest codes to each query by rounded distance, up to `count`.

        Args:
            queries: none of them without any weight.
            count: number for each.
        """
        count = min(max(count, FEWEST), self._size)
        scaled = queries.scaled
        products, positions = self._index.search(scaled.weights, count)
        return [
            rounded_candidates(
                scaled, query, products[query], positions[query], count == self._size
            )
            for query in range(len(queries))
        ]


def _laid_out_in_blocks(codes: NDArray[np.uint8], rows: int, implementation: int) -> Any:
    """Faiss's index for 4-bit scans of all codes."""
    import faiss

    bits = codes.shape[1] * 8
    plain = _with_corners(faiss.IndexPQ(bits, bits // 4, 4, faiss.METRIC_INNER_PRODUCT))
    plain.add_sa_codes(codes)
    index: Any = faiss.IndexPQFastScan(plain, rows)
    index.implem = implementation
    index.orig_codes = None  # those of the plain index, which ends here
    return index


def popcount_is_faster(bits: int) -> bool:
    """Whether this processor counts the differing bits of codes faster than it scans a layout."""
    took = _measured_scans(bits)
    return min(took, key=took.__getitem__) is None


def _fastest_layout(bits: int) -> tuple[int, int]:
    """The one of `_LAYOUTS` that this processor scans fastest."""
    return min(_LAYOUTS, key=_measured_scans(bits).__getitem__)


@functools.cache
def _measured_scans(bits: int) -> Mapping[tuple[int, int] | None, float]:
    """Seconds of a scan by each of `_LAYOUTS`, and (None) of as many rows by popcount.

    Measured once per process; what is chosen changes the time of a search, never its result.
    """
    rng = np.random.default_rng(bits)
    codes = rng.integers(0, 256, (_MORE_ROWS * _TRIED_ROWS, bits // 8), dtype=np.uint8)
    query = Queries.of_codes(codes[:1])
    weights = query.scaled.weights
    scans: dict[tuple[int, int] | None, Callable[[], object]] = {
        layout: partial(
            _laid_out_in_blocks(codes[:_TRIED_ROWS], *layout).search, weights, _TRIED_COUNT
        )
        for layout in _LAYOUTS
    }
    scans[None] = lambda: scan_raw(codes, query, _TRIED_COUNT)
    took = dict.fromkeys(scans, np.inf)
    with faiss_threads(1):
        for name, scan in _TRIED_TURNS * [*scans.items()]:
            begun = time.perf_counter()
            scan()
            took[name] = min(took[name], time.perf_counter() - begun)
    took[None] /= _MORE_ROWS
    return took


class RangeScan:
    """A copy of codes in the layout for a 4-bit scan that takes a selector and a distance.

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
        self._index.implem = 12  # the one for a range and the selector
        del plain
        release_memory()
        self.nbytes = codes.nbytes + positions.nbytes

    def within(
        self, query: Queries, limit: float, bitmap: NDArray[np.uint8] | None = None
    ) -> NDArray[np.int64] | None:
        """Positions of all codes up to a distance, and of some that are little farther.

        Args:
            query: one, with some weight.
            limit: the distance.
            bitmap: bit i % 8 (little) of byte i // 8 is set if position i is allowed.

        Returns:
            int64 [n] in any order; None if `limit` is near the greatest possible distance, for
            which Faiss omits codes.
        """
        import faiss

        scaled = query.scaled
        # Faiss keeps what is above a whole number of steps.
        least = float(scaled.bases[0]) - limit - float(scaled.errors[0] + 2.0 * scaled.steps[0])
        least /= float(scaled.scales[0])
        lowest = float(np.minimum(scaled.weights[0], 0).sum())
        if least <= lowest + 2.0 * float(scaled.steps[0] / scaled.scales[0]):
            return None
        if least >= float(np.maximum(scaled.weights[0], 0).sum()):
            return np.empty(0, np.int64)
        selector = None
        if bitmap is not None:
            selector = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))
        _, _, positions = self._index.range_search(
            scaled.weights, least, params=list_parameters(1, selector)
        )
        found: NDArray[np.int64] = positions
        return found


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
    error = float(scaled.errors[query])
    # Found ones come first, nearest first.
    if positions[-1] < 0:
        found = positions >= 0
        products, positions, complete = products[found], positions[found], False
    distances = scaled.distances(query, products)
    if complete:
        return Candidates(positions, distances, error, np.inf)
    if len(positions):
        floor = float(distances.max())
    else:
        floor = float(scaled.bases[query]) + float(
            scaled.scales[query] * np.maximum(-scaled.weights[query], 0).sum()
        )
    return Candidates(positions, distances, error, floor - error)
