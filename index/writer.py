"""The one writer of an archive: every change is planned in full, then committed at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock

from bittern.errors import (
    DigestMismatchError,
    LimitExceededError,
    ObservationNotFoundError,
    PreconditionError,
    QueryError,
)
from bittern.index.adding import PlannedItem, Planner, StoredItem, rows_of
from bittern.index.columns import (
    DARWIN_CORE,
    FINGERPRINT,
    INTERNAL,
    MAX_COLUMNS,
    MetadataColumns,
)
from bittern.index.commit_log import CommitLog
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.leftovers import clear_leftovers, unnamed_models
from bittern.index.model_switch import (
    drop_files,
    drop_unnamed,
    switched,
    uncoded,
    without_pending,
    without_retired,
)
from bittern.index.models import ModelRecord, write_model_files
from bittern.index.observation import CodedObservation
from bittern.index.restore import restore
from bittern.index.snapshots import SnapshotInfo, models_in_use
from bittern.index.store import LookupKind, Store, arrow_type, one_of
from bittern.types import AddResult, OnDuplicate

MAX_IDS = 10_000
"""Most ids of one deletion."""
_COMPACT_AFTER_COMMITS = 64
_COMPACT_AT_CLOSE_AFTER_COMMITS = 8
LOOKUPS_FROM = 50_000
"""Smaller archives have no look-up indexes: a scan of them is as fast."""
LOOKUPS: Mapping[str, LookupKind] = {
    "id": "sorted",
    "occurrenceID": "sorted",
    "row": "sorted",
    "committed": "sorted",
    "scientificName": "sorted",
    "family": "bitmap",
    "genus": "bitmap",
    "species": "sorted",
    "eventDate": "sorted",
    "decimalLatitude": "sorted",
    "decimalLongitude": "sorted",
    "countryCode": "bitmap",
}
"""Columns with a look-up index, and its kind.

License and modality have none: most conditions on them match a large share of the rows, and an
index made these slower (measured at 10 million rows)."""
_CHEAP_ROWS = 200_000
"""Up to this size a compaction takes a fraction of a second, so it is always done."""
_WORTH_SHARE = 0.1
"""Share of rows that must have changed before a larger archive is compacted.

A compaction takes seconds per million rows; a scan of a tenth of them, which are not indexed yet,
takes hundredths of a second."""
MOST_SMALL_FILES = 64
"""With this many files of single commits, a look-up in a large archive takes twice as long: about
a millisecond per file for the 1,000 names of a batch."""
_log = logging.getLogger(__name__)


class Writer:
    """Changes an archive; holds its lock until closed.

    Row numbers are never reused. The next one follows the greatest stored one; before a commit
    removes rows, the next number is written to `archive.json`, durably. A crash between the two
    does no harm.

    Args:
        folder: the archive's folder.
        store: the table, at its newest version.
        lock: held by this process.
    """

    def __init__(self, folder: ArchiveFolder, store: Store, lock: FileLock) -> None:
        self._folder = folder
        self._store = store
        self._file_lock = lock
        self._lock = threading.Lock()
        self._next_row: int | None = None
        self._lost_rows = True
        self._commits = 0
        self._changed_rows = 0
        self._failed = False
        clear_leftovers(folder, store)
        self._log = CommitLog(folder, store)
        self._log.adopt()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time; after a failed one, the store is read again."""
        with self._lock:
            if self._failed:
                self._store.renew()
                self._next_row = None
            self._failed = True
            try:
                self._folder.check_folders()
                yield
                self._log.record()
            except OSError as error:
                raise PreconditionError(
                    f"the archive at {self._folder.path} cannot be written to ({error}); "
                    "check free space and permissions"
                ) from error
            self._failed = False

    def close(self) -> None:
        """Compact if it is worth it, and release the lock."""
        with self._lock:
            try:
                self._tidy(_COMPACT_AT_CLOSE_AFTER_COMMITS, MOST_SMALL_FILES // 2)
                self._log.record()
            finally:
                self._file_lock.release()

    def register_model(self, record: ModelRecord, files: Mapping[str, bytes]) -> None:
        """See `Archive.register_model`."""
        record.checked()
        with self._changing():
            header = self._folder.read_header()
            folder = self._folder.models / record.digest
            for known in header.models:
                if known.digest == record.digest and known.bits == record.bits:
                    if not folder.is_dir():
                        write_model_files(folder, files)
                        self._log.record_model(folder)
                    return
                if known.code_column == record.code_column:
                    raise DigestMismatchError(
                        f"model {known.name} ({known.digest}, {known.bits} bits) of this archive "
                        f"and {record.name} ({record.digest}, {record.bits} bits) have the "
                        "same first 16 digits of their digests; use another archive",
                        field="digest",
                    )
            write_model_files(folder, files)
            self._log.record_model(folder)
            held = self._store.count() and not self._store.field_type(record.code_column)
            self._store.add_code_column(record)
            if held:  # readers may know an earlier column of that name
                record = replace(record, since=self._store.version)
            self._folder.write_header(replace(header, models=(*header.models, record)))

    def add(
        self,
        items: Sequence[Sequence[CodedObservation]],
        record: ModelRecord,
        on_duplicate: OnDuplicate,
    ) -> list[AddResult]:
        """See `Archive.add`."""
        if on_duplicate not in ("error", "skip", "overwrite"):
            raise QueryError(
                f"on_duplicate must be 'error', 'skip' or 'overwrite', not {on_duplicate!r}",
                field="on_duplicate",
            )
        with self._changing():
            self._make_room_for_columns(items)
            columns = MetadataColumns(self._store.metadata_types)
            embeddings = self._store.field_type(record.embedding_column)
            dim = None if embeddings is None else int(embeddings.list_size)
            planner = Planner(record, columns, self._stored(items, record), on_duplicate, dim)
            plan = planner.plan(items)
            if plan.items:
                self._add_columns(plan.items, columns, record, planner.embedding_dim)
                self._commit(list(plan.items.values()), record)
            return plan.results

    def delete(self, ids: Sequence[str]) -> list[str]:
        """See `Archive.delete`."""
        if len(ids) > MAX_IDS:
            raise LimitExceededError(f"{len(ids)} ids were given, the limit is {MAX_IDS} at once")
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            return []
        with self._changing():
            found = self._store.read(
                ["row", "id", "occurrenceID"],
                f"{one_of('id', wanted)} OR {one_of('occurrenceID', wanted)}",
            )
            known = {*found["id"].to_pylist(), *found["occurrenceID"].to_pylist()}
            unknown = [name for name in wanted if name not in known]
            if unknown:
                shown = ", ".join(repr(name) for name in unknown[:20])
                raise ObservationNotFoundError(
                    f"{len(unknown)} of {len(wanted)} ids are unknown, nothing was deleted: "
                    f"{shown}{', ...' if len(unknown) > 20 else ''}",
                    field="ids",
                    details={"unknown": ",".join(unknown)},
                )
            found = found.sort_by("row")
            self._keep_next_row()
            self._store.delete(f"`row` IN ({', '.join(map(str, found['row'].to_pylist()))})")
            self._committed(len(found))
            deleted: list[str] = found["id"].to_pylist()
            return deleted

    def restore(self, wanted: SnapshotInfo) -> None:
        """See `Archive.restore`."""
        with self._changing():
            then = self._store.at(wanted.version)
            models, next_row = wanted.models, self._first_free_row()
            self._lost_rows = True
            changed = restore(self._folder, self._store, then, models, next_row)
            drop_unnamed(self._folder, self._store, self._folder.read_header())
            self._committed(changed)

    # Models

    def switch_model(self, digest: str) -> None:
        """Make a model the first choice, and retire the models that it replaces.

        Raises:
            DigestMismatchError: it is not registered here.
        """
        with self._changing():
            self._folder.write_header(switched(self._folder.read_header(), digest))

    def drop_retired(self, successor: str | None = None) -> list[ModelRecord]:
        """Remove retired models, their codes, and rows that only they have coded.

        Snapshots keep what they need. Also completes an interrupted removal.

        Args:
            successor: digest; drop only models that this model has replaced. None for all
                retired models.

        Returns:
            the dropped models.
        """
        with self._changing():
            before = self._folder.read_header()
            return self._dropped(before, without_retired(before, successor))

    def give_up(self, digest: str | None = None) -> ModelRecord | None:
        """Remove a pending model, its codes, and rows that only it has coded.

        Also completes an interrupted removal.

        Args:
            digest: of the model; None for the only pending one, if there is one.

        Returns:
            the model; None if none was pending.

        Raises:
            DigestMismatchError: there is no such model, or several are pending and none is named.
            PreconditionError: it is not pending.
        """
        with self._changing():
            before = self._folder.read_header()
            return next(iter(self._dropped(before, without_pending(before, digest))), None)

    def forgotten_models(self) -> list[Path]:
        """Folders that dropped models have left; their codes may be left too."""
        header = self._folder.read_header()
        return unnamed_models(self._folder, {record.digest for record in header.models})

    # Helpers, called with the lock held

    def _dropped(self, before: Header, header: Header) -> list[ModelRecord]:
        """Write a header with fewer models; returns the dropped ones. See `model_switch`."""
        used = models_in_use(self._folder, header)
        if header.models != before.models:
            self._folder.write_header(header)
        if drop_unnamed(self._folder, self._store, header):
            self._keep_next_row()
            self._store.delete(uncoded(header))
        drop_files(self._folder, used)
        self._committed(0)
        return [record for record in before.models if record not in header.models]

    def _stored(
        self, items: Sequence[Sequence[CodedObservation]], record: ModelRecord
    ) -> dict[str, StoredItem]:
        names = {item[0].observation.occurrence_id for item in items if item}
        columns = ["row", "id", "occurrenceID", "modality", record.code_column]
        table = self._store.read(columns, one_of("occurrenceID", list(names)))
        coded = table[record.code_column].is_valid().to_pylist()
        stored: dict[str, StoredItem] = {}
        for value, is_coded in zip(table.select(columns[:4]).to_pylist(), coded, strict=True):
            item = stored.setdefault(value["occurrenceID"], StoredItem(value["modality"]))
            item.rows[value["id"]] = value["row"]
            item.coded |= is_coded
        return stored

    def _make_room_for_columns(self, items: Sequence[Sequence[CodedObservation]]) -> None:
        """Drop metadata columns without values, where a batch would exceed their limit."""
        types = self._store.metadata_types
        named = {name for item in items for one in item for name in one.observation.metadata}
        if self._lost_rows and len(types.keys() | named) > MAX_COLUMNS:
            unused = [
                name
                for name in types.keys() - DARWIN_CORE.keys()
                if not self._store.count(f"`{name}` IS NOT NULL")
            ]
            self._store.drop_columns(sorted(unused))
            self._lost_rows = False

    def _add_columns(
        self,
        items: Mapping[str, PlannedItem],
        columns: MetadataColumns,
        record: ModelRecord,
        embedding_dim: int | None,
    ) -> None:
        used: dict[str, None] = {}
        for item in items.values():
            for metadata in item.metadata:
                used.update(dict.fromkeys(metadata))
        fields = [
            pa.field(name, arrow_type(columns.types[name]))
            for name in used
            if self._store.field_type(name) is None
        ]
        if any(one.fingerprint for item in items.values() for one in item.observations):
            fields += [
                pa.field(name, arrow_type(INTERNAL[name]))
                for name in FINGERPRINT
                if self._store.field_type(name) is None
            ]
        if embedding_dim and self._store.field_type(record.embedding_column) is None:
            fields.append(pa.field(record.embedding_column, pa.list_(pa.float16(), embedding_dim)))
        self._store.add_columns(fields)

    def _commit(self, items: Sequence[PlannedItem], record: ModelRecord) -> None:
        committed = self._store.version + 1
        columns, next_row = rows_of(items, record, committed, self._first_free_row())
        count = len(columns["id"]) if columns else 0
        rows = self._store.table(columns, count)
        filled = self._filled(items, record, committed)
        replaced = [
            item.observations[0].observation.occurrence_id for item in items if _loses_rows(item)
        ]
        if filled is None and not any(item.stored for item in items):
            self._store.append(rows)
        else:
            if replaced:
                self._keep_next_row()
            removed = one_of("occurrenceID", replaced) if replaced else None
            self._store.merge(pa.concat_tables([rows, *([filled] if filled else [])]), removed)
        self._next_row = next_row
        self._committed(count + (len(filled) if filled else 0))

    def _filled(
        self, items: Sequence[PlannedItem], record: ModelRecord, committed: int
    ) -> pa.Table | None:
        """Stored rows that only get codes of this model, with these codes."""
        coded = {
            item.stored.rows[one.observation.id]: one
            for item in items
            if item.fills and item.stored
            for one in item.observations
            if one.observation.id in item.stored.rows
        }
        if not coded:
            return None
        numbers = ", ".join(map(str, coded))
        table = self._store.read(self._store.columns, f"`row` IN ({numbers})")
        order = [coded[row] for row in table["row"].to_pylist()]
        new = {
            "committed": [committed] * len(order),
            record.code_column: [np.asarray(one.code).tobytes() for one in order],
        }
        if any(one.embedding is not None for one in order):
            new[record.embedding_column] = [
                None if one.embedding is None else np.asarray(one.embedding, dtype=np.float16)
                for one in order
            ]
        for name, values in new.items():
            position = table.schema.get_field_index(name)
            field = table.schema.field(position)
            table = table.set_column(position, field, pa.array(values, field.type))
        return table

    def _first_free_row(self) -> int:
        if self._next_row is None:
            # The greatest of n different row numbers is at least n - 1, so few rows are read.
            least = max(0, self._store.count() - 1)
            rows = self._store.read(["row"], f"`row` >= {least}")["row"].to_numpy()
            stored = int(rows.max()) + 1 if len(rows) else 0
            self._next_row = max(stored, self._folder.read_header().next_row)
        return self._next_row

    def _keep_next_row(self) -> None:
        """Store the next row number, before rows are removed."""
        self._lost_rows = True
        next_row = self._first_free_row()
        header = self._folder.read_header()
        if header.next_row < next_row:
            self._folder.write_header(replace(header, next_row=next_row))

    def _committed(self, rows: int) -> None:
        self._commits += 1
        self._changed_rows += rows
        if self._commits % _COMPACT_AFTER_COMMITS == 0:
            self._tidy(_COMPACT_AFTER_COMMITS, MOST_SMALL_FILES)

    def _tidy(self, after_commits: int, most_small_files: int) -> None:
        """Compact the store and index its columns, where that is worth it."""
        if not self._commits:
            return
        self._folder.check_folders()
        due = self._commits >= after_commits or self._store.small_files() >= most_small_files
        if due and compact_if_worth_it(self._store, self._changed_rows, most_small_files):
            self._commits = self._changed_rows = 0
        make_lookups(self._store)


def _loses_rows(item: PlannedItem) -> bool:
    """Whether stored rows of an item are removed; LanceDB reads the whole table for that."""
    if item.stored is None or item.fills:
        return False
    return not item.stored.rows.keys() <= {one.observation.id for one in item.observations}


# Look-up indexes and compaction


def make_lookups(store: Store) -> None:
    """Index the columns of a large store that have no index yet.

    With them, finding an observation by its name, or the rows that a commit has changed, takes the
    same time in an archive of any size. Making an index is a commit that changes no row.
    """
    if store.count() < LOOKUPS_FROM:
        return
    missing = [name for name in LOOKUPS if name not in store.lookups()]
    if missing:
        _log.info("indexing %d columns of %d rows for look-ups", len(missing), store.count())
    for name in missing:
        store.make_lookup(name, LOOKUPS[name])


def compact_if_worth_it(
    store: Store, changed: int, most_small_files: int = MOST_SMALL_FILES
) -> bool:
    """Compact the store, unless that costs more than it saves.

    Every compaction builds all look-up indexes again.

    Args:
        store: the table.
        changed: number of rows written or deleted since the last compaction.
        most_small_files: with this many files of single commits it is always worth it.

    Returns:
        whether it has compacted.
    """
    rows = store.count()
    worth = rows <= _CHEAP_ROWS or changed >= _WORTH_SHARE * rows
    if not worth and store.small_files() < most_small_files:
        return False
    store.compact()
    return True
