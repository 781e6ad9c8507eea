"""Inverted lists as stored arrays: runs of rows, a checksum of each code, and what is checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.engines.blocks import CodeBlocks

MAX_LISTS = 8_192
_BATCH = 1 << 15
_MOST_ROWS = 1 << 40
_MARK_MULTIPLIER = np.uint32(0x9E3779B1)


def checked_lists(
    arrays: Mapping[str, NDArray[Any]], bits: int, count: int
) -> tuple[NDArray[np.float32], NDArray[np.uint16]]:
    """Stored centroids and the list of each code, checked against the number of codes.

    Raises:
        ArchiveDamagedError: they are missing, or do not fit.
    """
    try:
        centroids, assigned = arrays["centroids"], arrays["members"]
    except KeyError as error:
        raise ArchiveDamagedError(f"the stored lists lack {error}") from None
    fits = (
        centroids.dtype == np.float32
        and centroids.ndim == 2
        and centroids.shape[1] == bits
        and 1 <= len(centroids) <= MAX_LISTS
        and np.isfinite(centroids).all()
        and assigned.dtype == np.uint16
        and assigned.shape == (count,)
        and (not count or int(assigned.max()) < len(centroids))
    )
    if not fits:
        raise ArchiveDamagedError(
            f"the stored lists ({centroids.dtype} {list(centroids.shape)}, {assigned.dtype} "
            f"{list(assigned.shape)}) are not those of {count} codes of {bits} bits"
        )
    return np.ascontiguousarray(centroids), assigned


def marks_of_blocks(blocks: CodeBlocks) -> NDArray[np.uint16]:
    """A 16-bit checksum of the code at each position: uint16 [n]."""
    marks = [np.empty(0, np.uint16)]
    for block in blocks.blocks:
        for begin in range(0, len(block), _BATCH):
            marks.append(marks_of_codes(block.codes[begin : begin + _BATCH]))
    return np.concatenate(marks)


def marks_of_codes(codes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """A 16-bit checksum of each code: uint8 [n, bits/8] in, uint16 [n] out."""
    state = np.zeros(len(codes), dtype=np.uint32)
    for column in codes.T:
        state ^= column
        state *= _MARK_MULTIPLIER
        state ^= state >> np.uint32(15)
    return (state >> np.uint32(16)).astype(np.uint16)


def runs_of(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ascending rows as runs without gaps: int64 [n] in, int64 [r, 2] (first, count) out."""
    if not len(rows):
        return np.empty((0, 2), dtype=np.int64)
    begins = np.concatenate([[0], np.flatnonzero(np.diff(rows) != 1) + 1])
    counts = np.diff(np.concatenate([begins, [len(rows)]]))
    return np.stack([rows[begins], counts], axis=1)


def rows_of(runs: NDArray[Any], count: int) -> NDArray[np.int64]:
    """The rows of runs, `count` in total: int64 [count].

    Raises:
        ArchiveDamagedError: the runs are invalid, or have another number of rows.
    """
    fits = (
        runs.dtype == np.int64
        and runs.ndim == 2
        and runs.shape[1] == 2
        and ((runs >= 0) & (runs < _MOST_ROWS)).all()
        and (runs[:, 1] > 0).all()
        and (runs[1:, 0] > runs[:-1].sum(axis=1) - 1).all()
        and (runs[:, 1] <= count).all()
        and int(runs[:, 1].sum()) == count
    )
    if not fits:
        raise ArchiveDamagedError("the stored index has impossible row numbers")
    starts = np.cumsum(runs[:, 1]) - runs[:, 1]
    rows = np.repeat(runs[:, 0] - starts, runs[:, 1])
    rows += np.arange(len(rows), dtype=np.int64)
    return np.asarray(rows, dtype=np.int64)
