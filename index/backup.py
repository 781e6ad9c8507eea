"""Backup: a copy of an archive's newest state, made while others read and write.

The version is pinned while its files are copied, which never change. (A copy of the folder with
`cp -r` while somebody writes can lack files of a version, or hold models without codes.)

Data files are copied first, then the manifest, then `archive.json`. A new backup is built in a
folder beside its target, which is then renamed. An earlier backup is updated in its folder, and can
be opened at any time in its old or new state: before the manifest, `archive.json` with both lists
of models is written; old files are removed last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from bittern.errors import (
    ArchiveDamagedError,
    BitternError,
    InvalidInputError,
    PreconditionError,
)
from bittern.files import check_inside, check_outside_archives, sync_folder
from bittern.index.checksums import (
    Checksum,
    checksum_of,
    files_below,
    read_checksums,
    replace_checksums,
    stored_files,
)
from bittern.index.folder import ArchiveFolder, Header, Switch, acquire_lock, write_json
from bittern.index.leftovers import remove, unnamed_models
from bittern.index.opening import newest_state
from bittern.index.snapshots import Snapshots
from bittern.index.store import Store
from bittern.index.table_versions import TableVersion
from bittern.index.versions import pin_name

_NOTE = "backup.json"


@dataclass(slots=True)
class Backup:
    """The result of a backup.

    Attributes:
        to: folder of the backup.
        version: the archive's version in it.
        copied: number of copied files.
        linked: number of hard links to the archive's files.
        reused: number of unchanged files of an earlier backup.
        bytes: number of copied bytes.
        unchecked: number of files without a known checksum.
        seconds: duration.
    """

    to: str
    version: int
    copied: int = 0
    linked: int = 0
    reused: int = 0
    bytes: int = 0
    unchecked: int = 0
    seconds: float = 0.0


def backup(
    archive: str | Path, to: str | Path, *, link: bool = False, snapshot: str | int | None = None
) -> Backup:
    """Copy an archive's newest state, or a snapshot, into another folder.

    Args:
        archive: its folder; writers need not stop.
        to: a new folder, or an earlier backup of the same archive.
        link: make hard links instead of copies where the file system can: fast, and safe against
            deletion and mistakes, not against a broken disk.
        snapshot: copy this snapshot instead.

    Raises:
        ArchiveNotFoundError: there is no archive.
        InvalidInputError: one of the two folders contains the other, or `to` is in an archive.
        PreconditionError: `to` holds something else, or the disk refuses.
        ArchiveDamagedError: a file of the archive is missing or damaged, or one of the two folders
            has a link in it.
    """
    begun = perf_counter()
    source, target = ArchiveFolder(Path(archive)), ArchiveFolder(Path(to))
    source.check_present()
    one, other = source.path.resolve(), target.path.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise InvalidInputError(
            f"a backup of {archive} cannot be made at {to}: one folder contains the other",
            field="to",
        )
    check_outside_archives(target.path, "to")
    if target.path.is_dir():
        target.check_links()
    try:
        with _locked(target.path), _pinned(source, snapshot) as (header, version):
            done = _Copying(source, target, header, version, link).run()
    except OSError as error:
        raise PreconditionError(
            f"{source.path} cannot be copied to {target.path} ({error}); check free space and "
            "permissions. No incomplete archive was left there"
        ) from error
    done.seconds = round(perf_counter() - begun, 3)
    return done


class _Copying:
    """One run of a backup.

    Args:
        source: the archive.
        target: the backup.
        header: the archive's header at the version.
        version: of the archive; pinned.
        link: whether to make hard links.
    """

    def __init__(
        self,
        source: ArchiveFolder,
        target: ArchiveFolder,
        header: Header,
        version: int,
        link: bool,
    ) -> None:
        self._source = source
        self._target = target
        self._header = header
        self._version = version
        self._link = link
        self._stored = stored_files(source.store)
        self._known = read_checksums(source.path).files
        self._checksums: dict[str, Checksum] = {}
        self._done = Backup(to=str(target.path), version=version)

    def run(self) -> Backup:
        if self._version not in self._stored.manifests:
            raise PreconditionError(
                f"version {self._version} of {self._source.path} has no files to copy: the archive "
                "was empty then"
            )
        before = self._earlier_header()
        if before is None:
            self._create()
        else:
            lock = self._target.lock()
            try:
                self._fill(before)
            finally:
                lock.release()
        return self._done

    def _create(self) -> None:
        final, building = self._target, ArchiveFolder(partial_folder(self._target.path))
        check_inside(building.path.parent, building.path)
        shutil.rmtree(building.path, ignore_errors=True)
        building.models.mkdir(parents=True)
        self._target = building
        self._fill(None)
        if final.path.is_dir():  # empty, as was checked
            final.path.rmdir()
        building.path.rename(final.path)
        sync_folder(final.path.parent)
        self._target = final

    def _fill(self, before: Header | None) -> None:
        """Make the target a copy.

        Args:
            before: the header of the earlier backup at the target; None for an empty folder.
        """
        target, manifest = self._target, self._stored.manifests[self._version]
        for key in self._files():
            self._copy(key)
        held = [checksum_of(self._source.path / manifest).xxh3]
        if before is not None:
            self._sync()
            models = before.at(stored_files(target.store).newest).models
            switch = Switch(self._version, self._header.models)
            target.write_header(replace(self._header, models=models, switch=switch))
            held.insert(0, _newest_manifest(target))
        _hold(target.path, held)
        self._copy(manifest)
        self._sync()
        replace_checksums(target.path, self._checksums)
        target.write_header(self._header)
        if before is not None:
            self._remove_others()

    def _files(self) -> list[str]:
        """Keys of the files that the version needs, without its manifest."""
        version = TableVersion.open(self._source.store, self._version)
        data = {key for files in version.fragments.values() for key in files}
        return [*sorted(data | version.needed(self._stored.data)), *self._model_files()]

    def _model_files(self) -> Iterator[str]:
        for record in self._header.models:
            folder = self._source.models / record.digest
            if not folder.is_dir():
                raise ArchiveDamagedError(
                    f"the archive at {self._source.path} has lost the files of model "
                    f"{record.name} ({folder}); run bittern verify, register the model again"
                )
            for path in files_below(folder):
                yield path.relative_to(self._source.path).as_posix()

    def _earlier_header(self) -> Header | None:
        """The header of an earlier backup at the target; None if the target is empty."""
        path = self._target.path
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        remedy = "name a new folder, or an earlier backup of this archive"
        if not self._target.header_file.is_file():
            raise PreconditionError(f"{path} exists already and holds no archive; {remedy}")
        before = self._target.read_header()
        if before.created != self._header.created:
            raise PreconditionError(
                f"{path} is not a backup of {self._source.path}, which was created at "
                f"{self._header.created}; {path.name} was created at {before.created}; {remedy}"
            )
        if _newest_manifest(self._target) not in _holding(path):
            raise PreconditionError(
                f"{path} was changed after the backup was made, or is no backup: its content would "
                f"be lost; {remedy}"
            )
        return before

    def _copy(self, name: str) -> None:
        """Copy one file, unless the target has the same bytes already; replaces it atomically."""
        path, to = self._source.path / name, self._target.path / name
        check_inside(self._source.path, path)
        check_inside(self._target.path, to)
        recorded = self._known.get(name)
        if to.is_file() and to.stat().st_size == path.stat().st_size:
            # It is read again, since files on disks can rot.
            found = checksum_of(to)
            if found == (recorded or checksum_of(path)):
                self._checksums[name] = found
                self._done.reused += 1
                return
        to.parent.mkdir(parents=True, exist_ok=True)
        temporary = to.with_name(f".{to.name}.copying")
        temporary.unlink(missing_ok=True)
        linked = self._link and _linked(path, temporary)
        if not linked:
            _copied(path, temporary)
        found = self._checksums[name] = checksum_of(temporary, sync=True)
        if recorded is not None and found != recorded:
            temporary.unlink()
            raise ArchiveDamagedError(
                f"{path} is damaged: its checksum is {found.xxh3}, not {recorded.xxh3}; run "
                f"bittern verify {self._source.path}. An earlier backup is unchanged"
            )
        temporary.replace(to)
        temporary.unlink(missing_ok=True)  # two names of one file do not replace each other
        if linked:
            self._done.linked += 1
        else:
            self._done.copied += 1
            self._done.bytes += found.size
        self._done.unchecked += recorded is None

    def _sync(self) -> None:
        """Sync the folders; the files are synced already."""
        for folder, _, _ in os.walk(self._target.path, topdown=False):
            sync_folder(Path(folder))

    def _remove_others(self) -> None:
        """Delete files that the backup's version does not need."""
        for folder in (self._target.store, self._target.models, self._target.derived):
            for path in list(files_below(folder)):
                if path.relative_to(self._target.path).as_posix() not in self._checksums:
                    path.unlink(missing_ok=True)
        for folder in unnamed_models(self._target, [one.digest for one in self._header.models]):
            remove(self._target.path, folder)


def _hold(path: Path, manifests: list[str]) -> None:
    """Record the manifests that the backup holds or will hold, to notice other changes of it."""
    write_json(path / _NOTE, {"holds": manifests})


def _holding(path: Path) -> list[str]:
    try:
        return [str(known) for known in json.loads((path / _NOTE).read_text("utf-8"))["holds"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _newest_manifest(folder: ArchiveFolder) -> str:
    """Checksum of the newest version's manifest; "" for none."""
    stored = stored_files(folder.store)
    key = stored.manifests.get(stored.newest)
    return checksum_of(folder.path / key).xxh3 if key else ""


def partial_folder(to: Path) -> Path:
    """The folder in which a backup is built."""
    to = to.absolute()
    return to.with_name(f".{to.name}.partial")


@contextmanager
def _pinned(source: ArchiveFolder, snapshot: str | int | None) -> Iterator[tuple[Header, int]]:
    """Pin a state of the archive; on a read-only disk that is neither possible nor needed."""
    store = Store(source.store)
    header, version = newest_state(source, store)
    if snapshot is not None:
        info = Snapshots(source, store).find(snapshot)
        version = info.version
        header = replace(header, models=info.models)
    name = pin_name(while_running=True)
    try:
        store.pin(name, version)
    except BitternError:
        if os.access(source.path, os.W_OK):
            raise
    try:
        store.at(version)
        yield header, version
    finally:
        store.unpin(name)


@contextmanager
def _locked(to: Path) -> Iterator[None]:
    """Hold the lock of a backup's folder."""
    to.absolute().parent.mkdir(parents=True, exist_ok=True)
    path = partial_folder(to).with_suffix(".lock")
    lock = acquire_lock(path, f"another backup is writing to {to}; wait for it")
    try:
        yield
    finally:
        lock.release()
        path.unlink(missing_ok=True)


def _linked(path: Path, target: Path) -> bool:
    try:
        target.hardlink_to(path)
    except OSError:
        return False
    return True


def _copied(path: Path, target: Path) -> None:
    shutil.copyfile(path, target)
