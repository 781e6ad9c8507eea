"""Observations as Arrow batches, for files and other tools.

All batches are of one version of the store, which is pinned until the last one is read.
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
        record: a model whose codes are added in the column ``code``.
        batch_rows: most rows of one batch.

    Raises:
        QueryError: a column does not exist, or `batch_rows` is not positive.
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

    found = _pinned_batches(snapshot.store, batches(), pinned=len(rows) > batch_rows)
    next(found)
    return found


def _pinned_batches(
    store: Store, batches: Iterator[pa.RecordBatch], *, pinned: bool
) -> Generator[pa.RecordBatch, None, None]:
    """First an empty batch, when the version is pinned, then the batches; unpins at the end."""
    identity, pin_name = store.identity(store.version), _pin(store) if pinned else ""
    try:
        yield pa.record_batch({})
        yield from batches
    except ArchiveDamagedError as error:
        if store.identity(store.version) == identity is not None:
            raise
        raise PreconditionError(
            f"the archive at {store.path.parent} was changed during the export, and version "
            f"{store.version}, which is exported, was removed; export it again, with permission "
            "to write to the archive's folder, so that the version can be pinned"
        ) from error
    finally:
        _unpin(store, pin_name)


def _pin(store: Store) -> str:
    """Pin a version; "" if that is impossible, as in a read-only folder."""
    try:
        return pin(Store(store.path), store.version, while_running=True)
    except BitternError as error:
        _log.info("version %d of %s is not pinned: %s", store.version, store.path, error)
        return ""


def _unpin(store: Store, name: str) -> None:
    if name.endswith(f"-{os.getpid()}"):  # not in a forked process
        # The archive may have been moved or deleted.
        with suppress(BitternError):
            unpin(Store(store.path), name)
