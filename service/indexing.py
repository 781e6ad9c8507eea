"""Indexing a source into an archive: settle on a model, embed, commit batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from hashing.saved import SavedModel
from index.observation import AddResult, AddStatus
from service.committing import Commits, batched, check_towers, without_untaken
from service.engine import Engine
from service.fitting import FEW_ROWS, FIT_ROWS, fitted_model
from service.model_choice import (
    DEFAULT_ENCODER,
    IndexOptions,
    encoders_behind,
    load_first,
    ready_model,
    settled_model,
)
from service.models import Embedder, Model
from service.pipeline import Embedded, Entry, StageTimes, embed_items

__all__ = [
    "DEFAULT_ENCODER",
    "IndexOptions",
    "IndexReport",
    "Progress",
    "encoders_behind",
    "enough_to_fit",
    "fitted_on_sample",
    "index_source",
    "load_first",
    "ready_model",
    "settled_model",
    "warnings_of",
]

Progress = Callable[[list[AddResult]], None]


@dataclass
class IndexReport:
    """What became of a source.

    Attributes:
        model: name of the model that coded it; empty if nothing could be coded.
        items: items by status.
        observations: rows that were stored.
        failures: each item that failed, with its reason.
        warnings: what went well now and may be regretted later.
        seconds: wall time.
        times: where it went.
    """

    model: str = ""
    items: dict[str, int] = field(default_factory=lambda: dict.fromkeys(AddStatus, 0))
    observations: int = 0
    failures: list[AddResult] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    times: StageTimes = field(default_factory=StageTimes)

    def count(self, results: list[AddResult]) -> None:
        """Add the results of one commit."""
        for result in results:
            self.items[result.status] += 1
            self.observations += result.observations
            if result.status == AddStatus.FAILED:
                self.failures.append(result)


def index_source(
    engine: Engine,
    entries: list[Entry],
    options: IndexOptions,
    on_commit: Progress = lambda results: None,
) -> IndexReport:
    """Index every entry; one bad item never stops the rest.

    Args:
        engine: an archive open for writing.
        entries: what `service.sources.read_source` listed.
        options: how.
        on_commit: called with the results of every commit, after it.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        WeightsMissingError: the model's weights are not on this machine.
    """
    begun = perf_counter()
    report = IndexReport()
    model = settled_model(engine, options, entries)
    for results in _commits(engine, entries, options, model, report):
        report.count(results)
        on_commit(results)
    report.seconds = perf_counter() - begun
    return report


def _commits(
    engine: Engine,
    entries: list[Entry],
    options: IndexOptions,
    model: Model | None,
    report: IndexReport,
) -> Iterator[list[AddResult]]:
    embedder = model.embedder if model else engine.embedders.named(options.model)
    if model:
        check_towers(model, entries)
        entries = list(without_untaken(model, entries))
        entries = list(_commits_to(engine, model, options, report).without_coded(entries))
    stream = embed_items(embedder, entries, report.times)
    fitted_on: list[Embedded] = []
    if model is None:
        embedder.encoder()  # weights that are missing are told before anything is decoded
        fitted_on = enough_to_fit(stream)
        saved = fitted_on_sample(embedder, fitted_on, options)
        if saved is None:
            yield [e.result for e in fitted_on if e.result is not None]
            return
        model = engine.register(saved)
        report.warnings += warnings_of(fitted_on)
    report.model = model.card.name
    commits = _commits_to(engine, model, options, report)
    for embedded in (fitted_on, stream):
        for batch in batched(embedded, options.commit_items):
            yield commits.commit(batch)


def _commits_to(
    engine: Engine, model: Model, options: IndexOptions, report: IndexReport
) -> Commits:
    return Commits(
        engine.archive, model, options.on_duplicate, options.keep_embeddings, report.times
    )


def enough_to_fit(stream: Iterator[Embedded]) -> list[Embedded]:
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
