"""Leftovers of a killed writer; nothing of them was acknowledged.

The next writer removes temporary files, the column of a model whose registration was interrupted,
and old pins. The next compaction removes LanceDB's leftovers (see `Store.compact`). Files of a
model that was never registered stay until it is registered, or `bittern verify --repair` is run.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from bittern.errors import BitternError
from bittern.files import check_inside
from bittern.index.checksums import LOG_NAME, files_below
from bittern.index.columns import is_code_or_embedding
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.models import is_digest
from bittern.index.snapshots import read_snapshots
from bittern.index.store import Store

_log = logging.getLogger(__name__)


def clear_leftovers(folder: ArchiveFolder, store: Store) -> None:
    """Remove leftovers; a failure is logged, since they do no harm.

    Args:
        folder: the archive's folder; its lock is held.
        store: its table, at its newest version.
    """
    try:
        for path in [*folder.path.glob(".archive-*"), *folder.models.glob(".new-*")]:
            _log.info("removing %s, left by a killed writer", path)
            remove(folder.path, path)
        columns = [
            name
            for name in unnamed_columns(store, folder.read_header())
            # A column with codes is no leftover: archive.json is older than the store.
            if not store.count(f"`{name}` IS NOT NULL")
        ]
        if columns:
            _log.info("removing the columns of interrupted registrations: %s", columns)
            store.drop_columns(columns)
        store.unpin_abandoned([info.pin for info in read_snapshots(folder)])
    except (OSError, BitternError) as error:
        _log.warning("leftovers of a killed writer were not removed: %s", error)


def remove(archive: Path, path: Path) -> None:
    """Delete a file or folder of an archive.

    Raises:
        OSError: the disk refuses.
        PreconditionError: it is a symbolic link, or behind one.
    """
    check_inside(archive, path)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unnamed_columns(store: Store, header: Header) -> list[str]:
    """Columns of codes and embeddings of models that the header does not name."""
    models = [*header.models, *(header.switch.models if header.switch else ())]
    named = {name for record in models for name in record.columns}
    return [name for name in store.columns if is_code_or_embedding(name) and name not in named]


def unnamed_models(folder: ArchiveFolder, used: Iterable[str]) -> list[Path]:
    """The folders that are named by the digest of a model that is not among those in use."""
    if folder.models.is_symlink() or not folder.models.is_dir():
        return []
    names = {*used}
    return [
        path
        for path in sorted(folder.models.iterdir())
        if path.is_dir()
        and not path.is_symlink()
        and is_digest(path.name)
        and path.name not in names
    ]


def leftover_files(folder: ArchiveFolder, models: Iterable[str] | None) -> list[Path]:
    """Temporary files, and files of unregistered models.

    A running writer has such files too. Unknown files are not listed, nor are files of the store,
    which LanceDB removes.

    Args:
        folder: the archive's folder.
        models: digests of its models; None if unknown.
    """

    def found() -> Iterator[Path]:
        for pattern in (".archive-*", f".{LOG_NAME}-*"):
            yield from folder.path.glob(pattern)
        yield from (path for path in files_below(folder.derived) if path.suffix == ".tmp")
        for begun in folder.models.glob(".new-*"):
            yield from files_below(begun)
        for model in unnamed_models(folder, models) if models is not None else ():
            yield from files_below(model)

    return sorted(found())
