"""Reading an archive: search, look-up, listing, counts, export.

Every call works on one snapshot, so what it returns belongs to one generation.
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.errors import (
    ArchiveDamagedError,
    DigestMismatchError,
    ObservationNotFoundError,
    PreconditionError,
)
from bittern.index.columns import FINGERPRINT, IDENTITY
from bittern.index.derived_files import DerivedFiles
from bittern.index.derived_index import IndexFiles
from bittern.index.engines.choosing import Engines
from bittern.index.engines.rows import RowSet
from bittern.index.export import batches_of
from bittern.index.filters import compile_where
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.generation import Generation
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedBefore, Fingerprint
from bittern.index.paging import page_of
from bittern.index.searching import check_modality, engine_name
from bittern.index.statistics import statistics_of
from bittern.index.store import Store, one_of, quoted
from bittern.index.versions import StoreIdentity, retried
from bittern.types import ArchiveStats, EngineStats, Observation, Page, SearchOptions

if TYPE_CHECKING:
    from bittern.index.verify import OnChecked, Verification


class ReadableArchive:
    """What can be asked of an archive that is open, whether for reading or for writing.

    Args:
        folder: where it lies.
        store: its table.
        writes: whether this process is its one writer.
        options: how it is to be searched.
        past: what the header was at the store's version, which is then kept to; None to follow
            the newest.
    """

    def __init__(
        self,
        folder: ArchiveFolder,
        store: Store,
        *,
        writes: bool,
        options: SearchOptions | None = None,
        past: Header | None = None,
    ) -> None:
        self._folder = folder
        self._store = store
        self._writes = writes
        self._past = past is not None
        self._header_stamp = folder.header_stamp()
        self._stored_header = past or folder.read_header()
        self._header = self._stored_header.at(store.version)
        self._options = options
        self._begun = 0
        self._begin()
        self._lock = threading.RLock()
        self._closed = False

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
        return self._current().version

    def models(self) -> builtins.list[ModelRecord]:
        """The models that can be asked: the first choice first, those that are retired last.

        A model whose codes are only being made (see `registered`) is not among them.
        """
        self._current()
        order = ("ready", "retired")
        found = [record for record in self._header.models if record.state in order]
        return sorted(found, key=lambda record: order.index(record.state))

    def registered(self) -> builtins.list[ModelRecord]:
        """All models that the archive knows, those that are pending among them."""
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

    @property
    def state(self) -> tuple[int, int]:
        """What tells the state that searches see now from every other that this reader has seen.

        The generation says as much, unless a backup was copied back over the archive.
        """
        with self._lock:
            generation = self._current().version
            return self._begun, generation

    def refresh(self) -> int:
        """See the newest commit; searches do so by themselves. Returns its generation."""
        return self._current().version

    @retried
    def get(self, id: str) -> Observation:  # noqa: A002 - the field's own word
        """The observation with this id.

        Raises:
            ObservationNotFoundError: there is none.
        """
        return self._get(self._current(), id)

    @retried
    def coded(self, occurrence_ids: Sequence[str], model: str) -> dict[str, CodedBefore]:
        """Which of these `occurrenceID`s this model has coded already.

        Args:
            occurrence_ids: identifiers of media.
            model: digest of the model.

        Returns:
            what is known of each of them.

        Raises:
            DigestMismatchError: the model is not registered here.
        """
        column = self._model(model).code_column
        if not occurrence_ids:
            return {}
        store = self._current().store
        where = f"{one_of('occurrenceID', occurrence_ids)} AND `{column}` IS NOT NULL"
        kept = [name for name in FINGERPRINT if store.field_type(name) is not None]
        found: dict[str, CodedBefore] = {}
        for row in store.read(["occurrenceID", "mediaRoot", *kept], where).to_pylist():
            content, size = row.get("mediaHash"), row.get("mediaBytes")
            known = content is not None and size is not None
            fingerprint = Fingerprint(content, size, row.get("mediaModified")) if known else None
            found[row["occurrenceID"]] = CodedBefore(row["mediaRoot"] or "", fingerprint)
        return found

    @retried
    def media_names(self, occurrence_ids: Sequence[str]) -> dict[str, str]:
        """What the media of these `occurrenceID`s are called, whichever model has coded them.

        Args:
            occurrence_ids: identifiers of media; those that are not here are left out.
        """
        if not occurrence_ids:
            return {}
        where = one_of("occurrenceID", occurrence_ids)
        rows = self._current().store.read(["occurrenceID", "media"], where).to_pylist()
        return {row["occurrenceID"]: row["media"] or "" for row in rows}

    @retried
    def list(self, *, page_size: int = 100, page_token: str = "", where: str | None = None) -> Page:
        """Observations in row order, page by page.

        Args:
            page_size: 1 to 10,000.
            page_token: `next_token` of the page before; empty for the first.
            where: SQL condition, the same one for all pages; None or blank for no condition.

        Raises:
            QueryError: the page size or token is unusable.
            FilterError: `where` is no filter over the archive's columns.
        """
        snapshot = self._current()
        rows = self._rows(snapshot, where)
        return page_of(snapshot, rows, page_size, page_token, (where or "").strip())

    @retried
    def rows(self, where: str | None = None, modality: str | None = None) -> NDArray[np.int64]:
        """Row numbers, ascending, of the observations that match."""
        snapshot = self._current()
        rows = self._rows(snapshot, where)
        if modality is None:
            return rows
        chosen = snapshot.of_modality(check_modality(modality))
        return np.intersect1d(rows, chosen, assume_unique=True)

    @retried
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

    @retried
    def stats(self) -> ArchiveStats:
        """Counts, models, generation and columns."""
        snapshot = self._current()
        header = self._header
        records = [record for record in header.models if record.state != "pending"]
        counted = snapshot.remember(
            f"stats {self._header_stamp}",
            lambda: statistics_of(snapshot, header.name, records),
        )
        models = [
            replace(model, engines=self._engine_stats(snapshot, record))
            for model, record in zip(counted.models, records, strict=False)
        ]
        return replace(counted, models=models, code_bytes=snapshot.code_bytes)

    def _engine_stats(self, snapshot: Generation, record: ModelRecord) -> dict[str, EngineStats]:
        return {
            modality: self._engines.stats(engine_name(record, modality), blocks)
            for modality, blocks in (snapshot.loaded(record) or {}).items()
            if len(blocks)
        }

    def verify(self) -> builtins.list[str]:
        """Check the archive against its invariants; returns what is wrong, one line each."""
        return self.verification().problems

    def verification(self, on_checked: OnChecked | None = None) -> Verification:
        """Check the archive against its checksums and its invariants, and the derived files.

        Asked of an archive that was just opened, it writes nothing, derived files included.

        Args:
            on_checked: called with bytes of files that are checked, and with all bytes.
        """
        from bittern.index.verify import generation_to_verify, verified

        with self._lock:
            self._check_open()
            if self._past or self._snapshot is not None:
                current = self._current()
                return verified(self._folder, self._header, current, on_checked)
            if not self._writes:
                self._follow()
            snapshot = generation_to_verify(self._folder, self._store)
            header = self._folder.read_header().at(snapshot.version)
            return verified(self._folder, header, snapshot, on_checked)

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
            where: SQL condition over the columns; None or blank for no condition.
            batch_rows: most rows of one batch.

        Raises:
            QueryError: no such column.
        """
        snapshot = self._current()
        record = self._model(model) if model else None
        rows = self._rows(snapshot, where)
        return batches_of(snapshot, rows, columns, record, batch_rows)

    def _begin(self) -> None:
        """Know nothing yet of what the store holds."""
        self._begun += 1
        self._same = StoreIdentity(self._store)
        self._derived = DerivedFiles(self._folder.derived, self._store)
        self._index_files = IndexFiles(self._derived)
        # Derived files are of the newest state, and are left alone by who looks at another.
        self._engines = Engines(self._options, None if self._past else self._derived)
        self._snapshot: Generation | None = None

    def _current(self) -> Generation:
        with self._lock:
            self._check_open()
            if self._past:
                self._snapshot = self._snapshot or Generation(self._store)
                return self._snapshot
            version = self._look()
            if not self._writes:
                self._derived.expect(version, self._same.identity)
            if self._snapshot is None or self._snapshot.version != version:
                since = {one.code_column: one.since for one in self._header.models if one.since}
                self._snapshot = Generation(self._store, self._snapshot, self._index_files, since)
                self._index_files.save_if_worth_it(self._snapshot)
            return self._snapshot

    def _look(self) -> int:
        """See the newest header and the newest version, of one moment.

        A model's column is committed before the header names it, and goes after the header has
        forgotten it: what the header says before and after the store was looked at, holds.
        """
        stamp = self._folder.header_stamp()
        while True:
            if stamp != self._header_stamp:
                self._stored_header = self._folder.read_header()
                self._header_stamp = stamp
            # A writer's own handle is always at the newest version: nobody else commits.
            version = self._store.version if self._writes else self._follow()
            after = self._folder.header_stamp()
            if after == stamp:
                self._header = self._stored_header.at(version)
                return version
            stamp = after

    def _follow(self) -> int:
        """Go to the newest version; where it is of another history, forget what was known."""
        if self._same.is_lost():
            # LanceDB remembers versions by their numbers: what it has in memory goes as well.
            self._store = Store(self._folder.store)
            self._engines.close()
            self._begin()
        return self._same.follow()

    def _check_open(self) -> None:
        if self._closed:
            raise PreconditionError(f"the archive at {self.path} is closed; open it again")

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

    def _rows(self, snapshot: Generation, where: str | None) -> NDArray[np.int64]:
        matching = self._matching(snapshot, where)
        return snapshot.rows if matching is None else matching.rows

    def _matching(self, snapshot: Generation, where: str | None) -> RowSet | None:
        """Rows that meet a condition; None where there is none: nothing given, or a blank."""
        if where is None or (isinstance(where, str) and not where.strip()):
            return None
        columns = {**IDENTITY, **snapshot.store.metadata_types}
        return snapshot.matching(compile_where(where, columns))

    def _get(self, snapshot: Generation, id: str) -> Observation:  # noqa: A002
        found = snapshot.by_condition(one_of("id", [id]))
        if found:
            return found[0]
        windows = snapshot.store.count(one_of("occurrenceID", [id]))
        raise ObservationNotFoundError(
            f"there is no observation {id!r} in archive {self.name!r}"
            + (
                f'; it has {windows} windows: list them with where="occurrenceID = {quoted(id)}"'
                if windows
                else ""
            ),
            field="id",
        )
