"""Backup: a copy of an archive's newest state, made while others read and write.

The version is kept from clean-up while it is copied, and its files never change. A copy of the
folder by other means (`cp -r`) while somebody writes may hold a version without some of its
files, or models without codes.

A new backup is made in a folder beside its target, which has no `archive.json` until everything
else is on the disk, and then renamed. An earlier backup is brought up to date in its folder, and
opens as the old state or the new one at any moment: new files first, then `archive.json` with
both lists of models, the new version's manifest, `archive.json` with the new models only; files
of the old version are removed last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from filelock import FileLock, Timeout

from bittern.errors import (
    ArchiveDamagedError,
    ArchiveLockedError,
    BitternError,
    InvalidInputError,
    PreconditionError,
)
from bittern.files import check_inside, sync_folder
from bittern.index.checksums import Checksum, checksum_of, read_checksums, replace_checksums
from bittern.index.folder import ArchiveFolder, Header, Switch, write_json
from bittern.index.leftovers import remove, unnamed_models
from bittern.index.pins import pin, unpin
from bittern.index.snapshots import Snapshots, header_and_version
from bittern.index.store import Store
from bittern.index.table_files import (
    TableVersion,
    files_below,
    newest_version,
    stored_keys,
    versions_in,
)

_NOTE = "backup.json"


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup has done.

    Attributes:
        to: folder of the backup.
        version: the archive's version that it holds.
        copied: files that were copied.
        linked: files that are the archive's own, under a second name.
        reused: files that an earlier backup had already, with the same bytes.
        bytes: that were copied.
        unchecked: files whose checksum was not known before.
        seconds: that it took.
    """

    to: str
    version: int
    copied: int
    linked: int
    reused: int
    bytes: int
    unchecked: int
    seconds: float


def backup(
    archive: str | Path, to: str | Path, *, link: bool = False, snapshot: str | int | None = None
) -> Backup:
    """Copy an archive's newest state, or a snapshot, into a folder of its own.

    Args:
        archive: its folder; writers need not stop.
        to: a folder that is not there yet, or an earlier backup of the same archive.
        link: give the files a second name instead of copying them, where the file system can:
            quick, and safe against deletion and mistakes, not against a broken disk.
        snapshot: copy this snapshot instead.

    Raises:
        ArchiveNotFoundError: there is no archive.
        InvalidInputError: `to` lies within the archive, or the archive within it.
        PreconditionError: there is something else at `to`, or the disk refuses.
        ArchiveDamagedError: a file of the archive is not what was written.
    """
    begun = perf_counter()
    source, target = ArchiveFolder(Path(archive)), ArchiveFolder(Path(to))
    source.check_present()
    _check_apart(source.path, target.path)
    try:
        with _alone(target.path), _pinned(source, snapshot) as (header, version):
            done = _Copying(source, target, header, version, link).run()
    except OSError as error:
        raise PreconditionError(
            f"{source.path} cannot be copied to {target.path} ({error}); check free space and "
            "permissions. No incomplete archive was left there"
        ) from error
    return replace(done, seconds=round(perf_counter() - begun, 3))


class _Copying:
    """One backup at work.

    Args:
        source: the archive.
        target: where the backup will be.
        header: the archive's header at the version, without a change under way.
        version: kept from clean-up.
        link: whether hard links will do.
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
        self._known = read_checksums(source.path).files
        self._checksums: dict[str, Checksum] = {}
        self._done = Counter[str]()

    def run(self) -> Backup:
        before = self._earlier()
        files = [*self._store_files(), *self._model_files()]
        if before is None:
            self._make(files)
        else:
            self._renew(files, before)
        return Backup(
            to=str(self._target.path),
            version=self._version,
            copied=self._done["copied"],
            linked=self._done["linked"],
            reused=self._done["reused"],
            bytes=self._done["bytes"],
            unchecked=self._done["unchecked"],
            seconds=0.0,
        )

    def _make(self, files: list[str]) -> None:
        final, building = self._target, ArchiveFolder(partial_folder(self._target.path))
        shutil.rmtree(building.path, ignore_errors=True)
        building.path.mkdir(parents=True)
        building.models.mkdir()
        self._target = building
        for name in files:
            self._copy(name)
        self._sync()
        replace_checksums(building.path, self._checksums)
        _hold(building.path, [self._manifest_checksum])
        building.write_header(self._header)
        if final.path.is_dir():  # empty, as was checked
            final.path.rmdir()
        building.path.rename(final.path)
        sync_folder(final.path.parent)
        self._target = final

    def _renew(self, files: list[str], before: Header) -> None:
        lock = self._target.lock()
        try:
            *others, manifest = sorted(files, key=lambda name: self._version in versions_in([name]))
            for name in others:
                self._copy(name, renewing=True)
            self._sync()
            models = before.at(newest_version(stored_keys(self._target.store))).models
            switch = Switch(self._version, self._header.models)
            self._target.write_header(replace(self._header, models=models, switch=switch))
            _hold(self._target.path, [_newest_checksum(self._target), self._manifest_checksum])
            self._copy(manifest, renewing=True)
            self._sync()
            replace_checksums(self._target.path, self._checksums)
            self._target.write_header(self._header)
            self._remove_others()
        finally:
            lock.release()

    @property
    def _manifest(self) -> str:
        """Key of the version's manifest."""
        keys = stored_keys(self._source.store)
        return next(key for key in keys if self._version in versions_in([key]))

    @property
    def _manifest_checksum(self) -> str:
        return checksum_of(self._source.path / self._manifest).xxh3

    def _store_files(self) -> list[str]:
        """Keys of the files that the version needs, its manifest last."""
        version = TableVersion.open(self._source.store, self._version)
        indexes = version.needed(stored_keys(self._source.store))
        data = {key for files in version.fragments.values() for key in files}
        return [*sorted(indexes | data), self._manifest]

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

    def _earlier(self) -> Header | None:
        """The header of an earlier backup at the target; None where there is nothing."""
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
        if _newest_checksum(self._target) not in _holding(path):
            raise PreconditionError(
                f"{path} was written to after the backup was made, or never was one: what is in it "
                f"would be lost; {remedy}"
            )
        return before

    def _copy(self, name: str, renewing: bool = False) -> None:
        """Copy one file, unless the target has the same bytes already.

        A file of the target is only replaced by one that is whole and on the disk.
        """
        path, to = self._source.path / name, self._target.path / name
        # The folders of the store and of models may be links, if the user has made them so.
        kind = self._source.models if name.startswith("models/") else self._source.store
        check_inside(kind, path)
        check_inside(self._target.path, to)
        recorded = self._known.get(name)
        if renewing and to.is_file() and to.stat().st_size == path.stat().st_size:
            # It is read again: disks lose what they hold.
            found = checksum_of(to)
            if found == (recorded or checksum_of(path)):
                self._checksums[name] = found
                self._done["reused"] += 1
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
                f"{path} is not what was written: its checksum is {found.xxh3}, not "
                f"{recorded.xxh3}; run bittern verify {self._source.path}. An earlier backup is "
                "left as it was"
            )
        temporary.replace(to)
        temporary.unlink(missing_ok=True)  # two names of one file do not replace each other
        self._done["linked" if linked else "copied"] += 1
        self._done["bytes"] += 0 if linked else found.size
        self._done["unchecked"] += recorded is None

    def _sync(self) -> None:
        """Make the names durable; the files were, one by one."""
        for folder, _, _ in os.walk(self._target.path, topdown=False):
            sync_folder(Path(folder))

    def _remove_others(self) -> None:
        """Delete what the version that the backup now holds does not need."""
        for folder in (self._target.store, self._target.models, self._target.derived):
            for path in list(files_below(folder)):
                if path.relative_to(self._target.path).as_posix() not in self._checksums:
                    path.unlink(missing_ok=True)
        for folder in unnamed_models(self._target, [one.digest for one in self._header.models]):
            remove(self._target.path, folder)


def _hold(path: Path, manifests: list[str]) -> None:
    """Note what the backup holds or will hold; another writer would make another manifest."""
    write_json(path / _NOTE, {"holds": manifests})


def _holding(path: Path) -> list[str]:
    try:
        return [str(known) for known in json.loads((path / _NOTE).read_text("utf-8"))["holds"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _newest_checksum(folder: ArchiveFolder) -> str:
    """Checksum of the newest version's manifest."""
    keys = stored_keys(folder.store)
    newest = newest_version(keys)
    found = [key for key in keys if newest in versions_in([key])]
    return checksum_of(folder.path / found[0]).xxh3 if found else ""


def partial_folder(to: Path) -> Path:
    """Where a backup is put together; without an `archive.json`, it is no archive."""
    to = to.absolute()
    return to.with_name(f".{to.name}.partial")


@contextmanager
def _pinned(source: ArchiveFolder, snapshot: str | int | None) -> Iterator[tuple[Header, int]]:
    """Keep a state of the archive; one that cannot be kept must be on a read-only disk."""
    store = Store(source.store)
    header, version = header_and_version(source, store)
    if snapshot is not None:
        info = Snapshots(source, store).find(snapshot)
        version = info.version
        header = replace(header, models=info.models)
    name = ""
    try:
        name = pin(store, version, while_running=True)
    except BitternError:
        if os.access(source.path, os.W_OK):
            raise
    try:
        store.at(version)
        yield header, version
    finally:
        if name:
            unpin(store, name)


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """One backup at a time into one folder."""
    to.absolute().parent.mkdir(parents=True, exist_ok=True)
    path = partial_folder(to).with_suffix(".lock")
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise ArchiveLockedError(f"another backup is writing to {to}; wait for it") from None
    try:
        yield
    finally:
        lock.release()
        path.unlink(missing_ok=True)


def _check_apart(source: Path, to: Path) -> None:
    one, other = source.resolve(), to.resolve()
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise InvalidInputError(
            f"a backup of {source} cannot be put at {to}: one lies within the other", field="to"
        )


def _linked(path: Path, there: Path) -> bool:
    try:
        there.hardlink_to(path)
    except OSError:
        return False
    return True


def _copied(path: Path, there: Path) -> None:
    """Copy a file's bytes."""
    shutil.copyfile(path, there)
