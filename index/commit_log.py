"""Settling a commit: its files are on the disk, and their checksums are written down.

The one writer settles each commit before it is acknowledged. What was committed but never
settled (the process was killed in between, or an earlier version of Bittern wrote it) is
adopted when the archive is next opened for writing, after its rows have been read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from bittern.errors import PreconditionError
from bittern.files import sync_folder
from bittern.index.checking.manifests import (
    Manifest,
    StoreFile,
    UnreadableManifestError,
    manifest_files,
    read_manifest,
    table_folder,
)
from bittern.index.checksums import (
    Sum,
    append_sums,
    files_below,
    read_sums,
    replace_sums,
    sum_of,
)
from bittern.index.folder import ArchiveFolder
from bittern.index.store import Store

_MOST_OBSOLETE_LINES = 512
"""So many lines more than twice those that are needed, before the log is replaced."""
_WAITS = 4
"""Files that are waited for at the same time."""
_FEW = 0.25
"""Share of the bytes of data files up to which the rows in them are looked for, not all read."""
_log = logging.getLogger(__name__)


class Settler:
    """Keeps the log of checksums of an archive that this process writes to.

    Args:
        folder: the archive's folder; its lock is held.
        store: its table.
    """

    def __init__(self, folder: ArchiveFolder, store: Store) -> None:
        self._folder = folder
        self._store = store
        self._table = table_folder(folder.store)
        self._prefix = self._table.relative_to(folder.path).as_posix()
        self._known: dict[str, Sum] = {}
        self._lines = 0
        self._lines_needed = 0
        self._settled = 0
        self._synced: set[Path] = set()

    def adopt(self, everything: bool = False) -> None:
        """Take in what was never settled; called once, before anything is changed.

        Args:
            everything: also look for files without a checksum in versions that have theirs.

        Raises:
            ArchiveDamagedError: rows of it cannot be read.
            PreconditionError: the disk refuses.
        """
        try:
            sums = read_sums(self._folder.path)
            self._known, self._lines, self._lines_needed = sums.files, sums.lines, sums.lines
            if sums.torn or sums.damaged:
                replace_sums(self._folder.path, sums.files)
                self._lines = self._lines_needed = len(sums.files)
            everything = everything or bool(sums.damaged)
            unsettled = self._unsettled(everything)
            if unsettled:
                self._check_rows(unsettled)
                self._settle(unsettled)
            for model in self._model_folders():
                known = any(key.startswith(f"models/{model.name}/") for key in self._known)
                if everything or not known:
                    self._adopt_model(model)
        except OSError as error:
            raise self._refused(error) from error
        self._settled = self._store.version

    def settle(self) -> None:
        """Make durable what was committed since the last call, up to the store's version.

        Raises:
            PreconditionError: the disk refuses; what was committed is there, but it may not
                outlive a power cut.
        """
        if self._store.version == self._settled:
            return
        versions = self._table / "_versions"
        newest = self._store.version
        try:
            paths = [
                versions / f"{2**64 - 1 - version:020}.manifest"
                for version in range(self._settled + 1, newest + 1)
            ]
            self._settle(
                {path: read_manifest(path) for path in paths if path == paths[-1] or path.exists()}
            )
            if self._lines > 2 * self._lines_needed + _MOST_OBSOLETE_LINES:
                self._forget_what_is_gone()
        except (OSError, UnreadableManifestError) as error:
            raise self._refused(error) from error
        self._settled = newest

    def settle_model(self, model: Path) -> None:
        """Make the files of a model durable that were just put into its folder.

        Raises:
            PreconditionError: the disk refuses.
        """
        try:
            files = {self._key(path): sum_of(path, sync=True) for path in files_below(model)}
            for folder in {path.parent for path in files_below(model)} | {model, model.parent}:
                sync_folder(folder)
            before = [key for key in self._known if key.startswith(f"{self._key(model)}/")]
            self._append({**dict.fromkeys(before), **files})
        except OSError as error:
            raise self._refused(error) from error

    # Inside

    def _unsettled(self, everything: bool) -> dict[Path, Manifest]:
        """Versions without a checksum that are whole, as far as the sizes of files tell."""
        found: dict[Path, Manifest] = {}
        for path in manifest_files(self._folder.store).values():
            if self._key(path) in self._known and not everything:
                continue
            try:
                named = read_manifest(path)
                for file in named.files:
                    size = (self._table / file.path).stat().st_size
                    if file.size is not None and size != file.size:
                        raise UnreadableManifestError(f"{file.path} has {size} bytes")
            except (OSError, UnreadableManifestError) as error:
                _log.warning("%s gets no checksum, run bittern verify: %s", path, error)
                continue
            found[path] = named
        return found

    def _settle(self, manifests: Mapping[Path, Manifest]) -> None:
        paths = {
            self._key(path): path
            for manifest, named in manifests.items()
            for path in (*(self._table / file.path for file in named.files), manifest)
        }
        paths = {key: path for key, path in paths.items() if key not in self._known}
        folders = {path.parent for path in paths.values()}
        new = folders - self._synced
        # Waits for the disk at the same time cost little more than one of them.
        with ThreadPoolExecutor(_WAITS) as waits:
            sums = waits.map(partial(sum_of, sync=True), paths.values())
            files = dict(zip(paths, sums, strict=True))
            list(waits.map(sync_folder, folders | {folder.parent for folder in new}))
        self._synced |= new
        self._append(files)

    def _adopt_model(self, model: Path) -> None:
        paths = [path for path in files_below(model) if self._key(path) not in self._known]
        self._append({self._key(path): sum_of(path, sync=True) for path in paths})

    def _append(self, files: Mapping[str, Sum | None]) -> None:
        if files:
            append_sums(self._folder.path, files)
            for key, told in files.items():
                if told is None:
                    self._known.pop(key, None)
                else:
                    self._known[key] = told
            self._lines += len(files)

    def _forget_what_is_gone(self) -> None:
        left = {
            key: told for key, told in self._known.items() if (self._folder.path / key).exists()
        }
        replace_sums(self._folder.path, left)
        self._known, self._lines, self._lines_needed = left, len(left), len(left)

    def _check_rows(self, unsettled: Mapping[Path, Manifest]) -> None:
        """Read what the newest version has that is without checksums: all, or the newest rows."""
        newest = list(unsettled.values())[-1]
        if newest.version != self._store.version:
            return
        data = [file for file in newest.files if file.path.startswith("data/")]
        new = [file for file in data if f"{self._prefix}/{file.path}" not in self._known]
        if _bytes_of(new) > _FEW * _bytes_of(data):
            for _ in self._store.batches(self._store.columns):
                pass
        elif new:
            before = min(named.version for named in unsettled.values()) - 1
            self._store.read(self._store.columns, f"`committed` > {before}")

    def _model_folders(self) -> list[Path]:
        if not self._folder.models.is_dir():
            return []
        return [
            path
            for path in sorted(self._folder.models.iterdir())
            if path.is_dir() and not path.name.startswith(".")
        ]

    def _key(self, path: Path) -> str:
        return path.relative_to(self._folder.path).as_posix()

    def _refused(self, error: Exception) -> PreconditionError:
        return PreconditionError(
            f"what was written to the archive at {self._folder.path} may not outlive a power cut "
            f"({error}); check free space and the disk, then do the same again"
        )


def _bytes_of(files: Iterable[StoreFile]) -> int:
    return sum(file.size or 0 for file in files)
