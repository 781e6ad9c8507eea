"""How much effort a wanted recall takes, measured on the codes themselves.

Queries are stored codes with some of their bits flipped: few (a query like what is stored)
and many (one of another modality, far from everything), asked by Hamming distance and with
soft weights. The worst of these counts. Ties are counted fairly: whatever is as near as the
true k-th counts as found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.engines.engine import SearchEngine
from bittern.index.engines.flat import FlatEngine
from bittern.index.engines.queries import Queries

K = 100
_QUERIES = 32
"""Of each kind."""
_FLIPPED = (0.1, 0.3)
_MARGIN = 0.01
_MOST_EFFORTS = 64
_GREATEST = 1 << 31
"""More than any effort or k can be."""


@dataclass(frozen=True)
class Curve:
    """Recall of the k nearest by effort, for the worst kind of query.

    Attributes:
        k: how many nearest it was measured for.
        efforts: int64 [n], ascending: lists scanned, or candidates kept.
        recalls: float64 [n], 0 to 1.
    """

    k: int
    efforts: NDArray[np.int64]
    recalls: NDArray[np.float64]

    def effort(self, recall: float) -> int:
        """The least effort that reaches a recall with a margin; the greatest if none does."""
        reached = self.recalls >= min(recall + _MARGIN, 1.0)
        return int(self.efforts[np.argmax(reached)] if reached.any() else self.efforts[-1])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """To be stored."""
        return {
            "curve_k": np.array([self.k], dtype=np.int64),
            "curve_efforts": self.efforts,
            "curve_recalls": self.recalls,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Curve:
        """From stored arrays.

        Raises:
            ArchiveDamagedError: they are no curve.
        """
        try:
            k, efforts, recalls = (
                np.asarray(arrays[f"curve_{name}"]) for name in ("k", "efforts", "recalls")
            )
        except KeyError as error:
            raise ArchiveDamagedError(f"the stored curve lacks {error}") from None
        # int64 and nothing else: differences of unsigned numbers are never negative.
        fits = (
            k.shape == (1,)
            and k.dtype == efforts.dtype == np.int64
            and 1 <= int(k[0]) < _GREATEST
            and efforts.ndim == 1
            and 1 <= len(efforts) <= _MOST_EFFORTS
            and ((efforts >= 1) & (efforts < _GREATEST)).all()
            and (np.diff(efforts) > 0).all()
            and recalls.shape == efforts.shape
            and recalls.dtype == np.float64
            and ((recalls >= 0) & (recalls <= 1)).all()
        )
        if not fits:
            raise ArchiveDamagedError("the stored curve of recall is not one")
        return cls(int(k[0]), efforts, recalls)


def held_out(base: CodeBlocks, seed: int = 0) -> list[Queries]:
    """Batches of queries, one per kind."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, len(base), _QUERIES)
    codes = base.codes_at(places.astype(np.int64))
    batches = []
    for share in _FLIPPED:
        flips = np.packbits(rng.random((_QUERIES, base.bits)) < share, axis=1, bitorder="little")
        flipped = codes ^ flips
        batches.append(Queries.of_codes(flipped))
        signs = batches[-1].weights
        batches.append(Queries.of_weights(np.tanh(signs + 0.8 * rng.standard_normal(signs.shape))))
    return batches


def recall(found: NDArray[np.float64], true: NDArray[np.float64]) -> float:
    """Share of the k nearest that was found: distances [k'] of hits, distances [k] of the true."""
    if not len(true):
        return 1.0
    return min(1.0, int(np.count_nonzero(found <= true[-1])) / len(true))


def measured(
    engine: Callable[[int], SearchEngine],
    base: CodeBlocks,
    efforts: Sequence[int],
    check: Callable[[], None] | None = None,
) -> Curve:
    """Measure recall by effort until all kinds of queries find nearly everything.

    Args:
        engine: makes a search engine over `base` of an effort.
        base: the codes.
        efforts: ascending.
        check: called before each batch of queries is searched; what it raises ends this.
    """
    check = check or _nothing
    batches = held_out(base) if len(base) else []
    k = min(K, max(len(base), 1))
    truths = []
    for queries in batches:
        check()
        truths.append(FlatEngine(base).search(queries, k))
    tried: list[int] = []
    recalls: list[float] = []
    for effort in efforts:
        worst = 1.0
        for queries, truth in zip(batches, truths, strict=True):
            check()
            found = engine(effort).search(queries, k)
            shares = [recall(f.distances, t.distances) for f, t in zip(found, truth, strict=True)]
            worst = min(worst, float(np.mean(shares)))
        tried.append(effort)
        recalls.append(worst)
        if worst >= 0.9995:
            break
    return Curve(k, np.array(tried, dtype=np.int64), np.array(recalls))


def _nothing() -> None:
    """Nobody wants to end this."""
