"""Whether what was timed is also right: answers against brute force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.contestants import Answer, Question
from hashing.codes import asymmetric_distance, hamming_distance

_BLOCK_ROWS = 1 << 16


@dataclass(frozen=True)
class Exactness:
    """Shares of the answers, 0 to 1.

    Attributes:
        distances: queries whose k distances are those of the k nearest.
        rows: of the k nearest rows in the order (distance, row), the share that was found;
            among rows at the same distance another choice counts as missed.
        order: queries whose rows are exactly those, in that order.
    """

    distances: float
    rows: float
    order: float


def brute_force(question: Question, codes: NDArray[np.uint8], metric: str) -> Answer:
    """The k nearest in the order (distance, row), by looking at every row."""
    if metric == "hamming":
        distances = np.concatenate(
            [
                hamming_distance(question.code[None], codes[start : start + _BLOCK_ROWS])[0]
                for start in range(0, len(codes), _BLOCK_ROWS)
            ]
        ).astype(np.float64)
    else:
        distances = asymmetric_distance(question.logits, codes)
    k = min(question.k, len(codes))
    candidates = np.flatnonzero(distances <= np.partition(distances, k - 1)[k - 1])
    order = np.lexsort((candidates, distances[candidates]))[:k]
    return Answer(distances[candidates][order], candidates[order])


def exactness(answers: Sequence[Answer], truths: Sequence[Answer]) -> Exactness:
    """Compare answers to brute force, query by query."""
    pairs = list(zip(answers, truths, strict=True))
    return Exactness(
        distances=_share([np.allclose(a.distances, t.distances, atol=1e-5) for a, t in pairs]),
        rows=_share([len(np.intersect1d(a.rows, t.rows)) / len(t.rows) for a, t in pairs]),
        order=_share([np.array_equal(a.rows, t.rows) for a, t in pairs]),
    )


def _share(values: Sequence[float]) -> float:
    return float(np.mean(values))
