"""The observation store: one LanceDB table, the source of truth of an archive.

Rows are read through Lance, which loads in a third of the time of LanceDB, and answers small
queries sooner; changes go through LanceDB.

Every change is one atomic commit, which makes one new version. If the process is killed during the
call, the newest version is the one before or the new one.

When the call returns, the commit survives the end of the process. `bittern.index.commit_log` then
waits until it is on the disk and records its checksums before it is acknowledged; from then on it
survives a power cut too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from bittern.errors import BitternError, FilterError, NotFoundError, PreconditionError
from bittern.index.columns import (
    DARWIN_CORE,
    IDENTITY,
    INTERNAL,
    ColumnType,
    is_code_or_embedding,
)
from bittern.index.lance_library import (
    first_line,
    is_failure,
    lance,
    lancedb,
    reading,
    uninterrupted,
)
from bittern.index.models import ModelRecord
from bittern.index.versions import OldVersions, identity, is_abandoned, manifest

LookupKind = Literal["sorted", "bitmap"]
"""An index in the order of a column's values, or one bitmap of rows for each value."""
TABLE = "observations"
ROW_ID = "_rowid"
"""LanceDB's own row id: unique, but a compaction gives a row a new one."""
_SHOWN_VERSIONS = 5
_ARROW: Mapping[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "double": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
}
_SCAN_ROWS = 1 << 17
"""Rows per batch of a scan; the overhead of LanceDB's smaller default is ten times as large."""
_TRUSTED_S = 2.0
"""Age in seconds from which no later commit can have the same time stamp."""
_BRANCH = "kept-"
_log = logging.getLogger(__name__)


def quoted(text: str) -> str:
    """A string literal of the store's SQL."""
    return "'" + text.replace("'", "''") + "'"


def one_of(column: str, values: Sequence[str]) -> str:
    """The condition that a text column holds one of `values`; others than Unicode never match."""
    storable = [quoted(value) for value in values if is_unicode(value)]
    return f"`{column}` IN ({', '.join(storable)})" if storable else "false"


def is_unicode(text: object) -> bool:
    """Whether a text can be stored: no lone surrogates, no NUL."""
    try:
        return isinstance(text, str) and "\0" not in text and bool(text.encode("utf-8") or True)
    except UnicodeEncodeError:
        return False


def arrow_type(column_type: ColumnType) -> pa.DataType:
    """The Arrow type that stores a column type."""
    return _ARROW[column_type]


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """A version of the table that can be opened.

    Attributes:
        version: its number.
        time: when it was committed, ISO 8601 in UTC.
        rows: observations.
        bytes: of its data files.
    """

    version: int
    time: str
    rows: int
    bytes: int


class Store:
    """The table at one version, or at the newest.

    Args:
        path: folder of the LanceDB database.
        version: stay at this version; None follows the newest.
        session: Lance's caches, of a store of the same path; None for new ones.

    Attributes:
        path: folder of the LanceDB database.
        version: number of the current version.
        followed: identity of the version that `follow` has found.
        replacements: how often `follow` has found another table in the place of this one.
    """

    def __init__(self, path: Path, version: int | None = None, session: Any = None) -> None:
        self.path = path
        self._versions = path / f"{TABLE}.lance" / "_versions"
        self._old = OldVersions(self._versions)
        self.replacements = 0
        with self._reading():
            self._open(session)
            if version is not None:
                self._go_to(version)
            self._read_version()
            self.followed = None if version is not None else self.identity(self.version)

    def _open(self, session: Any = None) -> None:
        stamp, now = self._folder_stamp(), time.time()
        self._data = lance().dataset(str(self.path / f"{TABLE}.lance"), session=session)
        self._session = self._data.session()
        self._writable: Any = None
        self._stamp, self._checked_at = stamp, now

    @property
    def _table(self) -> Any:
        """LanceDB's table at the newest version, for changes; opened when first needed."""
        if self._writable is None:
            self._writable = lancedb().connect(str(self.path)).open_table(TABLE)
        return self._writable

    def _read_version(self) -> None:
        self.version: int = self._data.version
        self._schema: pa.Schema = self._data.schema

    @classmethod
    def create(cls, path: Path) -> Store:
        """Create the empty table, or open an existing one.

        Raises:
            PreconditionError: it cannot be created.
        """
        versions = path / f"{TABLE}.lance" / "_versions"
        if versions.is_dir() and any(versions.iterdir()):
            return cls(path)
        types: dict[str, ColumnType] = {**INTERNAL, **IDENTITY, **DARWIN_CORE}
        schema = pa.schema([(name, arrow_type(kind)) for name, kind in types.items()])
        try:
            lancedb().connect(str(path)).create_table(TABLE, schema=schema, mode="overwrite")
        except (OSError, RuntimeError, ValueError) as error:
            raise PreconditionError(
                f"no store can be created at {path} ({first_line(error)}); "
                "check free space and permissions"
            ) from error
        return cls(path)

    @property
    def is_new(self) -> bool:
        """Whether it has no rows and no columns of models."""
        return not any(map(is_code_or_embedding, self.columns)) and not self.count()

    def _reading(self) -> AbstractContextManager[None]:
        return reading(self.path)

    def _commit(self, change: Callable[[], object]) -> None:
        """Make one change; an interrupt (Ctrl-C) is raised only after it."""

        def change_and_update() -> None:
            before = self.version
            change()
            self._data.checkout_latest()
            self._read_version()
            self._old.replaced(before)

        try:
            uninterrupted(change_and_update)
        except BaseException as error:
            if not is_failure(error):
                raise
            raise PreconditionError(
                f"nothing was stored: the store at {self.path} cannot be written to "
                f"({first_line(error)}); check free space and permissions, run bittern verify"
            ) from error

    # Versions

    def follow(self) -> None:
        """Move to the newest version, also if another table has taken the place of this one.

        A restored backup is another table with the same version numbers. It is noticed when the
        current version has another identity, or is gone and cannot be compared.

        The folder's time stamp usually shows that nothing has changed. It does not count if it is
        so recent that another commit may share it, or if the next version exists already (after
        the clock was set back, a later commit can have the stamp of an earlier one).
        """
        with self._reading():
            stamp, now = self._folder_stamp(), time.time()
            is_new = stamp != self._stamp
            is_recent = self._checked_at - stamp[0] / 1e9 < _TRUSTED_S
            before = self.version
            if is_new and not self._is_same_table():
                self._open()  # LanceDB caches versions by number
                self.replacements += 1
                before = -1
            elif is_new or is_recent or manifest(self._versions, before + 1).exists():
                self._data.checkout_latest()
                self._writable = None
                self._stamp, self._checked_at = stamp, now
            else:
                return
            self._read_version()
            if self.version != before:
                self.followed = self.identity(self.version)

    def _is_same_table(self) -> bool:
        found = self.identity(self.version)
        return found is not None and found == self.followed

    def renew(self) -> None:
        """Move to the newest version after a change that has failed."""
        with self._reading():
            self._writable = None
            self._data.checkout_latest()
            self._read_version()

    def _folder_stamp(self) -> tuple[int, ...]:
        """Changes with every commit, and when another folder replaces this one."""
        stat = self._versions.stat()
        return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino

    def pinned(self) -> Store:
        """The table at its current version, for good; it shares the caches."""
        return Store(self.path, self.version, self._session)

    def versions(self) -> list[StoredVersion]:
        """The versions that can be opened, oldest first."""
        with self._reading():
            return [_version(value) for value in self._table.list_versions()]

    def at(self, version: int) -> Store:
        """The table at an older version.

        Raises:
            NotFoundError: there is no such version.
        """
        found = [known.version for known in self.versions()]
        if version not in found and version not in self.pins().values():
            shown = ", ".join(map(str, found[-_SHOWN_VERSIONS:]))
            raise NotFoundError(
                f"the archive has no version {version} any more; versions without a snapshot are "
                f"removed after half an hour. The newest are {shown}; "
                "bittern snapshots ARCHIVE --all lists all",
                field="snapshot",
                details={"version": str(version)},
            )
        return Store(self.path, version, self._session)

    def _go_to(self, version: int) -> None:
        """Open a version; a pinned one may exist only as a branch."""
        if not manifest(self._versions, version).exists():
            for name, branch in self._data.branches.list().items():
                if name.startswith(_BRANCH) and branch["parent_version"] == version:
                    self._data = self._data.checkout_version((name, version))
                    return
        self._data = self._data.checkout_version(version)

    # Schema

    @property
    def columns(self) -> list[str]:
        """Names of all columns, internal ones included."""
        return list(self._schema.names)

    @property
    def metadata_types(self) -> dict[str, ColumnType]:
        """Metadata columns and their types."""
        names = {arrow: column_type for column_type, arrow in _ARROW.items()}
        fixed = IDENTITY.keys() | INTERNAL.keys()
        return {
            column.name: names[column.type]
            for column in self._schema
            if column.name not in fixed and not is_code_or_embedding(column.name)
        }

    def field_type(self, column: str) -> pa.DataType | None:
        """The Arrow type of a column; None if it does not exist."""
        position = self._schema.get_field_index(column)
        return None if position < 0 else self._schema.field(position).type

    def code_bytes(self, column: str) -> int:
        """Bytes of a code in a column of codes."""
        return int(self._schema.field(column).type.byte_width)

    def add_columns(self, fields: Sequence[pa.Field]) -> None:
        """Add columns that are null in every row: one commit; none if `fields` is empty."""
        if fields:
            self._commit(lambda: self._table.add_columns(list(fields)))

    def add_code_column(self, record: ModelRecord) -> None:
        """Add the column of a model's codes, unless it exists."""
        if self.field_type(record.code_column) is None:
            self.add_columns([pa.field(record.code_column, pa.binary(record.bits // 8))])

    def drop_columns(self, names: Sequence[str]) -> None:
        """Remove columns and their values: one commit; none if `names` is empty."""
        if names:
            self._commit(lambda: self._table.drop_columns(list(names)))

    # Rows

    def table(self, columns: Mapping[str, Sequence[Any]], rows: int) -> pa.Table:
        """Rows in the table's schema; the other columns are null."""
        arrays = [
            pa.array(columns[column.name], column.type)
            if column.name in columns
            else pa.nulls(rows, column.type)
            for column in self._schema
        ]
        return pa.table(arrays, schema=self._schema)

    def append(self, rows: pa.Table) -> None:
        """Add new rows: one commit."""
        self._commit(lambda: self._table.add(rows))

    def merge(self, rows: pa.Table | pa.RecordBatchReader, removed: str | None) -> None:
        """Add or replace rows by `id`, and remove others: one commit.

        Args:
            rows: rows in the table's schema.
            removed: condition on the other rows that are removed; None to remove none.
        """
        merge = (
            self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        )
        if removed is not None:
            merge = merge.when_not_matched_by_source_delete(removed)
        self._commit(lambda: merge.execute(rows))

    def delete(self, condition: str) -> None:
        """Remove the rows that meet a condition: one commit."""
        self._commit(lambda: self._table.delete(condition))

    def read(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Rows in storage order.

        Args:
            columns: which columns, `ROW_ID` perhaps among them; None for all but that.
            where: a condition in the store's SQL, already checked.

        Raises:
            FilterError: the store cannot evaluate `where`.
            ArchiveDamagedError: files are missing or damaged.
        """
        with self._reading():
            try:
                return self._scanner(columns, where).to_table()
            except ValueError as error:
                if where is None or not _is_of_condition(error):
                    raise
                raise FilterError(
                    "the condition cannot be evaluated, most likely because it is nested too deep; "
                    f"write it flatter (the store: {first_line(error)[:100]})",
                    field="where",
                ) from error

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows in storage order, in batches."""
        with self._reading():
            yield from self._scanner(columns).to_batches()

    def _scanner(self, columns: Sequence[str] | None, where: str | None = None) -> Any:
        return self._data.scanner(
            None if columns is None else list(columns), where, batch_size=_SCAN_ROWS
        )

    def take(self, ids: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Rows by their `ROW_ID`, in any order.

        Not by offset: with deleted rows, LanceDB takes a second to translate the offsets of ten
        million rows.
        """
        with self._reading():
            listed = ", ".join(map(str, ids))
            return self._data.to_table(list(columns), f"{ROW_ID} IN ({listed})")

    def count(self, where: str | None = None) -> int:
        """Number of rows that meet a (checked) condition."""
        with self._reading():
            return int(self._data.count_rows(where))

    # Speed

    def compact(self) -> None:
        """Join the small files of many commits, and update the look-up indexes.

        Also removes old versions (see `OldVersions`) and files of interrupted commits. A failure
        costs speed only and is logged.
        """

        def optimize() -> None:
            # If a tagged version is older than the limit, LanceDB fails and removes nothing.
            tagged = [int(tag["version"]) for tag in self._table.tags.list().values()]
            keep = timedelta(seconds=self._old.keep_s(tagged))
            # There is one writer, so a file that no version names is not part of a running commit.
            self._table.optimize(cleanup_older_than=keep, delete_unverified=True)

        try:
            self._commit(optimize)
        except BitternError as error:
            _log.warning("the store was not compacted: %s", error)

    def make_lookup(self, column: str, kind: LookupKind) -> None:
        """Index a column for conditions: one commit. A failure is logged, as in `compact`.

        Rows that are added later are scanned until `compact` indexes them.
        """
        from lancedb.index import Bitmap, BTree

        config = BTree() if kind == "sorted" else Bitmap()
        try:
            self._commit(lambda: self._table.create_index(column, config=config))
        except BitternError as error:
            _log.warning("column %s was not indexed: %s", column, error)

    def lookups(self) -> set[str]:
        """Columns that are indexed."""
        with self._reading():
            return {name for index in self._data.describe_indices() for name in index.field_names}

    def small_files(self) -> int:
        """How many files have so few rows that they are worth joining."""
        with self._reading():
            return int(self._table.stats()["fragment_stats"]["num_small_fragments"])

    # Pinned versions

    def pin(self, name: str, version: int) -> None:
        """Keep a version and its files until `unpin`; no row changes.

        A pin is a branch of the table: LanceDB removes no file that a branch needs. (A tag would
        make the clean-up fail once the version is old.)

        Args:
            name: see `bittern.index.versions.pin_name`.
            version: one that exists.

        Raises:
            PreconditionError: the version is gone, or the folder cannot be written to.
        """
        self._commit(lambda: self._table.branches.create(_BRANCH + name, None, version))

    def pins(self) -> dict[str, int]:
        """The pinned versions, by name."""
        with self._reading():
            return {
                name.removeprefix(_BRANCH): int(branch["parent_version"])
                for name, branch in self._table.branches.list().items()
                if name.startswith(_BRANCH)
            }

    def unpin(self, name: str) -> None:
        """Let a later compaction remove a version, if it is still pinned."""
        if name in self.pins():
            with suppress(PreconditionError):  # another process may have removed it
                self._commit(lambda: self._table.branches.delete(_BRANCH + name))

    def unpin_abandoned(self, used: Collection[str]) -> None:
        """Remove pins of ended processes of this machine, and pins that are two days old.

        Args:
            used: pins of snapshots, which stay.
        """
        for name in self.pins().keys() - set(used):
            if is_abandoned(name):
                self.unpin(name)

    def identity(self, version: int) -> str | None:
        """Checksum of a version's manifest, unique to it; None if it is gone. See `versions`."""
        return identity(self._versions, version)


def _is_of_condition(error: ValueError) -> bool:
    """Whether a condition, and not a missing or damaged file, made a read fail."""
    # Lance raises ArrowInvalid for its files and for values that a condition cannot work with.
    return not isinstance(error, pa.ArrowInvalid) or "applying filter expression" in str(error)


def _version(value: dict[str, Any]) -> StoredVersion:
    described = value["metadata"]
    committed: datetime = value["timestamp"]  # local time, without a time zone
    return StoredVersion(
        version=int(value["version"]),
        time=committed.astimezone(UTC).isoformat(timespec="seconds"),
        rows=int(described.get("total_rows", 0)),
        bytes=int(described.get("total_files_size", 0)),
    )
