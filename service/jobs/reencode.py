"""Coding an archive anew with another model or code length, and the switch to it.

    register the new model as pending      nobody searches its codes
    code everything that it has not coded  from stored embeddings, else from the media
    switch                                 one replacement of archive.json
    drop what was replaced                 if that is wanted

Each step can be cut off, and the same command goes on where it was: what is coded stays
coded, a switch that is done is not done again. Searches answer by the old model until the
switch and by the new one from then on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np

from bittern.encoders.base import Modality
from bittern.encoders.catalogue import CATALOGUE
from bittern.errors import BitternError, ModelNotFoundError, PreconditionError, SourceNotFoundError
from bittern.hashing.saved import SavedModel
from bittern.index.archive import Archive
from bittern.index.model_switch import replaced
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedObservation
from bittern.index.reencode import StoredMedium, has_embeddings, lacking, media_of, some_embeddings
from bittern.service.engine import Engine
from bittern.service.ingest.commit import ArchiveCommits, CommitPolicy, store_all
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Embedded
from bittern.service.ingest.report import Cancelled, JobReport, OnProgress, never
from bittern.service.jobs.description import JobSpec
from bittern.service.jobs.indexing import (
    Watch,
    chained,
    enough_to_fit,
    fitted_on_sample,
    warnings_of,
)
from bittern.service.jobs.model_choice import IndexOptions, ready_model
from bittern.service.models.fitting import FIT_ROWS, fitted_model
from bittern.service.models.loaded import Embedders, Model, catalogue_encoder
from bittern.service.sources.archive import ArchiveMedia
from bittern.types import AddResult, AddStatus

FROM_EMBEDDINGS_AT_ONCE = 2_048
"""Media per commit where nothing has to be decoded."""
MEDIA = (Modality.IMAGE, Modality.AUDIO)


def reencode(
    spec: JobSpec,
    on_progress: OnProgress = lambda report: None,
    cancelled: Cancelled = never,
    *,
    report: JobReport | None = None,
    engine: Engine | None = None,
    embedders: Embedders | None = None,
) -> JobReport:
    """Code all observations of an archive with another model, then switch to it.

    Args:
        spec: `target` is the archive; `model`, `bits` and `hasher` choose the new model;
            `reading.media` is the folder that the media lie in now, where they have moved.
        on_progress: called after every commit, and now and then between.
        cancelled: whether to end now, with what is coded committed and no switch.
        report: counted up; a new one by default.
        engine: the archive, if it is open for writing already.
        embedders: encoders that may be loaded already.

    Returns:
        the report. Its state is ``failed``, and there was no switch, if media could not be
        coded and `spec.allow_missing` is false.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        WeightsMissingError: the model's weights are not on this machine.
        ArchiveLockedError: another process writes to the archive.
    """
    watch = Watch(on_progress, cancelled, report or JobReport())
    if engine is not None:
        return Reencoding(engine, spec, watch).run()
    with Archive.open(Path(spec.target), write=True) as archive:
        opened = Engine(archive, embedders=embedders or Embedders(catalogue_encoder))
        return Reencoding(opened, spec, watch).run()


def give_up(
    archive: Archive, model: str, bits: int | None = None, hasher: str | None = None
) -> ModelRecord | None:
    """End a job that was cut off: the new model goes, with the codes it has so far.

    Args:
        archive: open for writing.
        model: as the job was given it, or the name or digest of the new model.
        bits: as the job was given it.
        hasher: as the job was given it.

    Returns:
        the model; None where only the rest of an earlier giving up was left to remove.

    Raises:
        ModelNotFoundError: no pending model is called so.
    """
    pending = [record for record in archive.registered() if record.state == "pending"]
    options = IndexOptions(model=model, bits=bits, hasher=hasher)  # type: ignore[arg-type]
    names = {model, options.model_name}
    if Path(model).is_dir():
        names.add(SavedModel.load(Path(model)).card.digest)
    found = [one for one in pending if names & {one.name, one.digest, one.digest[:16]}]
    if not pending and names & _half_given_up(archive):
        return archive.give_up()
    if not found:
        there = ", ".join(f"{one.name} ({one.digest[:16]})" for one in pending) or "none"
        raise ModelNotFoundError(
            f"no model that is called {model!r} is being coded in archive {archive.name!r}; there "
            f"are: {there}",
            field="model",
        )
    return archive.give_up(found[0].digest)


def _half_given_up(archive: Archive) -> set[str]:
    """Names and digests of models that the archive has forgotten, and whose files are there."""
    found: set[str] = set()
    for folder in archive.forgotten_models():
        with suppress(BitternError):
            card = SavedModel.load(folder).card
            found |= {card.name, card.digest, card.digest[:16]}
    return found


class Reencoding:
    """One such job.

    Args:
        engine: an archive open for writing.
        spec: the job.
        watch: who looks on.
    """

    def __init__(self, engine: Engine, spec: JobSpec, watch: Watch) -> None:
        self._engine, self._archive = engine, engine.archive
        self._spec, self._watch, self._report = spec, watch, watch.report
        self._options = IndexOptions(
            model=spec.model,
            bits=spec.bits,
            hasher=spec.hasher,
            keep_embeddings=spec.keep_embeddings,
            commit_items=spec.commit_items,
            commit_s=spec.commit_s,
        ).named()

    def run(self) -> JobReport:
        """Do what is left to do."""
        begun = perf_counter()
        if not self._archive.models():
            raise PreconditionError(
                f"the archive at {self._archive.path} has no model yet, so nothing can be coded "
                f"anew: run bittern index {self._archive.path} SOURCE --model {self._spec.model}"
            )
        model = self._known() or self._registered() or self._fitted_on_embeddings()
        if model is not None:
            self._tell(model)
            self._report.total = len(self._lacking(model))
            self._from_embeddings(model)
        if not self._watch.cancelled():
            model = self._from_media(model)
        self._report.seconds = perf_counter() - begun
        if self._watch.cancelled():
            self._report.state = "stopped"
        else:
            self._end(model)
        self._watch.on_progress(self._report)
        return self._report

    # The model

    def _known(self) -> Model | None:
        """A model that the archive knows already, perhaps from a job that was cut off."""
        wanted = (self._options.model, self._options.model_name)
        for record in self._archive.registered():
            if record.name in wanted or record.digest in wanted:
                model = self._engine.loaded(record)
                self._options.agreeing(model.card)
                return model
        return None

    def _registered(self) -> Model | None:
        saved = ready_model(self._options, self._engine.embedders.named)
        return None if saved is None else self._engine.register(saved, pending=True)

    def _fitted_on_embeddings(self) -> Model | None:
        """A model with a hasher fitted on embeddings that are stored; None if there are none."""
        name = self._options.model
        for record in self._archive.registered():
            if record.encoder != name or not has_embeddings(self._archive, record):
                continue
            sample = {
                str(modality): rows
                for modality in MEDIA
                if len(rows := some_embeddings(self._archive, record, str(modality), FIT_ROWS))
            }
            encoder = self._engine.embedders.named(name).encoder()
            card = self._engine.loaded(record).card
            if any(card.towers.get(m) != encoder.digests.get(Modality(m)) for m in sample):
                continue
            bits, kind = self._options.wanted_bits, self._options.hasher
            return self._engine.register(fitted_model(encoder, bits, sample, kind), pending=True)
        return None

    def _tell(self, model: Model) -> None:
        self._report.model, self._report.digest = model.card.name, model.digest
        if self._spec.drop_old and (told := self._with_rows(self._to_drop(model.digest))):
            self._report.notes.append(
                f"to be dropped with its codes, once {model.card.name} has coded all: {told}"
            )
            self._watch.on_progress(self._report)

    def _to_drop(self, digest: str) -> list[ModelRecord]:
        """The models that this one replaces, or has replaced before."""
        records = self._archive.registered()
        before = [r for r in records if r.state == "retired" and r.successor == digest]
        return [*before, *replaced(records, digest)]

    def _with_rows(self, records: Sequence[ModelRecord]) -> str:
        """``field-256 (1,234 rows), ...``."""
        rows = {m.digest: sum(m.rows.values()) for m in self._archive.stats().models}
        return ", ".join(f"{r.name} ({counted_rows(rows.get(r.digest, 0))})" for r in records)

    # The codes

    def _modalities(self, model: Model) -> list[str]:
        return [str(modality) for modality in MEDIA if modality in model.modalities]

    def _lacking(self, model: Model) -> list[str]:
        return lacking(self._archive, model.digest, self._modalities(model))

    def _from_embeddings(self, model: Model) -> None:
        """Code what has stored embeddings of the same towers."""
        for record in self._archive.registered():
            if record.digest == model.digest or not has_embeddings(self._archive, record):
                continue
            alike = _same_towers(self._engine.loaded(record), model)
            if not alike:
                continue
            names = lacking(self._archive, model.digest, alike)
            for begin in range(0, len(names), FROM_EMBEDDINGS_AT_ONCE):
                if self._watch.cancelled():
                    return
                chosen = names[begin : begin + FROM_EMBEDDINGS_AT_ONCE]
                self._commit_embeddings(model, record, chosen)

    def _commit_embeddings(self, model: Model, record: ModelRecord, names: Sequence[str]) -> None:
        # What is dropped with the old model would have to be made from the media again.
        keep = self._spec.keep_embeddings or self._spec.drop_old
        items = []
        begun = perf_counter()
        for medium in media_of(self._archive, names, record).values():
            if not medium.embeddings:
                continue
            embeddings = np.stack(medium.embeddings)
            codes = model.codes(Modality(medium.observations[0].modality), embeddings)
            items.append(
                [
                    CodedObservation(seen, code, embedding if keep else None, medium.fingerprint)
                    for seen, code, embedding in zip(
                        medium.observations, codes, embeddings, strict=True
                    )
                ]
            )
        if not items:
            return
        hashed = perf_counter()
        rows = sum(map(len, items))
        self._report.stages["hash"].add(rows, busy_s=hashed - begun)
        self._report.count(self._archive.add(items, model=model.digest, on_duplicate="skip"))
        self._report.stages["commit"].add(rows, busy_s=perf_counter() - hashed)
        self._report.commits += 1
        self._watch.on_progress(self._report)

    def _from_media(self, model: Model | None) -> Model | None:
        """Code the rest from the media; returns the model, which may be fitted on them only now."""
        if model is None:
            return self._fitted_on_media()
        names = self._lacking(model)
        if names:
            kinds = {m.observations[0].modality for m in self._first(names)}
            for modality in sorted(kinds):
                model.check_tower(Modality(modality))
            self._store(model, self._stream(model, names))
        return model

    def _fitted_on_media(self) -> Model | None:
        if self._options.model not in CATALOGUE:
            raise ModelNotFoundError(f"there is no model '{self._options.model}'", field="model")
        embedder = self._engine.embedders.named(self._options.model)
        kinds = [str(m) for m in MEDIA if m in embedder.encoder().modalities]
        any_model = self._archive.models()[0].digest
        names = [
            *lacking(self._archive, any_model, kinds),
            *_coded_media(self._archive, any_model, kinds),
        ]
        self._report.total = len(names)
        source = self._media(names)
        stream = _unchanged(
            source,
            embed_items(
                embedder,
                source,
                self._report.stages,
                cancelled=self._watch.cancelled,
                fetch=source.fetch,
            ),
        )
        first = enough_to_fit(self._watch.told(stream))
        if self._watch.cancelled():
            return None
        saved = fitted_on_sample(embedder, first, self._options)
        if saved is None:
            self._report.count([e.result for e in first if e.result is not None])
            raise SourceNotFoundError(
                "none of the archive's media could be used, so no hasher can be fitted: "
                + "; ".join(one.message for one in self._report.failures[:3])
            )
        self._report.warnings += warnings_of(first)
        model = self._engine.register(saved, pending=True)
        self._tell(model)
        self._store(model, chained(first, stream))
        return model

    def _media(self, names: Sequence[str]) -> ArchiveMedia:
        reading = self._spec.reading
        return ArchiveMedia(self._archive, names, reading.media, reading.fetch)

    def _first(self, names: Sequence[str]) -> list[StoredMedium]:
        return list(media_of(self._archive, names[:FIT_ROWS]).values())

    def _stream(self, model: Model, names: Sequence[str]) -> Iterator[Embedded]:
        source = self._media(names)
        return _unchanged(
            source,
            embed_items(
                model.embedder,
                source,
                self._report.stages,
                cancelled=self._watch.cancelled,
                fetch=source.fetch,
            ),
        )

    def _store(self, model: Model, stream: Iterator[Embedded]) -> None:
        commits = ArchiveCommits(
            self._archive, model, "skip", self._spec.keep_embeddings, self._report.stages
        )
        pace = CommitPolicy(self._options.commit_items, self._options.commit_s)
        store_all(
            stream, commits.commit, self._report, policy=pace, on_progress=self._watch.on_progress
        )

    # The switch

    def _end(self, model: Model | None) -> None:
        assert model is not None
        missing = len(self._lacking(model))
        if missing and not self._spec.allow_missing:
            self._report.state = "failed"
            self._report.error = (
                f"{missing} media of {self._archive.path} have no codes of {model.card.name}, so "
                "searches still use the old model. Bring back what is missing and run the same "
                "command again, or switch without them with --allow-missing (nothing finds them "
                "then until they are coded)"
            )
            return
        if missing:
            self._report.warnings.append(f"{missing} media have no codes of {model.card.name}")
        first = self._archive.models()[0]
        if first.digest == model.digest and not self._report.done:
            self._report.warnings.append(f"the archive was coded by {first.name} already")
        self._archive.switch_model(model.digest)
        if self._spec.drop_old:
            told = self._with_rows(self._to_drop(model.digest))
            self._archive.drop_retired(model.digest)
            if told:
                self._report.notes.append(f"dropped with its codes: {told}")
        self._report.state = "done"


def counted_rows(number: int) -> str:
    """``1 row``, ``1,234 rows``."""
    return f"{number:,} {'row' if number == 1 else 'rows'}"


def _unchanged(source: ArchiveMedia, stream: Iterator[Embedded]) -> Iterator[Embedded]:
    """The stream; files that are others than those that were coded first have failed."""
    try:
        for embedded in stream:
            if embedded.item is not None:
                before = source.fingerprint(embedded.item.occurrence_id)
                now = embedded.fingerprint
                if embedded.result is None and before and now and before.content != now.content:
                    embedded = _changed(embedded)
            yield embedded
    finally:
        close = getattr(stream, "close", None)
        if close is not None:
            close()


def _changed(embedded: Embedded) -> Embedded:
    assert embedded.item is not None
    name = embedded.item.occurrence_id
    message = (
        f"the file of '{name}' ({embedded.item.media}) has changed since it was coded: it would be "
        "another observation. Index it again (bittern index takes up changed files), then go on"
    )
    result = AddResult(name, AddStatus.FAILED, 0, "MEDIA_CHANGED", message)
    return replace(embedded, spans=[], embeddings=[], result=result)


def _same_towers(old: Model, new: Model) -> list[str]:
    """Modalities whose embeddings are the same for both models."""
    return [
        str(modality)
        for modality in MEDIA
        if modality in old.modalities & new.modalities
        and old.card.towers[modality] == new.card.towers[modality]
        and old.card.assembly.get(modality) == new.card.assembly.get(modality)
    ]


def _coded_media(archive: Archive, model: str, kinds: Sequence[str]) -> list[str]:
    """`occurrenceID`s of the media of some modalities that a model has coded."""
    listed = archive.iter_batches(["occurrenceID", "modality"], model=model)
    found: dict[str, None] = {}
    for batch in listed:
        for row in batch.to_pylist():
            if row["code"] is not None and row["modality"] in kinds:
                found[row["occurrenceID"]] = None
    return list(found)
