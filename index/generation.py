"""One generation of an archive: the store at one version, and the index derived from it.

A snapshot never changes, so threads can search it while the next one is made. Codes are
loaded when a model is first asked for; a later generation takes over what its predecessor
has loaded and reads only the rows that changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError
from bittern.index.coded import int64s
from bittern.index.columns import IDENTITY, as_given
from bittern.index.derived_index import IndexFiles
from bittern.index.engines.rows import RowSet
from bittern.index.loading import (
    MODALITIES,
    Blocks,
    Change,
    Rows,
    blocks_since,
    read_blocks,
    read_map,
    read_rows,
    rows_since,
)
from bittern.index.models import ModelRecord
from bittern.index.row_map import RowMap
from bittern.index.store import ROW_ID, Store
from bittern.types import Observation

__all__ = ["MODALITIES", "Blocks", "Generation"]
_REMEMBERED_CONDITIONS = 16
_HISTORY = 1_000
"""Generations over which changes are counted."""
_IDENTITY_COLUMNS = ("row", *IDENTITY, "mediaRoot")
T = TypeVar("T")


class Generation:
    """An archive at one store version.

    Args:
        store: the store; it is pinned at the version that it is at.
        before: an earlier snapshot of the same archive, whose loaded codes are reused.
        kept: derived files that may hold some of it; None for none.
        since: columns of codes that were made anew, and the version that did so: what is known
            of them from before is not reused.
    """

    def __init__(
        self,
        store: Store,
        before: Generation | None = None,
        kept: IndexFiles | None = None,
        since: Mapping[str, int] | None = None,
    ) -> None:
        self.store = store.pinned()
        self.version = self.store.version
        self._kept = kept
        self._rows: Rows
        self._metadata_columns = list(self.store.metadata_types)
        self._blocks: dict[str, Blocks] = {}
        self._remembered: dict[str, object] = {}
        self._matching: dict[str, RowSet] = {}
        self._loading = threading.Lock()
        self._history: tuple[tuple[int, int], ...] = ()
        if before is not None and before.version > self.version:
            before = None
        self._since = dict(since or {})
        loaded = {} if before is None else dict(before._blocks)
        loaded = {name: blocks for name, blocks in loaded.items() if self._lasts(name, before)}
        earlier = before._rows if before is not None else kept.rows(self.store) if kept else None
        if earlier is None:
            self._rows = read_rows(self.store)
        elif earlier.generation == self.version:
            self._rows, self._blocks = earlier, loaded
        else:
            self._rows, change = rows_since(self.store, earlier, list(loaded))
            history = before._history if before is not None else ()
            changed = len(change.gone) + len(change.written)
            self._history = (*history, (earlier.generation, changed))[-_HISTORY:]
            for column, blocks in loaded.items():
                self._blocks[column] = blocks_since(blocks, self._rows, change, column)

    def __len__(self) -> int:
        return len(self._rows.map)

    def _lasts(self, column: str, before: Generation | None) -> bool:
        """Whether a column of an earlier snapshot is there, and still the same one."""
        there = self.store.field_type(column) is not None
        return there and before is not None and before.version >= self._since.get(column, 0)

    # Codes

    def codes(self, record: ModelRecord) -> Blocks:
        """A model's codes by modality, loaded now if they were not."""
        column = record.code_column
        with self._loading:
            if column not in self._blocks:
                self._blocks[column] = self._kept_codes(column) or read_blocks(
                    self.store, self._rows, column
                )
                if self._kept is not None:
                    self._kept.save_if_worth_it(self)
            return self._blocks[column]

    def _kept_codes(self, column: str) -> Blocks | None:
        """Codes from derived files, with what has changed since; None where there are none."""
        width = self.store.code_bytes(column)
        kept = self._kept.blocks(column, width, self._rows) if self._kept else None
        if kept is None or kept.generation < self._since.get(column, 0):
            return None
        if kept.generation == self.version:
            return kept.blocks
        written = self.store.read(["row", "modality", column], f"`committed` > {kept.generation}")
        change = Change(kept.rows.missing_from(self._rows.map), written)
        return blocks_since(kept.blocks, self._rows, change, column)

    def loaded(self, record: ModelRecord) -> Blocks | None:
        """A model's codes by modality, if they are in memory."""
        return self._blocks.get(record.code_column)

    # What derived files keep of it

    @property
    def loaded_columns(self) -> Mapping[str, Blocks]:
        """Codes that are in memory, by the store's columns."""
        return dict(self._blocks)

    @property
    def kept_rows(self) -> Rows:
        """The rows, and where they lie."""
        return self._rows

    def changed_since(self, generation: int) -> int:
        """How many rows were written or deleted since an earlier generation, at most.

        All of them, where that cannot be told any more.
        """
        steps = [changed for earlier, changed in self._history if earlier >= generation]
        known = any(earlier == generation for earlier, _ in self._history)
        return sum(steps) if known else len(self)

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes in memory."""
        return sum(part.nbytes for blocks in self._blocks.values() for part in blocks.values())

    def remember(self, what: str, compute: Callable[[], T]) -> T:
        """What `compute` says about this generation, computed once."""
        if what not in self._remembered:
            self._remembered[what] = compute()
        return cast(T, self._remembered[what])

    # Rows

    @property
    def rows(self) -> NDArray[np.int64]:
        """All row numbers, ascending: int64 [n], made anew for each caller."""
        return self._rows.map.rows()

    def has_rows_of(self, other: Generation) -> bool:
        """Whether another snapshot has the same rows."""
        return self._rows.map.same_rows(other._rows.map)

    def matching(self, where: str) -> RowSet:
        """Rows that meet a checked condition; recent answers are remembered."""
        known = self._matching.get(where)
        if known is None:
            known = RowSet(self._rows_that_meet(where))
            with self._loading:
                while len(self._matching) >= _REMEMBERED_CONDITIONS:
                    self._matching.pop(next(iter(self._matching)))
                self._matching[where] = known
        return known

    def _rows_that_meet(self, where: str) -> NDArray[np.int64]:
        # Only ids: where the condition's columns are indexed, no column is read at all.
        ids = int64s(self.store.read([ROW_ID], where)[ROW_ID])
        rows = self._rows.map.rows_of(ids)
        if rows is None:
            rows = self._relocated().rows_of(ids)
        if rows is None:
            # A row number that the store has twice; bittern verify will say so.
            rows = np.unique(int64s(self.store.read(["row"], where)["row"]))
        return rows

    def _relocated(self) -> RowMap:
        """Where the rows are, after a compaction has moved them."""
        self._rows = Rows(self.version, read_map(self.store), self._rows.kinds)
        return self._rows.map

    def of_modality(self, modality: str) -> NDArray[np.int64]:
        """Rows of one modality, ascending."""
        return self._rows.of_modality(modality)

    def observations(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Observation]:
        """The observations of rows that exist, in the order asked for."""
        columns = [*_IDENTITY_COLUMNS, *self._metadata_columns]
        values = self._take(np.asarray(rows, dtype=np.int64), columns).to_pylist()
        by_row = {value["row"]: _observation(value, self._metadata_columns) for value in values}
        return [by_row[int(row)] for row in rows]

    def by_condition(self, where: str) -> list[Observation]:
        """The observations that meet a checked condition, in row order."""
        columns = [*_IDENTITY_COLUMNS, *self._metadata_columns]
        values = self.store.read(columns, where).to_pylist()
        values.sort(key=lambda value: value["row"])
        return [_observation(value, self._metadata_columns) for value in values]

    def table(self, rows: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Columns of rows that exist (ascending), in row order."""
        wanted = ["row", *(column for column in columns if column != "row")]
        table = self._take(rows, wanted)
        numbers = int64s(table["row"])
        if (numbers[:-1] > numbers[1:]).any():
            table = table.take(pa.array(np.argsort(numbers)))
        return table.select(list(columns))

    def _take(self, rows: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Columns (`row` among them) of rows that exist, in any order."""
        if len(rows) == len(self):
            return self.store.read(columns)
        if not len(rows):
            return self.store.read(columns, "false")
        try:
            table = self._taken(self._rows.map, rows, columns)
        except ArchiveDamagedError:
            table = None
        if table is None:
            table = self._taken(self._relocated(), rows, columns)
        if table is None:
            raise ArchiveDamagedError(
                f"the archive's store at {self.store.path} does not hold the rows that it names; "
                "run bittern verify, restore the archive from a backup"
            )
        return table

    def _taken(
        self, places: RowMap, rows: NDArray[np.int64], columns: Sequence[str]
    ) -> pa.Table | None:
        ids, known = places.ids_of(rows)
        if not known.all():
            return None
        table = self.store.take(ids.tolist(), columns)
        return table if np.array_equal(np.sort(int64s(table["row"])), np.sort(rows)) else None


def _observation(value: dict[str, Any], metadata_columns: Sequence[str]) -> Observation:
    return Observation(
        id=value["id"],
        occurrence_id=value["occurrenceID"],
        modality=value["modality"],
        media=value["media"],
        media_root=value["mediaRoot"] or "",
        start_s=value["start_s"],
        end_s=value["end_s"],
        metadata={
            name: as_given(value[name]) for name in metadata_columns if value[name] is not None
        },
        row=value["row"],
    )
