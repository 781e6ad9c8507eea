"""The observations of one generation as pages, and as Arrow batches for files and other tools."""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import os
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError, BitternError, PreconditionError, QueryError
from bittern.index.columns import IDENTITY, suggestion
from bittern.index.generation import Generation
from bittern.index.models import ModelRecord
from bittern.index.store import Store
from bittern.index.versions import pin_name
from bittern.types import Page

_TOKEN = re.compile(rb"([0-9]{1,19})\.([0-9a-f]{8})")
_log = logging.getLogger(__name__)


# Pages of a listing: stable while others add and delete, since a token names a row


def page_of(
    generation: Generation, rows: NDArray[np.int64], page_size: int, token: str, where: str
) -> Page:
    """One page of a listing.

    Args:
        generation: the generation to read from.
        rows: int64, ascending: the whole listing.
        page_size: most observations of the page.
        token: `next_token` of the previous page; empty for the first.
        where: the listing's condition, which the token must share.

    Raises:
        QueryError: the token is invalid, or belongs to another condition.
    """
    last = min(_decoded_token(token, where), np.iinfo(np.int64).max)
    start = int(np.searchsorted(rows, last, side="right"))
    page = rows[start : start + page_size]
    more = start + page_size < len(rows)
    return Page(
        observations=generation.observations(page),
        next_token=_encoded_token(int(page[-1]), where) if more else "",
    )


def _encoded_token(last_row: int, where: str) -> str:
    """The token of the page that follows a row, in a listing with this condition."""
    return base64.urlsafe_b64encode(f"{last_row}.{_fingerprint(where)}".encode()).decode()


def _decoded_token(token: str, where: str) -> int:
    """The last row of the previous page; -1 for an empty token."""
    if not token:
        return -1
    try:
        match = _TOKEN.fullmatch(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        match = None
    if match is None:
        raise QueryError(
            f"{token[:60]!r} is not a valid page token; start again without one", field="page_token"
        )
    if match[2].decode() != _fingerprint(where):
        raise QueryError(
            "this page token belongs to a listing with another condition; start again without one",
            field="page_token",
        )
    return int(match[1])


def _fingerprint(where: str) -> str:
    return hashlib.sha256(where.encode("utf-8", "surrogatepass")).hexdigest()[:8]


# Batches: all of one version of the store, which is pinned until the last one is read


def batches_of(
    generation: Generation,
    rows: NDArray[np.int64],
    columns: Sequence[str] | None,
    record: ModelRecord | None,
    batch_rows: int,
) -> Iterator[pa.RecordBatch]:
    """Columns of rows, in row order.

    Args:
        generation: the generation to read from.
        rows: int64, ascending.
        columns: identity and metadata columns, and ``mediaRoot``; None for all but the last.
        record: a model whose codes are added in the column ``code``.
        batch_rows: most rows of one batch.

    Raises:
        QueryError: a column does not exist, or `batch_rows` is not positive.
    """
    known = {**IDENTITY, **generation.store.metadata_types}
    wanted = list(known if columns is None else columns)
    for column in wanted:
        if column not in known and column != "mediaRoot":
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
            table = generation.table(rows[start : start + batch_rows], stored)
            yield from table.rename_columns(names).combine_chunks().to_batches()

    found = _pinned_batches(generation.store, batches(), pinned=len(rows) > batch_rows)
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
        name = pin_name(while_running=True)
        Store(store.path).pin(name, store.version)
        return name
    except BitternError as error:
        _log.info("version %d of %s is not pinned: %s", store.version, store.path, error)
        return ""


def _unpin(store: Store, name: str) -> None:
    if name.endswith(f"-{os.getpid()}"):  # not in a forked process
        # The archive may have been moved or deleted.
        with suppress(BitternError):
            Store(store.path).unpin(name)
