"""Rows and codes of a generation as derived files.

With them a large archive opens quickly: codes stay in their memory-mapped file, and only later
commits are read from the store.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bittern.index.derived_files import Arrays, DerivedFiles, DerivedSet
from bittern.index.engines.blocks import BLOCK_ROWS, Block, CodeBlocks, RowNumbers
from bittern.index.loading import MODALITIES, ModelCodes, RowTable
from bittern.index.row_map import RowMap
from bittern.index.store import Store

if TYPE_CHECKING:
    from bittern.index.generation import Generation

STORED_FROM = 200_000
"""Smaller archives are read from the store: it is fast enough."""
_REWRITTEN_SHARE = 0.1
"""The files are written again after this share of the rows has changed."""
_MOST_ROWS = 1 << 40
_MOST_DELETED = 2
_ROWS_READ_AT_ONCE = 1 << 20
"""A set is not used if it has more rows than this plus `_MOST_DELETED` times those of the store."""


@dataclass(frozen=True)
class StoredBlocks:
    """Codes of an earlier generation.

    Attributes:
        version: of the store that they belong to.
        rows: their rows, of all modalities.
        blocks: the codes.
    """

    version: int
    rows: RowMap
    blocks: ModelCodes


class IndexFiles:
    """Reads and writes the derived files of an archive's rows and codes.

    Args:
        files: the archive's derived files.
        write: whether files may be written.
    """

    def __init__(self, files: DerivedFiles, *, write: bool = True) -> None:
        self.files = files
        self._write = write
        self._stored: dict[str, int] = {}
        self._lock = threading.Lock()
        self._saving: threading.Thread | None = None
        self._newest: Generation | None = None

    def rows(self, store: Store) -> RowTable | None:
        """The stored rows of this or an earlier version of the store, if they are usable."""
        found = self.files.read_set("rows")
        if found is None or found.version > store.version:
            return None
        rows = _rows_of(found)
        if why := _why_unusable(rows, store):
            self.files.refuse("rows", why)
            return None
        if rows is not None:
            self._stored["rows"] = rows.version
        return rows

    def blocks(self, column: str, width: int, rows: RowTable) -> StoredBlocks | None:
        """The stored codes of this or an earlier generation, if they are usable.

        Args:
            column: the store's column of these codes.
            width: bytes of a code.
            rows: of the current generation.
        """
        name = f"codes-{column}"
        found = self.files.read_set(name)
        if found is None or found.version > rows.version:
            return None
        stored = _blocks_of(found, width)
        if stored is None:
            self.files.refuse(name, f"its arrays do not make codes of {width} bytes")
        elif stored.version == rows.version and len(stored.rows.missing_from(rows.map)):
            self.files.refuse(name, "it has codes of rows that do not exist")
        else:
            self._stored[column] = stored.version
            return stored
        return None

    def save_if_worth_it(self, generation: Generation) -> None:
        """Store loaded arrays in the background, if that saves the next opening much time."""
        if not self._write:
            return
        with self._lock:
            self._newest = generation
            if (self._saving is None or not self._saving.is_alive()) and self._due(generation):
                self._saving = threading.Thread(
                    target=self._save, name="derived-files", daemon=True
                )
                self._saving.start()

    def close(self, generation: Generation | None) -> None:
        """Store the arrays of the last generation if it is worth it, and wait for that."""
        if generation is not None:
            self.save_if_worth_it(generation)
        if self._saving is not None:
            self._saving.join()
        self._newest = None

    def _due(self, generation: Generation) -> list[str]:
        """What to store of a generation now: ``rows``, and columns of codes."""
        rows = len(generation)
        if rows < STORED_FROM:
            return []
        least = _REWRITTEN_SHARE * rows
        return [
            name
            for name in ("rows", *generation.loaded_columns)
            if name not in self._stored
            or (
                self._stored[name] != generation.version
                and generation.changed_since(self._stored[name]) >= least
            )
        ]

    def _save(self) -> None:
        while (generation := self._newest) is not None and (names := self._due(generation)):
            for name in names:
                # Set first, so that a failed write is not repeated for this generation.
                self._stored[name] = generation.version
                if name == "rows":
                    rows = generation.row_table
                    arrays: Arrays = {
                        "first": rows.map.first,
                        "ids": rows.map.ids,
                        "lengths": rows.map.lengths,
                        "kinds": rows.kinds,
                    }
                    self.files.write_set("rows", arrays, generation.version)
                else:
                    arrays = _arrays_of_blocks(generation.loaded_columns[name])
                    self.files.write_set(f"codes-{name}", arrays, generation.version)


def _rows_of(found: DerivedSet) -> RowTable | None:
    arrays = found.arrays
    runs = [arrays.get(name) for name in ("first", "ids", "lengths")]
    kinds = arrays.get("kinds")
    if kinds is None or any(run is None for run in runs):
        return None
    first, ids, lengths = (run for run in runs if run is not None)
    if not _are_runs(first, lengths) or ids.dtype != np.int64 or ids.shape != first.shape:
        return None
    if (ids < 0).any() or (ids > np.iinfo(np.int64).max - lengths).any():
        return None
    count = int(lengths.sum())
    if kinds.dtype != np.int8 or kinds.ndim != 1 or len(kinds) not in (min(1, count), count):
        return None
    return RowTable(found.version, RowMap(first, ids, lengths), kinds)


def _why_unusable(rows: RowTable | None, store: Store) -> str:
    """Why stored rows cannot be used; empty if they can."""
    if rows is None:
        return "its arrays do not make rows"
    claimed, count = len(rows.map), store.count()
    if rows.version == store.version and claimed != count:
        return f"it has {claimed} rows of this version, which has {count}"
    if claimed > _MOST_DELETED * count + _ROWS_READ_AT_ONCE:
        # Finding the deleted ones would take longer than reading the store, and much memory.
        return f"it has {claimed} rows, of which at most {count} still exist"
    return ""


def _arrays_of_blocks(blocks: ModelCodes) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for modality, one in blocks.items():
        numbers = (
            block.rows.array() if dead is None else block.rows.at(np.flatnonzero(~dead))
            for block, dead in zip(one.blocks, one.dead, strict=True)
        )
        runs = RowMap.of((rows, rows) for rows in numbers)
        arrays[f"first_{modality}"], arrays[f"lengths_{modality}"] = runs.first, runs.lengths
        arrays[f"codes_{modality}"] = [
            np.empty((0, one.width), np.uint8),
            *(
                block.codes if dead is None else block.codes[~dead]
                for block, dead in zip(one.blocks, one.dead, strict=True)
            ),
        ]
    return arrays


def _blocks_of(found: DerivedSet, width: int) -> StoredBlocks | None:
    blocks: ModelCodes = {}
    maps = []
    for modality in MODALITIES:
        names = ("first", "lengths", "codes")
        arrays = [found.arrays.get(f"{name}_{modality}") for name in names]
        if any(array is None for array in arrays):
            return None
        first, lengths, codes = (array for array in arrays if array is not None)
        if not _are_runs(first, lengths) or codes.dtype != np.uint8:
            return None
        if codes.shape != (int(lengths.sum()), width):
            return None
        rows = RowMap(first, first, lengths)
        maps.append(rows)
        blocks[modality] = CodeBlocks(8 * width, list(_blocks(rows, codes)))
    return StoredBlocks(found.version, RowMap.joined(maps), blocks)


def _blocks(rows: RowMap, codes: NDArray[np.uint8]) -> Iterator[Block]:
    """Blocks of codes, without copying them."""
    for begin in range(0, len(codes), BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, len(codes))
        first, numbers = rows.run_between(begin, end)
        run = RowNumbers.run(first, end - begin) if numbers is None else RowNumbers(numbers)
        yield Block(run, codes[begin:end])


def _are_runs(first: NDArray[Any], lengths: NDArray[Any]) -> bool:
    """Whether these are ascending runs of rows that do not overlap."""
    if first.dtype != np.int64 or lengths.dtype != np.int64:
        return False
    if first.ndim != 1 or first.shape != lengths.shape:
        return False
    if not len(first):
        return True
    small = (first >= 0).all() and (first < _MOST_ROWS).all()
    small = small and (lengths > 0).all() and (lengths < _MOST_ROWS).all()
    return bool(small and (first[1:] >= (first + lengths)[:-1]).all())
