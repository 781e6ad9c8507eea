"""Restoring an old state: the rows that differ are written again, in one new commit.

Rows that were changed or deleted since then get their old values, and rows that were added are
removed. It is a commit like any other: row numbers are not reused, `committed` marks the changed
rows, and readers, derived files and indexes follow as after every commit. The models change with
the same commit (see `bittern.index.folder.Switch`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.errors import PreconditionError
from bittern.index.folder import ArchiveFolder, Switch
from bittern.index.loading import int64s
from bittern.index.models import ModelRecord
from bittern.index.store import Store

_READ_BY_NUMBER = 5_000
"""Up to this many rows are looked up by number; for more, the whole old version is read."""
_MOST_RANGES = 50


@dataclass(frozen=True)
class Difference:
    """The changes that turn the newest version into an old one.

    Attributes:
        written: int64, ascending: rows of the old version to write again.
        removed: SQL condition on the newest version's rows to remove; empty for none.
        count: number of rows to remove.
    """

    written: NDArray[np.int64]
    removed: str
    count: int

    @property
    def rows(self) -> int:
        """Number of rows that change."""
        return len(self.written) + self.count


def restore(
    folder: ArchiveFolder,
    store: Store,
    then: Store,
    models: Sequence[ModelRecord],
    next_row: int,
) -> int:
    """Make an old version's rows and models the archive's newest state.

    Args:
        folder: the archive's folder; this process holds the lock.
        store: the table, at its newest version.
        then: the table at the old version.
        models: the models of the old version.
        next_row: the first row number that was never used.

    Returns:
        the number of rows that changed.

    Raises:
        PreconditionError: a column has another type now.
    """
    names = {name.lower(): name for name in store.columns}
    for name in then.columns:  # one that was dropped for lack of values may have been made again
        now = names.get(name.lower(), name)
        old, new = then.field_type(name), store.field_type(now)
        if new not in (None, old) or (new and now != name):
            raise PreconditionError(
                f"column {name!r} held {old} then, {now!r} holds {new} now, so nothing was "
                "restored; export the snapshot, and index the export into a new archive",
                field="snapshot",
            )
    lost = [name for name in then.columns if store.field_type(name) is None]
    store.add_columns([then._schema.field(name) for name in lost])
    models = [
        replace(record, since=store.version) if record.code_column in lost else record
        for record in models
    ]
    found = difference(store, then, lost)
    header = replace(folder.read_header(), next_row=next_row)
    at = store.version + 1
    if found.rows:
        folder.write_header(replace(header, switch=Switch(at, tuple(models))))
        try:
            _commit(store, then, found, at)
        except BaseException:
            store.renew()
            folder.complete_switch(store.version)
            raise
    folder.write_header(replace(header, models=tuple(models), switch=None))
    return found.rows


def difference(now: Store, then: Store, lost: Sequence[str] = ()) -> Difference:
    """The changes that turn the rows of `now` into those of `then`.

    A row with the same number and the same `committed` in both is unchanged, since every commit
    sets `committed` in the rows that it writes. Only removing a column does not.

    Args:
        now: the newest version.
        then: an older one.
        lost: columns of `then` that were removed; empty in `now`.
    """
    rows_now, marks_now = _marks(now)
    rows_then, marks_then = _marks(then)
    positions = np.searchsorted(rows_now, rows_then)
    positions = np.minimum(positions, max(len(rows_now) - 1, 0))
    same = np.zeros(len(rows_then), dtype=bool)
    if len(rows_now):
        same = (rows_now[positions] == rows_then) & (marks_now[positions] == marks_then)
    if lost:
        held = " OR ".join(f"`{name}` IS NOT NULL" for name in lost)
        held_rows = int64s(then.read(["row"], held)["row"])
        same &= ~np.isin(rows_then, held_rows)
    gone = ~np.isin(rows_now, rows_then, assume_unique=True)
    return Difference(rows_then[~same], _condition(rows_now, gone), int(gone.sum()))


def _marks(store: Store) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    table = store.read(["row", "committed"])
    rows, marks = int64s(table["row"]), int64s(table["committed"])
    order = np.argsort(rows, kind="stable")
    return rows[order], marks[order]


def _condition(rows: NDArray[np.int64], gone: NDArray[np.bool_]) -> str:
    """The condition for some of the rows: as ranges if these are few."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], gone.astype(np.int8), [0]])))
    ranges = edges.reshape(-1, 2)
    if len(ranges) > _MOST_RANGES:
        return f"`row` IN ({', '.join(map(str, rows[gone].tolist()))})"
    return " OR ".join(
        f"(`row` >= {rows[begin]} AND `row` <= {rows[end - 1]})" for begin, end in ranges
    )


def _commit(store: Store, then: Store, found: Difference, committed: int) -> None:
    if not len(found.written):
        store.delete(found.removed)
        return
    batches = _rows(store, then, found.written, committed)
    reader = pa.RecordBatchReader.from_batches(store._schema, batches)
    store.merge(reader, found.removed or None)


def _rows(
    store: Store, then: Store, rows: NDArray[np.int64], committed: int
) -> Iterator[pa.RecordBatch]:
    """Rows of the old version in the newest schema, with `committed` of this commit."""
    if len(rows) <= _READ_BY_NUMBER:
        numbers = ", ".join(map(str, rows.tolist()))
        source: Iterator[pa.RecordBatch] = iter(
            then.read(then.columns, f"`row` IN ({numbers})").to_batches()
        )
    else:
        source = then.batches(then.columns)
    for batch in source:
        chosen = batch.filter(pa.array(np.isin(int64s(batch["row"]), rows)))
        if not len(chosen):
            continue
        arrays = []
        for column in store._schema:
            if column.name == "committed":
                arrays.append(pa.array(np.full(len(chosen), committed), column.type))
            elif column.name in chosen.schema.names:
                arrays.append(chosen[column.name])
            else:
                arrays.append(pa.nulls(len(chosen), column.type))
        yield pa.RecordBatch.from_arrays(arrays, schema=store._schema)
