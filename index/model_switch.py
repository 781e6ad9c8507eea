"""Switching to a new model, and dropping the models that it replaced.

    registered as pending -> (a job adds its codes) -> ready, the first choice
                          -> given up
    ready                                           -> retired -> dropped

The switch is one replacement of `archive.json`. Models are dropped in an order that the next drop
can complete after a crash: their names first, then derived files, columns of codes, rows without
any code, and their files last.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from bittern.errors import DigestMismatchError, PreconditionError
from bittern.index.checksums import files_below
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.leftovers import remove, unnamed_columns, unnamed_models
from bittern.index.models import ModelRecord
from bittern.index.store import Store


def switched(header: Header, digest: str) -> Header:
    """The header with a model ready and first, and those that it replaces (see `replaced`) retired.

    Raises:
        DigestMismatchError: it is not registered.
    """
    new, old = _registered(header, digest), replaced(header.models, digest)
    others = [
        replace(record, state="retired", successor=digest) if record in old else record
        for record in header.models
        if record is not new
    ]
    return replace(header, models=(replace(new, state="ready", successor=""), *others))


def replaced(models: Sequence[ModelRecord], digest: str) -> list[ModelRecord]:
    """The models that a switch to one of them replaces.

    This is the first ready model with the same modalities. If there is none, it is the first ready
    model for pictures and the first for sounds, if the new model has all of its modalities. A model
    that is already the first replaces none.
    """
    if models[0].digest == digest and models[0].state == "ready":
        return []
    new = next(record for record in models if record.digest == digest)
    ready = [record for record in models if record.state == "ready" and record is not new]
    same = [record for record in ready if set(record.modalities) == set(new.modalities)]
    if same:
        return same[:1]
    first = [next((r for r in ready if kind in r.modalities), None) for kind in ("image", "audio")]
    covered = [r for r in first if r is not None and set(r.modalities) <= set(new.modalities)]
    return list({record.digest: record for record in covered}.values())


def without_retired(header: Header, successor: str | None = None) -> Header:
    """The header without its retired models.

    Args:
        header: the current header.
        successor: drop only models that were replaced by the model with this digest; None for all.

    Raises:
        PreconditionError: no ready model would be left.
    """
    left = tuple(
        record
        for record in header.models
        if record.state != "retired" or successor not in (None, record.successor)
    )
    if not any(record.state == "ready" for record in left) and left != header.models:
        raise PreconditionError(
            f"no model of archive {header.name!r} is ready; switch to one before others are dropped"
        )
    return replace(header, models=left)


def without_pending(header: Header, digest: str | None) -> Header:
    """The header without a pending model.

    Args:
        header: the current header.
        digest: of that model; None for the only pending one, if there is one.

    Raises:
        DigestMismatchError: there is no such model, or several are pending and none is named.
        PreconditionError: it is not pending.
    """
    pending = [record for record in header.models if record.state == "pending"]
    if digest is None:
        if len(pending) > 1:
            names = ", ".join(f"{record.name} ({record.digest[:16]})" for record in pending)
            raise DigestMismatchError(
                f"more than one model of archive {header.name!r} is pending: {names}; name one",
                field="model",
            )
        given_up = pending
    else:
        given_up = [_registered(header, digest)]
        if given_up[0] not in pending:
            raise PreconditionError(
                f"model {given_up[0].name} of archive {header.name!r} is {given_up[0].state}, not "
                "pending, so it cannot be given up"
            )
    return replace(header, models=tuple(one for one in header.models if one not in given_up))


def _registered(header: Header, digest: str) -> ModelRecord:
    for record in header.models:
        if record.digest == digest:
            return record
    raise DigestMismatchError(
        f"the archive {header.name!r} has no model with digest {digest[:16]!r}", field="model"
    )


def drop_unnamed(folder: ArchiveFolder, store: Store, header: Header) -> int:
    """Remove codes, embeddings and derived files of models that the header does not name.

    Returns:
        the number of rows without any code; see `uncoded`.
    """
    drop_code_columns(folder, store, unnamed_columns(store, header))
    condition = uncoded(header)
    return store.count(condition) if condition else 0


def drop_code_columns(folder: ArchiveFolder, store: Store, names: Sequence[str]) -> None:
    """Remove columns of codes and embeddings, and first the files derived from them."""
    for path in list(files_below(folder.derived)):
        if any(name in path.name for name in names):
            remove(folder.path, path)
    store.drop_columns(names)


def uncoded(header: Header) -> str:
    """The condition that a row has no code of any model; empty if there is no model."""
    return " AND ".join(f"`{record.code_column}` IS NULL" for record in header.models)


def drop_files(folder: ArchiveFolder, used: Collection[str]) -> None:
    """Delete the folders of models whose digests are not among those in use."""
    for path in unnamed_models(folder, used):
        with suppress(OSError, PreconditionError):  # verify reports leftovers
            remove(folder.path, path)
