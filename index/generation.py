"""One generation of an archive: the store at one version, and the index derived from it.

A generation never changes, so threads can search it while the next one is loaded. A model's codes
are loaded when first needed; the next generation shares them and reads only the changed rows.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.checks import MAX_MEDIA_NAME_BYTES
from bittern.errors import ArchiveDamagedError, ObservationNotFoundError
from bittern.index.columns import FINGERPRINT, IDENTITY, as_given
from bittern.index.engines.search_engine import RowSet
from bittern.index.filters import compile_where
from bittern.index.generation_files import GenerationFiles
from bittern.index.loading import (
    MODALITIES,
    Change,
    ModelCodes,
    RowTable,
    blocks_since,
    int64s,
    read_blocks,
    read_map,
    read_rows,
    rows_since,
)
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedBefore, Fingerprint
from bittern.index.row_map import RowMap
from bittern.index.store import ROW_ID, Store, one_of, quoted
from bittern.types import Observation

__all__ = ["MODALITIES", "Generation"]
_CACHED_CONDITIONS = 16
_CACHED_IDS = 1_000
_CACHED_BYTES = 8 << 20
"""Observations that are kept in memory, about."""
_HISTORY = 1_000
"""Number of generations whose changes are counted."""
_IDENTITY_COLUMNS = ("row", *IDENTITY, "mediaRoot")


class Generation:
    """An archive at one store version.

    Args:
        store: the store; it is pinned at its current version.
        before: an earlier generation of the same archive, whose loaded codes are reused.
        files: derived files of rows and codes; None for none.
        since: code columns that were removed and added again, with the version that added them:
            older codes of them are not reused.
    """

    def __init__(
        self,
        store: Store,
        before: Generation | None = None,
        files: GenerationFiles | None = None,
        since: Mapping[str, int] | None = None,
    ) -> None:
        self.store = store.pinned()
        self.version = self.store.version
        self._files = files
        self._metadata_columns = list(self.store.metadata_types)
        self._blocks: dict[str, ModelCodes] = {}
        self._code_counts: dict[str, Mapping[str, int]] = {}
        self._matching: dict[str, RowSet] = {}
        self._cache_lock = threading.Lock()
        self._rows_by_id: dict[str, int] = {}
        self._observations: dict[int, Observation] = {}
        self._observations_bytes = 0
        self._lock = threading.Lock()
        self._history: tuple[tuple[int, int], ...] = ()
        self._since = dict(since or {})
        if before is not None and before.version > self.version:
            before = None
        self._rows = self._derived(before) or read_rows(self.store)

    def __len__(self) -> int:
        return len(self._rows.map)

    def _derived(self, before: Generation | None) -> RowTable | None:
        """The rows from an earlier generation, and its loaded codes; None if there is none."""
        loaded: dict[str, ModelCodes] = {}
        history: tuple[tuple[int, int], ...] = ()
        earlier = None
        if before is not None:
            earlier, history = before._rows, before._history
            loaded = {
                column: blocks
                for column, blocks in before.loaded_columns.items()
                if self.store.field_type(column) is not None
                and before.version >= self._since.get(column, 0)
            }
        elif self._files is not None:
            earlier = self._files.rows(self.store)
        if earlier is None:
            return None
        if earlier.version == self.version:
            self._blocks = loaded
            return earlier
        rows, change = rows_since(self.store, earlier, list(loaded))
        changed = len(change.gone) + len(change.written)
        self._history = (*history, (earlier.version, changed))[-_HISTORY:]
        for column, blocks in loaded.items():
            self._blocks[column] = blocks_since(blocks, rows, change, column)
        return rows

    # Codes

    def codes(self, record: ModelRecord) -> ModelCodes:
        """A model's codes by modality, loaded if necessary."""
        column = record.code_column
        with self._lock:
            if column not in self._blocks:
                self._blocks[column] = self._stored_codes(column) or read_blocks(
                    self.store, self._rows, column
                )
                if self._files is not None:
                    self._files.save_if_worth_it(self)
            return self._blocks[column]

    def _stored_codes(self, column: str) -> ModelCodes | None:
        """Codes from derived files, updated; None if there are none."""
        width = self.store.code_bytes(column)
        files = self._files
        stored = files.codes(column, width, self._rows) if files else None
        if stored is None or stored.version < self._since.get(column, 0):
            return None
        if stored.version == self.version:
            return stored.codes
        written = self.store.read(["row", "modality", column], f"`committed` > {stored.version}")
        change = Change(stored.rows.missing_from(self._rows.map), written)
        return blocks_since(stored.codes, self._rows, change, column)

    def loaded(self, record: ModelRecord) -> ModelCodes | None:
        """A model's codes by modality, if they are in memory."""
        return self._blocks.get(record.code_column)

    @property
    def loaded_columns(self) -> Mapping[str, ModelCodes]:
        """Codes in memory, by column of the store."""
        return dict(self._blocks)

    @property
    def row_table(self) -> RowTable:
        """The rows, their ids in the store, and their modalities."""
        return self._rows

    def changed_since(self, version: int) -> int:
        """Upper bound of the rows written or deleted since a version; all rows if unknown."""
        steps = [changed for earlier, changed in self._history if earlier >= version]
        known = any(earlier == version for earlier, _ in self._history)
        return sum(steps) if known else len(self)

    # Counts

    @property
    def code_bytes(self) -> int:
        """Bytes of the codes in memory."""
        return sum(one.nbytes for blocks in self._blocks.values() for one in blocks.values())

    @cached_property
    def observation_counts(self) -> Mapping[str, int]:
        """Rows by modality."""
        return {modality: self._rows.count(modality) for modality in MODALITIES}

    @cached_property
    def recordings(self) -> int:
        """Distinct `occurrenceID`s of sounds."""
        return len(self.store.read(["occurrenceID"], "modality = 'audio'")["occurrenceID"].unique())

    def code_counts(self, record: ModelRecord) -> Mapping[str, int]:
        """Number of a model's codes by modality; counted once, without loading them."""
        column = record.code_column
        loaded = self._blocks.get(column)
        if loaded:
            return {modality: len(loaded[modality]) for modality in MODALITIES}
        if column not in self._code_counts:
            self._code_counts[column] = {
                modality: self.store.count(f"`{column}` IS NOT NULL AND modality = '{modality}'")
                for modality in MODALITIES
            }
        return self._code_counts[column]

    # Rows

    @property
    def rows(self) -> NDArray[np.int64]:
        """All row numbers, ascending: a new int64 [n]."""
        return self._rows.map.rows()

    def has_rows_of(self, other: Generation) -> bool:
        """Whether another generation has the same rows."""
        return self._rows.map.same_rows(other._rows.map)

    def of_modality(self, modality: str) -> NDArray[np.int64]:
        """Rows of one modality, ascending."""
        return self._rows.of_modality(modality)

    def matching(self, where: str | None) -> RowSet | None:
        """Rows that meet a condition; None if it is missing or blank.

        The latest conditions are cached.

        Raises:
            FilterError: `where` is no condition over the archive's columns.
        """
        compiled = self.compiled(where)
        if compiled is None:
            return None
        cached = self._matching.get(compiled)
        if cached is None:
            cached = RowSet(self._rows_that_meet(compiled))
            with self._lock:
                while len(self._matching) >= _CACHED_CONDITIONS:
                    self._matching.pop(next(iter(self._matching)))
                self._matching[compiled] = cached
        return cached

    def rows_matching(self, where: str | None) -> NDArray[np.int64]:
        """Row numbers, ascending, that meet a condition; all of them without one: int64 [n]."""
        matching = self.matching(where)
        return self.rows if matching is None else matching.rows

    def compiled(self, where: str | None) -> str | None:
        """A condition in the store's SQL; None if it is missing or blank. Raises as `matching`."""
        if where is None or (isinstance(where, str) and not where.strip()):
            return None
        return compile_where(where, {**IDENTITY, **self.store.metadata_types})

    def _rows_that_meet(self, where: str) -> NDArray[np.int64]:
        # Only ids: if the condition's columns are indexed, no column is read.
        ids = int64s(self.store.read([ROW_ID], where)[ROW_ID])
        rows = self._rows.map.rows_of(ids)
        if rows is None:
            rows = self._relocated().rows_of(ids)
        if rows is None:
            # A row number occurs twice in the store; bittern verify reports it.
            rows = np.unique(int64s(self.store.read(["row"], where)["row"]))
        return rows

    def _relocated(self) -> RowMap:
        """The map of rows, after a compaction has moved them."""
        self._rows = RowTable(self.version, read_map(self.store), self._rows.kinds)
        return self._rows.map

    # Observations

    def observations(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Observation]:
        """The observations of rows that exist, in the given order."""
        wanted = [int(row) for row in rows]
        with self._cache_lock:
            found = {row: self._observations[row] for row in wanted if row in self._observations}
        if missing := [row for row in wanted if row not in found]:
            table = self._take(np.array(missing, dtype=np.int64), self._columns)
            taken = {one.row: one for one in self._of_table(table)}
            self._keep(taken)
            found |= taken
        # Each caller gets metadata of its own.
        return [replace(found[row], metadata=dict(found[row].metadata)) for row in wanted]

    def _keep(self, observations: Mapping[int, Observation]) -> None:
        """Keep observations in memory; when that is full, it starts again."""
        size = sum(map(_bytes_of, observations.values()))
        with self._cache_lock:
            if self._observations_bytes + size > _CACHED_BYTES:
                self._observations, self._observations_bytes = {}, 0
            if size <= _CACHED_BYTES:
                self._observations |= observations
                self._observations_bytes += size

    @cached_property
    def _columns(self) -> list[str]:
        """The columns of an observation, without its modality, which is known already.

        Lance takes 2 ms for a value of a column that is the same in a million rows.
        """
        known = bool((self._rows.kinds >= 0).all())
        identity = [name for name in _IDENTITY_COLUMNS if name != "modality" or not known]
        return [*identity, *self._metadata_columns]

    def _of_table(self, table: pa.Table) -> list[Observation]:
        """The observations in a table of `_columns`."""
        kinds = self._rows.kinds_of(int64s(table["row"])).tolist()
        return [
            _observation({"modality": MODALITIES[kind], **value}, self._metadata_columns)
            for kind, value in zip(kinds, table.to_pylist(), strict=True)
        ]

    def by_condition(self, where: str) -> list[Observation]:
        """The observations that meet a condition in the store's SQL, in row order."""
        columns = [*_IDENTITY_COLUMNS, *self._metadata_columns]
        values = self.store.read(columns, where).to_pylist()
        values.sort(key=lambda value: value["row"])
        return [_observation(value, self._metadata_columns) for value in values]

    def observation(self, id: str) -> Observation:  # noqa: A002 - the field's own word
        """The observation with this id.

        Raises:
            ObservationNotFoundError: it does not exist.
        """
        return self.observations([self.row_of(id)])[0]

    def row_of(self, id: str) -> int:  # noqa: A002
        """The row of the observation with this id; some ids are cached. Raises as above."""
        with self._cache_lock:
            if id in self._rows_by_id:
                return self._rows_by_id[id]
        found = self.store.read(["row"], one_of("id", [id]))["row"]
        if len(found):
            row: int = found[0].as_py()
            with self._cache_lock:
                if len(self._rows_by_id) >= _CACHED_IDS:
                    self._rows_by_id.clear()
                self._rows_by_id[id] = row
            return row
        windows = self.store.count(one_of("occurrenceID", [id]))
        hint = (
            f'; it has {windows} windows: list them with where="occurrenceID = {quoted(id)}"'
            if windows
            else ""
        )
        raise ObservationNotFoundError(
            f"there is no observation {id!r} in the archive{hint}", field="id"
        )

    def coded(self, occurrence_ids: Sequence[str], column: str) -> dict[str, CodedBefore]:
        """Those of some `occurrenceID`s with a code in a column: media root and fingerprint."""
        if not occurrence_ids:
            return {}
        where = f"{one_of('occurrenceID', occurrence_ids)} AND `{column}` IS NOT NULL"
        stored = [name for name in FINGERPRINT if self.store.field_type(name) is not None]
        found: dict[str, CodedBefore] = {}
        for row in self.store.read(["occurrenceID", "mediaRoot", *stored], where).to_pylist():
            content, size = row.get("mediaHash"), row.get("mediaBytes")
            known = content is not None and size is not None
            fingerprint = Fingerprint(content, size, row.get("mediaModified")) if known else None
            found[row["occurrenceID"]] = CodedBefore(row["mediaRoot"] or "", fingerprint)
        return found

    def media_names(self, occurrence_ids: Sequence[str]) -> dict[str, str]:
        """Media names of those of some `occurrenceID`s that exist."""
        if not occurrence_ids:
            return {}
        where = one_of("occurrenceID", occurrence_ids)
        rows = self.store.read(["occurrenceID", "media"], where).to_pylist()
        return {row["occurrenceID"]: row["media"] or "" for row in rows}

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
                f"rows are missing in the archive's store at {self.store.path}; run bittern verify "
                "or restore the archive from a backup"
            )
        return table

    def _taken(
        self, row_map: RowMap, rows: NDArray[np.int64], columns: Sequence[str]
    ) -> pa.Table | None:
        """Columns of rows by their ids; None if a compaction has changed the ids."""
        ids, known = row_map.ids_of(rows)
        if not known.all():
            return None
        table = self.store.take(ids.tolist(), columns)
        return table if np.array_equal(np.sort(int64s(table["row"])), np.sort(rows)) else None


def _shortened(media: str) -> str:
    """A media name of an earlier release, which had no limit, to the length of the longest path."""
    return media if len(media) <= MAX_MEDIA_NAME_BYTES else media[: MAX_MEDIA_NAME_BYTES - 1] + "…"


def _bytes_of(observation: Observation) -> int:
    """About how much memory an observation takes, in bytes."""
    values = (observation.id, observation.occurrence_id, observation.media)
    texts = [value for value in (*values, *observation.metadata.values()) if isinstance(value, str)]
    return 2_000 + 4 * sum(map(len, texts))


def _observation(value: dict[str, Any], metadata_columns: Sequence[str]) -> Observation:
    return Observation(
        id=value["id"],
        occurrence_id=value["occurrenceID"],
        modality=value["modality"],
        media=_shortened(value["media"]),
        media_root=value["mediaRoot"] or "",
        start_s=value["start_s"],
        end_s=value["end_s"],
        metadata={
            name: as_given(value[name]) for name in metadata_columns if value[name] is not None
        },
        row=value["row"],
    )
