"""The engine: searches one archive with its models, and adds to it."""

from __future__ import annotations

import builtins
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby, islice
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import AudioWindowing, Modality
from bittern.errors import (
    ModelNotFoundError,
    ObservationNotFoundError,
    PreconditionError,
    QueryError,
    UnsupportedModalityError,
)
from bittern.hashing.codes import check_codes, pack
from bittern.hashing.saved_model import SavedModel
from bittern.index.archive import Archive
from bittern.index.models import ModelRecord
from bittern.service.export.rows import Rows, rows_of_archive
from bittern.service.ingest.commit import (
    COMMIT_ITEMS,
    ArchiveCommits,
    check_towers,
    reject_unsupported,
)
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Decoded, decode
from bittern.service.ingest.report import Stages, new_stages
from bittern.service.limits import Deadline
from bittern.service.local.relevance import Relevance, Vector
from bittern.service.models.model import Embedders, EncoderLoader, Model, catalogue_encoder
from bittern.service.models.saved import encoder_names, load_saved, weights_of
from bittern.types import (
    AddResult,
    ArchiveStats,
    Encoded,
    MediaItem,
    ModelInfo,
    Observation,
    OnDuplicate,
    Page,
    Query,
    SearchOptions,
    SearchResult,
)

logger = logging.getLogger("bittern.engine")

DECODED_AT_ONCE = 2
"""Queries whose media are in memory at the same time; others wait."""
MAX_QUERY_WINDOWS = 120
"""Windows that a sound query may have; their embeddings are averaged."""
_SHORTEST_DIGEST = 8
_TOWERS = tuple(Modality)


class Engine:
    """Encodes queries and media with an archive's models, and searches its codes.

    Thread-safe. Each search sees one generation of the archive.
    """

    def __init__(
        self,
        archive: Archive,
        *,
        load_encoder: EncoderLoader = catalogue_encoder,
        embedders: Embedders | None = None,
    ) -> None:
        """Load nothing yet.

        Args:
            archive: open; its name becomes the engine's.
            load_encoder: from a catalogue name to an encoder.
            embedders: encoders that may be loaded already, instead of `load_encoder`.
        """
        self.archive = archive
        self.name = archive.name
        self.embedders = embedders or Embedders(load_encoder)
        self._models: dict[str, Model] = {}
        self._relevance = Relevance(archive)
        self._lock = threading.RLock()
        self._decoding = threading.BoundedSemaphore(DECODED_AT_ONCE)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        write: bool = False,
        search: SearchOptions | None = None,
        snapshot: str | int | None = None,
    ) -> Engine:
        """Open the archive at `path`; see `Archive.open` for the errors.

        Args:
            path: its folder.
            write: also add and delete; one process at a time may.
            search: which engine searches, with how many threads and how much of a card;
                None for the defaults.
            snapshot: open this older generation, for reading only; None for the newest.
        """
        return cls(Archive.open(path, write=write, search=search, snapshot=snapshot))

    def close(self) -> None:
        """Release the archive (and its write lock)."""
        self.archive.close()

    # Models

    def register(self, saved: SavedModel, *, pending: bool = False) -> Model:
        """Add a model to the archive, unless it has it already.

        Args:
            saved: the model.
            pending: its codes are not searched before `Archive.switch_model`.

        Raises:
            PreconditionError: it is pending already, and `pending` is False.
        """
        known = self._registered(saved.card.digest)
        if known is None:
            record = ModelRecord(
                name=saved.card.name,
                digest=saved.card.digest,
                bits=saved.card.bits,
                encoder=saved.card.encoder,
                modalities=tuple(sorted(saved.card.towers)),
                state="pending" if pending else "ready",
            )
            self.archive.register_model(record, saved.files())
            return self.loaded(record)
        if known.state == "pending" and not pending:
            raise PreconditionError(
                f"archive '{self.name}' is being coded again with model '{known.name}', which is "
                f"not finished: run bittern reencode {self.archive.path} again with that model"
            )
        return self.loaded(known)

    def _registered(self, digest: str) -> ModelRecord | None:
        found = [record for record in self.archive.registered() if record.digest == digest]
        return found[0] if found else None

    def model(
        self,
        name: str | None = None,
        *,
        towers: Iterable[Modality] = (),
        target: Modality | None = None,
    ) -> Model:
        """A model of the archive.

        Args:
            name: its name, digest, or the first 8 or more digits of its digest; None for one
                that has the towers.
            towers: modalities that it must have.
            target: of several models, take the one that coded most observations of this
                modality; the oldest of these, or of all where there is no target.

        Raises:
            ModelNotFoundError: no such model.
            UnsupportedModalityError: none that has these towers.
        """
        records = self.archive.models()
        have = ", ".join(f"{r.name} ({'+'.join(r.modalities)})" for r in records) or "none"
        if name is not None:
            records = [r for r in records if _named(r, name)]
            if not records:
                raise ModelNotFoundError(
                    f"archive '{self.name}' has no model '{name}'; its models are: {have}",
                    field="model",
                    details={"model": name},
                )
        wanted = set(towers)
        fit = [record for record in records if wanted <= set(record.modalities)]
        if fit:
            if name is None:  # a retired model is used only if no other fits
                fit = [record for record in fit if record.state == "ready"] or fit
            if target and len(fit) > 1:
                fit = [max(fit, key=lambda r: self.archive.code_counts(r.digest)[str(target)])]
            return self.loaded(fit[0])
        raise UnsupportedModalityError(
            f"no model of archive '{self.name}'{f' named {name}' if name else ''} has the towers "
            f"{' and '.join(sorted(wanted))}; its models are: {have}",
            field="model",
        )

    def models(self) -> builtins.list[ModelInfo]:
        """The archive's models, in the order in which they were added."""
        infos = []
        for record in self.archive.models():
            card = self.loaded(record).card
            status = weights_of(record.encoder)
            infos.append(
                ModelInfo(
                    name=record.name,
                    digest=record.digest,
                    bits=record.bits,
                    encoder=record.encoder,
                    modalities=tuple(record.modalities),
                    rows=self.archive.code_counts(record.digest),
                    weights="ready" if status.ready else status.message,
                    licence=card.licence,
                )
            )
        return infos

    def encoders(self) -> set[str]:
        """Catalogue names of the encoders of the archive's models."""
        return {name for r in self.archive.models() for name in encoder_names(r.encoder)}

    def load_codes(self) -> None:
        """Load all codes into memory with their search engines, which `stats` describes."""

        def no_rows(rows: int) -> NDArray[np.int64]:
            return np.empty(0, dtype=np.int64)

        for record in self.archive.models():
            for modality in (Modality.IMAGE, Modality.AUDIO):
                self.archive.sample_codes(record.digest, str(modality), no_rows)

    def warm(self) -> None:
        """Load codes and networks before the first search; skip networks without weights."""
        self.load_codes()
        for record in self.archive.models():
            model = self.loaded(record)
            for modality in sorted(model.modalities):
                try:
                    model.check_tower(modality)
                    if modality == Modality.TEXT:
                        model.embed(modality, ["a bird"])
                except (PreconditionError, ModelNotFoundError) as error:
                    logger.warning("%s cannot answer %s queries: %s", record.name, modality, error)

    # Searching

    def search(self, query: Query, *, deadline: Deadline | None = None) -> SearchResult:
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
        deadline.check("encoding the query")
        vector = self._query_vector(query, model, target)
        deadline.check("searching")
        answer, nearest = self._relevance.search(query, vector, deadline)
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

        A query by id uses a model that coded that observation, if there is one.
        """
        if query.id is not None and query.model is None:
            for record in self.archive.models():
                with suppress(ObservationNotFoundError):
                    self.archive.code(query.id, record.digest)
                    return self.loaded(record)
        towers = {target, Modality(query.kind)} if query.kind in _TOWERS else {target}
        return self.model(query.model, towers=towers, target=target)

    def _query_vector(self, query: Query, model: Model, target: Modality) -> Vector:
        if query.id is not None:
            return Vector(model, target, "hamming", self.archive.code(query.id, model.digest))
        if query.code is not None:
            code = np.frombuffer(query.code, dtype=np.uint8)[None]
            return Vector(model, target, "hamming", check_codes(code, model.card.bits)[0])
        _, embeddings = self._embedded(query, model)
        mean = embeddings.mean(axis=0, keepdims=True)
        mean /= max(float(np.linalg.norm(mean)), 1e-12)
        logits = model.logits(Modality(query.kind), mean)
        if query.metric == "hamming":
            return Vector(model, target, "hamming", pack(logits)[0])
        return Vector(model, target, "asymmetric", logits[0])

    def _embedded(
        self, query: Query, model: Model, name: str = ""
    ) -> tuple[builtins.list[Decoded], NDArray[np.float32]]:
        """The decoded text, picture or windows of a query, and their embeddings [n, dim]."""
        modality = Modality(query.kind)
        windowing = model.embedder.windowing if modality == Modality.AUDIO else None
        with self._decoding:
            decoded = _decoded_query(query, windowing, name)
            return decoded, model.embed(modality, [each.data for each in decoded])

    def encode(self, query: Query, *, name: str = "") -> builtins.list[Encoded]:
        """Codes and logits of one text, picture or recording (one per window).

        Args:
            query: text, image or audio, and perhaps a model.
            name: of the file, for messages.

        Raises:
            MediaError: unusable media.
            ModelNotFoundError: no model has the tower.
        """
        modality = Modality(query.kind)
        model = self.model(query.model, towers=[modality])
        decoded, embeddings = self._embedded(query, model, name)
        logits = model.logits(modality, embeddings)
        return [
            Encoded(code.tobytes(), tuple(map(float, z)), each.start_s, each.end_s)
            for each, z, code in zip(decoded, logits, pack(logits), strict=True)
        ]

    # Observations

    def get(self, id: str) -> Observation:  # noqa: A002 - the contract's name
        """The observation with this id."""
        return self.archive.get(id)

    def list(self, *, page_size: int = 100, page_token: str = "", where: str | None = None) -> Page:
        """One page of observations, in row order."""
        return self.archive.list(page_size=page_size, page_token=page_token, where=where)

    def delete(self, ids: Sequence[str]) -> builtins.list[str]:
        """Delete observations, or all windows of recordings; all of them or none."""
        return self.archive.delete(ids)

    def rows(self, where: str | None = None, *, codes: bool = False) -> Rows:
        """Observations of one generation in row order, for `bittern.service.export`.

        Args:
            where: SQL condition; None for all.
            codes: also the codes of the archive's first model.

        Raises:
            FilterError: `where` is not a filter.
        """
        return rows_of_archive(self.archive, where, codes=codes)

    def stats(self) -> ArchiveStats:
        """What the archive holds."""
        return self.archive.stats()

    def add(
        self,
        items: Iterable[MediaItem],
        *,
        on_duplicate: OnDuplicate = "error",
        model: str | None = None,
        batch_size: int = COMMIT_ITEMS,
        stages: Stages | None = None,
    ) -> Iterator[builtins.list[AddResult]]:
        """Code items and commit them in batches.

        Args:
            items: photographs and recordings.
            on_duplicate: what to do with an `occurrenceID` that the archive has already.
            model: which of the archive's models; None for the first with the tower.
            batch_size: items per atomic commit.
            stages: filled in as work goes on.

        Yields:
            After each commit, the results of its items, in order.

        Raises:
            ModelNotFoundError: the archive has no such model.
            DigestMismatchError: the weights here are not those that the model was made with.
        """
        if not self.archive.models():
            raise PreconditionError(
                f"archive '{self.name}' has no model yet: index a folder or manifest into it "
                "first, with `bittern index`"
            )
        stages = stages if stages is not None else new_stages()
        remaining = iter(items)
        while batch := builtins.list(islice(remaining, batch_size)):
            for chosen, group in self._by_model(batch, model):
                check_towers(chosen, group)
                commits = ArchiveCommits(self.archive, chosen, on_duplicate, stages=stages)
                taken = commits.without_stored(reject_unsupported(chosen, group))
                embedded = embed_items(chosen.embedder, taken, stages)
                yield commits.commit(builtins.list(embedded))

    def _by_model(
        self, batch: Sequence[MediaItem], name: str | None
    ) -> Iterator[tuple[Model, builtins.list[MediaItem]]]:
        """Neighbouring items that the same model codes."""
        if name is not None:
            yield self.model(name), builtins.list(batch)
            return

        def chosen(item: MediaItem) -> str:
            # An item of an unknown modality fails later, with any model.
            known = {item.modality} & set(Modality)
            return self.model(towers=map(Modality, known)).digest

        for digest, group in groupby(batch, key=chosen):
            yield self.model(digest), builtins.list(group)

    def loaded(self, record: ModelRecord) -> Model:
        """A model of the archive in any state, loaded if necessary."""
        with self._lock:
            if record.digest not in self._models:
                saved = load_saved(self.archive.model_folder(record.digest))
                self._models[record.digest] = Model(saved, self.embedders.of(saved))
            return self._models[record.digest]


def _named(record: ModelRecord, name: str) -> bool:
    is_digest = len(name) >= _SHORTEST_DIGEST and record.digest.startswith(name.lower())
    return record.name == name or is_digest


def _decoded_query(
    query: Query, windowing: AudioWindowing | None, name: str
) -> builtins.list[Decoded]:
    """One text or picture, or the windows of a recording."""
    if query.text is not None:
        return [Decoded(query.text.strip())]
    data = query.image if query.image is not None else query.audio
    item = MediaItem("", name or f"the query's {query.kind}", query.kind, data=data)
    decoded = builtins.list(islice(decode(item, windowing), MAX_QUERY_WINDOWS + 1))
    if len(decoded) > MAX_QUERY_WINDOWS:
        assert windowing is not None
        most = windowing.window_s + (MAX_QUERY_WINDOWS - 1) * windowing.hop_s
        raise QueryError(
            f"a sound query may be at most {most:g} s long; cut out the sound to look for",
            field="audio",
        )
    return decoded
