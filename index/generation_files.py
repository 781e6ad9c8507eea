"""Rows and codes of a generation as derived files.

With them a large archive opens quickly: codes stay in their memory-mapped file, and only later
commits are read from the store.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

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
_ROWS = "rows"
T = TypeVar("T", "RowTable", "StoredCodes")


@dataclass(frozen=True)
class StoredCodes:
    """A model's codes of an earlier generation.

    Attributes:
        version: of the store that they belong to.
        rows: their rows, of all modalities.
        codes: by modality.
    """

    version: int
    rows: RowMap
    codes: ModelCodes


class GenerationFiles:
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
        return self._read(_ROWS, store.version, lambda found: _rows_of(found, store))

    def codes(self, column: str, width: int, rows: RowTable) -> StoredCodes | None:
        """The stored codes of this or an earlier generation, if they are usable.

        Args:
            column: the store's column of these codes.
            width: bytes of a code.
            rows: of the current generation.
        """
        return self._read(column, rows.version, lambda found: _codes_of(found, width, rows))

    def _read(self, key: str, version: int, parse: Callable[[DerivedSet], T]) -> T | None:
        found = self.files.read_set(_name(key))
        if found is None or found.version > version:
            return None
        try:
            stored = parse(found)
        except ValueError as why:
            self.files.refuse(_name(key), str(why))
            return None
        self._stored[key] = stored.version
        return stored

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
        if len(generation) < STORED_FROM:
            return []
        least = _REWRITTEN_SHARE * len(generation)
        return [
            key
            for key in (_ROWS, *generation.loaded_columns)
            if key not in self._stored
            or (
                self._stored[key] != generation.version
                and generation.changed_since(self._stored[key]) >= least
            )
        ]

    def _save(self) -> None:
        while (generation := self._newest) is not None and (keys := self._due(generation)):
            for key in keys:
                # Set first, so that a failed write is not repeated for this generation.
                self._stored[key] = generation.version
                if key == _ROWS:
                    arrays = _arrays_of_rows(generation.row_table)
                else:
                    arrays = _arrays_of_codes(generation.loaded_columns[key])
                self.files.write_set(_name(key), arrays, generation.version)


def _name(key: str) -> str:
    """The name of the set of the rows, or of the codes in a column."""
    return key if key == _ROWS else f"codes-{key}"


def _array(found: DerivedSet, name: str, dtype: Any, dimensions: int = 1) -> NDArray[Any]:
    array = found.arrays.get(name)
    if array is None or array.dtype != dtype or array.ndim != dimensions:
        raise ValueError(f"its array {name!r} is missing, or of another type")
    return array


def _runs(found: DerivedSet, suffix: str = "") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First rows and lengths of ascending runs of rows that do not overlap."""
    first = _array(found, f"first{suffix}", np.int64)
    lengths = _array(found, f"lengths{suffix}", np.int64)
    if first.shape != lengths.shape or (
        (first < 0).any()
        or (first >= _MOST_ROWS).any()
        or (lengths <= 0).any()
        or (lengths >= _MOST_ROWS).any()
        or (first[1:] < (first + lengths)[:-1]).any()
    ):
        raise ValueError("its arrays do not make rows")
    return first, lengths


# Rows


def _arrays_of_rows(rows: RowTable) -> Arrays:
    return {
        "first": rows.map.first,
        "ids": rows.map.ids,
        "lengths": rows.map.lengths,
        "kinds": rows.kinds,
    }


def _rows_of(found: DerivedSet, store: Store) -> RowTable:
    """Stored rows of this or an earlier version of the store.

    Raises:
        ValueError: they cannot be used; the message says why.
    """
    first, lengths = _runs(found)
    ids, kinds = _array(found, "ids", np.int64), _array(found, "kinds", np.int8)
    claimed, count = int(lengths.sum()), store.count()
    if (
        ids.shape != first.shape
        or (ids < 0).any()
        or (ids > np.iinfo(np.int64).max - lengths).any()
        or len(kinds) not in (min(1, claimed), claimed)
    ):
        raise ValueError("its arrays do not make rows")
    if found.version == store.version and claimed != count:
        raise ValueError(f"it has {claimed} rows of this version, which has {count}")
    if claimed > _MOST_DELETED * count + _ROWS_READ_AT_ONCE:
        # Finding the deleted ones would take longer than reading the store, and much memory.
        raise ValueError(f"it has {claimed} rows, of which at most {count} still exist")
    return RowTable(found.version, RowMap(first, ids, lengths), kinds)


# Codes


def _arrays_of_codes(codes: ModelCodes) -> Arrays:
    arrays: dict[str, Any] = {}
    for modality, blocks in codes.items():
        live = [
            (block, None if dead is None else np.flatnonzero(~dead))
            for block, dead in zip(blocks.blocks, blocks.dead, strict=True)
        ]
        numbers = (b.rows.array() if at is None else b.rows.at(at) for b, at in live)
        runs = RowMap.of((rows, rows) for rows in numbers)
        arrays[f"first_{modality}"], arrays[f"lengths_{modality}"] = runs.first, runs.lengths
        arrays[f"codes_{modality}"] = [
            np.empty((0, blocks.width), np.uint8),
            *(b.codes if at is None else b.codes[at] for b, at in live),
        ]
    return arrays


def _codes_of(found: DerivedSet, width: int, rows: RowTable) -> StoredCodes:
    """Stored codes of this or an earlier generation.

    Raises:
        ValueError: they cannot be used; the message says why.
    """
    codes: dict[str, CodeBlocks] = {}
    maps = []
    for modality in MODALITIES:
        first, lengths = _runs(found, f"_{modality}")
        array = _array(found, f"codes_{modality}", np.uint8, 2)
        if array.shape != (int(lengths.sum()), width):
            raise ValueError(f"its arrays do not make codes of {width} bytes")
        coded_rows = RowMap(first, first, lengths)
        maps.append(coded_rows)
        codes[modality] = CodeBlocks(8 * width, list(_blocks(coded_rows, array)))
    stored = StoredCodes(found.version, RowMap.joined(maps), codes)
    if stored.version == rows.version and len(stored.rows.missing_from(rows.map)):
        raise ValueError("it has codes of rows that do not exist")
    return stored


def _blocks(rows: RowMap, codes: NDArray[np.uint8]) -> Iterator[Block]:
    """Blocks of codes, without copying them."""
    for begin in range(0, len(codes), BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, len(codes))
        first, numbers = rows.run_between(begin, end)
        run = RowNumbers.run(first, end - begin) if numbers is None else RowNumbers(numbers)
        yield Block(run, codes[begin:end])
