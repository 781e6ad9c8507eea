"""Exact nearest neighbours over codes in memory, in the total order (distance, row).

The symmetric distance is scanned by Faiss (`IndexBinaryFlat`). The asymmetric one is
`hashing.codes.asymmetric_distance`; where there are many codes, a fast scan says which of
them to score, and either proves that it left out none that matters, or all are scored.
No scan's own order among equal distances is trusted: all rows as close as the k-th are
gathered, then ordered by row.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hashing.codes import asymmetric_distance, check_codes
from index.fast_scan import MAX_BITS, FastScan

FAST_SCAN_FROM = 20_000
"""Fewer codes than this are scored one by one."""
_MOST_UNSCANNED = 0.1
"""Share of appended codes that are scored one by one before the fast scan is laid out anew."""
_FOR_TIES = 256
"""Rows beyond the k-th that are asked for at once; more ties than these cost a second scan."""
_CANDIDATES = ((2, 200), (16, 2_000))
"""How many candidates are tried in turn, as (times k, plus)."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """Rows and their distances, ordered by (distance, row).

    Attributes:
        distances: float64 [k].
        rows: int64 [k].
    """

    distances: NDArray[np.float64]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, distances: NDArray[np.floating], rows: NDArray[np.int64], k: int) -> Nearest:
        """The k best of candidates in any order."""
        order = np.lexsort((rows, distances))[:k]
        return cls(distances[order].astype(np.float64), rows[order])

    @classmethod
    def best_of(cls, parts: list[Nearest], k: int) -> Nearest:
        """The k best of several searches over disjoint rows."""
        return cls.of(
            np.concatenate([part.distances for part in parts] or [np.empty(0)]),
            np.concatenate([part.rows for part in parts] or [np.empty(0, np.int64)]),
            k,
        )


@contextmanager
def one_faiss_thread() -> Iterator[Any]:
    """Faiss, held to the calling thread; its setting is put back afterwards.

    One query is one thread's work. More threads only get in each other's way where
    several searches run at once.
    """
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield faiss
    finally:
        faiss.omp_set_num_threads(before)


class FlatCodes:
    """The codes of one model and modality, never changed once made.

    Args:
        rows: int64 [n], strictly ascending.
        codes: uint8 [n, bits/8], copied.
    """

    def __init__(self, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> None:
        import faiss

        codes = check_codes(codes)
        self.rows = np.ascontiguousarray(rows, dtype=np.int64)
        self.rows.flags.writeable = False
        self._index: Any = faiss.IndexBinaryFlat(codes.shape[1] * 8)
        self._index.add(codes)
        self._width = int(codes.shape[1])
        self._fast: FastScan | None = None
        self._making_fast = threading.Lock()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def codes(self) -> NDArray[np.uint8]:
        """The codes as they lie in the index, read-only: uint8 [n, bits/8]."""
        import faiss

        if not len(self.rows):
            return np.empty((0, self._width), dtype=np.uint8)
        view = faiss.rev_swig_ptr(self._index.xb.data(), len(self.rows) * self._width)
        view.flags.writeable = False
        return np.asarray(view.reshape(len(self.rows), self._width))

    @property
    def nbytes(self) -> int:
        """Bytes of codes in memory."""
        return len(self.rows) * self._width

    def appended(self, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> FlatCodes:
        """These codes and more whose rows come after them; what was laid out is shared."""
        longer = FlatCodes(
            np.concatenate([self.rows, rows]), np.concatenate([self.codes, check_codes(codes)])
        )
        longer._fast = self._fast
        return longer

    def only(self, rows: NDArray[np.int64]) -> FlatCodes:
        """The part of these codes whose rows are among `rows` (int64, ascending)."""
        if not len(self.rows):
            return self
        places = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        places = places[self.rows[places] == rows]
        if len(places) == len(self.rows):
            return self
        return FlatCodes(self.rows[places], self.codes[places])

    def code(self, row: int) -> NDArray[np.uint8] | None:
        """The code of one row, uint8 [bits/8]; None where the row has none here."""
        place = int(np.searchsorted(self.rows, row))
        if place == len(self.rows) or self.rows[place] != row:
            return None
        return np.array(self.codes[place], dtype=np.uint8)

    def nearest_symmetric(self, code: NDArray[np.uint8], k: int) -> Nearest:
        """The k nearest by Hamming distance to one code, uint8 [bits/8]."""
        k = min(k, len(self.rows))
        if not k:
            return Nearest(np.empty(0), np.empty(0, np.int64))
        query = check_codes(code[None, :], self._width * 8)
        with one_faiss_thread():
            distances, places = self._index.search(query, min(k + _FOR_TIES, len(self.rows)))
            distances, places = distances[0], places[0]
            kth = int(np.partition(distances, k - 1)[k - 1])
            if len(distances) < len(self.rows) and int(distances.max()) == kth:
                # Faiss counts a range as "closer than", hence the + 1.
                _, distances, places = self._index.range_search(query, kth + 1)
        return Nearest.of(distances.astype(np.float64), self.rows[places], k)

    def nearest_asymmetric(self, logits: NDArray[np.floating], k: int) -> Nearest:
        """The k nearest by asymmetric distance to one query's logits, float [bits]."""
        k = min(k, len(self.rows))
        if not k:
            return Nearest(np.empty(0), np.empty(0, np.int64))
        if len(self.rows) >= FAST_SCAN_FROM and self._width * 8 <= MAX_BITS:
            fast = self._fast_scan()
            for times, plus in _CANDIDATES:
                if (found := self._nearest_of(fast, logits, k, times * k + plus)) is not None:
                    return found
        return self._scored(logits, np.arange(len(self.rows)), k)

    def _fast_scan(self) -> FastScan:
        """The fast scan over (nearly) all codes, laid out when it is first needed."""
        with self._making_fast:
            fast = self._fast
            if fast is None or fast.size < (1 - _MOST_UNSCANNED) * len(self.rows):
                self._fast = fast = FastScan(self.codes)
            return fast

    def _nearest_of(
        self, fast: FastScan, logits: NDArray[np.floating], k: int, count: int
    ) -> Nearest | None:
        """The k nearest by way of `count` candidates; None where that cannot be proven."""
        with one_faiss_thread():
            candidates = fast.candidates(logits, min(count, fast.size))
        unscanned = np.arange(fast.size, len(self.rows))
        places = np.concatenate([candidates.places, unscanned])
        if len(places) < k:
            return None
        best = self._scored(logits, places, k)
        # A code that was left out would have to be nearer than the k-th, or tie with it.
        return best if best.distances[-1] < candidates.floor else None

    def _scored(self, logits: NDArray[np.floating], places: NDArray[np.int64], k: int) -> Nearest:
        """The k nearest of the codes at `places` (k or more), each scored exactly."""
        everything = len(places) == len(self.rows)
        codes = self.codes if everything else self.codes[places]
        distances = asymmetric_distance(logits, codes)
        kth = np.partition(distances, k - 1)[k - 1]
        near = np.flatnonzero(distances <= kth)
        rows = self.rows[near] if everything else self.rows[places[near]]
        return Nearest.of(distances[near], rows, k)
