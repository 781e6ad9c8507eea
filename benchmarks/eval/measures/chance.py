"""What a measure comes to by chance."""

from __future__ import annotations

import numpy as np

from bittern.benchmarks.eval.measures.base import Measure
from bittern.benchmarks.eval.measures.ties import Floats, Ints
from bittern.benchmarks.eval.places import Places
from bittern.errors import InvalidInputError

_ENTRIES = 1 << 22


def chance(measure: Measure, relevant: Ints, n: int | Ints) -> Floats:
    """Expected value of a measure where all items are at one distance, all grades being 1.

    Args:
        measure: which.
        relevant: int64 [q], relevant items of each query, from 1 to n.
        n: how many items are ranked, for all queries or int64 [q].

    Returns:
        float64 [q]; NaN for a measure of Hamming distances.

    Raises:
        InvalidInputError: a count is not from 1 to n.
    """
    relevant = np.asarray(relevant, np.int64)
    n = np.broadcast_to(np.asarray(n, np.int64), relevant.shape)
    wrong = (relevant < 1) | (relevant > n)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InvalidInputError(
            f"query {at} has {relevant[at]} relevant items of {n[at]}; there must be from 1 to "
            "all: leave out queries that nothing answers"
        )
    pairs, inverse = np.unique(np.stack([relevant, n]), axis=1, return_inverse=True)
    parts = np.flatnonzero(np.diff(np.cumsum(pairs[0]) // _ENTRIES)) + 1
    values = [measure.of(_one_group(*part), "expected") for part in np.split(pairs, parts, axis=1)]
    return np.concatenate(values)[inverse.reshape(-1)]


def _one_group(relevant: Ints, n: Ints) -> Places:
    offsets = np.concatenate([[0], np.cumsum(relevant)]).astype(np.int64)
    query = np.repeat(np.arange(len(relevant)), relevant)
    ones = np.ones(len(query), np.int32)
    return Places(
        offsets=offsets,
        ranks=np.arange(1, len(query) + 1) - offsets[query],
        nearer=np.zeros(len(query), np.int64),
        tied=n[query],
        grades=ones,
        relevant=relevant,
        ideal=ones,
        ideal_offsets=offsets,
        ranked=n,
    )
