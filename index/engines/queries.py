"""A batch of queries, and the one definition of their distances to codes.

Engines find candidates in different ways, but all take their distances from here. So distances,
and the order of the hits, are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError
from bittern.hashing.codes import (
    DistanceTables,
    check_bits,
    check_codes,
    pack,
    probabilities,
    unpack,
)
from bittern.types import Metric

_LARGEST = 1e100
"""Sums of greater weights could overflow."""
_FLOAT32 = 1.2e-7
_FLOAT64 = 2.3e-16


@dataclass(frozen=True, slots=True)
class ScaledWeights:
    """The weights of queries as single-precision numbers of at most 1, for scans that round.

    Attributes:
        weights: float32 [q, bits].
        scales: float64 [q], what they were divided by.
        bases: float64 [q]; a distance is base - scale * inner product.
        slack: float64 [q], bound of the rounding error of a distance: single precision of the
            products, double precision of the sums.
        steps: float64 [q], bits of a distance per step of 8-bit tables of the nibbles: 1/255 of
            the widest table's span.
        errors: float64 [q], bound of the error of a distance by these tables: half a step per
            nibble, and the slack.
    """

    weights: NDArray[np.float32]
    scales: NDArray[np.float64]
    bases: NDArray[np.float64]
    slack: NDArray[np.float64]
    steps: NDArray[np.float64]
    errors: NDArray[np.float64]

    @classmethod
    def of(cls, queries: Queries) -> ScaledWeights:
        """Of queries with at least one weight that is not zero."""
        w = queries.weights
        sizes = np.abs(w)
        scales = sizes.max(axis=1)
        scaled = (w / scales[:, None]).astype(np.float32)
        total = sizes.sum(axis=1)
        slack = _FLOAT32 * (queries.bits / 4 + 16) * total
        slack += _FLOAT64 * (queries.bits / 4 + 16) * (queries.bits + total)
        spans = np.abs(scaled).astype(np.float64).reshape(len(w), -1, 4).sum(axis=2)
        steps = scales * spans.max(axis=1) / 255.0
        errors = 0.5 * steps * spans.shape[1] + slack
        return cls(scaled, scales, ((1.0 + w) / 2.0).sum(axis=1), slack, steps, errors)

    def distances(self, query: int, products: NDArray[np.float32]) -> NDArray[np.float64]:
        """Distances from the inner products of one query."""
        distances: NDArray[np.float64] = self.bases[query] - self.scales[query] * products.astype(
            np.float64
        )
        return distances


class Queries:
    """Checked queries of one metric; made by `of_logits`, `of_weights` or `of_codes`.

    A query is a real weight per bit: the asymmetric distance to a code ``c`` is
    ``sum (1 + w_i) / 2 - sum c_i w_i``. With ``w = 2 sigmoid(logits) - 1`` this is the L1
    distance of the sigmoid to the bits (CroVCA, arXiv 2510.27584); with the weights 1 and -1
    of a code's bits it is the Hamming distance.

    Attributes:
        metric: ``asymmetric`` or ``hamming``.
        weights: float64 [q, bits].
        codes: uint8 [q, bits/8], the signs of the weights.
    """

    def __init__(
        self, metric: Metric, weights: NDArray[np.float64], codes: NDArray[np.uint8]
    ) -> None:
        self.metric = metric
        self.weights = weights
        self.codes = codes
        self._tables: dict[int, DistanceTables] = {}

    @classmethod
    def of(cls, query: NDArray[Any], metric: Metric) -> Queries:
        """One query of a metric.

        Args:
            query: logits, float [bits]; for ``hamming`` also a code, uint8 [bits/8].
            metric: ``asymmetric`` or ``hamming``.

        Raises:
            CodeError: wrong shape or dtype, a logit is not finite, or a code for ``asymmetric``.
        """
        batch = np.asarray(query)[None]
        if batch.dtype == np.uint8:
            if metric == "asymmetric":
                raise CodeError(
                    "the asymmetric metric needs logits; use 'hamming' to search with a code",
                    field="metric",
                )
            return cls.of_codes(batch)
        soft = cls.of_logits(batch)
        return soft if metric == "asymmetric" else cls.of_codes(pack(batch))

    @classmethod
    def of_logits(cls, logits: NDArray[np.floating]) -> Queries:
        """Asymmetric queries from logits, float [q, bits].

        Raises:
            CodeError: wrong shape, or a logit is not finite.
        """
        return cls.of_weights(2.0 * probabilities(_finite(logits, "logits")) - 1.0)

    @classmethod
    def of_weights(cls, weights: NDArray[np.floating]) -> Queries:
        """Asymmetric queries from any real weight per bit, float [q, bits].

        Raises:
            CodeError: wrong shape, or a weight is not finite or beyond 1e100.
        """
        checked = np.ascontiguousarray(_finite(weights, "weights"), dtype=np.float64)
        if len(checked) and np.abs(checked).max() > _LARGEST:
            raise CodeError(f"query weights must be at most {_LARGEST:g}", field="query")
        return cls("asymmetric", checked, np.packbits(checked > 0, axis=1, bitorder="little"))

    @classmethod
    def of_codes(cls, codes: NDArray[np.uint8]) -> Queries:
        """Queries by Hamming distance, uint8 [q, bits/8].

        Raises:
            CodeError: wrong dtype or shape.
        """
        codes = check_codes(codes)
        check_bits(codes.shape[1] * 8)
        return cls("hamming", 2.0 * unpack(codes).astype(np.float64) - 1.0, codes)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the exact weights or codes."""
        if self.metric == "hamming":
            return Queries.of_codes, (self.codes,)
        return Queries.of_weights, (self.weights,)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, which: int | slice) -> Queries:
        """One query, or some, as a new batch."""
        if not isinstance(which, slice):
            which = slice(which, which + 1)
        if which.indices(len(self)) == (0, len(self), 1):
            return self
        return Queries(self.metric, self.weights[which], self.codes[which])

    def only(self, which: list[int]) -> Queries:
        """Some of the queries, by number."""
        return Queries(self.metric, self.weights[which], self.codes[which])

    def __iter__(self) -> Iterator[Queries]:
        return (self[i] for i in range(len(self)))

    @property
    def bits(self) -> int:
        """Code length that the queries are for."""
        return int(self.weights.shape[1])

    @cached_property
    def scaled(self) -> ScaledWeights:
        """The weights for scans; for queries with at least one weight that is not zero."""
        return ScaledWeights.of(self)

    def distances(self, query: int, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Exact distances of one query to codes: uint8 [n, bits/8] in, float64 [n] out.

        Equal codes get bit-identical distances, whatever the other codes are.
        """
        if self.metric == "hamming":
            return hamming(self.codes[query], codes).astype(np.float64)
        if query not in self._tables:
            self._tables[query] = DistanceTables(self.weights[query])
        return self._tables[query].distances(codes)

    def check_fits(self, bits: int) -> Queries:
        """Return the queries if they are for codes of this length.

        Raises:
            CodeError: they are for another length.
        """
        if self.bits != bits:
            raise CodeError(
                f"queries of {self.bits} bits were given, the codes have {bits} bits",
                field="query",
                details={"given_bits": str(self.bits), "needed_bits": str(bits)},
            )
        return self


def _finite(values: NDArray[np.floating], what: str) -> NDArray[np.floating]:
    values = np.asarray(values)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
        raise CodeError(
            f"{what} must be float [queries, bits], not {values.dtype} {list(values.shape)}",
            field="query",
        )
    check_bits(values.shape[1])
    if not np.isfinite(values).all():
        raise CodeError(f"query {what} hold NaN or infinity", field="query")
    return values


def hamming(code: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Distances of a code, uint8 [bits/8], to codes: uint8 [n, bits/8] in, int32 [n] out."""
    distances = np.empty(len(codes), dtype=np.int32)
    if codes.shape[1] % 8 or not codes.flags.c_contiguous:
        np.bitwise_count(codes ^ code).sum(axis=1, dtype=np.int32, out=distances)
        return distances
    import faiss

    of: Any = faiss  # in C++, without documentation for type checkers
    pointers = of.swig_ptr(code), of.swig_ptr(codes)
    of.hammings(*pointers, 1, len(codes), codes.shape[1], of.swig_ptr(distances))
    return distances
