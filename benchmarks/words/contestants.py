"""What is compared: methods that are fitted on the training part of a split, then measured.

To add a method that makes codes, add `codes(name, fit)` to `CONTESTANTS`, where `fit` makes a
`bittern.hashing.hashers.Hasher` from `Training`, a number of bits and a seed, and sees nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.words import quantizers
from bittern.benchmarks.words.protocol import (
    ITEM,
    QUERY,
    Quality,
    Training,
    WordsTask,
    evaluate,
    evaluate_hasher,
)
from bittern.hashing.hashers import Hasher
from bittern.hashing.training_free import Kind, fit

ASYMMETRIC, SYMMETRIC, COSINE = "asymmetric", "symmetric", "cosine"
ROTATIONS = 5
"""Random projections and rotations are drawn so often, and their figures averaged."""

_TINY = 1e-12

Fit = Callable[[Training, int, int], Hasher]
"""Makes a hasher from what is for training, bits, and a seed."""
Measure = Callable[[WordsTask, int, int], Mapping[str, Quality]]
"""Quality by metric, of a split, bits, and a seed."""


@dataclass(frozen=True)
class Contestant:
    """One row of the table.

    Attributes:
        name: as it is printed.
        measure: fits on the task's training part, ranks its database.
        draws: with how many seeds per split; the mean counts.
        coded: whether it has bits; what has none is measured once.
    """

    name: str
    measure: Measure
    draws: int = 1
    coded: bool = True


def codes(
    name: str, fit: Fit, *, query: str = QUERY, item: str = ITEM, draws: int = 1
) -> Contestant:
    """A hasher as a contestant.

    Args:
        name: as it is printed.
        fit: makes the hasher from the training part alone.
        query: the hasher's modality for class names.
        item: the hasher's modality for glosses; the same as `query` for one shared head.
        draws: with how many seeds per split.
    """

    def measure(task: WordsTask, bits: int, seed: int) -> Mapping[str, Quality]:
        return evaluate_hasher(task, fit(task.training(), bits, seed), query, item)

    return Contestant(name, measure, draws)


def training_free(kind: Kind) -> Fit:
    """A hasher of `bittern.hashing.training_free`, as Bittern fits it.

    The components are those of the glosses, which is what is stored. Names and glosses are
    centred on the mean of their own training texts, each text once.
    """

    def fitted(training: Training, bits: int, seed: int) -> Hasher:
        clouds = {QUERY: training.queries, ITEM: training.items}
        return fit(kind, clouds, bits, seed=seed, basis=[ITEM])

    return fitted


def names_too(kind: Kind) -> Fit:
    """The same, with components of names and glosses, either side weighing the same."""

    def fitted(training: Training, bits: int, seed: int) -> Hasher:
        return fit(kind, {QUERY: training.queries, ITEM: training.items}, bits, seed=seed)

    return fitted


def cosine(task: WordsTask, bits: int, seed: int) -> Mapping[str, Quality]:
    """The float embeddings as they are."""
    del bits, seed
    return {COSINE: evaluate(task, -(task.asked @ task.database.T))}


def centred_cosine(task: WordsTask, bits: int, seed: int) -> Mapping[str, Quality]:
    """The float embeddings, each side minus the mean of its training texts."""
    del bits, seed
    queries, database, _ = centred(task)
    return {COSINE: evaluate(task, -(queries @ database.T))}


def product_quantizer(rotate: bool) -> Measure:
    """Faiss' product quantizer at equal bytes, on the centred embeddings; left out where the
    bytes do not divide the dimensions. Its asymmetric form leaves the query as it is.

    Args:
        rotate: learn a rotation first (OPQ, Ge et al., CVPR 2013).
    """

    def measure(task: WordsTask, bits: int, seed: int) -> Mapping[str, Quality]:
        queries, database, items = centred(task)
        if not quantizers.fits(items.shape[1], bits // 8):
            return {}
        quantizer = quantizers.train(items, bits // 8, seed, rotate=rotate)
        stored = quantizer.decoded(database)
        return {
            ASYMMETRIC: evaluate(task, quantizers.distances(quantizer.turned(queries), stored)),
            SYMMETRIC: evaluate(task, quantizers.distances(quantizer.decoded(queries), stored)),
        }

    return measure


def centred(
    task: WordsTask,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Queries, database and training items, centred on training means, of unit length again."""
    training = task.training()
    names, glosses = training.queries.mean(axis=0), training.items.mean(axis=0)
    return (
        _unit(task.asked - names),
        _unit(task.database - glosses),
        _unit(training.items - glosses),
    )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(lengths > 0, rows / np.maximum(lengths, _TINY), 0).astype(np.float32)


CONTESTANTS: list[Contestant] = [
    Contestant("float cosine", cosine, coded=False),
    Contestant("centred cosine", centred_cosine, coded=False),
    codes("Hashing-Baseline", training_free("pca"), draws=ROTATIONS),
    codes("HB, names too", names_too("pca"), draws=ROTATIONS),
    codes("ITQ", training_free("itq")),
    codes("ITQ, names too", names_too("itq")),
    codes("random projection", training_free("lsh"), draws=ROTATIONS),
    Contestant("Faiss PQ", product_quantizer(rotate=False)),
    Contestant("Faiss OPQ", product_quantizer(rotate=True)),
]
