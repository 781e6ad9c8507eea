"""What an archive's index holds of the store: rows, their modalities, codes.

It is read from the store, or taken over from an earlier generation by reading only what
was committed since. Nothing that is large is copied for the next generation: runs of rows
and blocks of codes are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bittern.index.coded import ascending, coded, in_order, int64s, joined, unchanged
from bittern.index.engines.blocks import CodeBlocks
from bittern.index.row_map import RowMap
from bittern.index.store import ROW_ID, Store

MODALITIES = ("image", "audio")
Blocks = dict[str, CodeBlocks]
"""Codes of one model by modality."""


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
    parts, (stray_rows, stray_codes) = in_order(list(joined(parts)))
    found = [_by_modality(rows, *part) for part in parts]
    strays = _by_modality(rows, stray_rows, stray_codes.reshape(-1, width))
    blocks = {
        modality: CodeBlocks(width * 8, [b for part in found for b in part[modality].blocks])
        for modality in MODALITIES
    }
    return {
        modality: part.merged(strays[modality].rows, strays[modality].codes)
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
    new_rows, new_codes = ascending(*coded(change.written["row"], change.written[column], width))
    new = _by_modality(rows, new_rows, new_codes)
    written = np.sort(int64s(change.written["row"]))
    after: Blocks = {}
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
