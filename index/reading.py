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
from bittern.index.engines.choosing import Engines
from bittern.index.engines.search_engine import RowSet
from bittern.index.filters import compile_where
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.generation import Generation
from bittern.index.generation_files import IndexFiles
from bittern.index.listing import batches_of
from bittern.index.models import ModelRecord
from bittern.index.observation import Answer, CodedBefore, Fingerprint
from bittern.index.opening import newest_state, repeat_on_newest
from bittern.index.searching import Search, answer, engine_name, page_of
from bittern.index.store import Store, one_of, quoted
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
        writes: whether this process is the writer.
        options: search options.
        past: the header of the store's version, to stay at it; None to follow the newest version.
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
        self._header = past or folder.read_header().at(store.version)
        self._options = options
        self._reset()
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

    def model_records(self) -> builtins.list[ModelRecord]:
        """The models that can be searched: the first choice first, retired ones last.

        Pending models (see `registered`) are not included.
        """
        self._current()
        order = ("ready", "retired")
        found = [record for record in self._header.models if record.state in order]
        return sorted(found, key=lambda record: order.index(record.state))

    def registered(self) -> builtins.list[ModelRecord]:
        """All registered models, including pending ones."""
        self._current()
        return list(self._header.models)

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

    @property
    def state(self) -> tuple[int, int]:
        """Identifies the state that searches see, among all that this reader has seen.

        The generation is not enough: the archive may be replaced by a backup.
        """
        with self._lock:
            generation = self._current().version
            return self._resets, generation

    def refresh(self) -> int:
        """Load the newest commit, as every search does; returns its generation."""
        return self._current().version

    @repeat_on_newest
    def get(self, id: str) -> Observation:  # noqa: A002 - the field's own word
        """The observation with this id.

        Raises:
            ObservationNotFoundError: it does not exist.
        """
        return self._get(self._current(), id)

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

    @repeat_on_newest
    def media_names(self, occurrence_ids: Sequence[str]) -> dict[str, str]:
        """Media names of these `occurrenceID`s, coded by any model.

        Args:
            occurrence_ids: identifiers of media; unknown ones are skipped.
        """
        if not occurrence_ids:
            return {}
        where = one_of("occurrenceID", occurrence_ids)
        rows = self._current().store.read(["occurrenceID", "media"], where).to_pylist()
        return {row["occurrenceID"]: row["media"] or "" for row in rows}

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
        rows = self._rows(generation, where)
        return page_of(generation, rows, page_size, page_token, (where or "").strip())

    @repeat_on_newest
    def rows(self, where: str | None = None) -> NDArray[np.int64]:
        """Row numbers, ascending, of the observations that match."""
        return self._rows(self._current(), where)

    @repeat_on_newest
    def code(self, id: str, model: str) -> NDArray[np.uint8]:  # noqa: A002
        """A model's code of an observation: uint8 [bits/8].

        Raises:
            ObservationNotFoundError: it does not exist, or the model has not coded it.
            DigestMismatchError: the archive has no such model.
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
        self._compiled(self._current(), where)

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
        search = Search(query, record, k, metric, modality, within, recall)
        return answer(search, generation, self._matching(generation, where), self._engines)

    def build_index(self, model: str) -> None:
        """Build the approximate index of a model's codes, if the options allow one.

        Raises:
            DigestMismatchError: the archive has no such model.
            ArchiveDamagedError: it cannot be built.
        """
        record, generation = self._model(model), self._current()
        for modality, blocks in generation.codes(record).items():
            self._engines.prepare(engine_name(record, modality), blocks)

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
        """Verify the archive; returns the problems, one line each."""
        return self.verification().problems

    def verification(self, on_checked: OnChecked | None = None) -> Verification:
        """Verify the archive's checksums and invariants, and its derived files.

        Right after opening, this writes nothing, not even derived files.

        Args:
            on_checked: called with the number of bytes checked so far, and the total.
        """
        from bittern.index.verify import generation_to_verify, verified

        with self._lock:
            self._check_open()
            if self._past or self._generation is not None:
                current = self._current()
                return verified(self._folder, self._header, current, on_checked)
            self._newest_version()
            generation = generation_to_verify(self._folder, self._store)
            return verified(self._folder, self._header, generation, on_checked)

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
            QueryError: a column does not exist.
        """
        generation = self._current()
        record = self._model(model) if model else None
        rows = self._rows(generation, where)
        return batches_of(generation, rows, columns, record, batch_rows)

    # State

    def _reset(self) -> None:
        """Reset everything that depends on the store's content."""
        self._resets = self._store.replacements
        self._derived = DerivedFiles(self._folder.derived, self._store)
        self._index_files = IndexFiles(self._derived)
        # Derived files belong to the newest state: readers of an old one do not use them.
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
                self._derived.expect(version, self._store.followed)
            if self._generation is None or self._generation.version != version:
                since = {one.code_column: one.since for one in self._header.models if one.since}
                self._generation = Generation(
                    self._store, self._generation, self._index_files, since
                )
                self._index_files.save_if_worth_it(self._generation)
            return self._generation

    def _newest_version(self) -> int:
        """Read the newest header and version; reset everything if the store was replaced."""
        header, version = newest_state(self._folder, self._store, follow=not self._writes)
        if self._store.replacements != self._resets:
            self._engines.close()
            self._reset()
        self._header = header
        return version

    def _check_open(self) -> None:
        if self._closed:
            raise PreconditionError(f"the archive at {self.path} is closed; open it again")

    def _model(self, digest: str) -> ModelRecord:
        for record in self._header.models:
            if record.digest == digest:
                return record
        for record in self.model_records():
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
        """Rows that meet a condition; None if it is missing or blank."""
        compiled = self._compiled(generation, where)
        return None if compiled is None else generation.matching(compiled)

    def _compiled(self, generation: Generation, where: str | None) -> str | None:
        if where is None or (isinstance(where, str) and not where.strip()):
            return None
        return compile_where(where, {**IDENTITY, **generation.store.metadata_types})

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
