"""Binary codes: packing, unpacking, and the two distances.

Bit *i* of a code is bit ``i % 8`` (little-endian) of byte ``i // 8``. A bit is 1 where its
logit is above zero.

The asymmetric distance of a soft query and a stored code ``c`` is the L1 distance
``sum_i |p_i - c_i|`` with ``p = sigmoid(logits)`` (CroVCA, arXiv 2510.27584), which equals
``sum_i p_i + sum_i c_i (1 - 2 p_i)``: one table look-up per byte of the code.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError

MIN_BITS = 8
MAX_BITS = 4096
_BLOCK_ROWS = 1 << 15
_BIT_OF_NIBBLE = ((np.arange(16)[:, None] >> np.arange(4)) & 1).astype(np.float64)


def check_bits(bits: int) -> int:
    """Return `bits` if it is a possible code length.

    Raises:
        CodeError: not a multiple of 8 between 8 and 4096.
    """
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer):
        raise CodeError(f"bits must be a whole number, not {bits!r}", field="bits")
    if bits % 8 or not MIN_BITS <= bits <= MAX_BITS:
        raise CodeError(
            f"bits must be a multiple of 8 between {MIN_BITS} and {MAX_BITS}, not {bits}",
            field="bits",
        )
    return int(bits)


def pack(logits: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Codes of logits: bit 1 where the logit is above zero.

    Args:
        logits: float [n, bits].

    Returns:
        uint8 [n, bits/8].

    Raises:
        CodeError: not two-dimensional, `bits` unusable, or a logit is not finite.
    """
    logits = np.asarray(logits)
    if logits.ndim != 2:
        raise CodeError(f"logits must have shape [n, bits], not {list(logits.shape)}")
    check_bits(logits.shape[1])
    if not np.isfinite(logits).all():
        raise CodeError("logits hold NaN or infinity: no code can be made of them")
    return np.packbits(logits > 0, axis=1, bitorder="little")


def unpack(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bits of codes: uint8 [n, bits/8] in, uint8 [n, bits] of zeros and ones out."""
    return np.unpackbits(check_codes(codes), axis=1, bitorder="little")


def check_codes(codes: NDArray[np.uint8], bits: int | None = None) -> NDArray[np.uint8]:
    """Return `codes` as contiguous uint8 [n, bits/8].

    Raises:
        CodeError: wrong dtype, shape, or (when `bits` is given) length.
    """
    codes = np.asarray(codes)
    if codes.dtype != np.uint8 or codes.ndim != 2:
        raise CodeError(
            f"codes must be uint8 [n, bits/8], not {codes.dtype} {list(codes.shape)}", field="code"
        )
    if bits is not None and codes.shape[1] * 8 != bits:
        raise CodeError(
            f"a code of {codes.shape[1] * 8} bits was given, {bits} bits are needed",
            field="code",
            details={"given_bits": str(codes.shape[1] * 8), "needed_bits": str(bits)},
        )
    return np.ascontiguousarray(codes)


def hamming_distance(queries: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Symmetric distance: number of differing bits.

    Args:
        queries: uint8 [q, bits/8].
        codes: uint8 [n, bits/8].

    Returns:
        int32 [q, n].
    """
    queries = check_codes(queries)
    codes = check_codes(codes, queries.shape[1] * 8)
    counts = np.bitwise_count(queries[:, None, :] ^ codes[None, :, :])
    distances: NDArray[np.int32] = counts.sum(axis=2, dtype=np.int32)
    return distances


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sigmoid of logits without overflow: float in, float64 of the same shape out."""
    z = np.asarray(logits, dtype=np.float64)
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0 / (1.0 + e), e / (1.0 + e))


def asymmetric_distance(
    logits: NDArray[np.floating], codes: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Asymmetric distance: L1 between the sigmoid of one query's logits and stored bits.

    Equal codes get bit-identical distances: additions have the same order for every row.

    Args:
        logits: float [bits], one query.
        codes: uint8 [n, bits/8].

    Returns:
        float64 [n].

    Raises:
        CodeError: lengths disagree, or a logit is not finite.
    """
    logits = np.asarray(logits)
    if logits.ndim != 1:
        raise CodeError(f"one query's logits must have shape [bits], not {list(logits.shape)}")
    if not np.isfinite(logits).all():
        raise CodeError("query logits hold NaN or infinity")
    codes = check_codes(codes, check_bits(logits.shape[0]))
    return DistanceTables(2.0 * probabilities(logits) - 1.0).distances(codes)


class DistanceTables:
    """Asymmetric distances of one query, by one table look-up per byte of a code.

    For any real weight ``w_i`` per bit the distance is
    ``sum (1 + w_i) / 2 - sum c_i w_i``; ``w = 2p - 1`` gives the L1 distance. All additions
    have one fixed order: a code's distance is bit-identical on every machine.

    Args:
        weights: float64 [bits], finite.
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        # Per nibble first, then per byte: few additions, always in the same order.
        nibbles = np.zeros((len(weights) // 8, 2, 16))
        for bit in range(4):
            nibbles -= weights.reshape(-1, 2, 4)[:, :, bit, None] * _BIT_OF_NIBBLE[:, bit]
        low, high = nibbles[:, 0], nibbles[:, 1]
        self._tables = (high[:, :, None] + low[:, None, :]).reshape(-1, 256)
        self._base = math.fsum((1.0 + weights) / 2.0)

    def distances(self, codes: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Distances to codes: uint8 [n, bits/8] in, float64 [n] out."""
        out = np.empty(len(codes), dtype=np.float64)
        for start in range(0, len(codes), _BLOCK_ROWS):
            block = codes[start : start + _BLOCK_ROWS]
            total = np.full(len(block), self._base)
            for position, table in enumerate(self._tables):
                total += table[block[:, position]]
            out[start : start + _BLOCK_ROWS] = total
        return out
