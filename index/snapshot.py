"""One generation of an archive: the store at one version, and the index derived from it.

A snapshot never changes, so threads can search it while the next one is made. Codes are
loaded when a model is first asked for; a later generation takes over what its predecessor
has loaded and reads only the rows that changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from index.columns import IDENTITY, as_given
from index.flat import FlatCodes
from index.models import ModelRecord
from index.observation import Observation
from index.store import Store

MODALITIES = ("image", "audio")
_REMEMBERED_CONDITIONS = 16
_IDENTITY_COLUMNS = ("row", *IDENTITY, "mediaRoot")
T = TypeVar("T")
Blocks = dict[str, FlatCodes]
"""Codes of one model by modality."""


class Snapshot:
    """An archive at one store version.

    Args:
        store: the store; it is pinned at the version that it is at.
        before: an earlier snapshot of the same archive, whose loaded codes are reused.
    """

    def __init__(self, store: Store, before: Snapshot | None = None) -> None:
        self.store = store.pinned()
        self.generation = self.store.version
        self._metadata_columns = list(self.store.metadata_types)
        self._blocks: dict[str, Blocks] = {}
        self._remembered: dict[str, object] = {}
        self._matching: dict[str, NDArray[np.int64]] = {}
        self._loading = threading.Lock()
        self.rows: NDArray[np.int64]
        self._offsets: NDArray[np.integer]
        self._modalities: NDArray[np.int8]
        if before is None:
            self._read_rows()
        else:
            changed = self._take_over_rows(before)
            for column, blocks in list(before._blocks.items()):
                self._blocks[column] = self._carry_over(column, blocks, changed)

    def _take_over_rows(self, before: Snapshot) -> NDArray[np.int64]:
        """Number the rows like an earlier snapshot where only some were added since.

        Returns:
            rows that were written since, ascending.
        """
        since = f"committed > {before.generation}"
        table = self.store.read(["row", "modality"], since)
        changed = _numbers(table, "row")
        last = before.rows[-1] if len(before) else -1
        ascending = (changed[:-1] < changed[1:]).all() and (not len(changed) or changed[0] > last)
        if ascending and self.store.count() == len(before) + len(changed):
            self.rows = np.concatenate([before.rows, changed])
            self._modalities = np.concatenate([before._modalities, _modality_numbers(table)])
            self._offsets = _compact(
                np.concatenate([before._offsets, np.arange(len(before), len(self.rows))])
            )
        else:
            self._read_rows()
        return np.sort(changed)

    def _read_rows(self) -> None:
        """Number the rows by what the store holds, in the order in which it holds them."""
        table = self.store.read(["row", "modality"])
        rows = _numbers(table, "row")
        order = np.argsort(rows, kind="stable")
        self.rows = rows[order]
        self._offsets = _compact(order)
        self._modalities = _modality_numbers(table)[order]

    def __len__(self) -> int:
        return len(self.rows)

    # Codes

    def codes(self, record: ModelRecord) -> Blocks:
        """A model's codes by modality, loaded now if they were not."""
        column = record.code_column
        with self._loading:
            if column not in self._blocks:
                table = self.store.read(["row", column])
                self._blocks[column] = self._blocks_of(*_coded(table, column), record.bits // 8)
            return self._blocks[column]

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes in memory."""
        return sum(part.nbytes for blocks in self._blocks.values() for part in blocks.values())

    def _blocks_of(self, rows: NDArray[np.int64], codes: NDArray[np.uint8], width: int) -> Blocks:
        order = np.argsort(rows, kind="stable")
        if (order[:-1] > order[1:]).any():
            rows, codes = rows[order], codes[order]
        if len(rows) == len(self.rows):
            rows = self.rows  # the same numbers; one copy is enough
        kinds = self._modalities[np.searchsorted(self.rows, rows)]
        blocks: Blocks = {}
        for number, modality in enumerate(MODALITIES):
            chosen = kinds == number
            if chosen.all() and len(rows):
                blocks[modality] = FlatCodes(rows, codes)
            else:
                blocks[modality] = FlatCodes(rows[chosen], codes[chosen].reshape(-1, width))
        return blocks

    def _carry_over(self, column: str, blocks: Blocks, changed: NDArray[np.int64]) -> Blocks:
        """Blocks of this generation from those of an earlier one and the changed rows."""
        taken = self._take(changed, ["row", column])
        new_rows, new_codes = _coded(taken, column)
        new = self._blocks_of(new_rows, new_codes, new_codes.shape[1])
        carried: Blocks = {}
        for modality, old in blocks.items():
            kept = np.isin(old.rows, self.rows, assume_unique=True)
            kept &= ~np.isin(old.rows, changed, assume_unique=True)
            fresh = new[modality]
            if kept.all() and not len(fresh):
                carried[modality] = old
                continue
            if kept.all() and (not len(old) or old.rows[-1] < fresh.rows[0]):
                carried[modality] = old.appended(fresh.rows, fresh.codes)
                continue
            rows = np.concatenate([old.rows[kept], fresh.rows])
            codes = np.concatenate([old.codes[kept], fresh.codes])
            order = np.argsort(rows, kind="stable")
            if (order[:-1] > order[1:]).any():
                rows, codes = rows[order], codes[order]
            carried[modality] = FlatCodes(rows, codes)
        return carried

    def remember(self, what: str, compute: Callable[[], T]) -> T:
        """What `compute` says about this generation, computed once."""
        if what not in self._remembered:
            self._remembered[what] = compute()
        return cast(T, self._remembered[what])

    # Rows

    def matching(self, where: str) -> NDArray[np.int64]:
        """Rows that meet a checked condition, ascending; recent answers are remembered."""
        known = self._matching.get(where)
        if known is None:
            known = np.sort(_numbers(self.store.read(["row"], where), "row"))
            with self._loading:
                while len(self._matching) >= _REMEMBERED_CONDITIONS:
                    self._matching.pop(next(iter(self._matching)))
                self._matching[where] = known
        return known

    def of_modality(self, modality: str) -> NDArray[np.int64]:
        """Rows of one modality, ascending."""
        rows: NDArray[np.int64] = self.rows[self._modalities == MODALITIES.index(modality)]
        return rows

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
        numbers = _numbers(table, "row")
        if (numbers[:-1] > numbers[1:]).any():
            table = table.take(pa.array(np.argsort(numbers)))
        return table.select(list(columns))

    def _take(self, rows: NDArray[np.int64], columns: Sequence[str]) -> pa.Table:
        """Columns (`row` among them) of rows that exist, in any order."""
        if len(rows) == len(self.rows):
            return self.store.read(columns)
        if not len(rows):
            return self.store.read(columns, "false")
        places = np.searchsorted(self.rows, rows)
        table = self.store.take(self._offsets[places].tolist(), columns)
        if not np.array_equal(np.sort(_numbers(table, "row")), np.sort(rows)):
            # A compaction has put the rows into another order than they were added in.
            self._read_rows()
            table = self.store.take(self._offsets[places].tolist(), columns)
        return table


def _compact(offsets: NDArray[np.int64]) -> NDArray[np.integer]:
    return offsets.astype(np.uint32 if len(offsets) < 2**32 else np.int64)


def _numbers(table: pa.Table, column: str) -> NDArray[np.int64]:
    return np.asarray(table[column].to_numpy(), dtype=np.int64)


def _modality_numbers(table: pa.Table) -> NDArray[np.int8]:
    places = pc.index_in(table["modality"], pa.array(MODALITIES))
    return np.asarray(pc.fill_null(places, -1).to_numpy(), dtype=np.int8)


def _coded(table: pa.Table, column: str) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Rows that have a code, and their codes: int64 [n], uint8 [n, bits/8]."""
    width: int = table.schema.field(column).type.byte_width
    parts = []
    for chunk in table[column].chunks:
        start = chunk.offset * width
        data = np.frombuffer(chunk.buffers()[1], dtype=np.uint8) if len(chunk) else np.empty(0)
        parts.append(data[start : start + len(chunk) * width].reshape(-1, width))
    codes = np.concatenate(parts) if parts else np.empty((0, width), dtype=np.uint8)
    present = table[column].is_valid().to_numpy()
    return _numbers(table, "row")[present], codes.astype(np.uint8, copy=False)[present]


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
