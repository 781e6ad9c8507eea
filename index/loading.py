"""What an archive's index holds of the store: rows, their modalities, codes.

It is read from the store, or taken over from an earlier generation by reading only what
was committed since. Nothing that is large is copied for the next generation: runs of rows
and blocks of codes are shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.engines.blocks import Block, CodeBlocks
from index.row_map import RowMap
from index.store import ROW_ID, Store

MODALITIES = ("image", "audio")
Blocks = dict[str, CodeBlocks]
"""Codes of one model by modality."""
Coded = tuple[NDArray[np.int64], NDArray[np.uint8]]
"""Rows and their codes: int64 [n], uint8 [n, bits/8]."""
_PART_ROWS = 1 << 16
"""Blocks of codes are this long, or longer, where an archive has so many."""


@dataclass(frozen=True)
class Rows:
    """The rows of one generation.

    Attributes:
        generation: store version that they belong to.
        map: their numbers, and where the store keeps them.
        kinds: int8 [rows] in row order: place of each row's modality in `MODALITIES`, -1 for
            any other; int8 [1] where all rows have the same.
    """

    generation: int
    map: RowMap
    kinds: NDArray[np.int8]

    def kinds_of(self, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """Modalities of rows that exist, as in `kinds`: int8 [k]."""
        if len(self.kinds) <= 1:
            return np.repeat(self.kinds, len(rows))
        places, _ = self.map.places_of(rows)
        kinds: NDArray[np.int8] = self.kinds[places]
        return kinds

    def of_modality(self, modality: str) -> NDArray[np.int64]:
        """Rows of one modality: int64, ascending."""
        chosen = self.kinds == MODALITIES.index(modality)
        if len(chosen) <= 1:
            return self.map.rows() if chosen.all() else np.empty(0, np.int64)
        rows: NDArray[np.int64] = self.map.rows()[chosen]
        return rows


@dataclass(frozen=True)
class Change:
    """What happened between two generations.

    Attributes:
        gone: int64, ascending: rows that the later one has no more.
        written: rows that were added or written again since, with the columns asked for.
    """

    gone: NDArray[np.int64]
    written: pa.Table


def read_rows(store: Store) -> Rows:
    """The rows of the store's version."""
    parts, numbers, kinds = [], [], []
    for batch in store.batches(["row", "modality", ROW_ID]):
        rows = int64s(batch["row"])
        parts.append((rows, int64s(batch[ROW_ID])))
        numbers.append(rows)
        kinds.append(_kinds(batch["modality"]))
    found = np.concatenate(kinds) if kinds else np.empty(0, np.int8)
    same = _uniform(found)
    if len(same) != len(found):
        return Rows(store.version, RowMap.of(parts), same)
    rows = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
    if (rows[:-1] >= rows[1:]).any():
        found = found[np.unique(rows, return_index=True)[1]]
    return Rows(store.version, RowMap.of(parts), found)


def read_map(store: Store) -> RowMap:
    """The rows of the store's version, and where they lie."""
    batches = store.batches(["row", ROW_ID])
    return RowMap.of((int64s(batch["row"]), int64s(batch[ROW_ID])) for batch in batches)


def read_blocks(store: Store, rows: Rows, column: str) -> Blocks:
    """The codes of one model; what comes from the store in large parts is not copied."""
    width = store.code_bytes(column)
    parts = [coded(batch["row"], batch[column], width) for batch in store.batches(["row", column])]
    parts, (stray_rows, stray_codes) = _in_order(list(_joined(parts)))
    found = [_by_modality(rows, *part) for part in parts]
    strays = _by_modality(rows, stray_rows, stray_codes.reshape(-1, width))
    blocks = {
        modality: CodeBlocks(width * 8, [b for part in found for b in part[modality].blocks])
        for modality in MODALITIES
    }
    return {
        modality: merged(part, strays[modality].rows, strays[modality].codes)
        for modality, part in blocks.items()
    }


def rows_since(store: Store, before: Rows, columns: Sequence[str]) -> tuple[Rows, Change]:
    """The rows of the store's version from those of an earlier one.

    Args:
        store: at the later version.
        before: rows of a version that came before.
        columns: columns of codes that are wanted of the rows that were written since.
    """
    written = store.read(
        ["row", "modality", ROW_ID, *columns], f"`committed` > {before.generation}"
    )
    numbers, ids = int64s(written["row"]), int64s(written[ROW_ID])
    _, known = before.map.places_of(numbers)
    new_map = before.map.with_rows(numbers, ids)
    gone = np.empty(0, np.int64)
    if len(new_map) != store.count():
        new_map = read_map(store)
        gone = before.map.missing_from(new_map)
        if len(before.map) - len(gone) + np.count_nonzero(~known) != len(new_map):
            # A row number that is there twice: nothing that was known helps.
            return read_rows(store), Change(gone, written)
    kinds = _kinds_since(before, new_map, gone, numbers[~known], numbers, written["modality"])
    return Rows(store.version, new_map, kinds), Change(gone, written)


def blocks_since(before: Blocks, rows: Rows, change: Change, column: str) -> Blocks:
    """The codes of a generation from those of an earlier one, and what happened since."""
    width = next(iter(before.values())).width
    new_rows, new_codes = _ascending(*coded(change.written["row"], change.written[column], width))
    new = _by_modality(rows, new_rows, new_codes)
    written = np.sort(int64s(change.written["row"]))
    after: Blocks = {}
    for modality, old in before.items():
        fresh_rows, fresh_codes = new[modality].rows, new[modality].codes
        kept = _unchanged(old, fresh_rows, fresh_codes)
        lost = np.union1d(change.gone, np.setdiff1d(written, kept, assume_unique=True))
        left = old.without(lost) if len(lost) else old
        if len(kept) < len(fresh_rows):
            chosen = ~np.isin(fresh_rows, kept, assume_unique=True)
            left = merged(left, fresh_rows[chosen], fresh_codes[chosen])
        after[modality] = left
    return after


def merged(old: CodeBlocks, rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> CodeBlocks:
    """Codes and more, whose rows (ascending, new here) may lie anywhere.

    Only blocks into whose range rows fall are made anew.
    """
    if not len(rows):
        return old
    if rows[0] > old.last_row:
        return old.appended(rows, codes)
    begins = np.searchsorted(rows, [block.rows.first for block in old.blocks[1:]])
    blocks: list[Block] = []
    dead: list[NDArray[np.bool_] | None] = []
    bounds = pairwise([0, *begins.tolist(), len(rows)])
    for block, mask, (begin, end) in zip(old.blocks, old.dead, bounds, strict=True):
        made = CodeBlocks(old.bits, [block], [mask])
        if begin < end:
            both = _concatenated([(made.rows, made.codes), (rows[begin:end], codes[begin:end])])
            made = CodeBlocks.of(*_ascending(*both))
        blocks += made.blocks
        dead += made.dead
    return CodeBlocks(old.bits, blocks, dead)


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


def int64s(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """A column of whole numbers."""
    return np.asarray(column).astype(np.int64, copy=False)


def _kinds(column: pa.Array | pa.ChunkedArray) -> NDArray[np.int8]:
    places = pc.fill_null(pc.index_in(column, pa.array(MODALITIES)), -1)
    return np.asarray(places, dtype=np.int8)


def _uniform(kinds: NDArray[np.int8]) -> NDArray[np.int8]:
    return kinds[:1] if len(kinds) and (kinds == kinds[0]).all() else kinds


def _kinds_since(
    before: Rows,
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
        kinds = np.delete(kinds, before.map.places_of(gone)[0])
    if len(added):
        longer = np.empty(len(new_map), dtype=np.int8)
        old = np.ones(len(new_map), dtype=bool)
        old[new_map.places_of(added)[0]] = False
        longer[old] = kinds
        kinds = longer
    else:
        kinds = kinds.copy()
    kinds[new_map.places_of(written)[0]] = fresh
    return kinds


def _joined(parts: Sequence[Coded]) -> Iterator[Coded]:
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


def _in_order(parts: Sequence[Coded]) -> tuple[list[Coded], Coded]:
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
    return [part for part in kept if len(part[0])], _ascending(*_concatenated(strays))


def _concatenated(parts: Sequence[Coded]) -> Coded:
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _ascending(rows: NDArray[np.int64], codes: NDArray[np.uint8]) -> Coded:
    if (rows[:-1] < rows[1:]).all():
        return rows, codes
    order = np.argsort(rows, kind="stable")
    return rows[order], codes.take(order, axis=0)


def _by_modality(rows: Rows, numbers: NDArray[np.int64], codes: NDArray[np.uint8]) -> Blocks:
    kinds = rows.kinds_of(numbers)
    blocks: Blocks = {}
    for number, modality in enumerate(MODALITIES):
        chosen = kinds == number
        if chosen.all():
            blocks[modality] = CodeBlocks.of(numbers, codes)
        else:
            blocks[modality] = CodeBlocks.of(numbers[chosen], codes[chosen])
    return blocks


def _unchanged(
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
