"""What a killed writer has left behind, and the next one removes: nothing of it was acknowledged.

Files that were being written, the column of a model whose registration never came to its end,
and versions that were kept for as long as something was read. What LanceDB has left goes with
the next compaction (see `Store.compact`). The files of a model that was not registered stay:
registering it again puts others in their place, and `bittern repair` removes them.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from bittern.errors import BitternError
from bittern.index.columns import is_code_or_embedding
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.pins import drop_columns, unpin_abandoned
from bittern.index.snapshots import Snapshots
from bittern.index.store import Store

_log = logging.getLogger(__name__)


def clear_leftovers(folder: ArchiveFolder, store: Store) -> None:
    """Remove what was cut short; a failure is logged, it does no harm where it lies.

    Args:
        folder: the archive's folder; its lock is held.
        store: its table, at its newest version.
    """
    try:
        for path in _temporary(folder):
            _log.info("removing %s, which a writer has left that was killed", path)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        columns = _cut_off(folder.read_header(), store)
        if columns:
            _log.info("removing the columns of registrations that were cut off: %s", columns)
        drop_columns(store, columns)
        unpin_abandoned(store, [info.pin for info in Snapshots(folder, store).list()])
    except (OSError, BitternError) as error:
        _log.warning("what a killed writer has left was not removed: %s", error)


def _temporary(folder: ArchiveFolder) -> list[Path]:
    return [*folder.path.glob(".archive-*"), *folder.models.glob(".new-*")]


def _cut_off(header: Header, store: Store) -> list[str]:
    """Columns of models that the header does not name and that hold nothing.

    One that holds codes is no leftover: an `archive.json` of another day lies here.
    """
    models = [*header.models, *(header.switch.models if header.switch else ())]
    named = {name for one in models for name in (one.code_column, one.embedding_column)}
    unnamed = [name for name in store.columns if is_code_or_embedding(name) and name not in named]
    return [name for name in unnamed if not store.count(f"`{name}` IS NOT NULL")]
