"""The rows and codes of an archive's index as derived files.

A large archive opens at the speed of its disk: the codes are used where their file lies,
and what was committed since they were written is read from the store.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bittern.index.derived_files import DerivedFiles, DerivedSet
from bittern.index.engines.blocks import BLOCK_ROWS, Block, CodeBlocks
from bittern.index.engines.rows import RowNumbers
from bittern.index.loading import MODALITIES, Blocks, Rows
from bittern.index.row_map import RowMap
from bittern.index.store import Store

if TYPE_CHECKING:
    from bittern.index.generation import Generation

KEPT_FROM = 200_000
"""Rows from which on reading an archive from its store takes long enough to keep files."""
_REWRITTEN_SHARE = 0.1
"""Share of rows that must have changed before the files are written anew."""
_MOST_ROWS = 1 << 40
_MOST_GONE = 2
_ROWS_READ_AT_ONCE = 1 << 20
"""A set with more than so many rows, and so many times those that the store has, is no start."""


@dataclass(frozen=True)
class KeptBlocks:
    """Codes of an earlier generation.

    Attributes:
        generation: store version that they belong to.
        rows: their rows, of all modalities.
        blocks: the codes.
    """

    generation: int
    rows: RowMap
    blocks: Blocks


class IndexFiles:
    """What is kept of an archive's index between openings.

    Args:
        files: the archive's derived files.
    """

    def __init__(self, files: DerivedFiles) -> None:
        self.files = files
        self._kept: dict[str, int] = {}
        self._lock = threading.Lock()
        self._saving: threading.Thread | None = None
        self._newest: Generation | None = None

    def rows(self, store: Store) -> Rows | None:
        """The rows of the generation that was kept last, if they can be trusted.

        Args:
            store: at the version that they are wanted for, or as a start for.
        """
        found = self.files.read_set("rows")
        if found is None or found.generation > store.version:
            return None
        rows = _rows_of(found)
        if why := _no_start(rows, store):
            self.files.refuse("rows", why)
            return None
        if rows is not None:
            self._kept["rows"] = rows.generation
        return rows

    def blocks(self, column: str, width: int, rows: Rows) -> KeptBlocks | None:
        """A model's codes of the generation that was kept last, if they can be trusted.

        Args:
            column: the store's column of these codes.
            width: bytes of a code.
            rows: of the generation that they are wanted for, or as a start for.
        """
        name = f"codes-{column}"
        found = self.files.read_set(name)
        if found is None or found.generation > rows.generation:
            return None
        kept = _blocks_of(found, width)
        if kept is None:
            self.files.refuse(name, f"its arrays do not make codes of {width} bytes")
        elif kept.generation == rows.generation and len(kept.rows.missing_from(rows.map)):
            self.files.refuse(name, "it has codes of rows that are not there")
        else:
            self._kept[column] = kept.generation
            return kept
        return None

    def save_if_worth_it(self, generation: Generation) -> None:
        """Keep what is loaded, in the background, if that saves the next opening much."""
        with self._lock:
            self._newest = generation
            if (self._saving is None or not self._saving.is_alive()) and self._due(generation):
                self._saving = threading.Thread(
                    target=self._save, name="derived-files", daemon=True
                )
                self._saving.start()

    def close(self, generation: Generation | None) -> None:
        """Keep what is worth it of the last generation, and wait until that is done."""
        if generation is not None:
            self.save_if_worth_it(generation)
        if self._saving is not None:
            self._saving.join()
        self._newest = None

    def _due(self, generation: Generation) -> list[str]:
        """What of a generation is worth keeping and not kept yet."""
        rows = len(generation)
        if rows < KEPT_FROM:
            return []
        least = _REWRITTEN_SHARE * rows
        return [
            name
            for name in ("rows", *generation.loaded_columns)
            if name not in self._kept
            or (
                self._kept[name] != generation.version
                and generation.changed_since(self._kept[name]) >= least
            )
        ]

    def _save(self) -> None:
        while (generation := self._newest) is not None and (names := self._due(generation)):
            for name in names:
                # Noted first: what cannot be written is not tried again for this generation.
                self._kept[name] = generation.version
                if name == "rows":
                    arrays = _arrays_of_rows(generation.kept_rows)
                    self.files.write_set("rows", arrays, generation.version)
                else:
                    arrays = _arrays_of_blocks(generation.loaded_columns[name])
                    self.files.write_set(f"codes-{name}", arrays, generation.version)


def _arrays_of_rows(rows: Rows) -> dict[str, Any]:
    return {
        "first": rows.map.first,
        "ids": rows.map.ids,
        "lengths": rows.map.lengths,
        "kinds": rows.kinds,
    }


def _rows_of(found: DerivedSet) -> Rows | None:
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
    return Rows(found.generation, RowMap(first, ids, lengths), kinds)


def _no_start(rows: Rows | None, store: Store) -> str:
    """Why rows that were kept are not where this version of the store can begin; or empty."""
    if rows is None:
        return "its arrays do not make rows"
    claimed, there = len(rows.map), store.count()
    if rows.generation == store.version and claimed != there:
        return f"it has {claimed} rows of this version, which has {there}"
    if claimed > _MOST_GONE * there + _ROWS_READ_AT_ONCE:
        # Finding out which of them are gone would take longer, and memory for each.
        return f"it has {claimed} rows, of which {there} can be left at most"
    return ""


def _arrays_of_blocks(blocks: Blocks) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for modality, part in blocks.items():
        numbers = (
            block.rows.array() if dead is None else block.rows.at(np.flatnonzero(~dead))
            for block, dead in zip(part.blocks, part.dead, strict=True)
        )
        runs = RowMap.of((rows, rows) for rows in numbers)
        arrays[f"first_{modality}"], arrays[f"lengths_{modality}"] = runs.first, runs.lengths
        arrays[f"codes_{modality}"] = [
            np.empty((0, part.width), np.uint8),
            *(
                block.codes if dead is None else block.codes[~dead]
                for block, dead in zip(part.blocks, part.dead, strict=True)
            ),
        ]
    return arrays


def _blocks_of(found: DerivedSet, width: int) -> KeptBlocks | None:
    blocks: Blocks = {}
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
    return KeptBlocks(found.generation, RowMap.joined(maps), blocks)


def _blocks(rows: RowMap, codes: NDArray[np.uint8]) -> Iterator[Block]:
    """Blocks of codes in the place where they are; runs of rows without arrays of them."""
    for begin in range(0, len(codes), BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, len(codes))
        first, numbers = rows.run_between(begin, end)
        run = RowNumbers.run(first, end - begin) if numbers is None else RowNumbers(numbers)
        yield Block(run, codes[begin:end])


def _are_runs(first: NDArray[Any], lengths: NDArray[Any]) -> bool:
    """Whether these are runs of rows, ascending and apart from each other."""
    if first.dtype != np.int64 or lengths.dtype != np.int64:
        return False
    if first.ndim != 1 or first.shape != lengths.shape:
        return False
    if not len(first):
        return True
    small = (first >= 0).all() and (first < _MOST_ROWS).all()
    small = small and (lengths > 0).all() and (lengths < _MOST_ROWS).all()
    return bool(small and (first[1:] >= (first + lengths)[:-1]).all())
