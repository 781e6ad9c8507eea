"""What a relevance cut-off does to three kinds of query, and the contenders for it.

*Present*: what is asked for is in the archive. *Gone*: the same queries, with all that is
relevant taken out of the archive, so that every hit is wrong. *Elsewhere*: queries about
something that no archive of this kind has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bittern.hashing.codes import probabilities
from bittern.index.relevance import SAMPLE_ROWS, Background, sample_places, similarities

HINDSIGHT = 0.05
"""False-alarm rate at which contenders are compared, their thresholds set by the outcome."""
_BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class Asked:
    """Queries and what is searched; all weights are those of one metric.

    Attributes:
        codes: uint8 [n, bits/8].
        present: float64 [q, bits], weights of queries that something answers.
        relevant: bool [q, n].
        elsewhere: float64 [e, bits], weights of queries that nothing answers.
        references: float64 [r, bits], weights of the reference queries.
    """

    codes: NDArray[np.uint8]
    present: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    elsewhere: NDArray[np.float64]
    references: NDArray[np.float64]

    @cached_property
    def alike(self) -> NDArray[np.float64]:
        """Similarities of the present queries to every code, [q, n]."""
        return similarities(self.present, self.codes)

    @cached_property
    def nearest_elsewhere(self) -> NDArray[np.float64]:
        """Highest similarity of each query from elsewhere, [e]."""
        return best(self.elsewhere, self.codes)

    def background(self, rows: int = SAMPLE_ROWS) -> Background:
        """Of the archive, or of so many rows of it."""
        places = sample_places(len(self.codes))
        chosen_rows = np.random.default_rng(0).permutation(places)[:rows]
        return Background.of(self.references, self.codes[np.sort(chosen_rows)])


@dataclass(frozen=True)
class Outcome:
    """What a cut-off does, as shares.

    Attributes:
        elsewhere: of the queries about something else, those that get an answer.
        gone: of the queries whose answers were taken out, those that get an answer.
        present: of the queries with answers, those that get one, right or wrong.
        precision: of what present queries get, what is relevant.
        recall: of what is relevant, what is let through; mean over the present queries.
        hits: mean number that a present query gets.
    """

    elsewhere: float
    gone: float
    present: float
    precision: float
    recall: float
    hits: float


Score = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""How much a hit stands out, [q, n]: of distances [q, n] and weights [q, bits]."""


def _median(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.median(distances, axis=1, keepdims=True), dtype=np.float64)


def _upper_normal(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standard deviation by the upper half alone, where nothing relevant is."""
    upper = np.quantile(distances, 0.8413, axis=1, keepdims=True)
    return np.asarray(upper - _median(distances), dtype=np.float64)


CONTENDERS: Mapping[str, Score] = {
    "distance": lambda d, w: w.shape[1] / 2 - d,
    "share of the median distance": lambda d, w: -d / _median(d),
    "gap to the hundredth hit": lambda d, w: np.partition(d, 99, axis=1)[:, 99:100] - d,
    "z-score in the query's background": lambda d, w: (
        (d.mean(axis=1, keepdims=True) - d) / d.std(axis=1, keepdims=True)
    ),
    "E-value, normal background": lambda d, w: (_median(d) - d) / _upper_normal(d),
    "similarity (chosen)": lambda d, w: similarity(d, w),
}
"""An E-value of a normal background ranks as its standardised distance, for one archive."""


def similarity(distances: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of distances [q, n] to queries of these weights [q, bits]: [q, n]."""
    bits = weights.shape[1]
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    return np.asarray((bits - 2 * distances) / (lengths * np.sqrt(bits)), dtype=np.float64)


def distances(weights: NDArray[np.float64], codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """In bits, by the metric whose weights [q, bits] these are: float64 [q, n]."""
    bits = weights.shape[1]
    lengths = np.linalg.norm(weights, axis=1, keepdims=True)
    alike = similarities(weights, codes)
    return np.asarray((bits - alike * lengths * np.sqrt(bits)) / 2, dtype=np.float64)


def best(weights: NDArray[np.float64], codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Highest similarity of each query, float64 [q], in blocks of codes."""
    blocks = range(0, len(codes), _BLOCK_ROWS)
    highest = [similarities(weights, codes[i : i + _BLOCK_ROWS]).max(axis=1) for i in blocks]
    return np.asarray(np.max(highest, axis=0), dtype=np.float64)


def weights_of(logits: NDArray[np.floating], metric: str) -> NDArray[np.float64]:
    """What a metric makes of logits: signs, or ``2 sigmoid - 1``."""
    if metric == "hamming":
        return np.where(np.asarray(logits) > 0, 1.0, -1.0)
    return 2 * probabilities(logits) - 1


def outcome(
    present: NDArray[np.float64],
    relevant: NDArray[np.bool_],
    elsewhere: NDArray[np.float64],
    least: float,
) -> Outcome:
    """What letting everything through that scores at least so much comes to.

    Args:
        present: [q, n], scores of each row for each query.
        relevant: bool [q, n]; each query has one.
        elsewhere: [e], the best score of each query from elsewhere.
        least: the cut-off.
    """
    let = present >= least
    right = let & relevant
    return Outcome(
        elsewhere=float(np.mean(elsewhere >= least)),
        gone=float(np.mean((let & ~relevant).any(axis=1))),
        present=float(np.mean(let.any(axis=1))),
        precision=float(right.sum() / let.sum()) if let.any() else float("nan"),
        recall=float(np.mean(right.sum(axis=1) / relevant.sum(axis=1))),
        hits=float(let.sum(axis=1).mean()),
    )


def at_rates(
    asked: Asked, rates: Sequence[float], background: Background | None = None
) -> dict[float, Outcome]:
    """What the product's cut-off comes to, by false-alarm rate."""
    background = background or asked.background()
    found = {}
    for rate in rates:
        least = background.similarity(rate, len(asked.codes))
        found[rate] = outcome(asked.alike, asked.relevant, asked.nearest_elsewhere, least)
    return found


def contenders(asked: Asked) -> dict[str, dict[str, float]]:
    """How well each contender's best hit tells present queries from the others.

    Returns:
        Per contender ``auc_elsewhere`` and ``auc_gone``, and its `Outcome` at the threshold
        that 5% of the queries from elsewhere pass.
    """
    near, far = distances(asked.present, asked.codes), distances(asked.elsewhere, asked.codes)
    found = {}
    for name, score in CONTENDERS.items():
        present = score(near, asked.present)
        elsewhere = score(far, asked.elsewhere).max(axis=1)
        gone = np.where(asked.relevant, -np.inf, present).max(axis=1)
        best = present.max(axis=1)
        least = float(np.quantile(elsewhere, 1 - HINDSIGHT))
        found[name] = {
            "auc_elsewhere": auc(best, elsewhere),
            "auc_gone": auc(best, gone),
            **asdict(outcome(present, asked.relevant, elsewhere, least)),
        }
    return found


def auc(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float:
    """Chance that a positive scores higher than a negative; ties count half."""
    more = positives[:, None] > negatives[None, :]
    same = positives[:, None] == negatives[None, :]
    return float(more.mean() + same.mean() / 2)
