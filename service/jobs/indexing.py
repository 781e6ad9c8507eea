"""Codes a source into an archive: choose a model, embed, commit batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bittern.hashing.saved_model import SavedModel
from bittern.index.models import ModelRecord
from bittern.service.ingest.commit import (
    ArchiveCommits,
    Commit,
    CommitPolicy,
    reject_unusable,
    store_all,
)
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Embedded, PipelineEntry
from bittern.service.ingest.precomputed import Precomputed
from bittern.service.ingest.prefetch import close_stream
from bittern.service.ingest.report import Cancelled, JobReport, OnProgress, never
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.model_choice import chosen_model, with_encoder
from bittern.service.local.archive import LocalArchive
from bittern.service.models.fitting import FEW_ROWS, FIT_ROWS, fitted_model
from bittern.service.models.model import Embedder, Model
from bittern.service.sources.base import Entry

PROGRESS_ITEMS = 16
"""Items between two calls of `on_progress` before a hasher is fitted."""


@dataclass(frozen=True)
class JobControl:
    """How a job runs, and how its caller monitors and stops it.

    Attributes:
        on_progress: called after every commit, and about once a second.
        cancelled: whether to stop after a last commit.
        report: updated; a new one by default.
        fetch: address prefixes that may be fetched.
        workers: processes of the running Ray cluster that embed; 0 embeds in this process.
        embeddings: made before; media are not read then.
    """

    on_progress: OnProgress = lambda report: None
    cancelled: Cancelled = never
    report: JobReport = field(default_factory=JobReport)
    fetch: tuple[str, ...] = ()
    workers: int = 0
    embeddings: Precomputed | None = None

    def embed(
        self,
        embedder: Embedder,
        entries: Iterable[PipelineEntry],
        saved: SavedModel | None = None,
    ) -> Iterator[Embedded]:
        """Embed every entry, in order, as `embed_items`.

        Args:
            embedder: the network.
            entries: what to embed; iterated lazily.
            saved: the embedder's model; None if a hasher is still to be fitted.
        """
        if self.workers:
            from bittern.service.jobs.ray import embed_on_ray

            return embed_on_ray(embedder, entries, self, saved)
        if self.embeddings is not None:
            return self._read(self.embeddings, embedder, entries)
        stages = self.report.stages
        return embed_items(embedder, entries, stages, cancelled=self.cancelled, fetch=self.fetch)

    def _read(
        self, embeddings: Precomputed, embedder: Embedder, entries: Iterable[PipelineEntry]
    ) -> Iterator[Embedded]:
        """The same with embeddings that were made before."""
        for embedded in embeddings.embedded(embedder, entries):
            if self.cancelled():
                return
            self.report.stages["list"].add(1)
            yield embedded
        if sentence := embeddings.unlisted():
            self.report.warnings.append(sentence)

    def store(self, stream: Iterator[Embedded], commit: Commit, options: IndexOptions) -> None:
        """Commit all embedded items, as `store_all`."""
        policy = CommitPolicy(options.commit_items, options.commit_s)
        store_all(stream, commit, self.report, policy=policy, on_progress=self.on_progress)

    def finish(self) -> JobReport:
        """The report of a job that has ended, or was stopped."""
        report = self.report
        report.listed = report.stages["list"].items
        all_done = report.total is not None and report.done >= report.total
        report.state = "stopped" if self.cancelled() and not all_done else "done"
        report.complete = report.state == "done"
        self.on_progress(report)
        return report


def index_source(
    local: LocalArchive,
    entries: Iterable[Entry],
    options: IndexOptions,
    control: JobControl | None = None,
) -> JobReport:
    """Code every entry into the archive; failed items are reported.

    Args:
        local: an archive open for writing.
        entries: from `bittern.service.sources.read_source`; iterated more than once, lazily.
        options: model and commits.
        control: progress and cancellation.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        WeightsMissingError: the model's weights are not on this machine.
        DigestMismatchError: they are not those that the model was made with.
    """
    control = control or JobControl()
    report, before = control.report, local.archive.model_records()
    model = chosen_model(local, options, entries)
    if model is not None:
        commits = _commits(local, model, options, report)
        wanted = commits.without_stored(reject_unusable(model, entries))
        stream = control.embed(model.embedder, wanted, model.saved)
    else:
        options = with_encoder(options)
        embedder = local.registry.embedders.named(options.model)
        embedder.encoder()  # missing weights are an error before anything is decoded
        saved, stream = fit_on_first(control.embed(embedder, entries), embedder, options, control)
        if saved is None:
            return control.finish()
        model = local.registry.register(saved)
        commits = _commits(local, model, options, report)
    report.warnings += _second_model_warning(model, before)
    report.model, report.digest = model.card.name, model.digest
    control.store(stream, commits.commit, options)
    return control.finish()


def _commits(
    local: LocalArchive, model: Model, options: IndexOptions, report: JobReport
) -> ArchiveCommits:
    return ArchiveCommits(
        local.archive,
        model,
        options.on_duplicate,
        options.keep_embeddings,
        report.stages,
        renew=True,
    )


def _second_model_warning(model: Model, before: Sequence[ModelRecord]) -> list[str]:
    """Warns if another model has coded the archive before."""
    kinds = {str(m) for m in model.modalities} & {"image", "audio"}
    others = [r for r in before if r.state == "ready" and kinds & set(r.modalities)]
    if not others or model.digest in {record.digest for record in before}:
        return []
    name = model.card.name
    return [
        f"{name} is new to this archive, which {others[0].name} has coded before, and a search "
        f"uses one model: name it (--model {name}) to find what it codes, or code all media with "
        f"it: bittern reencode ARCHIVE --model {name}"
    ]


def fit_on_first(
    stream: Iterator[Embedded], embedder: Embedder, options: IndexOptions, control: JobControl
) -> tuple[SavedModel | None, Iterator[Embedded]]:
    """Fit a hasher on the first `FIT_ROWS` rows of a stream.

    Returns:
        The model and the whole stream, with the first rows. None and an empty stream if the job was
        cancelled, or if nothing could be embedded; the report counts the failures.
    """
    first: list[Embedded] = []
    rows = 0
    for embedded in stream:
        first.append(embedded)
        rows += len(embedded.embeddings)
        if rows >= FIT_ROWS:
            break
        if len(first) % PROGRESS_ITEMS == 0:
            control.report.listed = control.report.stages["list"].items
            control.on_progress(control.report)
    if control.cancelled():
        close_stream(stream)
        return None, iter(())
    by_modality: dict[str, list[NDArray[np.float32]]] = {}
    for embedded in first:
        if embedded.item is not None and embedded.result is None:
            by_modality.setdefault(embedded.item.modality, []).extend(embedded.embeddings)
    if not by_modality:
        control.report.count([e.result for e in first if e.result is not None])
        return None, iter(())
    saved = fitted_model(
        embedder.encoder(),
        options.wanted_bits,
        {modality: np.stack(rows) for modality, rows in by_modality.items()},
        options.hasher,
    )
    if rows < FEW_ROWS:
        control.report.warnings.append(
            f"the hasher was fitted on {rows} observations and will not change; for better codes, "
            f"index {FEW_ROWS} or more at once into a new archive"
        )
    return saved, _chained(first, stream)


def _chained(first: list[Embedded], rest: Iterator[Embedded]) -> Iterator[Embedded]:
    """The first items, freed one by one, and the rest."""
    try:
        first.reverse()
        while first:
            yield first.pop()
        yield from rest
    finally:
        close_stream(rest)
