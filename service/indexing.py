"""Indexing a source into an archive: settle on a model, embed, commit batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError, ModelNotFoundError
from encoders.base import Encoder
from encoders.catalogue import CATALOGUE
from hashing.codes import check_bits
from hashing.saved import CARD_FILE, ModelCard, SavedModel
from hashing.training_free import Kind
from index.observation import AddResult, AddStatus, OnDuplicate
from service.committing import COMMIT_ITEMS, Commits, batched, check_towers
from service.engine import Engine, catalogue_encoder
from service.fitting import (
    DEFAULT_BITS,
    FEW_ROWS,
    FIT_ROWS,
    calibrated_model,
    fitted_model,
    model_name,
    shipped_model,
)
from service.models import Embedder, Model
from service.pipeline import Embedded, Entry, StageTimes, embed_items

DEFAULT_ENCODER = "field"
Progress = Callable[[list[AddResult]], None]


@dataclass(frozen=True)
class IndexOptions:
    """How a source is indexed.

    Attributes:
        model: an encoder of the catalogue, a model of the archive, or a folder with a saved one.
        bits: code length, where a hasher is made; None for 256.
        hasher: kind of hasher, where one is made; None for the encoder's default.
        on_duplicate: what to do with items that the archive has already.
        keep_embeddings: store float16 embeddings beside the codes.
        commit_items: items per atomic commit.
    """

    model: str = DEFAULT_ENCODER
    bits: int | None = None
    hasher: Kind | None = None
    on_duplicate: OnDuplicate = "skip"
    keep_embeddings: bool = False
    commit_items: int = COMMIT_ITEMS

    @property
    def wanted_bits(self) -> int:
        """Code length of a hasher that is made now."""
        return DEFAULT_BITS if self.bits is None else self.bits

    @property
    def model_name(self) -> str:
        """Name of the model that an encoder of this name gets."""
        return model_name(self.model, self.wanted_bits, self.hasher)

    def agreeing(self, card: ModelCard) -> None:
        """Check that a model that was made before is what the options ask for.

        Raises:
            InvalidInputError: they ask for other bits, or another hasher, than it has.
        """
        kind = card.hasher.get("kind")
        if self.bits not in (None, card.bits) or self.hasher not in (None, kind):
            raise InvalidInputError(
                f"model '{card.name}' has {card.bits} bits and the hasher {kind}; name an encoder "
                "to have another made",
                field="bits",
            )


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
    model = settled_model(engine, options)
    for results in _commits(engine, entries, options, model, report):
        report.count(results)
        on_commit(results)
    report.seconds = perf_counter() - begun
    return report


def settled_model(engine: Engine, options: IndexOptions) -> Model | None:
    """The model that the options ask for; None if it is still to be fitted on the media.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
    """
    known = {name for r in engine.archive.models() for name in (r.name, r.digest)}
    for name in (options.model, options.model_name):
        if name in known:
            model = engine.model(name)
            options.agreeing(model.card)
            return model
    saved = ready_model(options, engine.embedder)
    return engine.register(saved) if saved else None


def load_first(options: IndexOptions) -> Encoder:
    """Load the encoder that the options need, before an archive is made for them.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        WeightsMissingError: its weights are not on this machine.
        InvalidInputError: unusable bits or hasher.
    """
    check_bits(options.wanted_bits)
    if options.hasher not in (None, *get_args(Kind)):
        raise InvalidInputError(
            f"there is no hasher '{options.hasher}'; there are {', '.join(get_args(Kind))}",
            field="hasher",
        )
    if options.model in CATALOGUE:
        return catalogue_encoder(options.model)
    saved = ready_model(options, lambda name: Embedder(name, catalogue_encoder))
    assert saved is not None  # only encoders of the catalogue are fitted on media
    return catalogue_encoder(saved.card.encoder)


def ready_model(options: IndexOptions, embedder: Callable[[str], Embedder]) -> SavedModel | None:
    """The saved, shipped or calibrated model of this name; None if it needs media to be fitted.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
    """
    if (Path(options.model) / CARD_FILE).is_file():
        saved = SavedModel.load(Path(options.model))
        options.agreeing(saved.card)
        return saved
    for name in (options.model, options.model_name):
        shipped = shipped_model(name)
        if shipped is not None:
            options.agreeing(shipped.card)
            return shipped
    if options.model not in CATALOGUE:
        known = ", ".join(CATALOGUE)
        raise ModelNotFoundError(
            f"there is no model '{options.model}': it is no encoder ({known}), no model of the "
            f"archive, and no folder with a {CARD_FILE}",
            field="model",
        )
    if options.model == DEFAULT_ENCODER:
        encoder = embedder(options.model).encoder()
        return calibrated_model(options.wanted_bits, encoder, options.hasher)
    return None


def _commits(
    engine: Engine,
    entries: list[Entry],
    options: IndexOptions,
    model: Model | None,
    report: IndexReport,
) -> Iterator[list[AddResult]]:
    embedder = engine.embedder(model.card.encoder if model else options.model)
    if model:
        check_towers(model, entries)
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
