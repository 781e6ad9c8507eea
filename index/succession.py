"""One model after another: the switch to a new one, and the end of those that it replaced.

    registered as pending -> (a job fills in its codes) -> ready, first of all
    ready                                               -> retired -> dropped

The switch is one replacement of `archive.json`. Dropping is done in an order in which a crash
leaves nothing but what the next drop removes: the models' names first, then what is derived
from their codes, their columns, rows that are left without any code, and last their files.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import replace

from bittern.errors import DigestMismatchError, PreconditionError
from index.columns import is_code_or_embedding
from index.folder import ArchiveFolder, Header
from index.models import ModelRecord
from index.pinning import drop_columns
from index.store import Store


def switched(header: Header, digest: str) -> Header:
    """The header in which a model is ready and first, and those that it replaces are retired.

    It replaces the ready models that have no tower which it has not.

    Raises:
        DigestMismatchError: it is not registered.
    """
    found = [record for record in header.models if record.digest == digest]
    if not found:
        raise DigestMismatchError(
            f"the archive {header.name!r} has no model with digest {digest[:16]!r}", field="model"
        )
    new = found[0]
    others = [_retired(record, new) for record in header.models if record is not new]
    return replace(header, models=(replace(new, state="ready"), *others))


def without_retired(header: Header) -> Header:
    """The header without its retired models.

    Raises:
        PreconditionError: no model that is ready would be left.
    """
    left = tuple(record for record in header.models if record.state != "retired")
    if not any(record.state == "ready" for record in left) and left != header.models:
        raise PreconditionError(
            f"no model of archive {header.name!r} is ready; switch to one before others are dropped"
        )
    return replace(header, models=left)


def drop_unnamed(folder: ArchiveFolder, store: Store, header: Header) -> int:
    """Remove codes, embeddings and derived files of models that the header does not name.

    Returns:
        how many rows are left without any code; see `uncoded`.
    """
    named = {name for one in header.models for name in (one.code_column, one.embedding_column)}
    unnamed = [name for name in store.columns if is_code_or_embedding(name) and name not in named]
    for name in unnamed:
        if folder.derived.is_dir():
            for path in folder.derived.glob(f"*{name}*"):
                path.unlink(missing_ok=True)
    drop_columns(store, unnamed)
    condition = uncoded(header)
    return store.count(condition) if condition else 0


def uncoded(header: Header) -> str:
    """The condition that a row has no code of any model; empty if there is no model."""
    return " AND ".join(f"`{record.code_column}` IS NULL" for record in header.models)


def drop_files(folder: ArchiveFolder, used: Collection[str]) -> None:
    """Delete the folders of models whose digests nobody names."""
    for path in folder.models.iterdir() if folder.models.is_dir() else ():
        if path.is_dir() and not path.name.startswith(".") and path.name not in used:
            shutil.rmtree(path, ignore_errors=True)


def _retired(record: ModelRecord, new: ModelRecord) -> ModelRecord:
    replaced = record.state == "ready" and set(record.modalities) <= set(new.modalities)
    return replace(record, state="retired") if replaced else record
