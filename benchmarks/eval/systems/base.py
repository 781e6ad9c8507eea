"""One interface for all that can be compared: fit, store, ask, distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Metric = Literal["cosine", "symmetric", "asymmetric"]


@dataclass(frozen=True)
class Training:
    """All that a system may look at while it is fitted.

    Attributes:
        items: float32 [m, dim], unit norm.
        item_side: what a hasher calls them.
        queries: float32 [s, dim], unit norm; texts or media of the asking side.
        asked_side: what a hasher calls those.
        labels: int64 [m], which of `queries` names the item's class; None where there are none.
    """

    items: NDArray[np.float32]
    item_side: str
    queries: NDArray[np.float32]
    asked_side: str
    labels: NDArray[np.int64] | None = None


class Fitted(Protocol):
    """A system with its parameters.

    Attributes:
        bits: length of a code; None for float vectors.
        bytes_per_row: of what is stored, exactly.
        metrics: the distances that it offers.
        digest: hex SHA-256 of everything that decides what is stored and asked.
    """

    bits: int | None
    bytes_per_row: float
    metrics: tuple[Metric, ...]
    digest: str

    def store(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        """What is kept of items: embeddings float32 [n, dim] to an array [n, ...] of codes
        (uint8 [n, bits/8]) or vectors.

        Raises:
            CodeError: a value is not finite.
        """
        ...

    def ask(self, embeddings: NDArray[np.float32], metric: Metric) -> Any:
        """Queries, float32 [q, dim], as `distances` takes them (for codes:
        `bittern.index.engines.queries.Queries`).
        """
        ...

    def distances(self, asked: Any, stored: NDArray[Any], first: int, last: int) -> NDArray[Any]:
        """Distances of queries `first` to `last - 1` to stored rows, [last - first, n]: int32 or
        float64. Equal rows are at equal distances to the last bit, whatever they are asked with.
        """
        ...


class System(Protocol):
    """Something that is fitted on a training part, at a code length, with a seed.

    Attributes:
        name: as it is printed.
        draws: with how many seeds it is fitted; figures are means over them.
        coded: whether it has a code length; what has none is measured once.
    """

    name: str
    draws: int
    coded: bool

    def fits(self, dim: int, bits: int | None) -> str:
        """Empty where it can be fitted at this length; else the reason why not."""
        ...

    def fit(self, training: Training, bits: int | None, seed: int) -> Fitted:
        """Fit it.

        Raises:
            InvalidInputError, CodeError: it cannot be fitted on this.
        """
        ...
