"""Retrieval measures over one ranking, and what a random ranking would get.

A ranking is the relevance of the ranked items, bool [n], best first; all items are ranked and
at least one is relevant. Average precision is that of trec_eval (`map`): the sum of the
precisions at the relevant ranks, divided by the number of relevant items. Do not mix it up
with two others called mAP@k, which divide by the hits inside the top k, or by min(R, k).

The chance of a measure is its expectation over all orders of the items, in closed form.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError

Ranking = NDArray[np.bool_]


def average_precision(ranking: Ranking) -> float:
    """Mean of the precisions at the ranks of the relevant items.

    Raises:
        InvalidInputError: nothing is relevant, or the ranking is no bool [n].
    """
    ranks = np.flatnonzero(_checked(ranking)) + 1
    return float(np.mean(np.arange(1, len(ranks) + 1) / ranks))


def precision_at(ranking: Ranking, k: int) -> float:
    """Relevant items among the first `k`, divided by `k` even where fewer are ranked."""
    return float(np.count_nonzero(_checked(ranking)[:k]) / k)


def hit_at(ranking: Ranking, k: int) -> float:
    """1 if any of the first `k` items is relevant, else 0."""
    return float(_checked(ranking)[:k].any())


def chance_of_average_precision(relevant: int, n: int) -> float:
    """Expected average precision of a random order of `n` items, `relevant` of them relevant.

    An item at rank i is relevant with probability R/n, and then each of the i - 1 before it
    with probability (R-1)/(n-1). Summed: ``(H_n + (R-1)/(n-1) * (n - H_n)) / n``, where H_n
    is the n-th harmonic number.
    """
    _check_counts(relevant, n)
    if n == 1:
        return 1.0
    harmonic = float(np.sum(1.0 / np.arange(1, n + 1)))
    return (harmonic + (relevant - 1) / (n - 1) * (n - harmonic)) / n


def chance_of_precision_at(relevant: int, n: int, k: int) -> float:
    """Expected precision at `k` of a random order."""
    _check_counts(relevant, n)
    return relevant / n * min(k, n) / k


def chance_of_hit_at(relevant: int, n: int, k: int) -> float:
    """Probability that a random order has a relevant item among its first `k`."""
    _check_counts(relevant, n)
    return 1.0 - comb(n - relevant, min(k, n)) / comb(n, min(k, n))


def _checked(ranking: Ranking) -> Ranking:
    ranking = np.asarray(ranking)
    if ranking.ndim != 1 or ranking.dtype != np.bool_:
        raise InvalidInputError(
            f"a ranking must be bool [n], not {ranking.dtype} {list(ranking.shape)}"
        )
    _check_counts(int(np.count_nonzero(ranking)), len(ranking))
    return ranking


def _check_counts(relevant: int, n: int) -> None:
    if not 1 <= relevant <= n:
        raise InvalidInputError(
            f"{relevant} of {n} ranked items are relevant; measures need at least one: leave "
            "out queries that nothing answers"
        )
