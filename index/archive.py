"""The archive: a folder of observations, their metadata and their codes.

Joins the store (the only truth) with the index that is derived from it. One process may
write; any number may read at the same time, each seeing whole commits only.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from bittern.errors import ArchiveDamagedError, PreconditionError
from index.asking import SearchableArchive
from index.engines.options import SearchOptions, check_options
from index.folder import ArchiveFolder, Header
from index.models import ModelRecord
from index.observation import AddResult, CodedObservation, OnDuplicate
from index.store import Store
from index.writer import Writer


class Archive(SearchableArchive):
    """An archive that is open. Made by `Archive.create` and `Archive.open`.

    Safe to use from several threads.
    """

    def __init__(
        self,
        folder: ArchiveFolder,
        store: Store,
        writer: Writer | None,
        options: SearchOptions | None = None,
    ) -> None:
        super().__init__(folder, store, writes=writer is not None, options=options)
        self._writer = writer

    @classmethod
    def create(cls, path: str | Path, *, name: str | None = None) -> Archive:
        """Make an archive and open it for writing; one that is there is opened.

        Args:
            path: a folder that does not exist yet, is empty, or is an archive.
            name: the archive's name; the folder's by default.

        Raises:
            PreconditionError: the folder holds other files, or cannot be made.
            ArchiveLockedError: another process writes to it.
        """
        folder = ArchiveFolder(Path(path))
        if folder.header_file.is_file():
            return cls.open(path, write=True)
        folder.check_free()
        try:
            folder.models.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PreconditionError(f"no archive can be made at {path}: {error}") from error
        lock = folder.lock()
        try:
            # The header comes last: without it, a half-made archive is no archive.
            if not Store.create(folder.store).is_new:
                folder.check_present()
            folder.write_header(folder.new_header(name))
        finally:
            lock.release()
        return cls.open(path, write=True)

    @classmethod
    def open(
        cls, path: str | Path, *, write: bool = False, search: SearchOptions | None = None
    ) -> Archive:
        """Open an archive.

        Args:
            path: its folder.
            write: also allow changes; one process at a time can.
            search: how it is to be searched; None for the defaults.

        Raises:
            QueryError: `search` is something else.
            ArchiveNotFoundError: there is none.
            ArchiveDamagedError: part of it is missing.
            ArchiveVersionError: a newer version of Bittern made it.
            ArchiveLockedError: another process writes to it.
        """
        options = check_options(search)
        folder = ArchiveFolder(Path(path))
        folder.check_present()
        header = folder.read_header()
        lock = folder.lock() if write else None
        try:
            store = Store(folder.store)
            _check_model_columns(folder, header, store)
            writer = Writer(folder, store, lock) if lock else None
            return cls(folder, store, writer, options)
        except BaseException:
            if lock:
                lock.release()
            raise

    def close(self) -> None:
        """Give up the lock; the archive cannot be used afterwards."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._engines.close()
            self._index_files.close(self._snapshot)
            self._snapshot = None
            if self._writer:
                self._writer.close()
            self._derived.vouch()

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
        """Make a model known, with the files that are needed to load it again.

        Registering a model again changes nothing, but brings back files that are lost.

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
        """Add media items in one atomic commit; returns when it is done.

        A bad item fails alone, with its reason in its result. What happens to items that
        are there already is tabled in `index.adding`.

        Args:
            items: for each media item all of its observations, with codes.
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

    def _writing(self) -> Writer:
        self._check_open()
        if self._writer is None:
            raise PreconditionError(
                f"the archive at {self.path} is open for reading only; "
                "open it with bittern.open(path, write=True), or serve it without --read-only"
            )
        return self._writer


def _check_model_columns(folder: ArchiveFolder, header: Header, store: Store) -> None:
    for record in header.models:
        if store.field_type(record.code_column) != pa.binary(record.bits // 8):
            raise ArchiveDamagedError(
                f"the archive at {folder.path} names model {record.name} "
                f"({record.digest[:16]}), but its store has no codes of {record.bits} bits of it; "
                "archive.json and store do not belong together: restore both from one backup"
            )
