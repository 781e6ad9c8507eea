"""Codes as the store hands them out: parts of rows and codes, put in order for blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.index.engines.blocks import CodeBlocks

Coded = tuple[NDArray[np.int64], NDArray[np.uint8]]
"""Rows and their codes: int64 [n], uint8 [n, bits/8]."""
_PART_ROWS = 1 << 16
"""Blocks of codes are this long, or longer, where an archive has so many."""


def int64s(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """A column of whole numbers."""
    return np.asarray(column).astype(np.int64, copy=False)


def coded(
    rows: pa.Array | pa.ChunkedArray, column: pa.Array | pa.ChunkedArray, width: int
) -> Coded:
    """Rows that have a code, and their codes: int64 [n], uint8 [n, bits/8]."""
    parts = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        start = chunk.offset * width
        data = np.frombuffer(chunk.buffers()[1], dtype=np.uint8) if len(chunk) else np.empty(0)
        parts.append(data[start : start + len(chunk) * width].reshape(-1, width))
    codes = parts[0] if len(parts) == 1 else np.concatenate([*parts, np.empty((0, width))])
    codes, numbers = codes.astype(np.uint8, copy=False), int64s(rows)
    if not column.null_count:
        return numbers, codes
    present = np.asarray(column.is_valid())
    return numbers[present], codes[present]


def joined(parts: Sequence[Coded]) -> Iterator[Coded]:
    """The same, in order, with small neighbours put together."""
    waiting: list[Coded] = []
    for part in parts:
        if len(part[0]):
            waiting.append(part)
        if sum(len(rows) for rows, _ in waiting) >= _PART_ROWS:
            yield _concatenated(waiting)
            waiting = []
    if waiting:
        yield _concatenated(waiting)


def in_order(parts: Sequence[Coded]) -> tuple[list[Coded], Coded]:
    """Parts whose rows ascend throughout, and what was in the way: few rows, as a rule.

    Rows that were written again lie at the end of the store.
    """
    kept: list[Coded] = []
    strays: list[Coded] = []
    last = -1
    for rows, codes in parts:
        if rows[0] > last and (rows[:-1] < rows[1:]).all():
            kept.append((rows, codes))
        else:
            ascends = rows > np.maximum.accumulate(np.append([last], rows[:-1]))
            kept.append((rows[ascends], codes[ascends]))
            strays.append((rows[~ascends], codes[~ascends]))
        last = max(last, int(rows.max()))
    if not strays:
        return kept, (np.empty(0, np.int64), np.empty(0, np.uint8))
    return [part for part in kept if len(part[0])], ascending(*_concatenated(strays))


def ascending(rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> Coded:
    """The same in ascending order of rows; not copied where they are."""
    if (rows[:-1] < rows[1:]).all():
        return rows, codes
    order = np.argsort(rows, kind="stable")
    return rows[order], codes.take(order, axis=0)


def _concatenated(parts: Sequence[Coded]) -> Coded:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def unchanged(
    old: CodeBlocks, rows: NDArray[np.int64], codes: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Rows that have the code that they are given, already: int64, ascending.

    So it is for one model's codes when rows are written again to add another model's.
    """
    same = []
    for block, dead in zip(old.blocks, old.dead, strict=True):
        places = block.rows.places_of(rows)
        if dead is not None:
            places = places[~dead[places]]
        here = block.rows.at(places)
        given = codes[np.searchsorted(rows, here)]
        same.append(here[(block.codes[places] == given).all(axis=1)])
    return np.concatenate(same) if same else np.empty(0, np.int64)
