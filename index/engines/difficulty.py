"""How many lists a query needs, by how far it is from everything.

A photograph is near to others like it; words are far from all pictures, and what is nearest
to them is scattered over more lists. So the recall of an effort is measured for queries of
several kinds, stored codes with few, some, or nearly half of their bits flipped, and with it
how *close* such queries come to a list: the greatest inner product with a centroid, over the
sum of the weights' sizes. A query takes the curve of its own closeness; one that is farther
than all kinds has no curve, and is to be answered exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.nearest import Nearest
from bittern.index.engines.queries import Queries

KS = (10, 100)
"""Recall counts for the worse of these."""
K = KS[-1]
_FLIPPED = (0.05, 0.2, 0.3, 0.38, 0.43)
_QUERIES = 24
"""Of each kind and metric."""
_MARGIN = 0.01
_MOST_EFFORTS = 64
_MOST_KINDS = 16
_GREATEST_EFFORT = 1 << 20
Search = Callable[[Queries, int], list[Nearest]]
"""Answers queries with an effort."""
Closeness = Callable[[Queries], NDArray[np.float64]]
"""How close queries come to a list: float64 [q], at most 1."""


@dataclass(frozen=True)
class Difficulty:
    """Recall by effort for queries of several kinds, from close to far.

    Attributes:
        efforts: int64 [e], ascending.
        limits: float64 [kinds], descending: the least closeness of each kind.
        recalls: float64 [kinds, e], never falling with the effort.
    """

    efforts: NDArray[np.int64]
    limits: NDArray[np.float64]
    recalls: NDArray[np.float64]

    def effort(self, closeness: float, recall: float) -> int | None:
        """The least effort that reaches a recall, with a margin; None where none is known to."""
        kind = int(np.searchsorted(-self.limits, -closeness))
        if kind == len(self.limits):
            return None
        reached = self.recalls[kind] >= min(recall + _MARGIN, 1.0)
        return int(self.efforts[np.argmax(reached)]) if reached.any() else None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """To be stored."""
        return {"efforts": self.efforts, "limits": self.limits, "recalls": self.recalls}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Difficulty:
        """From stored arrays.

        Raises:
            ArchiveDamagedError: they cannot be what was measured.
        """
        try:
            efforts, limits, recalls = (arrays[n] for n in ("efforts", "limits", "recalls"))
        except KeyError as error:
            raise ArchiveDamagedError(f"the stored recalls lack {error}") from None
        fits = (
            efforts.dtype == np.int64
            and efforts.ndim == 1
            and 1 <= len(efforts) <= _MOST_EFFORTS
            and ((efforts >= 1) & (efforts <= _GREATEST_EFFORT)).all()
            and (np.diff(efforts) > 0).all()
            and limits.dtype == np.float64
            and limits.ndim == 1
            and 1 <= len(limits) <= _MOST_KINDS
            and np.isfinite(limits).all()
            and (np.diff(limits) <= 0).all()
            and recalls.dtype == np.float64
            and recalls.shape == (len(limits), len(efforts))
            and ((recalls >= 0) & (recalls <= 1)).all()
        )
        if not fits:
            raise ArchiveDamagedError("the stored recalls cannot have been measured")
        return cls(efforts, limits, recalls)

    @classmethod
    def measured(
        cls,
        base: CodeBlocks,
        efforts: list[int],
        search: Search,
        closeness: Closeness,
        check: Callable[[], None],
    ) -> Difficulty:
        """Ask queries of each kind with each effort.

        Args:
            base: the codes.
            efforts: ascending.
            search: the approximate search that is measured.
            closeness: of queries.
            check: called between measurements; raises to end them.
        """
        recalls, spread = [], []
        for share in _FLIPPED:
            asked = _asked(base, share)
            found = []
            for queries in asked:
                check()
                true = FlatEngine(base).search(queries, K)
                found.append([_recall(search(queries, e), true) for e in efforts])
            recalls.append(np.maximum.accumulate(np.min(found, axis=0)))
            spread.append(np.concatenate([closeness(queries) for queries in asked]))
        return cls(np.array(efforts, dtype=np.int64), _limits(spread), np.array(recalls))


def _limits(spread: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The least closeness that makes a query one of each kind: float64 [kinds], descending.

    Half way to the middle of the next kind; for the last, what nearly all of it reach.
    """
    middles = np.minimum.accumulate([np.median(values) for values in spread])
    between = (middles[:-1] + middles[1:]) / 2.0
    last = min(float(np.quantile(spread[-1], 0.02)), float(middles[-1]))
    return np.minimum.accumulate(np.append(between, last))


def _asked(base: CodeBlocks, share: float) -> list[Queries]:
    """Stored codes with a share of their bits flipped, by both metrics."""
    rng = np.random.default_rng(round(1_000 * share))
    places = rng.integers(0, len(base), _QUERIES)
    flips = np.packbits(rng.random((_QUERIES, base.bits)) < share, axis=1, bitorder="little")
    hamming = Queries.of_codes(base.codes_at(places.astype(np.int64)) ^ flips)
    soft = np.tanh(hamming.weights + 0.8 * rng.standard_normal(hamming.weights.shape))
    return [hamming, Queries.of_weights(soft)]


def _recall(found: list[Nearest], true: list[Nearest]) -> float:
    """The mean share of the nearest that was found, for the worse k.

    What is as near as the true k-th counts as found.
    """
    means = []
    for k in KS:
        shares = []
        for one, truth in zip(found, true, strict=True):
            wanted = truth.distances[:k]
            hits = np.count_nonzero(one.distances <= wanted[-1])
            shares.append(min(1.0, hits / len(wanted)))
        means.append(float(np.mean(shares)))
    return min(means)
