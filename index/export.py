"""Observations as Arrow batches, for files and other tools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.errors import QueryError
from index.columns import IDENTITY, suggestion
from index.models import ModelRecord
from index.snapshot import Snapshot


def batches_of(
    snapshot: Snapshot,
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

    return batches()
