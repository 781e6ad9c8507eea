"""The commit log: each commit's files are on the disk, and their checksums are written down.

The one writer does that for each commit before it is acknowledged. What was committed without
(the process was killed in between, or an earlier version of Bittern wrote it) is taken in when
the archive is next opened for writing, after its rows were read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bittern.errors import ArchiveDamagedError, PreconditionError
from bittern.files import sync_folder
from bittern.index.checksums import (
    Checksum,
    append_checksums,
    checksum_of,
    read_checksums,
    replace_checksums,
)
from bittern.index.folder import ArchiveFolder
from bittern.index.store import Store
from bittern.index.table_files import (
    PREFIX,
    TableVersion,
    files_below,
    needed_by_any,
    stored_keys,
)

_MOST_OBSOLETE_LINES = 512
"""The log is replaced when it has so many lines more than twice those that are needed."""
_WAITS = 4
"""Files that are waited for at the same time."""


class CommitLog:
    """Keeps the checksums of an archive that this process writes to.

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

    def adopt(self) -> None:
        """Take in files that have no checksum yet; called once, before anything is changed.

        Raises:
            ArchiveDamagedError: rows of them cannot be read.
            PreconditionError: the disk refuses.
        """
        try:
            log = read_checksums(self._folder.path)
            self._known, self._lines = log.files, log.lines
            if log.torn or log.damaged:
                self._replace(log.files)
            keys = stored_keys(self._folder.store)
            new = [key for key in keys if key not in self._known]
            self._check_rows(new)
            self._record(new)
            missing = self._missing(keys)
            if missing:
                lost = needed_by_any(self._folder.store, missing, keys)
                self._append(dict.fromkeys(key for key in missing if key not in lost))
            models = [self._key(path) for path in files_below(self._folder.models)]
            self._record(key for key in models if key not in self._known and "/." not in key)
        except OSError as error:
            raise self._refused(error) from error
        self._version = self._store.version

    def record(self) -> None:
        """Make durable what was committed since the last call, up to the store's version.

        Raises:
            PreconditionError: the disk refuses; what was committed exists, but it may not
                outlive a power cut.
        """
        if self._store.version == self._version:
            return
        try:
            keys = stored_keys(self._folder.store)
            self._record(key for key in keys if key not in self._known)
            # What is missing now, a compaction of this process has removed.
            self._append(dict.fromkeys(self._missing(keys)))
            if self._lines > 2 * len(self._known) + _MOST_OBSOLETE_LINES:
                self._replace(self._known)
        except OSError as error:
            raise self._refused(error) from error
        self._version = self._store.version

    def record_model(self, model: Path) -> None:
        """Make the files of a model durable that were just put into its folder.

        Raises:
            PreconditionError: the disk refuses.
        """
        before = [key for key in self._known if key.startswith(f"{self._key(model)}/")]
        try:
            self._append(dict.fromkeys(before))
            self._record(self._key(path) for path in files_below(model))
        except OSError as error:
            raise self._refused(error) from error

    def _record(self, keys: Iterable[str]) -> None:
        """Wait until files and their folders are on the disk, then add their checksums."""
        paths = {key: self._folder.path / key for key in keys}
        folders = {path.parent for path in paths.values()}
        new = folders - self._synced
        # Waits for the disk at the same time cost little more than one of them.
        with ThreadPoolExecutor(_WAITS) as waits:
            found = waits.map(partial(checksum_of, sync=True), paths.values())
            files = dict(zip(paths, found, strict=True))
            list(waits.map(sync_folder, folders | {folder.parent for folder in new}))
        self._synced |= new
        self._append(files)

    def _missing(self, keys: list[str]) -> list[str]:
        """Files of the table that have a checksum and are gone."""
        present = set(keys)
        return [key for key in self._known if key.startswith(PREFIX) and key not in present]

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
        """Read the rows of the newest version that lie in files without a checksum."""
        if not any("/data/" in key or "/_deletions/" in key for key in new):
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

    def _refused(self, error: OSError) -> PreconditionError:
        return PreconditionError(
            f"what was written to the archive at {self._folder.path} may not outlive a power cut "
            f"({error}); check free space and the disk, then do the same again"
        )
