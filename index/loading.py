"""Loading a generation from the store: rows, their modalities, and codes.

They are read from the store, or updated from an earlier generation by reading only later commits.
Generations share runs of rows and blocks of codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bittern.index.engines.blocks import CodeBlocks
from bittern.index.row_map import RowMap
from bittern.index.store import ROW_ID, Store

MODALITIES = ("image", "audio")
ModelCodes = dict[str, CodeBlocks]
"""Codes of one model by modality."""
Coded = tuple[NDArray[np.int64], NDArray[np.uint8]]
"""Rows and their codes: int64 [n], uint8 [n, bits/8]."""
_CHUNK_ROWS = 1 << 16
"""Smaller batches of codes from the store are joined."""


@dataclass(frozen=True)
class RowTable:
    """The rows of one generation.

    Attributes:
        version: of the store.
        map: their numbers, and their ids in the store.
        kinds: int8 [rows] in row order: position of each row's modality in `MODALITIES`, -1 for
            any other; int8 [1] if all rows have the same.
    """

    version: int
    map: RowMap
    kinds: NDArray[np.int8]

    def kinds_of(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """Modalities of existing rows, as in `kinds`: int8 [k]."""
        if len(self.kinds) <= 1:
            return np.repeat(self.kinds, len(rows))
        positions, _ = self.map.positions_of(rows)
        kinds: NDArray[np.int8] = self.kinds[positions]
        return kinds

    def count(self, modality: str) -> int:
        """Number of rows of one modality."""
        chosen = self.kinds == MODALITIES.index(modality)
        if len(chosen) <= 1:
            return len(self.map) if chosen.any() else 0
        return int(np.count_nonzero(chosen))

    def of_modality(self, modality: str) -> NDArray[np.int64]:
        """Rows of one modality: int64, ascending."""
        chosen = self.kinds == MODALITIES.index(modality)
        if len(chosen) <= 1:
            return self.map.rows() if chosen.all() else np.empty(0, np.int64)
        rows: NDArray[np.int64] = self.map.rows()[chosen]
        return rows


@dataclass(frozen=True)
class Change:
    """The changes between two generations.

    Attributes:
        gone: int64, ascending: deleted rows.
        written: new and changed rows, with the requested columns.
    """

    gone: NDArray[np.int64]
    written: pa.Table


def read_rows(store: Store) -> RowTable:
    """The rows of the store's version."""
    chunks, numbers, kinds = [], [], []
    for batch in store.batches(["row", "modality", ROW_ID]):
        rows = int64s(batch["row"])
        chunks.append((rows, int64s(batch[ROW_ID])))
        numbers.append(rows)
        kinds.append(_kinds(batch["modality"]))
    found = np.concatenate(kinds) if kinds else np.empty(0, np.int8)
    if len(found) and (found == found[0]).all():
        return RowTable(store.version, RowMap.of(chunks), found[:1])
    rows = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
    if (rows[:-1] >= rows[1:]).any():
        found = found[np.unique(rows, return_index=True)[1]]
    return RowTable(store.version, RowMap.of(chunks), found)


def read_map(store: Store) -> RowMap:
    """The rows of the store's version, and their ids in the store."""
    batches = store.batches(["row", ROW_ID])
    return RowMap.of((int64s(batch["row"]), int64s(batch[ROW_ID])) for batch in batches)


def read_blocks(store: Store, rows: RowTable, column: str) -> ModelCodes:
    """The codes of one model; large batches from the store are not copied."""
    width = store.code_bytes(column)
    chunks = [coded(batch["row"], batch[column], width) for batch in store.batches(["row", column])]
    chunks, (stray_rows, stray_codes) = in_order(list(joined(chunks)))
    found = [_by_modality(rows, *chunk) for chunk in chunks]
    strays = _by_modality(rows, stray_rows, stray_codes.reshape(-1, width))
    blocks = {
        modality: CodeBlocks(width * 8, [b for one in found for b in one[modality].blocks])
        for modality in MODALITIES
    }
    return {
        modality: one.merged(strays[modality].rows, strays[modality].codes)
        for modality, one in blocks.items()
    }


def rows_since(store: Store, before: RowTable, columns: Sequence[str]) -> tuple[RowTable, Change]:
    """The rows of the store's version from those of an earlier one.

    Args:
        store: at the later version.
        before: rows of an earlier version.
        columns: columns of codes to read of the changed rows.
    """
    written = store.read(["row", "modality", ROW_ID, *columns], f"`committed` > {before.version}")
    numbers, ids = int64s(written["row"]), int64s(written[ROW_ID])
    _, known = before.map.positions_of(numbers)
    new_map = before.map.with_rows(numbers, ids)
    gone = np.empty(0, np.int64)
    if len(new_map) != store.count():
        new_map = read_map(store)
        gone = before.map.missing_from(new_map)
        if len(before.map) - len(gone) + np.count_nonzero(~known) != len(new_map):
            # A row number occurs twice: read everything again.
            return read_rows(store), Change(gone, written)
    kinds = _kinds_since(before, new_map, gone, numbers[~known], numbers, written["modality"])
    return RowTable(store.version, new_map, kinds), Change(gone, written)


def blocks_since(before: ModelCodes, rows: RowTable, change: Change, column: str) -> ModelCodes:
    """The codes of a generation from those of an earlier one and the changes."""
    width = next(iter(before.values())).width
    new_rows, new_codes = ascending(*coded(change.written["row"], change.written[column], width))
    new = _by_modality(rows, new_rows, new_codes)
    written = np.sort(int64s(change.written["row"]))
    after: ModelCodes = {}
    for modality, old in before.items():
        fresh_rows, fresh_codes = new[modality].rows, new[modality].codes
        kept = unchanged(old, fresh_rows, fresh_codes)
        lost = np.union1d(change.gone, np.setdiff1d(written, kept, assume_unique=True))
        left = old.without(lost) if len(lost) else old
        if len(kept) < len(fresh_rows):
            chosen = ~np.isin(fresh_rows, kept, assume_unique=True)
            left = left.merged(fresh_rows[chosen], fresh_codes[chosen])
        after[modality] = left
    return after


def _kinds(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int8]:
    positions = pc.fill_null(pc.index_in(column, pa.array(MODALITIES)), -1)
    return np.asarray(positions, dtype=np.int8)


def _kinds_since(
    before: RowTable,
    new_map: RowMap,
    gone: NDArray[np.int64],
    added: NDArray[np.int64],
    written: NDArray[np.int64],
    modalities: pa.ChunkedArray,
) -> NDArray[np.int8]:
    kinds, fresh = before.kinds, _kinds(modalities)
    if not len(before.map):
        kinds = fresh[:1]
    if len(kinds) == 1 and (fresh == kinds[0]).all():
        return kinds
    if len(kinds) == 1:
        kinds = np.repeat(kinds, len(before.map))
    if len(gone):
        kinds = np.delete(kinds, before.map.positions_of(gone)[0])
    if len(added):
        longer = np.empty(len(new_map), dtype=np.int8)
        old = np.ones(len(new_map), dtype=bool)
        old[new_map.positions_of(added)[0]] = False
        longer[old] = kinds
        kinds = longer
    else:
        kinds = kinds.copy()
    kinds[new_map.positions_of(written)[0]] = fresh
    return kinds


def _by_modality(
    rows: RowTable, numbers: NDArray[np.int64], codes: NDArray[np.uint8]
) -> ModelCodes:
    kinds = rows.kinds_of(numbers)
    blocks: ModelCodes = {}
    for number, modality in enumerate(MODALITIES):
        chosen = kinds == number
        if chosen.all():
            blocks[modality] = CodeBlocks.of(numbers, codes)
        else:
            blocks[modality] = CodeBlocks.of(numbers[chosen], codes[chosen])
    return blocks


# Codes as the store returns them


def int64s(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """A column of whole numbers."""
    return np.asarray(column).astype(np.int64, copy=False)


def coded(
    rows: pa.Array | pa.ChunkedArray, column: pa.Array | pa.ChunkedArray, width: int
) -> Coded:
    """Rows with a code, and their codes: int64 [n], uint8 [n, bits/8]."""
    chunks = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        start = chunk.offset * width
        data = np.frombuffer(chunk.buffers()[1], dtype=np.uint8) if len(chunk) else np.empty(0)
        chunks.append(data[start : start + len(chunk) * width].reshape(-1, width))
    codes = chunks[0] if len(chunks) == 1 else np.concatenate([*chunks, np.empty((0, width))])
    codes, numbers = codes.astype(np.uint8, copy=False), int64s(rows)
    if not column.null_count:
        return numbers, codes
    present = np.asarray(column.is_valid())
    return numbers[present], codes[present]


def joined(chunks: Sequence[Coded]) -> Iterator[Coded]:
    """The same chunks in order, with small neighbours joined."""
    waiting: list[Coded] = []
    for chunk in chunks:
        if len(chunk[0]):
            waiting.append(chunk)
        if sum(len(rows) for rows, _ in waiting) >= _CHUNK_ROWS:
            yield _concatenated(waiting)
            waiting = []
    if waiting:
        yield _concatenated(waiting)


def in_order(chunks: Sequence[Coded]) -> tuple[list[Coded], Coded]:
    """Chunks whose rows ascend throughout, and the other rows.

    The others are usually few: changed rows are at the end of the store.
    """
    kept: list[Coded] = []
    strays: list[Coded] = []
    last = -1
    for rows, codes in chunks:
        if rows[0] > last and (rows[:-1] < rows[1:]).all():
            kept.append((rows, codes))
        else:
            ascends = rows > np.maximum.accumulate(np.append([last], rows[:-1]))
            kept.append((rows[ascends], codes[ascends]))
            strays.append((rows[~ascends], codes[~ascends]))
        last = max(last, int(rows.max()))
    if not strays:
        return kept, (np.empty(0, np.int64), np.empty(0, np.uint8))
    return [chunk for chunk in kept if len(chunk[0])], ascending(*_concatenated(strays))


def ascending(rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> Coded:
    """The same in ascending order of rows; not copied if they are already."""
    if (rows[:-1] < rows[1:]).all():
        return rows, codes
    order = np.argsort(rows, kind="stable")
    return rows[order], codes.take(order, axis=0)


def _concatenated(chunks: Sequence[Coded]) -> Coded:
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate([chunk[0] for chunk in chunks]), np.concatenate(
        [chunk[1] for chunk in chunks]
    )


def unchanged(
    old: CodeBlocks, rows: NDArray[np.int64], codes: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Rows whose code is equal to the given one: int64, ascending.

    For example, rows that were written again to add another model's codes.
    """
    same = []
    for block, dead in zip(old.blocks, old.dead, strict=True):
        positions = block.rows.positions_of(rows)
        if dead is not None:
            positions = positions[~dead[positions]]
        known = block.rows.at(positions)
        given = codes[np.searchsorted(rows, known)]
        same.append(known[(block.codes[positions] == given).all(axis=1)])
    return np.concatenate(same) if same else np.empty(0, np.int64)
