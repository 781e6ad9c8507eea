"""Indexing a source into an archive: settle on a model, embed, commit batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bittern.hashing.saved import SavedModel
from bittern.index.models import ModelRecord
from bittern.service.engine import Engine
from bittern.service.ingest.commit import (
    ArchiveCommits,
    CommitPolicy,
    reject_unsupported,
    store_all,
)
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Embedded, Entry, PipelineEntry
from bittern.service.ingest.report import Cancelled, JobReport, OnProgress, Stages, never
from bittern.service.jobs.model_choice import (
    DEFAULT_ENCODER,
    IndexOptions,
    chosen_model,
    encoders_behind,
    load_first,
    ready_model,
)
from bittern.service.models.fitting import FEW_ROWS, FIT_ROWS, fitted_model
from bittern.service.models.loaded import Embedder, Model

__all__ = [
    "DEFAULT_ENCODER",
    "IndexOptions",
    "Watch",
    "chosen_model",
    "encoders_behind",
    "enough_to_fit",
    "fitted_on_sample",
    "index_source",
    "load_first",
    "ready_model",
    "warnings_of",
]

TELL_EVERY = 16
"""Items embedded between two notices, while a hasher is still to be fitted."""


@dataclass(frozen=True)
class Watch:
    """Who looks on while a source is coded, and may stop it.

    Attributes:
        on_progress: called after every commit, and now and then between.
        cancelled: whether to end now, with what is coded committed.
        report: is counted up; a new one by default.
    """

    on_progress: OnProgress = lambda report: None
    cancelled: Cancelled = never
    report: JobReport = field(default_factory=JobReport)

    def told(self, stream: Iterable[Embedded]) -> Iterator[Embedded]:
        """The stream, with notices while nothing can be committed yet."""
        for number, embedded in enumerate(stream, 1):
            yield embedded
            if number % TELL_EVERY == 0:
                self.report.listed = self.report.stages["list"].items
                self.on_progress(self.report)

    def finish(self) -> JobReport:
        """The report of a job that is through, or was stopped."""
        report = self.report
        report.listed = report.stages["list"].items
        report.state = "stopped" if self.cancelled() and not _all_done(report) else "done"
        if report.state == "done":
            report.total = report.done
        self.on_progress(report)
        return report


def _all_done(report: JobReport) -> bool:
    return report.total is not None and report.done >= report.total


class Embedding(Protocol):
    """What embeds entries: this process, or others."""

    def __call__(
        self,
        embedder: Embedder,
        entries: Iterable[PipelineEntry],
        stages: Stages,
        *,
        saved: SavedModel | None,
        cancelled: Cancelled,
        fetch: tuple[str, ...],
    ) -> Iterator[Embedded]:
        """As `service.ingest.embed_items`; `saved` is None where a hasher is to be fitted."""
        ...


def embed_here(
    embedder: Embedder,
    entries: Iterable[PipelineEntry],
    stages: Stages,
    *,
    saved: SavedModel | None,
    cancelled: Cancelled,
    fetch: tuple[str, ...],
) -> Iterator[Embedded]:
    """Embed in this process."""
    return embed_items(embedder, entries, stages, cancelled=cancelled, fetch=fetch)


def close(stream: object) -> None:
    """End an iterator that nobody goes on with, if it can be ended."""
    end: Callable[[], None] | None = getattr(stream, "close", None)
    if end is not None:
        end()


def index_source(
    engine: Engine,
    entries: Iterable[Entry],
    options: IndexOptions,
    watch: Watch | None = None,
    *,
    fetch: tuple[str, ...] = (),
    embed: Embedding | None = None,
) -> JobReport:
    """Index every entry; one bad item never stops the rest.

    Args:
        engine: an archive open for writing.
        entries: what `service.sources.read_source` listed; gone through more than once, lazily.
        options: how.
        watch: who looks on.
        fetch: beginnings of addresses that may be fetched.
        embed: what embeds; this process by default.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        WeightsMissingError: the model's weights are not on this machine.
        DigestMismatchError: they are not those that the model was made with.
    """
    watch, embed = watch or Watch(), embed or embed_here
    report = watch.report
    before = engine.archive.models()
    model = chosen_model(engine, options, entries)
    if model is not None:
        report.warnings += _alone(model, before)
    stream: Iterator[Embedded]
    if model is not None:
        commits = _commits_to(engine, model, options, report)
        taken = commits.without_stored(reject_unsupported(model, entries))
        stream = embed(
            model.embedder,
            taken,
            report.stages,
            saved=model.saved,
            cancelled=watch.cancelled,
            fetch=fetch,
        )
    else:
        options = options.named()
        embedder = engine.embedders.named(options.model)
        embedder.encoder()  # weights that are missing are told before anything is decoded
        stream = embed(
            embedder, entries, report.stages, saved=None, cancelled=watch.cancelled, fetch=fetch
        )
        first = enough_to_fit(watch.told(stream))
        if watch.cancelled():
            close(stream)
            return watch.finish()
        saved = fitted_on_sample(embedder, first, options)
        if saved is None:
            report.count([e.result for e in first if e.result is not None])
            return watch.finish()
        report.warnings += warnings_of(first)
        model = engine.register(saved)
        report.warnings += _alone(model, before)
        commits = _commits_to(engine, model, options, report)
        stream = chained(first, stream)
    report.model, report.digest = model.card.name, model.digest
    pace = CommitPolicy(options.commit_items, options.commit_s)
    store_all(stream, commits.commit, report, policy=pace, on_progress=watch.on_progress)
    return watch.finish()


def _commits_to(
    engine: Engine, model: Model, options: IndexOptions, report: JobReport
) -> ArchiveCommits:
    return ArchiveCommits(
        engine.archive,
        model,
        options.on_duplicate,
        options.keep_embeddings,
        report.stages,
        renew=True,
    )


def _alone(model: Model, before: Sequence[ModelRecord]) -> list[str]:
    """What should be said of a model that is new to an archive which others have coded."""
    kinds = {str(m) for m in model.modalities} & {"image", "audio"}
    others = [r for r in before if r.state == "ready" and kinds & set(r.modalities)]
    if not others or model.digest in {record.digest for record in before}:
        return []
    return [
        f"{model.card.name} is new to this archive, which {others[0].name} has coded before, and a "
        f"search asks one model: name it (--model {model.card.name}) to find what it codes, or "
        f"have all coded by it: bittern reencode ARCHIVE --model {model.card.name}"
    ]


def chained(first: list[Embedded], rest: Iterator[Embedded]) -> Iterator[Embedded]:
    """What was embedded already, let go of as it is taken, and the rest."""
    try:
        first.reverse()
        while first:
            yield first.pop()
        yield from rest
    finally:
        close(rest)


def enough_to_fit(stream: Iterable[Embedded]) -> list[Embedded]:
    """The first entries of the stream, up to `FIT_ROWS` rows."""
    taken: list[Embedded] = []
    rows = 0
    for embedded in stream:
        taken.append(embedded)
        rows += len(embedded.embeddings)
        if rows >= FIT_ROWS:
            break
    return taken


def warnings_of(sample: Sequence[Embedded]) -> list[str]:
    """What should be said of a hasher that was fitted on this sample."""
    rows = sum(len(e.embeddings) for e in sample)
    if rows >= FEW_ROWS:
        return []
    return [
        f"the hasher was fitted on {rows} observations and stays as it is; for better codes, index "
        f"{FEW_ROWS} or more at once into a new archive"
    ]


def fitted_on_sample(
    embedder: Embedder, sample: Sequence[Embedded], options: IndexOptions
) -> SavedModel | None:
    """A model fitted on what was embedded so far; None if nothing could be."""
    by_modality: dict[str, list[NDArray[np.float32]]] = {}
    for embedded in sample:
        if embedded.item is not None and embedded.result is None:
            by_modality.setdefault(embedded.item.modality, []).extend(embedded.embeddings)
    if not by_modality:
        return None
    return fitted_model(
        embedder.encoder(),
        options.wanted_bits,
        {modality: np.stack(rows) for modality, rows in by_modality.items()},
        options.hasher,
    )
