"""Which hits are relevant: a cut-off, so that a search can return no hits.

A search returns the k nearest, however far they are. Whether a hit is near enough is decided by
*reference queries*: texts about unrelated subjects, compared with a random sample of the
archive's codes. Their best hits show what a search finds if nothing relevant exists. A hit passes
if it is more similar to its query than the best hits of all but a small share of the reference
queries; that share is the *false-alarm rate*.

Similarity is the cosine between the query's weights and the stored bits taken as ±1:
with ``distance = bits/2 - (w . s)/2``, for both metrics,

    similarity = (bits - 2 distance) / (|w| sqrt(bits)),

which is ``1 - 2 distance/bits`` for Hamming distance. The best similarities follow a Gumbel
law, fitted to their quartiles, so a quarter of the reference queries may match the archive. From
the sample to the whole archive the law moves by ``growth * ln(rows / sample)``, the growth being
the mean excess of a query's most similar rows: the argument of BLAST's E-values (Karlin and
Altschul, PNAS 87, 1990), with the law measured, not derived. Decision 11 compares alternatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError
from bittern.hashing.codes import check_codes, unpack

SAMPLE_ROWS = 4096
"""Codes that the reference queries are compared with; all of them in a smaller archive."""
FEWEST_ROWS = 32
"""With fewer codes there is no cut-off."""
FEWEST_QUERIES = 64
"""With fewer reference queries there is no cut-off."""

_SEED = 11
_BLOCK_ROWS = 1 << 14
_NOTHING = 1e-12
"""A query with shorter weights matches nothing."""
_TAIL = 8
"""Most similar rows of the sample that a query's growth is estimated from."""


def sample_positions(rows: int) -> NDArray[np.int64]:
    """Which of `rows` codes the reference queries are compared with: int64, ascending.

    The same for the same number of rows; all positions of up to 4,096.
    """
    if rows <= SAMPLE_ROWS:
        return np.arange(rows, dtype=np.int64)
    rng = np.random.default_rng([_SEED, rows])
    return np.sort(rng.choice(rows, SAMPLE_ROWS, replace=False)).astype(np.int64)


def similarities(weights: NDArray[np.floating], codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Cosine between weights and codes, a code's bits taken as -1 and 1.

    Args:
        weights: float [q, bits], ``2 sigmoid(logits) - 1``; -1 and 1 for the Hamming distance.
        codes: uint8 [n, bits/8].

    Returns:
        float64 [q, n], from -1 to 1; 0 for a query whose weights are all zero.

    Raises:
        CodeError: shapes disagree, or a weight is not finite.
    """
    weights = _checked(weights)
    codes = check_codes(codes, weights.shape[1])
    directions = weights / (_lengths(weights) * np.sqrt(weights.shape[1]))[:, None]
    found = np.empty((len(weights), len(codes)), dtype=np.float64)
    for start in range(0, len(codes), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        found[:, block] = directions @ (2.0 * unpack(codes[block]) - 1.0).T
    return found


@dataclass(frozen=True, slots=True)
class Background:
    """The similarities that unrelated queries reach in one archive's codes of one model.

    Made once per generation, model, metric and searched modality. Immutable; equal for equal
    arguments.

    Attributes:
        queries: number of reference queries.
        rows: number of codes in the sample.
        location: of the Gumbel law of their best similarities in the sample.
        scale: of that law; 0 if there is no cut-off.
        growth: of the location, per e-fold of rows.
    """

    queries: int
    rows: int
    location: float
    scale: float
    growth: float

    @classmethod
    def of(cls, weights: NDArray[np.floating], codes: NDArray[np.uint8]) -> Self:
        """Compare the reference queries with a sample of codes.

        Args:
            weights: float [q, bits] of the reference queries, as the metric takes them: ±1 for
                the Hamming distance, ``2 sigmoid(logits) - 1`` for the asymmetric.
            codes: uint8 [m, bits/8], a random sample of the archive's (see `sample_positions`).

        Raises:
            CodeError: shapes disagree, or a weight is not finite.
        """
        alike = similarities(weights, codes)
        queries, rows = alike.shape
        if queries < FEWEST_QUERIES or rows < FEWEST_ROWS:
            return cls(queries, rows, 0.0, 0.0, 0.0)
        top = -np.partition(-alike, _TAIL, axis=1)[:, : _TAIL + 1]
        excess = top[:, :_TAIL].mean(axis=1) - top[:, _TAIL]
        low, high = np.quantile(top.max(axis=1), [0.25, 0.75])
        scale = float(high - low) / (_gumbel(0.75) - _gumbel(0.25))
        location = float(low) - scale * _gumbel(0.25)
        return cls(queries, rows, location, scale, float(np.median(excess)))

    @property
    def usable(self) -> bool:
        """Whether there is a cut-off.

        There is none with fewer than 32 codes or 64 reference queries, or if the quartiles of
        their best similarities are equal. Then every hit passes.
        """
        return self.scale > 0

    def similarity(self, rate: float, rows: int) -> float:
        """The lowest similarity of a hit that passes.

        Args:
            rate: false-alarm rate, of `bittern.checks.check_relevance`.
            rows: number of codes of the archive. A filter is not considered, so the cut-off is the
                same with and without it.

        Returns:
            Similarity: rises with `rows`, falls with `rate`; minus infinity if not `usable`.
        """
        if not self.usable:
            return -np.inf
        return self._location(rows) + self.scale * _gumbel(1.0 - rate)

    def threshold(self, weights: NDArray[np.floating], rate: float, rows: int) -> float:
        """The largest distance of a hit that passes, for one query.

        Args:
            weights: float [bits] of the query.
            rate: false-alarm rate, of `bittern.checks.check_relevance`.
            rows: number of codes, as in `similarity`.

        Returns:
            Distance in bits, for the metric whose weights these are; hits at it or below it
            pass. Infinity if not `usable`; minus infinity for weights that are all
            zero, to which nothing is relevant.

        Raises:
            CodeError: not [bits], or a weight is not finite.
        """
        if not self.usable:
            return np.inf
        length = float(_lengths(_checked(np.asarray(weights)[None]))[0])
        if not np.isfinite(length):
            return -np.inf
        bits = len(weights)
        return float(bits / 2 - self.similarity(rate, rows) * length * np.sqrt(bits) / 2)

    def _location(self, rows: int) -> float:
        return self.location + self.growth * float(np.log(max(rows, 1) / self.rows))


def _gumbel(share: float) -> float:
    """The standard Gumbel law's quantile."""
    return float(-np.log(-np.log(share)))


def _lengths(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths of the weights; infinite for weights that are nearly zero."""
    lengths = np.linalg.norm(weights, axis=1)
    return np.asarray(np.where(lengths > _NOTHING, lengths, np.inf), dtype=np.float64)


def _checked(weights: NDArray[np.floating]) -> NDArray[np.float64]:
    checked: NDArray[np.float64] = np.asarray(weights, dtype=np.float64)
    if checked.ndim != 2:
        raise CodeError(f"weights must have shape [q, bits], not {list(checked.shape)}")
    if not np.isfinite(checked).all():
        raise CodeError("weights hold NaN or infinity")
    return checked
