"""A batch of queries, and the one definition of their distances to codes.

Engines find candidates in different ways, but all take their distances from here. So distances,
and the order of the hits, are equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
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

    def distances(self, query: int, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Exact distances of one query to codes: uint8 [n, bits/8] in, float64 [n] out.

        Equal codes get bit-identical distances, whatever the other codes are.
        """
        if self.metric == "hamming":
            return _hamming(self.codes[query], codes)
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


def _hamming(code: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    if codes.shape[1] % 8 == 0 and codes.flags.c_contiguous:
        differing = codes.view(np.uint64) ^ code.view(np.uint64)
    else:
        differing = codes ^ code
    distances: NDArray[np.float64] = np.bitwise_count(differing).sum(axis=1, dtype=np.float64)
    return distances
