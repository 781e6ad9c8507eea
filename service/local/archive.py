"""An archive folder that is opened in this process: searches it with its models, adds to it."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bittern.api import ArchiveAPI
from bittern.encoders.base import AudioWindowing, Modality
from bittern.errors import ObservationNotFoundError, PreconditionError, QueryError
from bittern.hashing.codes import check_codes, pack, unpack
from bittern.index.archive import Archive
from bittern.index.snapshots import SnapshotInfo
from bittern.query import Query, QueryInput, SearchOptions
from bittern.service.export.files import check_export, file_chunks, write_file
from bittern.service.export.folder import media_of_hits, media_of_observations, write_folder
from bittern.service.export.rows import ExportRows, metadata_types, rows_of_archive, rows_of_hits
from bittern.service.export.writers import FOLDER, writer_of
from bittern.service.ingest.commit import ArchiveCommits, check_towers, reject_unusable
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Decoded, decode
from bittern.service.ingest.report import new_stages
from bittern.service.limits import Deadline
from bittern.service.local.models import ModelRegistry
from bittern.service.local.relevance import QueryVector, Relevance
from bittern.service.models.model import Embedders, EncoderLoader, Model, catalogue_encoder
from bittern.types import (
    AddResult,
    ArchiveStats,
    Encoded,
    Exported,
    ExportOptions,
    MediaItem,
    ModelInfo,
    Observation,
    OnDuplicate,
    Page,
    SearchResult,
)

DECODED_AT_ONCE = 2
"""Queries whose media are in memory at the same time; others wait."""
MAX_QUERY_WINDOWS = 120
"""Windows that a sound query may have; their embeddings are averaged."""
FOLDER_PAGE = 1_000
"""Observations that are looked up at a time while their media are copied."""
MINUS_WEIGHT = 0.5
"""Weight of the inputs that are subtracted (Rocchio 1971). In searches of the sample by name, a
photograph that is subtracted falls from the first to the 70th of 85, and the right one keeps a mean
reciprocal rank of .52 (.56 without subtraction, .22 with the weight 1)."""


class LocalArchive(ArchiveAPI):
    """An archive folder, searched without a server. See `ArchiveAPI` for the methods.

    Thread-safe. Each search sees one generation of the archive.

    Attributes:
        archive: observations, metadata and codes.
        registry: its models.
        name: the archive's name.
    """

    def __init__(
        self,
        archive: Archive,
        *,
        load_encoder: EncoderLoader = catalogue_encoder,
        embedders: Embedders | None = None,
    ) -> None:
        """Load nothing yet; `bittern.open` is the usual way to make one.

        Args:
            archive: open.
            load_encoder: from a catalogue name to an encoder.
            embedders: encoders that may be loaded already, instead of `load_encoder`.
        """
        self.archive = archive
        self.registry = ModelRegistry(archive, embedders or Embedders(load_encoder))
        self.name = archive.name
        self._relevance = Relevance(archive)
        self._decoding = threading.BoundedSemaphore(DECODED_AT_ONCE)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        write: bool = False,
        search: SearchOptions | None = None,
        snapshot: str | int | None = None,
    ) -> LocalArchive:
        """Open the archive at `path`; see `bittern.open`."""
        return cls(Archive.open(path, write=write, search=search, snapshot=snapshot))

    def __repr__(self) -> str:
        return f"<LocalArchive '{self.name}'>"

    def close(self) -> None:
        """See `ArchiveAPI.close`; also releases the write lock."""
        self.archive.close()

    def stats(self) -> ArchiveStats:
        """See `ArchiveAPI.stats`."""
        return self.archive.stats()

    def models(self) -> builtins.list[ModelInfo]:
        """See `ArchiveAPI.models`."""
        return self.registry.infos()

    def load_codes(self) -> None:
        """Load all codes into memory with their search engines, which `stats` describes."""

        def no_rows(rows: int) -> NDArray[np.int64]:
            return np.empty(0, dtype=np.int64)

        for record in self.archive.model_records():
            for modality in (Modality.IMAGE, Modality.AUDIO):
                self.archive.sample_codes(record.digest, str(modality), no_rows)

    def warm(self) -> None:
        """Load codes and networks before the first search; skip networks without weights."""
        self.load_codes()
        self.registry.warm()

    # Searching

    def answer(self, query: Query, deadline: Deadline | None = None) -> SearchResult:
        """Answer one query.

        Raises:
            MediaError: the query's picture or sound cannot be used.
            QueryError: a sound longer than a query may be.
            FilterError: `where` is not a filter.
            ModelNotFoundError: no model has both towers.
            DeadlineExceededError: the deadline passed between two steps.
        """
        begun = perf_counter()
        deadline = deadline or Deadline()
        self.archive.check_where(query.where)  # before a network is loaded
        target = self._target_of(query)
        model = self._model_for(query, target)
        vector = self._query_vector(query, model, target, deadline)
        deadline.check("searching")
        search = partial(
            self.archive.search,
            vector.values,
            model=model.digest,
            metric=vector.metric,
            where=query.where,
            modality=str(target),
        )
        if query.within is None and query.relevance is None:
            answer, nearest = search(k=query.k, recall=query.recall), None
        else:
            answer, nearest = self._relevance.search(search, query, vector, deadline)
        return SearchResult(
            model=model.card.name,
            target=str(target),
            metric=vector.metric,
            took_ms=1e3 * (perf_counter() - begun),
            hits=answer.hits,
            engine=answer.engine,
            exact=answer.exact,
            cutoff=answer.cutoff,
            nearest=nearest,
        )

    def _target_of(self, query: Query) -> Modality:
        """The query's target; by default images, unless the archive has only sounds."""
        if query.target is not None:
            return Modality(query.target)
        counts = self.archive.observation_counts()
        only_sound = not counts[Modality.IMAGE] and counts[Modality.AUDIO]
        return Modality.AUDIO if only_sound else Modality.IMAGE

    def _model_for(self, query: Query, target: Modality) -> Model:
        """The named model, else the one with most codes of the target.

        A query by ids uses a model that coded these observations, if there is one.
        """
        ids = [str(each.value) for each in query.inputs if each.kind == "id"]
        towers = {Modality(each.kind) for each in query.inputs if not each.is_stored}
        if ids and query.model is None:
            for record in self.archive.model_records():
                with suppress(ObservationNotFoundError):
                    for each in ids:
                        self.archive.code(each, record.digest)
                    if towers <= set(record.modalities):
                        return self.registry.load(record)
        return self.registry.find(query.model, towers={target, *towers}, target=target)

    def _query_vector(
        self, query: Query, model: Model, target: Modality, deadline: Deadline
    ) -> QueryVector:
        if query.is_code:
            return QueryVector(model, target, "hamming", self._code(query.inputs[0], model))
        logits: dict[bool, builtins.list[NDArray[np.float32]]] = {False: [], True: []}
        for each in query.inputs:
            deadline.check("encoding the query")
            logits[each.minus].append(self._logits(each, model))
        wanted = np.mean(logits[False], axis=0)
        if logits[True]:
            wanted = wanted - MINUS_WEIGHT * np.mean(logits[True], axis=0)
        if query.metric == "hamming":
            return QueryVector(model, target, "hamming", pack(wanted[None])[0])
        return QueryVector(model, target, "asymmetric", wanted)

    def _code(self, given: QueryInput, model: Model) -> NDArray[np.uint8]:
        """The code of an input that is one, or the id of one: uint8 [bits/8]."""
        if given.kind == "id":
            return self.archive.code(str(given.value), model.digest)
        code = np.frombuffer(bytes(given.value), dtype=np.uint8)[None]  # type: ignore[arg-type]
        checked: NDArray[np.uint8] = check_codes(code, model.card.bits)[0]
        return checked

    def _logits(self, given: QueryInput, model: Model) -> NDArray[np.float32]:
        """Logits of one input, float32 [bits]; 1 or -1 for the bits of a stored code."""
        if given.is_stored:
            bits: NDArray[np.uint8] = unpack(self._code(given, model)[None])[0]
            return bits * np.float32(2) - 1
        _, embeddings = self._embedded(given, model)
        mean = embeddings.mean(axis=0, keepdims=True)
        mean /= max(float(np.linalg.norm(mean)), 1e-12)
        logits: NDArray[np.float32] = model.logits(Modality(given.kind), mean)[0]
        return logits

    def _embedded(
        self, given: QueryInput, model: Model
    ) -> tuple[builtins.list[Decoded], NDArray[np.float32]]:
        """The decoded text, picture or windows of an input, and their embeddings [n, dim]."""
        modality = Modality(given.kind)
        if modality == Modality.TEXT:
            text = str(given.value).strip()
            return [Decoded(text)], model.embed_query(text)
        windowing = model.embedder.windowing if modality == Modality.AUDIO else None
        with self._decoding:
            decoded = _decoded_input(given, windowing)
            return decoded, model.embed(modality, [each.data for each in decoded])

    def encode_query(self, query: Query) -> builtins.list[Encoded]:
        """Codes and logits of one text, picture or recording (one per window).

        Args:
            query: one text, image or audio, and perhaps a model.

        Raises:
            MediaError: unusable media.
            ModelNotFoundError: no model has the tower.
        """
        [given] = query.inputs
        modality = Modality(given.kind)
        model = self.registry.find(query.model, towers=[modality])
        decoded, embeddings = self._embedded(given, model)
        logits = model.logits(modality, embeddings)
        return [
            Encoded(code.tobytes(), tuple(map(float, z)), each.start_s, each.end_s)
            for each, z, code in zip(decoded, logits, pack(logits), strict=True)
        ]

    # Observations

    def _get(self, id: str) -> Observation:  # noqa: A002
        return self.archive.get(id)

    def page(self, *, page_size: int, page_token: str = "", where: str | None = None) -> Page:
        """See `ArchiveAPI.page`."""
        return self.archive.list(page_size=page_size, page_token=page_token, where=where)

    def _delete(self, ids: Sequence[str]) -> builtins.list[str]:
        return self.archive.delete(ids)

    def _add(
        self,
        items: Iterable[MediaItem],
        on_duplicate: OnDuplicate,
        model: str | None,
        batch_size: int,
    ) -> Iterator[builtins.list[AddResult]]:
        if not self.archive.model_records():
            raise PreconditionError(
                f"archive '{self.name}' has no model yet: index a folder or manifest into it "
                "first, with `bittern index`"
            )
        stages = new_stages()
        remaining = iter(items)
        while batch := builtins.list(islice(remaining, batch_size)):
            for chosen, group in self._by_model(batch, model):
                check_towers(chosen, group)
                commits = ArchiveCommits(self.archive, chosen, on_duplicate, stages=stages)
                taken = commits.without_stored(reject_unusable(chosen, group))
                embedded = embed_items(chosen.embedder, taken, stages)
                yield commits.commit(builtins.list(embedded))

    def _by_model(
        self, batch: Sequence[MediaItem], name: str | None
    ) -> Iterator[tuple[Model, builtins.list[MediaItem]]]:
        """Neighbouring items that the same model codes."""
        if name is not None:
            yield self.registry.find(name), builtins.list(batch)
            return

        def chosen(item: MediaItem) -> str:
            # An item of an unknown modality fails later, with any model.
            known = {item.modality} & set(Modality)
            return self.registry.find(towers=map(Modality, known)).digest

        for digest, group in groupby(batch, key=chosen):
            yield self.registry.find(digest), builtins.list(group)

    # Export

    def rows(
        self, where: str | None = None, *, codes: bool = False, paths: bool = False
    ) -> ExportRows:
        """Observations of one generation in row order, for `bittern.service.export`.

        Args:
            where: SQL condition; None for all.
            codes: also the codes of the archive's first model.
            paths: also the absolute paths of the media, which stay on this machine.

        Raises:
            FilterError: `where` is not a filter.
        """
        return rows_of_archive(self.archive, where, codes=codes, paths=paths)

    def _export(self, to: str | Path, options: ExportOptions) -> Exported:
        chosen = check_export(to, options)
        if chosen == FOLDER:
            return self._export_folder(Path(to), options)
        writer = writer_of(chosen)
        if options.hits is not None:
            rows = rows_of_hits(options.hits.hits, paths=True)
        else:
            rows = self.rows(options.where, codes=writer.codes, paths=True)
        return write_file(file_chunks(writer, rows), Path(to), chosen, options.on_progress)

    def _export_folder(self, to: Path, options: ExportOptions) -> Exported:
        if options.hits is not None:
            hits = options.hits.hits
            media = media_of_hits(hits)
            return write_folder(
                media,
                to,
                builtins.list(metadata_types(hit.observation for hit in hits)),
                hits=True,
                below=options.media,
                total=len(media),
                on_progress=options.on_progress,
            )
        stats = self.archive.stats()
        whole = stats.observations.get("image", 0) + stats.recordings
        return write_folder(
            media_of_observations(self.list(options.where, page_size=FOLDER_PAGE)),
            to,
            builtins.list(stats.columns),
            below=options.media,
            total=0 if options.where else whole,
            on_progress=options.on_progress,
        )

    # Snapshots

    def snapshots(self, *, unnamed: bool = False) -> builtins.list[SnapshotInfo]:
        """The snapshots, oldest first; with `unnamed` also versions that are still there."""
        return self.archive.snapshots(unnamed=unnamed)

    def take_snapshot(self, name: str, *, note: str = "") -> SnapshotInfo:
        """Keep the newest state under a name; see `bittern.open` for how to look at it."""
        return self.archive.take_snapshot(name, note=note)

    def drop_snapshot(self, name: str) -> SnapshotInfo:
        """Forget a snapshot.

        Raises:
            NotFoundError: there is none of this name.
        """
        return self.archive.drop_snapshot(name)

    def restore(self, snapshot: str | int) -> SnapshotInfo:
        """Make an old state the newest one; returns the snapshot of the state before.

        Raises:
            NotFoundError: there is no such snapshot.
            PreconditionError: the archive is open for reading only.
        """
        return self.archive.restore(snapshot)


def _decoded_input(given: QueryInput, windowing: AudioWindowing | None) -> builtins.list[Decoded]:
    """One picture, or the windows of a recording."""
    assert isinstance(given.value, bytes)
    item = MediaItem("", str(given), given.kind, data=given.value)
    decoded = builtins.list(islice(decode(item, windowing), MAX_QUERY_WINDOWS + 1))
    if len(decoded) > MAX_QUERY_WINDOWS:
        assert windowing is not None
        most = windowing.window_s + (MAX_QUERY_WINDOWS - 1) * windowing.hop_s
        raise QueryError(
            f"{given}: a sound query may be at most {most:g} s long; cut out the sound to look for",
            field="audio",
        )
    return decoded
