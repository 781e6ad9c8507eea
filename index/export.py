"""Observations as Arrow batches, for files and other tools.

However slowly they are taken, they are of one version of the store: it is kept from clean-up
until the last one is read.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError, BitternError, PreconditionError, QueryError
from bittern.index.columns import IDENTITY, suggestion
from bittern.index.generation import Generation
from bittern.index.models import ModelRecord
from bittern.index.pins import pin, unpin
from bittern.index.store import Store

_log = logging.getLogger(__name__)


def batches_of(
    snapshot: Generation,
    rows: NDArray[np.int64],
    columns: Sequence[str] | None,
    record: ModelRecord | None,
    batch_rows: int,
) -> Iterator[pa.RecordBatch]:
    """Columns of rows, in row order.

    Args:
        snapshot: the generation to read from.
        rows: int64, ascending.
        columns: identity and metadata columns; None for all of them.
        record: a model whose codes come along, in the column ``code``.
        batch_rows: most rows of one batch.

    Raises:
        QueryError: there is no such column, or `batch_rows` is not positive.
    """
    known = {**IDENTITY, **snapshot.store.metadata_types}
    wanted = list(known if columns is None else columns)
    for column in wanted:
        if column not in known:
            raise QueryError(
                f"there is no column {column!r}{suggestion(column, known)}; columns: "
                f"{', '.join(known)}",
                field="columns",
            )
    if batch_rows < 1:
        raise QueryError(f"batch_rows must be at least 1, not {batch_rows}", field="batch_rows")
    stored = [*wanted, record.code_column] if record else wanted
    names = [*wanted, "code"] if record else wanted

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(rows), batch_rows):
            table = snapshot.table(rows[start : start + batch_rows], stored)
            yield from table.rename_columns(names).combine_chunks().to_batches()

    return _Kept(snapshot.store, batches(), keep=len(rows) > batch_rows)


class _Kept(Iterator[pa.RecordBatch]):
    """Batches of a version that is kept from clean-up until they are all read, or given up.

    Args:
        store: at that version.
        batches: read from it.
        keep: whether it takes long enough that the version may be cleaned up meanwhile.
    """

    def __init__(self, store: Store, batches: Iterator[pa.RecordBatch], *, keep: bool) -> None:
        self._store = store
        self._batches = batches
        self._identity = store.identity(store.version)
        self._let_go = weakref.finalize(self, _let_go, store, _pinned(store) if keep else "")

    def __next__(self) -> pa.RecordBatch:
        try:
            return next(self._batches)
        except ArchiveDamagedError as error:
            self._let_go()
            there = self._store.identity(self._store.version)
            if there is not None and there == self._identity:
                raise
            raise PreconditionError(
                f"the archive at {self._store.path.parent} was changed while it was exported, and "
                f"version {self._store.version}, which the export began with, was cleaned up; "
                "export it again. Where this process may write to the archive's folder, it keeps "
                "the version for as long as it needs"
            ) from error
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """Give up what was not read."""
        self._batches = iter(())
        self._let_go()


def _pinned(store: Store) -> str:
    """Keep a version; "" where that is not possible: the folder may be for reading only."""
    try:
        return pin(Store(store.path), store.version, while_running=True)
    except BitternError as error:
        _log.info("version %d of %s is not kept: %s", store.version, store.path, error)
        return ""


def _let_go(store: Store, name: str) -> None:
    if name.endswith(f"-{os.getpid()}"):  # not in a process that was forked from this one
        # It may have been moved or deleted: then there is nothing to let go.
        with suppress(BitternError):
            unpin(Store(store.path), name)
