"""Float vectors, kept in 4, 2 or 1 bytes per dimension and ranked by cosine.

- ``float32``, ``float16``: the embeddings as they are, and rounded to half precision.
- ``int8``: Faiss' ``ScalarQuantizer`` of 8 bits. Each dimension has a range of its own, from the
  least to the greatest value among the training items, cut into 255 equal steps; what lies
  outside is taken to the end of the range.
- ``centred``: float32, each side less the mean of its training rows. Not a system that anyone
  stores, but a control: codes centre both sides too, and some of what they win is that.

Queries stay float32. The cosine is that with what is stored, decoded, of unit length again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.systems.base import (
    FittedSystem,
    Metric,
    System,
    Training,
    centres,
    checked_training,
    digest_of,
)
from bittern.benchmarks.eval.systems.exact import cosine_distances

Precision = Literal["float32", "float16", "int8", "centred"]
_BYTES = {"float32": 4, "float16": 2, "int8": 1, "centred": 4}
_HALF = float(np.finfo(np.float16).max)
"""Beyond any embedding of unit length; what is longer must not turn infinite."""
_DECODED_ROWS = 16_384
"""Rows of int8 that are decoded at a time."""


@dataclass
class FloatVectors(System):
    """Embeddings by cosine; see the module.

    Attributes:
        precision: how they are kept.
    """

    precision: Precision
    coded = False

    def __post_init__(self) -> None:
        self.name = "centred float32" if self.precision == "centred" else self.precision

    def fit(self, training: Training, bits: int | None, seed: int) -> FittedVectors:
        """Fit it; nothing is drawn, so `seed` decides nothing.

        Raises:
            CodeError: the training set is empty, or not finite.
        """
        del bits, seed
        items = checked_training(training).items
        means = centres(training) if self.precision == "centred" else None
        quantizer = _trained(items) if self.precision == "int8" else None
        return FittedVectors(self.precision, items.shape[1], means, quantizer)


class FittedVectors(FittedSystem):
    """Embeddings kept at some precision.

    Stored are float32 or float16 [n, dim]; of int8, uint8 [n, dim], steps within each dimension's
    range. Queries are float32 [q, dim].

    Args:
        precision: how they are kept.
        dim: length of an embedding.
        means: of items and of queries, float32 [dim] each, that are subtracted.
        quantizer: Faiss' `ScalarQuantizer` of int8, trained; else None.
    """

    metrics: tuple[Metric, ...] = ("cosine",)

    def __init__(
        self,
        precision: Precision,
        dim: int,
        means: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
        quantizer: Any = None,
    ) -> None:
        self.precision, self.dim, self.quantizer = precision, dim, quantizer
        self._means = means
        self.bytes_per_row = float(dim * _BYTES[precision])
        arrays = {} if means is None else {"items": means[0], "queries": means[1]}
        if quantizer is not None:
            arrays["ranges"] = _ranges(quantizer)
        self.digest = digest_of({"vectors": precision, "dim": dim}, arrays)

    def _items(self, rows: NDArray[np.float32]) -> NDArray[Any]:
        if self.quantizer is not None:
            if not len(rows):
                return np.empty((0, self.dim), dtype=np.uint8)
            coded: NDArray[np.uint8] = self.quantizer.compute_codes(rows)
            return coded
        if self.precision == "float16":
            return np.clip(rows, -_HALF, _HALF).astype(np.float16)
        return rows if self._means is None else rows - self._means[0]

    def _queries(self, rows: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
        return rows if self._means is None else rows - self._means[1]

    def distances(
        self, queries: NDArray[np.float32], stored: NDArray[Any], first: int, last: int
    ) -> NDArray[np.float64]:
        """One minus the cosine, float64 [last - first, n]; see `exact.cosine_distances`."""
        queries = queries[first:last]
        if self.quantizer is None:
            return cosine_distances(queries, stored)
        out = np.empty((len(queries), len(stored)))
        for start in range(0, len(stored), _DECODED_ROWS):
            block = slice(start, start + _DECODED_ROWS)
            decoded = self.quantizer.decode(np.ascontiguousarray(stored[block]))
            out[:, block] = cosine_distances(queries, decoded)
        return out


def _trained(items: NDArray[np.float32]) -> Any:
    import faiss

    quantizer = faiss.ScalarQuantizer(items.shape[1], faiss.ScalarQuantizer.QT_8bit)
    quantizer.train(np.ascontiguousarray(items, dtype=np.float32))
    return quantizer


def _ranges(quantizer: Any) -> NDArray[np.float32]:
    import faiss

    ranges: NDArray[np.float32] = faiss.vector_to_array(quantizer.trained)
    return ranges
