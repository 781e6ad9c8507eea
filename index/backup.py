"""Backup: a copy of an archive's newest state, made while others read and write.

The version is kept from clean-up as long as it is copied. Its files are written once and never
changed, so they can be copied at leisure; a copy of the folder by other means (`cp -r`) while
a writer is at work may hold a version without some of its files, or models without codes.

A new backup is put together in a folder beside its place, which has no `archive.json` until
everything else is on the disk, and renamed. A backup that is there already is brought up to
date in place, and opens as the old state or the new one at any moment: new files first, then
`archive.json` with both lists of models, the new version's manifest, `archive.json` with the
new models only; files of the old version go last.
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

from filelock import FileLock, Timeout

from bittern.errors import (
    ArchiveDamagedError,
    ArchiveLockedError,
    BitternError,
    InvalidInputError,
    PreconditionError,
)
from bittern.files import sync_folder
from bittern.index.checking.manifests import (
    UnreadableManifestError,
    manifest_files,
    read_manifest,
    table_folder,
)
from bittern.index.checksums import Sum, files_below, read_sums, replace_sums, sum_of
from bittern.index.folder import ArchiveFolder, Header, Switch, write_json
from bittern.index.pins import pin, store_at, unpin
from bittern.index.snapshots import Snapshots, steady
from bittern.index.store import Store

_NOTE = "backup.json"


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup has done.

    Attributes:
        to: folder of the backup.
        version: the archive's version that it holds.
        copied: files that were copied.
        linked: files that are the archive's own, under a second name.
        reused: files that an earlier backup had already, the same to the last bit.
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
            "permissions. Nothing was put there that looks like an archive and is none"
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
        self._sums: dict[str, Sum] = {}
        self._done = Backup(str(target.path), version, 0, 0, 0, 0, 0, 0.0)

    def run(self) -> Backup:
        manifest = manifest_files(self._source.store)[self._version]
        files = [*self._store_files(manifest), *self._model_files()]
        before = self._earlier()
        if before is None:
            self._make(files, manifest)
        else:
            self._renew(files, manifest, before)
        return self._done

    def _make(self, files: list[Path], manifest: Path) -> None:
        place, building = self._target, ArchiveFolder(partial_folder(self._target.path))
        shutil.rmtree(building.path, ignore_errors=True)
        building.path.mkdir(parents=True)
        building.models.mkdir()
        self._target = building
        for path in [*files, manifest]:
            self._copy(path)
        self._sync()
        replace_sums(building.path, self._sums)
        _hold(building.path, [sum_of(manifest).xxh3])
        building.write_header(self._header)
        if place.path.is_dir():  # empty, as was checked
            place.path.rmdir()
        building.path.rename(place.path)
        sync_folder(place.path.parent)

    def _renew(self, files: list[Path], manifest: Path, before: Header) -> None:
        lock = self._target.lock()
        try:
            for path in files:
                self._copy(path, renewing=True)
            self._sync()
            models = before.at(max(manifest_files(self._target.store))).models
            switch = Switch(self._version, self._header.models)
            self._target.write_header(replace(self._header, models=models, switch=switch))
            _hold(self._target.path, [_newest_sum(self._target), sum_of(manifest).xxh3])
            self._copy(manifest, renewing=True)
            self._sync()
            replace_sums(self._target.path, self._sums)
            self._target.write_header(self._header)
            self._remove_others({*files, manifest})
        finally:
            lock.release()

    def _store_files(self, manifest: Path) -> Iterator[Path]:
        table = table_folder(self._source.store)
        try:
            read = read_manifest(manifest)
        except UnreadableManifestError as error:
            raise ArchiveDamagedError(
                f"{manifest} cannot be used ({error}); run bittern verify {self._source.path}"
            ) from error
        yield from sorted({table / file.path for file in read.files})
        transaction = table / "_transactions" / read.transaction
        if read.transaction and transaction.is_file():
            yield transaction

    def _model_files(self) -> Iterator[Path]:
        for record in self._header.models:
            folder = self._source.models / record.digest
            if not folder.is_dir():
                raise ArchiveDamagedError(
                    f"the archive at {self._source.path} has lost the files of model "
                    f"{record.name} ({folder}); run bittern verify, register the model again"
                )
            yield from files_below(folder)

    def _earlier(self) -> Header | None:
        """The header of the backup that is there; None where there is nothing."""
        path = self._target.path
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        remedy = "name a folder that is not there yet, or an earlier backup of this archive"
        if not self._target.header_file.is_file():
            raise PreconditionError(f"{path} is there already and holds no archive; {remedy}")
        before = self._target.read_header()
        if before.created != self._header.created:
            raise PreconditionError(
                f"{path} is no backup of {self._source.path}: that was created at "
                f"{self._header.created}, this at {before.created}; {remedy}"
            )
        if _newest_sum(self._target) not in _holding(path):
            raise PreconditionError(
                f"{path} was written to after the backup was made, or never was one: what is in it "
                f"would be lost; {remedy}"
            )
        return before

    def _copy(self, path: Path, renewing: bool = False) -> None:
        """Bring one file over; how the version came about is not kept with it, nor needed."""
        try:
            self._bring(path, renewing)
        except FileNotFoundError:
            if path.parent.name != "_transactions" or path.exists():
                raise

    def _bring(self, path: Path, renewing: bool) -> None:
        """Bring one file over, unless the same bytes are there.

        What is there is only replaced by a file that is whole and on the disk.
        """
        name = path.relative_to(self._source.path).as_posix()
        there = self._target.path / name
        _check_below(path, self._source.path, self._source.store, self._source.models)
        _check_below(there, self._target.path)
        told = self._known.get(name)
        if renewing and there.is_file() and there.stat().st_size == path.stat().st_size:
            # What the backup was, is no answer: disks lose what they hold.
            here = sum_of(there)
            if here == (told or sum_of(path)):
                self._sums[name] = here
                self._count(reused=1)
                return
        there.parent.mkdir(parents=True, exist_ok=True)
        temporary = there.with_name(f".{there.name}.copying")
        temporary.unlink(missing_ok=True)
        linked = self._link and _linked(path, temporary)
        if not linked:
            _copied(path, temporary)
        self._sums[name] = sum_of(temporary, sync=True)
        if told is not None and self._sums[name] != told:
            temporary.unlink()
            raise ArchiveDamagedError(
                f"{path} is not what was written: its checksum is {self._sums[name].xxh3}, not "
                f"{told.xxh3}; run bittern verify {self._source.path}. An earlier backup is "
                "left as it was"
            )
        temporary.replace(there)
        temporary.unlink(missing_ok=True)  # two names of one file are not replaced by each other
        size = self._sums[name].size
        self._count(
            copied=0 if linked else 1,
            linked=1 if linked else 0,
            bytes_=0 if linked else size,
            unchecked=1 if told is None else 0,
        )

    @property
    def _known(self) -> dict[str, Sum]:
        if not hasattr(self, "_told"):
            self._told = read_sums(self._source.path).files
        return self._told

    def _count(
        self, copied: int = 0, linked: int = 0, reused: int = 0, bytes_: int = 0, unchecked: int = 0
    ) -> None:
        done = self._done
        self._done = replace(
            done,
            copied=done.copied + copied,
            linked=done.linked + linked,
            reused=done.reused + reused,
            bytes=done.bytes + bytes_,
            unchecked=done.unchecked + unchecked,
        )

    def _sync(self) -> None:
        """Make the names durable; the files were, one by one."""
        for folder, _, _ in os.walk(self._target.path, topdown=False):
            sync_folder(Path(folder))

    def _remove_others(self, files: set[Path]) -> None:
        """Delete what the version that the backup now holds does not need."""
        names = {path.relative_to(self._source.path) for path in files}
        for folder in (self._target.store, self._target.models, self._target.derived):
            # What a link leads to is not the backup's.
            for path in () if folder.is_symlink() else files_below(folder):
                if path.relative_to(self._target.path) not in names:
                    path.unlink(missing_ok=True)
        for folder in self._target.models.iterdir():
            if folder.is_dir() and not any(files_below(folder)):
                shutil.rmtree(folder, ignore_errors=True)


def _hold(path: Path, manifests: list[str]) -> None:
    """Note what the backup holds, or is about to: whoever writes to it makes another manifest."""
    write_json(path / _NOTE, {"holds": manifests})


def _holding(path: Path) -> list[str]:
    try:
        return [str(known) for known in json.loads((path / _NOTE).read_text("utf-8"))["holds"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _newest_sum(folder: ArchiveFolder) -> str:
    """Checksum of the newest version's manifest."""
    found = manifest_files(folder.store)
    return sum_of(found[max(found)]).xxh3 if found else ""


def partial_folder(to: Path) -> Path:
    """Where a backup is put together; without an `archive.json`, it is no archive."""
    to = to.absolute()
    return to.with_name(f".{to.name}.partial")


@contextmanager
def _pinned(source: ArchiveFolder, snapshot: str | int | None) -> Iterator[tuple[Header, int]]:
    """Keep a state of the archive; one that cannot be kept must be on a read-only disk."""
    store = Store(source.store)
    header, version = steady(source, store)
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
        store_at(store, version)
        yield header, version
    finally:
        if name:
            unpin(store, name)


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """One backup at a time into one place."""
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


def _check_below(path: Path, *roots: Path) -> None:
    """Refuse a file that lies elsewhere than it should, by its name or by links."""
    real = path.resolve()
    if ".." in path.parts[len(roots[0].parts) :] or not any(
        real.is_relative_to(root.resolve()) for root in roots
    ):
        raise ArchiveDamagedError(
            f"{path} is named as a file of {roots[0]}, and lies elsewhere; run bittern verify"
        )
