"""The archive: a folder of observations, their metadata and their codes.

Joins the store with the index that is derived from it. One process can write; any number can read
at the same time, and see whole commits only.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from bittern.errors import PreconditionError
from bittern.index.checksums import NAME
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.leftovers import unnamed_models
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedObservation
from bittern.index.opening import check_at_open, check_model_columns, newest_state
from bittern.index.reading import ArchiveReader
from bittern.index.snapshots import SnapshotInfo, Snapshots
from bittern.index.store import Store
from bittern.index.writer import Writer
from bittern.types import AddResult, OnDuplicate, SearchOptions, check_options


class Archive(ArchiveReader):
    """An open archive. Made by `Archive.create` and `Archive.open`.

    Safe to use from several threads.
    """

    def __init__(
        self,
        folder: ArchiveFolder,
        store: Store,
        writer: Writer | None,
        options: SearchOptions | None = None,
        past: Header | None = None,
    ) -> None:
        super().__init__(folder, store, writes=writer is not None, options=options, past=past)
        self._writer = writer

    @classmethod
    def create(cls, path: str | Path, *, name: str | None = None) -> Archive:
        """Create an archive and open it for writing; an existing one is opened.

        Args:
            path: a folder that does not exist yet, is empty, or is an archive.
            name: the archive's name; the folder's by default.

        Raises:
            PreconditionError: the folder holds other files, or cannot be created.
            ArchiveLockedError: another process writes to it.
        """
        folder = ArchiveFolder(Path(path))
        if folder.header_file.is_file():
            return cls.open(path, write=True)
        folder.check_free()
        try:
            folder.models.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PreconditionError(f"no archive can be created at {path}: {error}") from error
        lock = folder.lock()
        try:
            # The header comes last: without it, a folder is no archive.
            if not Store.create(folder.store).is_new:
                folder.check_present()
            (folder.path / NAME).unlink(missing_ok=True)
            folder.write_header(folder.new_header(name))
        except OSError as error:
            raise PreconditionError(f"no archive can be created at {path}: {error}") from error
        finally:
            lock.release()
        return cls.open(path, write=True)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        write: bool = False,
        search: SearchOptions | None = None,
        snapshot: str | int | None = None,
    ) -> Archive:
        """Open an archive.

        Args:
            path: its folder.
            write: also allow changes, by one process at a time.
            search: search options; None for the defaults.
            snapshot: name of a snapshot, or number of a version that still exists, to read that
                state. None for the newest state.

        Raises:
            QueryError: `search` has another type.
            NotFoundError: there is no such snapshot.
            PreconditionError: both `write` and `snapshot` are given.
            ArchiveNotFoundError: the folder holds no archive.
            ArchiveDamagedError: some of its files are missing or damaged.
            ArchiveVersionError: a newer version of Bittern made it.
            ArchiveLockedError: another process writes to it.
        """
        options = check_options(search)
        folder = ArchiveFolder(Path(path))
        folder.check_present()
        folder.read_header()
        if snapshot is not None:
            return cls._open_past(folder, snapshot, write, options)
        lock = folder.lock() if write else None
        try:
            check_at_open(folder)
            store = Store(folder.store)
            header, version = newest_state(folder, store)
            if lock:
                header = folder.complete_switch(version)
                folder.renew_header_copy(header)
            check_model_columns(folder, header, store)
            writer = Writer(folder, store, lock) if lock else None
            return cls(folder, store, writer, options)
        except BaseException:
            if lock:
                lock.release()
            raise

    @classmethod
    def _open_past(
        cls, folder: ArchiveFolder, snapshot: str | int, write: bool, options: SearchOptions
    ) -> Archive:
        if write:
            raise PreconditionError(
                f"snapshot {snapshot} cannot be written to; to continue from it, make it the "
                f"newest state: bittern restore {folder.path} {snapshot}"
            )
        store = Store(folder.store)
        info = Snapshots(folder, store).find(snapshot)
        then = store.at(info.version)
        header = replace(folder.read_header(), models=info.models, switch=None)
        check_model_columns(folder, header, then)
        return cls(folder, then, None, options, header)

    def close(self) -> None:
        """Release the lock; the archive cannot be used afterwards."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._engines.close()
            self._index_files.close(None if self._past else self._generation)
            self._generation = None
            if self._writer:
                self._writer.close()
            self._derived.renew()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        mode = "closed" if self._closed else "write" if self._writer else "read"
        return f"Archive({str(self.path)!r}, {mode})"

    def register_model(self, record: ModelRecord, files: Mapping[str, bytes]) -> None:
        """Register a model, with the files that are needed to load it.

        Registering a model again only restores lost files.

        Args:
            record: the model.
            files: relative POSIX path to content.

        Raises:
            InvalidInputError: the digest or a file name is unusable.
            DigestMismatchError: another model's digest starts with the same 16 digits.
        """
        self._writing().register_model(record, files)
        self.refresh()

    def add(
        self,
        items: Sequence[Sequence[CodedObservation]],
        *,
        model: str,
        on_duplicate: OnDuplicate = "error",
    ) -> builtins.list[AddResult]:
        """Add media items in one atomic commit; returns when it is durable.

        A bad item fails alone; its result holds the reason. The table in `bittern.index.adding`
        lists what happens to items that are already in the archive.

        Args:
            items: all observations of each media item, with codes.
            model: digest of the model that made the codes.
            on_duplicate: ``error``, ``skip`` or ``overwrite``.

        Returns:
            one result per item, in the order given.

        Raises:
            DigestMismatchError: the model is not registered here.
            PreconditionError: open for reading only, or the disk refuses; nothing is stored.
        """
        return self._writing().add(items, self._model(model), on_duplicate)

    def delete(self, ids: Sequence[str]) -> builtins.list[str]:
        """Delete observations in one atomic commit.

        Args:
            ids: observation ids, or `occurrenceID`s, which mean all their windows.

        Returns:
            ids of the deleted observations, in row order.

        Raises:
            ObservationNotFoundError: some are unknown (all are named); nothing is deleted.
        """
        return self._writing().delete(ids)

    # Snapshots

    def snapshots(self, *, unnamed: bool = False) -> builtins.list[SnapshotInfo]:
        """The snapshots, oldest first.

        Args:
            unnamed: also versions that have no name and still exist.
        """
        snapshots = self._snapshots()
        found = [*snapshots.list(), *(snapshots.unnamed() if unnamed else ())]
        return sorted(found, key=lambda info: info.version)

    def take_snapshot(self, name: str, *, note: str = "") -> SnapshotInfo:
        """Name the newest state and keep it until `drop_snapshot`; see `Snapshots.take`."""
        return self._snapshots().take(name, note=note)

    def drop_snapshot(self, name: str) -> SnapshotInfo:
        """Drop a snapshot; its version may be cleaned up.

        Raises:
            NotFoundError: there is no such snapshot.
        """
        return self._snapshots().drop(name)

    def restore(self, snapshot: str | int, *, keep_as: str | None = None) -> SnapshotInfo:
        """Make an old state the newest one, in a new commit; the current state gets a snapshot.

        Args:
            snapshot: name of a snapshot, or number of a version that still exists.
            keep_as: name of the snapshot of the current state; None for ``before-restore-`` and a
                number.

        Returns:
            that snapshot.

        Raises:
            NotFoundError: there is no such snapshot.
            PreconditionError: open for reading only, a model of the old state was dropped, or the
                disk refuses; nothing is changed.
        """
        writer, snapshots = self._writing(), self._snapshots()
        wanted = snapshots.find(snapshot)
        snapshots.check_complete(wanted)
        before = snapshots.take(
            keep_as or snapshots.free_name("before-restore-"),
            note=f"before {wanted.name or f'version {wanted.version}'} was restored",
            automatic=True,
        )
        writer.restore(wanted)
        self.refresh()
        return before

    # Models

    def switch_model(self, digest: str) -> None:
        """Make a model the first choice, and retire the models that it replaces.

        Raises:
            DigestMismatchError: it is not registered here.
        """
        self._writing().switch_model(digest)
        self.refresh()

    def drop_retired(self, successor: str | None = None) -> builtins.list[ModelRecord]:
        """Remove retired models, their codes, and rows that only they have coded.

        Snapshots keep what they need. Also completes an interrupted removal.

        Args:
            successor: digest; drop only models that this model has replaced. None for all
                retired models.

        Returns:
            the dropped models.
        """
        dropped = self._writing().drop_retired(set(self._snapshots().models()), successor)
        self.refresh()
        return dropped

    def forgotten_models(self) -> builtins.list[Path]:
        """Folders that dropped models have left; their codes may be left too."""
        header = self._folder.read_header()
        return unnamed_models(self._folder, {record.digest for record in header.models})

    def give_up(self, model: str | None = None) -> ModelRecord | None:
        """Remove a pending model, its codes, and rows that only it has coded.

        Also completes an interrupted removal.

        Args:
            model: its digest; None for the only pending one, if there is one.

        Returns:
            the model; None if none was pending.

        Raises:
            DigestMismatchError: there is no such model, or several are pending and none is named.
            PreconditionError: it is not pending, or the archive is open for reading only.
        """
        given_up = self._writing().give_up(model, set(self._snapshots().models()))
        self.refresh()
        return given_up

    def _snapshots(self) -> Snapshots:
        self._check_open()
        return Snapshots(self._folder, Store(self._folder.store))

    def _writing(self) -> Writer:
        self._check_open()
        if self._writer is None:
            raise PreconditionError(
                f"the archive at {self.path} is open for reading only; "
                "open it with bittern.open(path, write=True), or serve it without --read-only"
            )
        return self._writer
