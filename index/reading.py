"""Reading an archive: search, look-up, listing, counts, export.

Every call works on one generation, so its result belongs to one commit.
"""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from bittern.index.engines.engine import RowSet
from bittern.index.export import batches_of
from bittern.index.filters import compile_where
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.generation import Generation
from bittern.index.models import ModelRecord
from bittern.index.observation import Answer, CodedBefore, Fingerprint
from bittern.index.searching import Search, answer, engine_name, page_of
from bittern.index.store import Store, one_of, quoted
from bittern.index.versions import StoreIdentity, retried
from bittern.types import (
    ArchiveStats,
    Metric,
    ModelStats,
    Observation,
    Page,
    SearchOptions,
)

if TYPE_CHECKING:
    from bittern.index.verify import OnChecked, Verification


class ArchiveReader:
    """The reading half of an open archive.

    Args:
        folder: the archive's folder.
        store: its table.
        writes: whether this process is its one writer.
        options: how it is searched.
        past: the header at the store's version, to stay at that version; None to follow the newest.
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
        """The store version that searches see now."""
        return self._current().version

    def models(self) -> builtins.list[ModelRecord]:
        """The models that can be searched: the first choice first, retired ones last.

        A model whose codes are still being made (see `registered`) is not among them.
        """
        self._current()
        order = ("ready", "retired")
        found = [record for record in self._header.models if record.state in order]
        return sorted(found, key=lambda record: order.index(record.state))

    def registered(self) -> builtins.list[ModelRecord]:
        """All models that the archive knows, pending ones included."""
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
        """Identifies what searches see now among all states that this reader has seen.

        The generation alone does so, unless a backup was copied back over the archive.
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
            what is known of each that was coded.

        Raises:
            DigestMismatchError: the model is not registered here.
        """
        column = self._model(model).code_column
        if not occurrence_ids:
            return {}
        store = self._current().store
        where = f"{one_of('occurrenceID', occurrence_ids)} AND `{column}` IS NOT NULL"
        stored = [name for name in FINGERPRINT if store.field_type(name) is not None]
        found: dict[str, CodedBefore] = {}
        for row in store.read(["occurrenceID", "mediaRoot", *stored], where).to_pylist():
            content, size = row.get("mediaHash"), row.get("mediaBytes")
            known = content is not None and size is not None
            fingerprint = Fingerprint(content, size, row.get("mediaModified")) if known else None
            found[row["occurrenceID"]] = CodedBefore(row["mediaRoot"] or "", fingerprint)
        return found

    @retried
    def media_names(self, occurrence_ids: Sequence[str]) -> dict[str, str]:
        """Media names of these `occurrenceID`s, whichever model has coded them.

        Args:
            occurrence_ids: identifiers of media; unknown ones are left out.
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
            page_size: most observations of the page.
            page_token: `next_token` of the previous page; empty for the first.
            where: SQL condition, the same one for all pages; None or blank for no condition.

        Raises:
            QueryError: the token is unusable.
            FilterError: `where` is no filter over the archive's columns.
        """
        generation = self._current()
        rows = self._rows(generation, where)
        return page_of(generation, rows, page_size, page_token, (where or "").strip())

    @retried
    def rows(self, where: str | None = None) -> NDArray[np.int64]:
        """Row numbers, ascending, of the observations that match."""
        return self._rows(self._current(), where)

    @retried
    def code(self, id: str, model: str) -> NDArray[np.uint8]:  # noqa: A002
        """The code that a model made of an observation: uint8 [bits/8].

        Raises:
            ObservationNotFoundError: no such observation, or not coded by this model.
            DigestMismatchError: no such model in this archive.
        """
        record, generation = self._model(model), self._current()
        observation = self._get(generation, id)
        for blocks in generation.codes(record).values():
            if (code := blocks.code(observation.row)) is not None:
                return code
        raise ObservationNotFoundError(
            f"observation {id!r} has no code of model {record.name} ({record.digest[:16]})",
            field="id",
        )

    @retried
    def sample_codes(
        self, model: str, modality: str, choose: Callable[[int], NDArray[np.int64]]
    ) -> NDArray[np.uint8]:
        """The codes of some of a model's observations of one modality: uint8 [m, bits/8].

        Args:
            model: digest of the model.
            modality: ``image`` or ``audio``.
            choose: from the number of codes to the numbers of those that are wanted.
        """
        blocks = self._current().codes(self._model(model))[modality]
        return blocks.live_codes(choose(len(blocks)))

    # Search

    @retried
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
        """The nearest observations, in the total order (distance, row), and how they were found.

        Apart from the query's form, arguments are validated by the caller.

        Args:
            query: logits, float [bits]; for ``hamming`` also a code, uint8 [bits/8].
            model: digest of the model that made the query.
            k: how many hits; exactly min(k, matching rows) are returned, less only those beyond
                `within`.
            metric: ``asymmetric`` or ``hamming``.
            where: SQL condition over metadata columns; None or blank for no condition.
            modality: ``image`` or ``audio``; None for both.
            within: largest distance of a hit, in bits; None for any.
            recall: share of the true nearest that is wanted, above 0 to 1; less than 1 allows
                an approximate index where it is faster. None for what the archive was opened
                with, which is 1 (exact) by default.

        Raises:
            CodeError: the query has the wrong length or dtype.
            DigestMismatchError: the archive has no codes of this model.
            FilterError: `where` is no filter over the archive's columns.
        """
        record, generation = self._model(model), self._current()
        search = Search(query, record, k, metric, modality, within, recall)
        return answer(search, generation, self._matching(generation, where), self._engines)

    def build_index(self, model: str) -> None:
        """Build the approximate index of a model's codes now, if the options allow one.

        Raises:
            DigestMismatchError: no such model in this archive.
            ArchiveDamagedError: it cannot be built.
        """
        record, generation = self._model(model), self._current()
        for modality, blocks in generation.codes(record).items():
            self._engines.prepare(engine_name(record, modality), blocks)

    # Counts

    @retried
    def observation_counts(self) -> Mapping[str, int]:
        """Observations by modality; counted once per generation."""
        return self._current().observation_counts

    @retried
    def code_counts(self, model: str) -> Mapping[str, int]:
        """A model's codes by modality; counted once per generation."""
        return self._current().code_counts(self._model(model))

    @retried
    def stats(self) -> ArchiveStats:
        """Counts, models, generation and columns."""
        generation = self._current()
        header = self._header
        return ArchiveStats(
            name=header.name,
            observations=generation.observation_counts,
            recordings=generation.recordings,
            models=[
                self._model_stats(generation, record)
                for record in header.models
                if record.state != "pending"
            ],
            generation=generation.version,
            code_bytes=generation.code_bytes,
            columns=dict(generation.store.metadata_types),
        )

    def _model_stats(self, generation: Generation, record: ModelRecord) -> ModelStats:
        engines = {
            modality: self._engines.stats(engine_name(record, modality), blocks)
            for modality, blocks in (generation.loaded(record) or {}).items()
            if len(blocks)
        }
        counts = generation.code_counts(record)
        return ModelStats(record.name, record.digest, record.bits, counts, engines)

    # Checks and export

    def verify(self) -> builtins.list[str]:
        """Check the archive against its invariants; returns the problems, one line each."""
        return self.verification().problems

    def verification(self, on_checked: OnChecked | None = None) -> Verification:
        """Check the archive against its checksums and its invariants, and the derived files.

        Right after opening, it writes nothing, derived files included.

        Args:
            on_checked: called with bytes of files that are checked, and with all bytes.
        """
        from bittern.index.verify import generation_to_verify, verified

        with self._lock:
            self._check_open()
            if self._past or self._generation is not None:
                current = self._current()
                return verified(self._folder, self._header, current, on_checked)
            if not self._writes:
                self._follow()
            generation = generation_to_verify(self._folder, self._store)
            header = self._folder.read_header().at(generation.version)
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
            columns: identity and metadata columns; None for all of them.
            model: digest; adds the column ``code`` (binary, null where not coded).
            where: SQL condition over the columns; None or blank for no condition.
            batch_rows: most rows of one batch.

        Raises:
            QueryError: no such column.
        """
        generation = self._current()
        record = self._model(model) if model else None
        rows = self._rows(generation, where)
        return batches_of(generation, rows, columns, record, batch_rows)

    # State

    def _begin(self) -> None:
        """Start with nothing known of the store's content."""
        self._begun += 1
        self._identity = StoreIdentity(self._store)
        self._derived = DerivedFiles(self._folder.derived, self._store)
        self._index_files = IndexFiles(self._derived)
        # Derived files belong to the newest state: readers of another one leave them alone.
        self._engines = Engines(self._options, None if self._past else self._derived)
        self._generation: Generation | None = None

    def _current(self) -> Generation:
        with self._lock:
            self._check_open()
            if self._past:
                self._generation = self._generation or Generation(self._store)
                return self._generation
            version = self._newest_version()
            if not self._writes:
                self._derived.expect(version, self._identity.identity)
            if self._generation is None or self._generation.version != version:
                since = {one.code_column: one.since for one in self._header.models if one.since}
                self._generation = Generation(
                    self._store, self._generation, self._index_files, since
                )
                self._index_files.save_if_worth_it(self._generation)
            return self._generation

    def _newest_version(self) -> int:
        """Read the newest header and the newest version, of one moment.

        A model's column is committed before the header names it, and removed after the header
        has dropped it. So a header that is the same before and after reading the version fits it.
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
        """Go to the newest version; if it is of another history, forget what was known."""
        if self._identity.is_lost():
            # LanceDB caches versions by their numbers: its caches go as well.
            self._store = Store(self._folder.store)
            self._engines.close()
            self._begin()
        return self._identity.follow()

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
        known = ", ".join(f"{r.name} ({r.digest[:16]})" for r in self._header.models) or "no model"
        raise DigestMismatchError(
            f"the archive {self.name!r} holds codes of {known}, not of a model with digest "
            f"{digest[:16]!r}; search and add with the model that made its codes",
            field="model",
            details={
                "given": digest,
                "archive": ",".join(record.digest for record in self._header.models),
            },
        )

    def _rows(self, generation: Generation, where: str | None) -> NDArray[np.int64]:
        matching = self._matching(generation, where)
        return generation.rows if matching is None else matching.rows

    def _matching(self, generation: Generation, where: str | None) -> RowSet | None:
        """Rows that meet a condition; None where there is none: nothing given, or a blank."""
        if where is None or (isinstance(where, str) and not where.strip()):
            return None
        columns = {**IDENTITY, **generation.store.metadata_types}
        return generation.matching(compile_where(where, columns))

    def _get(self, generation: Generation, id: str) -> Observation:  # noqa: A002
        found = generation.by_condition(one_of("id", [id]))
        if found:
            return found[0]
        windows = generation.store.count(one_of("occurrenceID", [id]))
        raise ObservationNotFoundError(
            f"there is no observation {id!r} in archive {self.name!r}"
            + (
                f'; it has {windows} windows: list them with where="occurrenceID = {quoted(id)}"'
                if windows
                else ""
            ),
            field="id",
        )
