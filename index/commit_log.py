"""The commit log: makes each commit durable and records the checksums of its files.

The writer does so before it acknowledges a commit. Files without a checksum (the process was killed
before, or an earlier version of Bittern wrote them) get theirs when the archive is next opened for
writing, after a check that their rows can be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bittern.errors import ArchiveDamagedError, PreconditionError
from bittern.files import sync_folder
from bittern.index.checksums import (
    TABLE_PREFIX,
    Checksum,
    StoredFiles,
    append_checksums,
    checksum_of,
    files_below,
    read_checksums,
    replace_checksums,
    stored_files,
)
from bittern.index.folder import ArchiveFolder
from bittern.index.store import Store
from bittern.index.table_versions import TableVersion, needed_by_any

_MOST_OBSOLETE_LINES = 512
"""The log is rewritten when it has more lines than twice the needed ones and this many."""
_SYNC_THREADS = 4


class CommitLog:
    """Records the checksums of an archive that this process writes to.

    Args:
        folder: the archive's folder; its lock is held.
        store: its table.
    """

    def __init__(self, folder: ArchiveFolder, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._known: dict[str, Checksum] = {}
        self._lines = 0
        self._version = 0
        self._synced: set[Path] = set()
        self._lost: set[str] = set()
        """Keys of files that some version needs and that the disk has lost: verify names them."""

    def adopt(self) -> None:
        """Record files that have no checksum yet; called once, before any change.

        Raises:
            ArchiveDamagedError: their rows cannot be read.
            PreconditionError: the disk refuses.
        """
        with self._refused():
            log = read_checksums(self._folder.path)
            self._known, self._lines = log.files, log.lines
            if log.torn or log.damaged:
                self._replace(log.files)
            stored = stored_files(self._folder.store)
            new = [key for key in stored.keys if key not in self._known]
            self._check_rows(new)
            self._record(new)
            missing = self._missing(stored)
            self._lost = needed_by_any(self._folder.store, missing, stored.manifests)
            self._append(dict.fromkeys(missing - self._lost))
            models = [self._key(path) for path in files_below(self._folder.models)]
            self._record(key for key in models if key not in self._known and "/." not in key)
        self._version = self._store.version

    def record(self) -> None:
        """Make the commits since the last call durable.

        Raises:
            PreconditionError: the disk refuses; the commits exist, but may not survive a power cut.
        """
        if self._store.version == self._version:
            return
        with self._refused():
            stored = stored_files(self._folder.store)
            self._record(key for key in stored.keys if key not in self._known)
            # A compaction of this process has removed the missing ones.
            self._append(dict.fromkeys(self._missing(stored) - self._lost))
            if self._lines > 2 * len(self._known) + _MOST_OBSOLETE_LINES:
                self._replace(self._known)
        self._version = self._store.version

    def record_model(self, model: Path) -> None:
        """Make the files durable that were just written for a model.

        Raises:
            PreconditionError: the disk refuses.
        """
        before = [key for key in self._known if key.startswith(f"{self._key(model)}/")]
        with self._refused():
            self._append(dict.fromkeys(before))
            self._record(self._key(path) for path in files_below(model))

    def _record(self, keys: Iterable[str]) -> None:
        """Sync files and their folders, then add their checksums."""
        paths = {key: self._folder.path / key for key in keys}
        folders = {path.parent for path in paths.values()}
        new = folders - self._synced
        # Parallel syncs take little longer than one.
        with ThreadPoolExecutor(_SYNC_THREADS) as threads:
            found = threads.map(partial(checksum_of, sync=True), paths.values())
            files = dict(zip(paths, found, strict=True))
            list(threads.map(sync_folder, folders | {folder.parent for folder in new}))
        self._synced |= new
        self._append(files)

    def _missing(self, stored: StoredFiles) -> set[str]:
        """Files of the table that have a checksum and are gone."""
        return {key for key in self._known if key.startswith(TABLE_PREFIX)}.difference(stored.keys)

    def _append(self, files: Mapping[str, Checksum | None]) -> None:
        if not files:
            return
        append_checksums(self._folder.path, files)
        self._lines += len(files)
        for key, recorded in files.items():
            if recorded is None:
                self._known.pop(key, None)
            else:
                self._known[key] = recorded

    def _replace(self, files: dict[str, Checksum]) -> None:
        replace_checksums(self._folder.path, files)
        self._known, self._lines = files, len(files)

    def _check_rows(self, new: list[str]) -> None:
        """Check that the rows in files without a checksum can be read."""
        if not new:
            return
        newest = TableVersion.open(self._folder.store, self._store.version)
        for fragment, files in newest.fragments.items():
            if not set(new).isdisjoint(files) and not newest.is_readable(fragment):
                raise ArchiveDamagedError(
                    f"rows of the archive at {self._folder.path} cannot be read "
                    f"({', '.join(files)}); run bittern verify {self._folder.path} --repair, or "
                    "restore the archive from a backup"
                )

    def _key(self, path: Path) -> str:
        return path.relative_to(self._folder.path).as_posix()

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise PreconditionError(
                f"the last changes of the archive at {self._folder.path} may not survive a power "
                f"cut ({error}); check free space and the disk, then repeat them"
            ) from error
