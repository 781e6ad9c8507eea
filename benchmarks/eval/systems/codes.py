"""Binary codes of a hasher, and the training-free hashers as systems.

Centres are those of either side's training rows; components are those of the items alone, which
is what is stored. Distances are the product's own (`bittern.index.engines.queries.Queries`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.systems.base import (
    FittedSystem,
    Metric,
    System,
    Training,
    checked_training,
    digest_of,
)
from bittern.hashing.codes import pack
from bittern.hashing.hashers import Hasher
from bittern.hashing.training_free import Kind, fit
from bittern.index.engines.queries import Queries

ROTATIONS = 10
"""Draws of what is random, as in Hashing-Baseline (arXiv 2509.14427)."""
DRAWS = 3
"""Draws of what is fitted from a random start: ITQ, and Faiss' quantizers. A single one is a
seed's figure, not a method's."""


@dataclass
class TrainingFree(System):
    """A hasher of `bittern.hashing.training_free`.

    Attributes:
        name: as it is printed.
        kind: ``pca`` (Hashing-Baseline), ``itq`` or ``lsh``.
        draws: with how many seeds.
    """

    name: str
    kind: Kind
    draws: int = ROTATIONS

    def notes(self, training_rows: int, dim: int, bits: int | None) -> str:
        """What a reader must know of its codes at this length; empty where there is nothing.

        Args:
            training_rows: items that it is fitted on.
            dim: length of an embedding.
            bits: of a code.
        """
        components = max(1, min(training_rows - 1, dim))
        if self.kind == "lsh" or bits is None or bits <= components:
            return ""
        return (
            f"{self.name} at {bits} bits has more bits than the {components} components that "
            f"{training_rows:,} training rows of {dim} dimensions can have: further rotations of "
            "the same components are appended."
        )

    def fit(self, training: Training, bits: int | None, seed: int) -> FittedCodes:
        """Fit the hasher.

        Raises:
            CodeError: the training set is empty, or not finite.
            InvalidInputError: no such code length.
        """
        length = self.length(training.items.shape[1], bits)
        checked_training(training)
        clouds = {training.item_side: training.items}
        if training.query_side != training.item_side:
            clouds[training.query_side] = training.queries
        hasher = fit(self.kind, clouds, length, seed=seed, basis=[training.item_side])
        return FittedCodes(hasher, training.item_side, training.query_side)


class FittedCodes(FittedSystem):
    """Codes of a hasher, uint8 [n, bits/8]; queries by their codes (symmetric) or logits.

    Attributes:
        hasher: what makes the logits.

    Args:
        hasher: of any kind.
        item_side: its modality for what is stored.
        query_side: its modality for queries.
        digest: of the hasher, where it has one already.
    """

    metrics: tuple[Metric, ...] = ("symmetric", "asymmetric")

    def __init__(self, hasher: Hasher, item_side: str, query_side: str, digest: str = "") -> None:
        self.hasher, self.dim = hasher, hasher.dim
        self._item_side, self._query_side = item_side, query_side
        self.bits = hasher.bits
        self.bytes_per_row = hasher.bits / 8
        head = {"items": item_side, "queries": query_side, "hasher": digest or hasher.config()}
        self.digest = digest_of(head, {} if digest else hasher.tensors())

    def _items(self, rows: NDArray[np.float32]) -> NDArray[np.uint8]:
        return pack(self.hasher.logits(rows, self._item_side))

    def _queries(self, rows: NDArray[np.float32], metric: Metric) -> Queries:
        logits = self.hasher.logits(rows, self._query_side)
        return (
            Queries.of_codes(pack(logits)) if metric == "symmetric" else Queries.of_logits(logits)
        )

    def distances(
        self, queries: Queries, stored: NDArray[np.uint8], first: int, last: int
    ) -> NDArray[np.int32] | NDArray[np.float64]:
        """Hamming distances, int32, or asymmetric ones, float64: [last - first, n]."""
        dtype = np.int32 if queries.metric == "hamming" else np.float64
        out = np.empty((last - first, len(stored)), dtype=dtype)
        for number in range(first, last):
            # A batch of one, so that no table is kept for longer than it is looked at.
            out[number - first] = queries[number].distances(0, stored)
        return out
