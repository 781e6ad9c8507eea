"""The number of inverted lists that a query needs for a wanted recall, by its closeness to them.

A photograph is near to similar ones; words are far from all pictures, and their nearest codes are
in more lists. So recall by number of lists is measured for several kinds of queries: stored codes
with few, some, or nearly half of their bits flipped. The *closeness* of a query is its greatest
inner product with a centroid, divided by the sum of the absolute weights. A query uses the
measurements of the kind with its closeness. A query that is farther than all kinds is searched
exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest

KS = (10, 100)
"""The lower recall of these numbers of hits counts."""
K = KS[-1]
_FLIPPED = (0.05, 0.2, 0.3, 0.38, 0.43)
_QUERIES = 24
"""Of each kind and metric."""
_MARGIN = 0.01
_MOST_PROBES = 64
_MOST_KINDS = 16
_GREATEST_PROBE = 1 << 20
Search = Callable[[Queries, int], Sequence[Nearest | None]]
"""The nearest by scanning this many lists; None for a query that is searched exactly."""
Closeness = Callable[[Queries], NDArray[np.float64]]
"""Closeness of queries to the lists: float64 [q], at most 1."""


@dataclass(frozen=True)
class Calibration:
    """Recall by number of lists for queries of several kinds, from close to far.

    Attributes:
        probes: int64 [p], ascending numbers of lists.
        limits: float64 [kinds], descending: the least closeness of each kind.
        recalls: float64 [kinds, p], never falling with the number of lists.
    """

    probes: NDArray[np.int64]
    limits: NDArray[np.float64]
    recalls: NDArray[np.float64]

    def lists(self, closeness: float, recall: float) -> int | None:
        """The fewest lists that reach a recall, with a margin; None if no measured number does."""
        kind = int(np.searchsorted(-self.limits, -closeness))
        if kind == len(self.limits):
            return None
        reached = self.recalls[kind] >= min(recall + _MARGIN, 1.0)
        return int(self.probes[np.argmax(reached)]) if reached.any() else None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays to store."""
        return {"efforts": self.probes, "limits": self.limits, "recalls": self.recalls}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Calibration:
        """From stored arrays.

        Raises:
            ArchiveDamagedError: they are no valid measurements.
        """
        try:
            probes, limits, recalls = (arrays[n] for n in ("efforts", "limits", "recalls"))
        except KeyError as error:
            raise ArchiveDamagedError(f"the stored calibration lacks {error}") from None
        fits = (
            probes.dtype == np.int64
            and probes.ndim == 1
            and 1 <= len(probes) <= _MOST_PROBES
            and ((probes >= 1) & (probes <= _GREATEST_PROBE)).all()
            and (np.diff(probes) > 0).all()
            and limits.dtype == np.float64
            and limits.ndim == 1
            and 1 <= len(limits) <= _MOST_KINDS
            and np.isfinite(limits).all()
            and (np.diff(limits) <= 0).all()
            and recalls.dtype == np.float64
            and recalls.shape == (len(limits), len(probes))
            and ((recalls >= 0) & (recalls <= 1)).all()
        )
        if not fits:
            raise ArchiveDamagedError("the stored calibration is invalid")
        return cls(probes, limits, recalls)

    @classmethod
    def measured(
        cls,
        base: CodeBlocks,
        probes: list[int],
        search: Search,
        closeness: Closeness,
        check: Callable[[], None],
    ) -> Calibration:
        """Search with queries of each kind and each number of lists.

        Args:
            base: the codes.
            probes: ascending numbers of lists.
            search: the approximate search to measure.
            closeness: of queries.
            check: called between measurements; raises to end them.
        """
        recalls, closenesses = [], []
        for share in _FLIPPED:
            batches = _batches(base, share)
            found = []
            for queries in batches:
                check()
                true = FlatEngine(base).search(queries, K)
                found.append([_recall(search(queries, lists), true) for lists in probes])
            recalls.append(np.maximum.accumulate(np.min(found, axis=0)))
            closenesses.append(np.concatenate([closeness(queries) for queries in batches]))
        return cls(np.array(probes, dtype=np.int64), _limits(closenesses), np.array(recalls))


def _limits(closenesses: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The least closeness of each kind of query: float64 [kinds], descending.

    Half way to the median of the next kind; for the last, the 2% quantile.
    """
    medians = np.minimum.accumulate([np.median(values) for values in closenesses])
    between = (medians[:-1] + medians[1:]) / 2.0
    last = min(float(np.quantile(closenesses[-1], 0.02)), float(medians[-1]))
    return np.minimum.accumulate(np.append(between, last))


def _batches(base: CodeBlocks, share: float) -> list[Queries]:
    """Stored codes with a share of their bits flipped, for both metrics."""
    rng = np.random.default_rng(round(1_000 * share))
    positions = rng.integers(0, len(base), _QUERIES)
    flips = np.packbits(rng.random((_QUERIES, base.bits)) < share, axis=1, bitorder="little")
    hamming = Queries.of_codes(base.codes_at(positions.astype(np.int64)) ^ flips)
    soft = np.tanh(hamming.weights + 0.8 * rng.standard_normal(hamming.weights.shape))
    return [hamming, Queries.of_weights(soft)]


def _recall(found: Sequence[Nearest | None], true: list[Nearest]) -> float:
    """The mean share of the nearest that was found, for the worse k.

    A row at the distance of the true k-th counts as found.
    """
    means = []
    for k in KS:
        shares = []
        for one, truth in zip(found, true, strict=True):
            wanted = truth.distances[:k]
            distances = truth.distances if one is None else one.distances
            shares.append(min(1.0, np.count_nonzero(distances <= wanted[-1]) / len(wanted)))
        means.append(float(np.mean(shares)))
    return min(means)
