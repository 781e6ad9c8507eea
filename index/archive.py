"""The archive: a folder of observations, their metadata and their codes.

One process can write; any number can read at the same time, and see whole commits only. Every call
works on one generation, so its result belongs to one commit.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.errors import ArchiveDamagedError, ObservationNotFoundError, PreconditionError
from bittern.index.checksums import LOG_NAME
from bittern.index.engines.queries import Queries
from bittern.index.engines.search_engine import Nearest
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.follower import ArchiveFollower
from bittern.index.generation import MODALITIES, Generation
from bittern.index.listing import batches_of, page_of
from bittern.index.models import ModelRecord
from bittern.index.observation import Answer, CodedBefore, CodedObservation
from bittern.index.opening import (
    check_at_open,
    check_model_columns,
    newest_state,
    repeat_on_newest,
)
from bittern.index.snapshots import SnapshotInfo, Snapshots
from bittern.index.store import Store
from bittern.index.writer import Writer
from bittern.query import SearchOptions, check_options
from bittern.types import (
    AddResult,
    ArchiveStats,
    Hit,
    Metric,
    ModelStats,
    Observation,
    OnDuplicate,
    Page,
)

if TYPE_CHECKING:
    from bittern.index.verify import OnChecked, Verification


class Archive:
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
        self._folder = folder
        self._store = store
        self._writer = writer
        self._follower = ArchiveFollower(
            folder, store, writes=writer is not None, options=options, past=past
        )

    @classmethod
    def create(cls, path: str | Path, *, name: str | None = None) -> Archive:
        """Create an archive and open it for writing; an existing one is opened.

        Args:
            path: a folder that does not exist yet, is empty, or is an archive.
            name: the archive's name; the folder's by default.

        Raises:
            InvalidInputError: it is in another archive.
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
            (folder.path / LOG_NAME).unlink(missing_ok=True)
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
        if not self._follower.close():
            return
        if self._writer:
            self._writer.close()
        self._follower.derived.renew()

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
        mode = "closed" if self._follower.closed else "write" if self._writer else "read"
        return f"Archive({str(self.path)!r}, {mode})"

    @property
    def path(self) -> Path:
        """The archive's folder."""
        return self._folder.path

    @property
    def name(self) -> str:
        """The archive's name."""
        return self._follower.header.name

    @property
    def generation(self) -> int:
        """The newest store version, which searches see from now on."""
        return self._current().version

    @property
    def state(self) -> tuple[int, int]:
        """Identifies the state that searches see, among all that this archive object has seen.

        The generation is not enough: the archive may be replaced by a backup.
        """
        version = self._current().version
        return self._follower.replacements, version

    # Models

    def model_records(self) -> builtins.list[ModelRecord]:
        """The models that can be searched: the first choice first, retired ones last.

        Pending models (see `registered`) are not included.
        """
        self._current()
        order = ("ready", "retired")
        found = [record for record in self._follower.header.models if record.state in order]
        return sorted(found, key=lambda record: order.index(record.state))

    def registered(self) -> builtins.list[ModelRecord]:
        """All registered models, including pending ones."""
        self._current()
        return list(self._follower.header.models)

    def model_folder(self, digest: str) -> Path:
        """Folder with the files of a registered model.

        Raises:
            DigestMismatchError: the archive has no such model.
            ArchiveDamagedError: the folder is missing.
        """
        folder = self._folder.models / self._model(digest).digest
        if not folder.is_dir():
            raise ArchiveDamagedError(
                f"the archive at {self.path} has lost the files of model {digest[:16]} "
                f"({folder}); restore them from a backup, or register the model again"
            )
        return folder

    # Observations

    @repeat_on_newest
    def get(self, id: str) -> Observation:  # noqa: A002 - the field's own word
        """The observation with this id.

        Raises:
            ObservationNotFoundError: it does not exist.
        """
        return self._current().observation(id)

    @repeat_on_newest
    def coded(self, occurrence_ids: Sequence[str], model: str) -> dict[str, CodedBefore]:
        """Those of the given `occurrenceID`s that a model has coded.

        Args:
            occurrence_ids: identifiers of media.
            model: digest of the model.

        Returns:
            for each coded one, its media root and fingerprint.

        Raises:
            DigestMismatchError: the model is not registered here.
        """
        return self._current().coded(occurrence_ids, self._model(model).code_column)

    @repeat_on_newest
    def media_names(self, occurrence_ids: Sequence[str]) -> dict[str, str]:
        """Media names of these `occurrenceID`s, coded by any model.

        Args:
            occurrence_ids: identifiers of media; unknown ones are skipped.
        """
        return self._current().media_names(occurrence_ids)

    @repeat_on_newest
    def list(self, *, page_size: int = 100, page_token: str = "", where: str | None = None) -> Page:
        """Observations in row order, page by page.

        Args:
            page_size: most observations of the page.
            page_token: `next_token` of the previous page; empty for the first.
            where: SQL condition, the same for all pages; None or blank for no condition.

        Raises:
            QueryError: the token is invalid.
            FilterError: `where` is no condition over the archive's columns.
        """
        generation = self._current()
        rows = generation.rows_matching(where)
        return page_of(generation, rows, page_size, page_token, (where or "").strip())

    @repeat_on_newest
    def rows(self, where: str | None = None) -> NDArray[np.int64]:
        """Row numbers, ascending, of the observations that match."""
        return self._current().rows_matching(where)

    @repeat_on_newest
    def code(self, id: str, model: str) -> NDArray[np.uint8]:  # noqa: A002
        """A model's code of an observation: uint8 [bits/8].

        Raises:
            ObservationNotFoundError: it does not exist, or the model has not coded it.
            DigestMismatchError: the archive has no such model.
        """
        record, generation = self._model(model), self._current()
        row = generation.row_of(id)
        for blocks in generation.codes(record).values():
            if (code := blocks.code(row)) is not None:
                return code
        raise ObservationNotFoundError(
            f"observation {id!r} has no code of model {record.name} ({record.digest[:16]})",
            field="id",
        )

    @repeat_on_newest
    def sample_codes(
        self, model: str, modality: str, choose: Callable[[int], NDArray[np.int64]]
    ) -> NDArray[np.uint8]:
        """A sample of a model's codes of one modality: uint8 [m, bits/8].

        Args:
            model: digest of the model.
            modality: ``image`` or ``audio``.
            choose: takes the number of codes, returns the positions of the sample.
        """
        blocks = self._current().codes(self._model(model))[modality]
        return blocks.live_codes(choose(len(blocks)))

    # Search

    @repeat_on_newest
    def check_where(self, where: str | None) -> None:
        """Raise a `FilterError` for a condition that is no filter over the archive's columns."""
        self._current().compiled(where)

    @repeat_on_newest
    def search(
        self,
        query: NDArray[Any],
        *,
        model: str,
        k: int,
        metric: Metric,
        where: str | None = None,
        modality: str | None = None,
        within: float | None = None,
        recall: float | None = None,
    ) -> Answer:
        """The nearest observations, in the total order (distance, row).

        The caller validates the arguments, except for the shape of the query.

        Args:
            query: logits, float [bits]; for ``hamming`` also a code, uint8 [bits/8].
            model: digest of the model that made the query.
            k: number of hits; exactly min(k, matching rows) are returned, minus those beyond
                `within`.
            metric: ``asymmetric`` or ``hamming``.
            where: SQL condition over metadata columns; None or blank for no condition.
            modality: ``image`` or ``audio``; None for both.
            within: largest distance of a hit, in bits; None for any.
            recall: wanted share of the true nearest, above 0 to 1; less than 1 allows an
                approximate index where it is faster. None for the archive's option, which is 1
                (exact) by default.

        Raises:
            CodeError: the query has the wrong length or dtype.
            DigestMismatchError: the archive has no codes of this model.
            FilterError: `where` is no condition over the archive's columns.
        """
        record, generation = self._model(model), self._current()
        queries = Queries.of(query, metric).check_fits(record.bits)
        matching = generation.matching(where)
        codes = generation.codes(record)
        engines = [
            self._follower.engines.engine(_codes_name(record, one), codes[one], recall)
            for one in ((modality,) if modality else MODALITIES)
            if len(codes[one])
        ]
        found = Nearest.merged([one.search(queries, k, matching)[0] for one in engines], k)
        if within is not None:
            found = found.within(within)
        observations = generation.observations(found.rows)
        ranked = enumerate(zip(found.distances.tolist(), observations, strict=True), start=1)
        return Answer(
            hits=[Hit(rank, distance, observation) for rank, (distance, observation) in ranked],
            engine="+".join(sorted({one.kind for one in engines})) or "flat",
            exact=all(one.exact for one in engines),
            cutoff=within,
        )

    # Counts

    @repeat_on_newest
    def observation_counts(self) -> Mapping[str, int]:
        """Observations by modality; counted once per generation."""
        return self._current().observation_counts

    @repeat_on_newest
    def code_counts(self, model: str) -> Mapping[str, int]:
        """A model's codes by modality; counted once per generation."""
        return self._current().code_counts(self._model(model))

    @repeat_on_newest
    def stats(self) -> ArchiveStats:
        """Counts, models, generation and columns."""
        generation = self._current()
        header = self._follower.header
        return ArchiveStats(
            name=header.name,
            observations=generation.observation_counts,
            recordings=generation.recordings,
            models=[self._model_stats(generation, record) for record in header.models],
            generation=generation.version,
            code_bytes=generation.code_bytes,
            columns=dict(generation.store.metadata_types),
        )

    def _model_stats(self, generation: Generation, record: ModelRecord) -> ModelStats:
        engines = {
            modality: self._follower.engines.stats(_codes_name(record, modality), blocks)
            for modality, blocks in (generation.loaded(record) or {}).items()
            if len(blocks)
        }
        counts = generation.code_counts(record)
        return ModelStats(record.name, record.digest, record.bits, counts, engines, record.state)

    # Checks and export

    def verify(self) -> builtins.list[str]:
        """Verify the archive; returns the problems, one line each."""
        return self.verification().problems

    def verification(self, on_checked: OnChecked | None = None) -> Verification:
        """Verify the archive's checksums and invariants, and its derived files.

        Right after opening, this writes nothing, not even derived files.

        Args:
            on_checked: called with the number of bytes checked so far, and the total.
        """
        from bittern.index.verify import verified

        header, generation = self._follower.to_verify()
        return verified(self._folder, header, generation, on_checked)

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
            columns: identity and metadata columns, and ``mediaRoot``; None for all but the last.
            model: digest; adds the column ``code`` (binary, null where not coded).
            where: SQL condition over the columns; None or blank for no condition.
            batch_rows: most rows of one batch.

        Raises:
            QueryError: a column does not exist.
        """
        generation = self._current()
        record = self._model(model) if model else None
        rows = generation.rows_matching(where)
        return batches_of(generation, rows, columns, record, batch_rows)

    # Changes

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
        self.writer.register_model(record, files)

    @property
    def writer(self) -> Writer:
        """Makes the changes.

        Raises:
            PreconditionError: the archive is open for reading only, or closed.
        """
        self._follower.check_open()
        if self._writer is None:
            raise PreconditionError(
                f"the archive at {self.path} is open for reading only; "
                "open it with bittern.open(path, write=True), or serve it without --read-only"
            )
        return self._writer

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
        return self.writer.add(items, self._model(model), on_duplicate)

    def delete(self, ids: Sequence[str]) -> builtins.list[str]:
        """Delete observations in one atomic commit.

        Args:
            ids: observation ids, or `occurrenceID`s, which mean all their windows.

        Returns:
            ids of the deleted observations, in row order.

        Raises:
            ObservationNotFoundError: some are unknown (all are named); nothing is deleted.
        """
        return self.writer.delete(ids)

    # Snapshots

    def snapshots(self, *, unnamed: bool = False) -> builtins.list[SnapshotInfo]:
        """The snapshots, oldest first.

        Args:
            unnamed: also versions that have no name and still exist.
        """
        return self._snapshots().list(unnamed=unnamed)

    def take_snapshot(self, name: str, *, note: str = "") -> SnapshotInfo:
        """Name the newest state and keep it until `drop_snapshot`; see `Snapshots.take`."""
        return self._snapshots().take(name, note=note)

    def drop_snapshot(self, name: str) -> SnapshotInfo:
        """Drop a snapshot; its version may be cleaned up.

        Raises:
            NotFoundError: there is no such snapshot.
        """
        return self._snapshots().drop(name)

    def restore(self, snapshot: str | int) -> SnapshotInfo:
        """Make an old state the newest one, in a new commit; the current state gets a snapshot.

        Args:
            snapshot: name of a snapshot, or number of a version that still exists.

        Returns:
            the snapshot of the current state, ``before-restore-`` and a number.

        Raises:
            NotFoundError: there is no such snapshot.
            PreconditionError: open for reading only, a model of the old state was dropped, or the
                disk refuses; nothing is changed.
        """
        writer, snapshots = self.writer, self._snapshots()
        wanted = snapshots.find(snapshot)
        snapshots.check_complete(wanted)
        before = snapshots.take(
            snapshots.free_name("before-restore-"),
            note=f"before {wanted.name or f'version {wanted.version}'} was restored",
            automatic=True,
        )
        writer.restore(wanted)
        return before

    def _snapshots(self) -> Snapshots:
        self._follower.check_open()
        return Snapshots(self._folder, Store(self._folder.store))

    def _current(self) -> Generation:
        return self._follower.generation()

    def _model(self, digest: str) -> ModelRecord:
        return self._follower.model(digest)


def _codes_name(record: ModelRecord, modality: str) -> str:
    """The name of one model's codes of one modality, for the engines and their stored indexes."""
    return f"{record.code_column}-{modality}"
