"""Codes an archive again with another model or code length, and switches to it.

    register the new model as pending      no search uses its codes
    code all media that it has not coded   from stored embeddings, else from the media
    switch                                 one replacement of archive.json
    drop the replaced models               with --drop-old

The same command continues after an interruption in any step. Searches use the old model until the
switch.
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
from bittern.errors import BitternError, ModelNotFoundError, PreconditionError
from bittern.hashing.saved_model import SavedModel
from bittern.index.archive import Archive
from bittern.index.model_switch import replaced
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedObservation
from bittern.index.reencode import has_embeddings, lacking, media_of, some_embeddings
from bittern.service.ingest.commit import ArchiveCommits
from bittern.service.ingest.items import Embedded
from bittern.service.ingest.prefetch import close_stream
from bittern.service.ingest.report import JobReport
from bittern.service.jobs.description import IndexOptions, JobSpec
from bittern.service.jobs.encoding import nothing_usable
from bittern.service.jobs.indexing import JobControl, fit_on_first
from bittern.service.jobs.model_choice import (
    check_agrees,
    fitted_name,
    ready_model,
    with_encoder,
)
from bittern.service.local.archive import LocalArchive
from bittern.service.models.fitting import FIT_ROWS, fitted_model
from bittern.service.models.model import Embedder, Model
from bittern.service.sources.archive import ArchiveMedia
from bittern.text import counted
from bittern.types import AddResult, AddStatus

EMBEDDINGS_PER_COMMIT = 2_048
"""Media per commit with stored embeddings."""
MEDIA = (Modality.IMAGE, Modality.AUDIO)


def reencode(spec: JobSpec, local: LocalArchive, control: JobControl | None = None) -> JobReport:
    """Code all observations of an archive with another model, and switch to it.

    Args:
        spec: `model`, `bits` and `hasher` choose the new model; `reading.media` is the folder
            of the media, if they have been moved.
        local: the archive, open for writing.
        control: progress and cancellation; a cancelled job does not switch.

    Returns:
        The report. Its state is ``failed``, without a switch, if media could not be coded and
        `spec.allow_missing` is false.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        WeightsMissingError: the model's weights are not on this machine.
    """
    return _Reencoding(local, spec, control or JobControl()).run()


def give_up(
    archive: Archive, model: str, bits: int | None = None, hasher: str | None = None
) -> ModelRecord | None:
    """End an interrupted job: remove the new model, with the codes it has so far.

    Args:
        archive: open for writing.
        model: as given to the job, or the name or digest of the new model.
        bits: as given to the job.
        hasher: as given to the job.

    Returns:
        The model; None if only its files were left to remove.

    Raises:
        ModelNotFoundError: no pending model has this name.
    """
    pending = [record for record in archive.registered() if record.state == "pending"]
    options = IndexOptions(model=model, bits=bits, hasher=hasher)  # type: ignore[arg-type]
    names = {model, fitted_name(options)}
    if Path(model).is_dir():
        names.add(SavedModel.load(Path(model)).card.digest)
    found = [one for one in pending if names & {one.name, one.digest, one.digest[:16]}]
    if not pending and names & _forgotten_names(archive):
        return archive.writer.give_up()
    if not found:
        known = ", ".join(f"{one.name} ({one.digest[:16]})" for one in pending) or "none"
        raise ModelNotFoundError(
            f"archive {archive.name!r} is not being coded again by a model {model!r}; pending "
            f"models: {known}",
            field="model",
        )
    return archive.writer.give_up(found[0].digest)


def _forgotten_names(archive: Archive) -> set[str]:
    """Names and digests of removed models whose files remain."""
    found: set[str] = set()
    for folder in archive.writer.forgotten_models():
        with suppress(BitternError):
            card = SavedModel.load(folder).card
            found |= {card.name, card.digest, card.digest[:16]}
    return found


class _Reencoding:
    def __init__(self, local: LocalArchive, spec: JobSpec, control: JobControl) -> None:
        self._local, self._archive = local, local.archive
        self._spec, self._control, self._report = with_encoder(spec), control, control.report

    def run(self) -> JobReport:
        begun = perf_counter()
        if not self._archive.model_records():
            raise PreconditionError(
                f"the archive at {self._archive.path} has no model yet, so there is nothing to "
                f"code again: run bittern index {self._archive.path} SOURCE --model "
                f"{self._spec.model}"
            )
        model = self._registered() or self._ready() or self._fitted_on_embeddings()
        if model is not None:
            self._announce(model)
            self._report.counted = len(self._lacking(model))
            self._code_embeddings(model)
        if not self._control.cancelled():
            if model is None:
                model = self._fitted_on_media()
            else:
                self._code_media(model)
        self._report.seconds = perf_counter() - begun
        if self._control.cancelled():
            self._report.state = "stopped"
        else:
            assert model is not None
            self._switch(model)
        self._control.on_progress(self._report)
        return self._report

    # The model

    def _registered(self) -> Model | None:
        """A model of the archive, perhaps from an interrupted job."""
        wanted = (self._spec.model, fitted_name(self._spec))
        for record in self._archive.registered():
            if record.name in wanted or record.digest in wanted:
                model = self._local.registry.load(record)
                check_agrees(self._spec, model.card)
                return model
        return None

    def _ready(self) -> Model | None:
        saved = ready_model(self._spec, self._local.registry.embedders.named)
        return None if saved is None else self._local.registry.register(saved, pending=True)

    def _fitted_on_embeddings(self) -> Model | None:
        """A model with a hasher fitted on stored embeddings; None if there are none."""
        name = self._spec.model
        for record in self._archive.registered():
            if record.encoder != name or not has_embeddings(self._archive, record):
                continue
            sample = {
                str(modality): rows
                for modality in MEDIA
                if len(rows := some_embeddings(self._archive, record, str(modality), FIT_ROWS))
            }
            encoder = self._local.registry.embedders.named(name).encoder()
            card = self._local.registry.load(record).card
            if any(card.towers.get(m) != encoder.digests.get(Modality(m)) for m in sample):
                continue
            saved = fitted_model(encoder, self._spec.wanted_bits, sample, self._spec.hasher)
            return self._local.registry.register(saved, pending=True)
        return None

    def _fitted_on_media(self) -> Model | None:
        """Fit a model on the first media, and code all with it; None if cancelled."""
        if self._spec.model not in CATALOGUE:
            raise ModelNotFoundError(f"there is no model '{self._spec.model}'", field="model")
        embedder = self._local.registry.embedders.named(self._spec.model)
        kinds = [str(m) for m in MEDIA if m in embedder.encoder().modalities]
        any_model = self._archive.model_records()[0].digest
        names = [
            *lacking(self._archive, any_model, kinds),
            *_coded_media(self._archive, any_model, kinds),
        ]
        self._report.counted = len(names)
        saved, stream = fit_on_first(
            self._stream(embedder, names), embedder, self._spec, self._control
        )
        if saved is None:
            if self._control.cancelled():
                return None
            raise nothing_usable("the archive's media", self._report)
        model = self._local.registry.register(saved, pending=True)
        self._announce(model)
        self._store(model, stream)
        return model

    def _announce(self, model: Model) -> None:
        """Report the model, and the models that it will replace."""
        self._report.model, self._report.digest = model.card.name, model.digest
        if self._spec.drop_old and (named := self._named(self._to_drop(model.digest))):
            self._report.notes.append(
                f"to be dropped with its codes, once {model.card.name} has coded all: {named}"
            )
            self._control.on_progress(self._report)

    def _to_drop(self, digest: str) -> list[ModelRecord]:
        """The models that this one replaces or has replaced."""
        records = self._archive.registered()
        before = [r for r in records if r.state == "retired" and r.successor == digest]
        return [*before, *replaced(records, digest)]

    def _named(self, records: Sequence[ModelRecord]) -> str:
        """``field-256 (1,234 rows), ...``."""
        rows = {m.digest: sum(m.rows.values()) for m in self._archive.stats().models}
        return ", ".join(f"{r.name} ({counted(rows.get(r.digest, 0), 'row')})" for r in records)

    # The codes

    def _lacking(self, model: Model) -> list[str]:
        kinds = [str(modality) for modality in MEDIA if modality in model.modalities]
        return lacking(self._archive, model.digest, kinds)

    def _code_embeddings(self, model: Model) -> None:
        """Code media with stored embeddings of the same towers."""
        for record in self._archive.registered():
            if record.digest == model.digest or not has_embeddings(self._archive, record):
                continue
            shared = _shared_towers(self._local.registry.load(record), model)
            names = lacking(self._archive, model.digest, shared) if shared else []
            for begin in range(0, len(names), EMBEDDINGS_PER_COMMIT):
                if self._control.cancelled():
                    return
                self._commit_embeddings(model, record, names[begin : begin + EMBEDDINGS_PER_COMMIT])

    def _commit_embeddings(self, model: Model, record: ModelRecord, names: Sequence[str]) -> None:
        # Dropping the old model drops its embeddings; only the media could restore them.
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
        self._control.on_progress(self._report)

    def _code_media(self, model: Model) -> None:
        """Code the remaining media from their files."""
        names = self._lacking(model)
        if names:
            first = media_of(self._archive, names[:FIT_ROWS]).values()
            for modality in sorted({medium.observations[0].modality for medium in first}):
                model.check_tower(Modality(modality))
            self._store(model, self._stream(model.embedder, names))

    def _stream(self, embedder: Embedder, names: Sequence[str]) -> Iterator[Embedded]:
        reading = self._spec.reading
        source = ArchiveMedia(self._archive, names, reading.media, reading.fetch)
        control = replace(self._control, fetch=source.fetch)
        return _without_changed(source, control.embed(embedder, source))

    def _store(self, model: Model, stream: Iterator[Embedded]) -> None:
        commits = ArchiveCommits(
            self._archive, model, "skip", self._spec.keep_embeddings, self._report.stages
        )
        self._control.store(stream, commits.commit, self._spec)

    # The switch

    def _switch(self, model: Model) -> None:
        missing = len(self._lacking(model))
        if missing and not self._spec.allow_missing:
            self._report.state = "failed"
            self._report.error = (
                f"{missing} media of {self._archive.path} have no codes of {model.card.name}, so "
                "searches still use the old model. Restore the missing files and run the same "
                "command again, or switch without them with --allow-missing (no search finds them "
                "until they are coded)"
            )
            return
        if missing:
            self._report.warnings.append(f"{missing} media have no codes of {model.card.name}")
        first = self._archive.model_records()[0]
        if first.digest == model.digest and not self._report.done:
            self._report.warnings.append(f"the archive was coded by {first.name} already")
        self._archive.writer.switch_model(model.digest)
        if self._spec.drop_old:
            dropped = self._named(self._to_drop(model.digest))
            self._archive.writer.drop_retired(model.digest)
            if dropped:
                self._report.notes.append(f"dropped with its codes: {dropped}")
        self._report.state = "done"


def _without_changed(source: ArchiveMedia, stream: Iterator[Embedded]) -> Iterator[Embedded]:
    """The stream; items fail if their file has changed since it was coded."""
    try:
        for embedded in stream:
            if embedded.item is not None and embedded.result is None:
                name, now = embedded.item.occurrence_id, embedded.fingerprint
                before = source.fingerprint(name)
                if before and now and before.content != now.content:
                    message = (
                        f"the file of '{name}' ({embedded.item.media}) has changed since it was "
                        "coded: it would be another observation. Index it again (bittern index "
                        "codes changed files), then continue"
                    )
                    result = AddResult(name, AddStatus.FAILED, 0, "MEDIA_CHANGED", message)
                    embedded = replace(embedded, spans=[], embeddings=[], result=result)
            yield embedded
    finally:
        close_stream(stream)


def _shared_towers(old: Model, new: Model) -> list[str]:
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
    found: dict[str, None] = {}
    for batch in archive.iter_batches(["occurrenceID", "modality"], model=model):
        for row in batch.to_pylist():
            if row["code"] is not None and row["modality"] in kinds:
                found[row["occurrenceID"]] = None
    return list(found)
