"""Observations as Arrow batches, for files and other tools.

However slowly they are taken, they are of one version of the store: it is kept from clean-up
until the last one is read.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Sequence
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

    found = _kept(snapshot.store, batches(), pinned=len(rows) > batch_rows)
    next(found)
    return found


def _kept(
    store: Store, batches: Iterator[pa.RecordBatch], *, pinned: bool
) -> Generator[pa.RecordBatch, None, None]:
    """Batches of a version that is kept from clean-up until they are all read, or given up.

    What it yields first is empty: the version is kept by then.

    Args:
        store: at that version.
        batches: read from it.
        pinned: whether reading takes so long that the version may be cleaned up meanwhile.
    """
    identity, pin_name = store.identity(store.version), _pinned(store) if pinned else ""
    try:
        yield pa.record_batch({})
        yield from batches
    except ArchiveDamagedError as error:
        if store.identity(store.version) == identity is not None:
            raise
        raise PreconditionError(
            f"the archive at {store.path.parent} was changed while it was exported, and version "
            f"{store.version}, which the export began with, was removed; export it again. "
            "A process that may write to the archive's folder keeps the version as long as it "
            "needs it"
        ) from error
    finally:
        _let_go(store, pin_name)


def _pinned(store: Store) -> str:
    """Keep a version; "" where that is impossible: the folder may be read-only."""
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
