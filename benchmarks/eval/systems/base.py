"""One interface for all systems (fit, encode items, encode queries, distances), and its checks."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError, InvalidInputError
from bittern.hashing.codes import check_bits

Metric = Literal["cosine", "symmetric", "asymmetric"]


@dataclass(frozen=True)
class Training:
    """All that a system may look at while it is fitted.

    Attributes:
        items: float32 [m, dim], unit norm.
        item_side: what a hasher calls them.
        queries: float32 [s, dim], unit norm; texts or media.
        query_side: what a hasher calls those.
        labels: int64 [m], which of `queries` names the item's class; None where there are none.
    """

    items: NDArray[np.float32]
    item_side: str
    queries: NDArray[np.float32]
    query_side: str
    labels: NDArray[np.int64] | None = None


class Fitted(Protocol):
    """A system with its parameters.

    Attributes:
        bits: length of a code; None for float vectors.
        bytes_per_row: of what is stored, exactly.
        metrics: the distances that it offers.
        digest: hex SHA-256 of everything that decides what is stored and searched for.
    """

    bits: int | None
    bytes_per_row: float
    metrics: tuple[Metric, ...]
    digest: str

    def encode_items(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        """What is kept of items: embeddings float32 [n, dim] to an array [n, ...] of codes
        (uint8 [n, bits/8]) or vectors.

        Raises:
            CodeError: a value is not finite.
        """
        ...

    def encode_queries(self, embeddings: NDArray[np.float32], metric: Metric) -> Any:
        """Queries, float32 [q, dim], as `distances` takes them (for codes:
        `bittern.index.engines.queries.Queries`).
        """
        ...

    def distances(self, queries: Any, stored: NDArray[Any], first: int, last: int) -> NDArray[Any]:
        """Distances of queries `first` to `last - 1` to stored rows, [last - first, n]: int32 or
        float64. Equal rows are at equal distances to the last bit, whatever stands beside them.
        """
        ...


class FittedSystem(ABC):
    """A `Fitted` that checks its input; its subclasses have the attributes of `Fitted`.

    Attributes:
        dim: length of an embedding.
    """

    dim: int
    bits: int | None = None
    bytes_per_row: float
    metrics: tuple[Metric, ...]
    digest: str

    def encode_items(self, embeddings: NDArray[np.float32]) -> NDArray[Any]:
        """See `Fitted.encode_items`.

        Raises:
            CodeError: a value is not finite; says in which row.
        """
        return self._items(checked(embeddings, self.dim, "items"))

    def encode_queries(self, embeddings: NDArray[np.float32], metric: Metric) -> Any:
        """See `Fitted.encode_queries`.

        Raises:
            CodeError: a value is not finite; says in which row.
            InvalidInputError: no such distance.
        """
        if metric not in self.metrics:
            raise InvalidInputError(
                f"this system offers {' and '.join(self.metrics)} distances, not {metric!r}",
                field="metric",
            )
        return self._queries(checked(embeddings, self.dim, "queries"), metric)

    @abstractmethod
    def _items(self, rows: NDArray[np.float32]) -> NDArray[Any]:
        """What is kept of checked items, float32 [n, dim]."""

    @abstractmethod
    def _queries(self, rows: NDArray[np.float32], metric: Metric) -> Any:
        """Checked queries, float32 [q, dim], as `distances` takes them."""

    @abstractmethod
    def distances(self, queries: Any, stored: NDArray[Any], first: int, last: int) -> NDArray[Any]:
        """See `Fitted.distances`."""


class System(ABC):
    """Something that is fitted on a training set, at a code length, with a seed.

    Attributes:
        name: as it is printed.
        draws: with how many seeds it is fitted; figures are means over them.
        coded: whether it has a code length; what has none is measured once.
        own_bits: the only code length that it has; None where the run's lengths apply.
    """

    name: str
    draws: int = 1
    coded: bool = True
    own_bits: int | None = None

    @property
    def identity(self) -> str:
        """What tells it from other systems of its name."""
        return self.name

    def fits(self, dim: int, bits: int | None) -> str:
        """Empty where it can be fitted at this length; else the reason why not."""
        del dim
        if not self.coded:
            return "" if bits is None else "float vectors have no code length"
        if bits is None:
            return "it takes a code length"
        try:
            check_bits(bits)
        except CodeError as error:
            return error.message
        return ""

    def length(self, dim: int, bits: int | None) -> int:
        """The code length, if it fits.

        Raises:
            InvalidInputError: it does not.
        """
        if (reason := self.fits(dim, bits)) or bits is None:
            raise InvalidInputError(
                f"{self.name} cannot be fitted at {bits} bits: {reason}", field="bits"
            )
        return bits

    @abstractmethod
    def fit(self, training: Training, bits: int | None, seed: int) -> Fitted:
        """Fit it.

        Raises:
            InvalidInputError, CodeError: it cannot be fitted on this.
        """


SHOWN_ROWS = 5


def checked(embeddings: NDArray[np.floating], dim: int, what: str) -> NDArray[np.float32]:
    """Embeddings as float32 [n, dim].

    Args:
        embeddings: what was given.
        dim: length that an embedding must have.
        what: ``items`` or ``queries``, for the message.

    Raises:
        CodeError: wrong shape, or a value is not finite; says in which rows.
    """
    x = np.asarray(embeddings)
    if x.ndim != 2 or x.shape[1] != dim or not np.issubdtype(x.dtype, np.floating):
        raise CodeError(
            f"embeddings of {what} must be float [n, {dim}], not {x.dtype} {list(x.shape)}"
        )
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        shown = ", ".join(str(row) for row in bad[:SHOWN_ROWS])
        more = f" and {len(bad) - SHOWN_ROWS} more" if len(bad) > SHOWN_ROWS else ""
        raise CodeError(
            f"embeddings of {what} hold NaN or infinity in row {shown}{more} of {len(x)}: embed "
            "those again, or leave them out",
            details={"row": str(bad[0]), "rows": str(len(bad))},
        )
    return x


def checked_training(training: Training) -> Training:
    """The same training set, with every row finite and both sides of one length.

    Raises:
        CodeError: see `checked`; also where a side has no row at all.
    """
    dim = training.items.shape[1] if training.items.ndim == 2 else 0
    for what, rows in (("training items", training.items), ("training queries", training.queries)):
        if not len(checked(rows, dim, what)):
            raise CodeError(f"there are no {what}: nothing can be fitted on none")
    return training


def centres(training: Training) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means of training items and of training queries, float32 [dim] each.

    Where both sides are the same, the items' mean is that of both. A single row is no cloud:
    its centre is 0, as in `bittern.hashing.training_free`.
    """
    items = _centre(training.items)
    same = training.query_side == training.item_side
    return items, items if same else _centre(training.queries)


def _centre(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(rows) < 2:
        return np.zeros(rows.shape[1], dtype=np.float32)
    mean: NDArray[np.float32] = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def digest_of(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Hex SHA-256 of JSON values and arrays, by name."""
    digest = hashlib.sha256(json.dumps(dict(head), sort_keys=True, ensure_ascii=False).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"\n{name} {array.dtype.str} {list(array.shape)}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
