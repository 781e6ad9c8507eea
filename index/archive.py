"""The archive: a folder of observations, their metadata and their codes.

Joins the store (the only truth) with the index that is derived from it. One process may
write; any number may read at the same time, each seeing whole commits only.
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.errors import (
    ArchiveDamagedError,
    DigestMismatchError,
    ObservationNotFoundError,
    PreconditionError,
)
from index.columns import IDENTITY
from index.export import batches_of
from index.filters import compile_where
from index.folder import ArchiveFolder, Header
from index.models import ModelRecord
from index.observation import (
    AddResult,
    ArchiveStats,
    CodedObservation,
    Hit,
    Metric,
    Observation,
    OnDuplicate,
    Page,
)
from index.paging import page_of
from index.searching import Question, answer, check_modality
from index.snapshot import Snapshot
from index.statistics import statistics_of
from index.store import Store, one_of, quoted
from index.writer import Writer


class Archive:
    """An archive that is open. Made by `Archive.create` and `Archive.open`.

    Safe to use from several threads.
    """

    def __init__(self, folder: ArchiveFolder, store: Store, writer: Writer | None) -> None:
        self._folder = folder
        self._store = store
        self._writer = writer
        self._header_stamp = folder.header_stamp()
        self._header = folder.read_header()
        self._snapshot: Snapshot | None = None
        self._lock = threading.RLock()
        self._closed = False

    # Opening and closing

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
            if Store.create(folder.store).count():
                folder.check_present()
            folder.write_header(folder.new_header(name))
        finally:
            lock.release()
        return cls.open(path, write=True)

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> Archive:
        """Open an archive.

        Args:
            path: its folder.
            write: also allow changes; one process at a time can.

        Raises:
            ArchiveNotFoundError: there is none.
            ArchiveDamagedError: part of it is missing.
            ArchiveVersionError: a newer version of Bittern made it.
            ArchiveLockedError: another process writes to it.
        """
        folder = ArchiveFolder(Path(path))
        folder.check_present()
        header = folder.read_header()
        lock = folder.lock() if write else None
        try:
            store = Store(folder.store)
            _check_model_columns(folder, header, store)
            writer = Writer(folder, store, lock) if lock else None
            return cls(folder, store, writer)
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
            self._snapshot = None
            if self._writer:
                self._writer.close()

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

    @property
    def path(self) -> Path:
        """The archive's folder."""
        return self._folder.path

    @property
    def name(self) -> str:
        """The archive's name."""
        return self._header.name

    @property
    def generation(self) -> int:
        """Store version that searches see now."""
        return self._current().generation

    # Models

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

    def models(self) -> builtins.list[ModelRecord]:
        """The registered models, in order of registration."""
        self._current()
        return list(self._header.models)

    def model_folder(self, digest: str) -> Path:
        """Folder with the files of a registered model.

        Raises:
            DigestMismatchError: no such model in this archive.
            ArchiveDamagedError: the folder is missing.
        """
        folder = self._folder.models / self._model(digest).digest
        if not folder.is_dir():
            raise ArchiveDamagedError(
                f"the archive at {self.path} has lost the files of model {digest[:16]} "
                f"({folder}); restore them from a backup, or register the model again"
            )
        return folder

    # Changing

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

    # Reading

    def refresh(self) -> int:
        """See the newest commit; searches do so by themselves. Returns its generation."""
        return self._current().generation

    def get(self, id: str) -> Observation:  # noqa: A002 - the field's own word
        """The observation with this id.

        Raises:
            ObservationNotFoundError: there is none.
        """
        return self._get(self._current(), id)

    def coded(self, occurrence_ids: Sequence[str], model: str) -> set[str]:
        """Which of these `occurrenceID`s this model has coded already.

        Args:
            occurrence_ids: identifiers of media.
            model: digest of the model.

        Raises:
            DigestMismatchError: the model is not registered here.
        """
        column = self._model(model).code_column
        if not occurrence_ids:
            return set()
        where = f"{one_of('occurrenceID', occurrence_ids)} AND `{column}` IS NOT NULL"
        table = self._current().store.read(["occurrenceID"], where)
        return set(table["occurrenceID"].to_pylist())

    def list(self, *, page_size: int = 100, page_token: str = "", where: str | None = None) -> Page:
        """Observations in row order, page by page.

        Args:
            page_size: 1 to 10,000.
            page_token: `next_token` of the page before; empty for the first.
            where: SQL condition; the same one for all pages.

        Raises:
            QueryError: the page size or token is unusable.
            FilterError: `where` is no filter over the archive's columns.
        """
        snapshot = self._current()
        rows = snapshot.rows if where is None else self._matching(snapshot, where)
        return page_of(snapshot, rows, page_size, page_token, where or "")

    def rows(self, where: str | None = None, modality: str | None = None) -> NDArray[np.int64]:
        """Row numbers, ascending, of the observations that match."""
        snapshot = self._current()
        rows = snapshot.rows if where is None else self._matching(snapshot, where)
        if modality is None:
            return rows
        chosen = snapshot.of_modality(check_modality(modality))
        return np.intersect1d(rows, chosen, assume_unique=True)

    def code(self, id: str, model: str) -> NDArray[np.uint8]:  # noqa: A002
        """The code that a model made of an observation: uint8 [bits/8].

        Raises:
            ObservationNotFoundError: no such observation, or not coded by this model.
            DigestMismatchError: no such model in this archive.
        """
        record, snapshot = self._model(model), self._current()
        observation = self._get(snapshot, id)
        for part in snapshot.codes(record).values():
            if (code := part.code(observation.row)) is not None:
                return code
        raise ObservationNotFoundError(
            f"observation {id!r} has no code of model {record.name} ({record.digest[:16]})",
            field="id",
        )

    def coded(self, occurrence_ids: Sequence[str], model: str) -> set[str]:
        """Which media items a model has coded already: a subset of `occurrence_ids`.

        Raises:
            DigestMismatchError: no such model in this archive.
        """
        record, snapshot = self._model(model), self._current()
        if not occurrence_ids:
            return set()
        where = f"`{record.code_column}` IS NOT NULL AND "
        table = snapshot.store.read(
            ["occurrenceID"], where + one_of("occurrenceID", occurrence_ids)
        )
        return set(table["occurrenceID"].to_pylist())

    def search(
        self,
        query: NDArray[Any],
        *,
        model: str,
        k: int,
        metric: Metric,
        where: str | None = None,
        modality: str | None = None,
    ) -> builtins.list[Hit]:
        """The nearest observations, in the total order (distance, row).

        Args:
            query: logits, float [bits]; for ``hamming`` also a code, uint8 [bits/8].
            model: digest of the model that made the query.
            k: how many hits, 1 to 10,000; exactly min(k, matching rows) come back.
            metric: ``asymmetric`` or ``hamming``.
            where: SQL condition over metadata columns.
            modality: ``image`` or ``audio``; None for both.

        Raises:
            QueryError: k, metric or modality is unusable.
            CodeError: the query has the wrong length or dtype.
            DigestMismatchError: the archive has no codes of this model.
            FilterError: `where` is no filter over the archive's columns.
        """
        record, snapshot = self._model(model), self._current()
        question = Question.checked(query, record, k, metric, modality)
        matching = None if where is None else self._matching(snapshot, where)
        return answer(question, snapshot, matching)

    def stats(self) -> ArchiveStats:
        """Counts, models, generation and columns."""
        snapshot = self._current()
        counted = snapshot.remember(
            "stats", lambda: statistics_of(snapshot, self._header.name, self._header.models)
        )
        return replace(counted, code_bytes=snapshot.code_bytes)

    def verify(self) -> builtins.list[str]:
        """Check the archive against its invariants; returns what is wrong, one line each."""
        from index.verification import problems

        return problems(self._folder, self._header, self._current())

    def iter_batches(
        self,
        columns: Sequence[str] | None = None,
        *,
        model: str | None = None,
        where: str | None = None,
        batch_rows: int = 10_000,
    ) -> Iterator[pa.RecordBatch]:
        """All observations as Arrow batches in row order, for export.

        Args:
            columns: identity and metadata columns; None for all of them.
            model: digest; adds the column ``code`` (binary, null where not coded).
            where: SQL condition over the columns.
            batch_rows: most rows of one batch.

        Raises:
            QueryError: no such column.
        """
        snapshot = self._current()
        record = self._model(model) if model else None
        rows = snapshot.rows if where is None else self._matching(snapshot, where)
        return batches_of(snapshot, rows, columns, record, batch_rows)

    # Inside

    def _current(self) -> Snapshot:
        with self._lock:
            if self._closed:
                raise PreconditionError(f"the archive at {self.path} is closed; open it again")
            # A writer's own handle is always at the newest version: nobody else commits.
            version = self._store.version if self._writer else self._store.follow()
            if self._snapshot is None or self._snapshot.generation != version:
                self._snapshot = Snapshot(self._store, before=self._snapshot)
            stamp = self._folder.header_stamp()
            if stamp != self._header_stamp:
                self._header = self._folder.read_header()
                self._header_stamp = stamp
            return self._snapshot

    def _writing(self) -> Writer:
        if self._closed:
            raise PreconditionError(f"the archive at {self.path} is closed; open it again")
        if self._writer is None:
            raise PreconditionError(
                f"the archive at {self.path} is open for reading only; "
                "open it with Archive.open(path, write=True)"
            )
        return self._writer

    def _model(self, digest: str) -> ModelRecord:
        for record in self._header.models:
            if record.digest == digest:
                return record
        for record in self.models():
            if record.digest == digest:
                return record
        there = ", ".join(f"{r.name} ({r.digest[:16]})" for r in self._header.models) or "no model"
        raise DigestMismatchError(
            f"the archive {self.name!r} holds codes of {there}, not of a model with digest "
            f"{digest[:16]!r}; search and add with the model that made its codes",
            field="model",
            details={
                "given": digest,
                "archive": ",".join(record.digest for record in self._header.models),
            },
        )

    def _matching(self, snapshot: Snapshot, where: str) -> NDArray[np.int64]:
        columns = {**IDENTITY, **snapshot.store.metadata_types}
        return snapshot.matching(compile_where(where, columns))

    def _get(self, snapshot: Snapshot, id: str) -> Observation:  # noqa: A002
        found = snapshot.by_condition(f"`id` = {quoted(id)}")
        if found:
            return found[0]
        windows = snapshot.store.count(one_of("occurrenceID", [id]))
        raise ObservationNotFoundError(
            f"there is no observation {id!r} in archive {self.name!r}"
            + (f"; it has {windows} windows, list them with where occurrenceID" if windows else ""),
            field="id",
        )


def _check_model_columns(folder: ArchiveFolder, header: Header, store: Store) -> None:
    for record in header.models:
        if store.field_type(record.code_column) != pa.binary(record.bits // 8):
            raise ArchiveDamagedError(
                f"the archive at {folder.path} names model {record.name} "
                f"({record.digest[:16]}), but its store has no codes of {record.bits} bits of it; "
                "archive.json and store do not belong together: restore both from one backup"
            )
