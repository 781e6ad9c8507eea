"""Chooses the model of a job: of the archive, shipped, saved, or fitted on the media."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from bittern.encoders.base import Modality
from bittern.encoders.catalogue import CATALOGUE
from bittern.errors import (
    BitternError,
    InvalidInputError,
    ModelNotFoundError,
    PreconditionError,
    UnsupportedModalityError,
)
from bittern.hashing.codes import check_bits
from bittern.hashing.saved_model import CARD_FILE, ModelCard, SavedModel
from bittern.index.models import ModelRecord
from bittern.service.ingest.commit import check_towers
from bittern.service.jobs.description import IndexOptions
from bittern.service.local.archive import LocalArchive
from bittern.service.models.fitting import calibrated_model, model_name, shipped_model
from bittern.service.models.model import Embedder, Embedders, Model, catalogue_encoder
from bittern.service.models.saved import (
    encoder_names,
    load_saved,
    model_folder,
    model_folders,
    unfinished_training,
)
from bittern.service.sources.base import Entry
from bittern.types import MediaItem

DEFAULT_ENCODER = "field"
Options = TypeVar("Options", bound=IndexOptions)
PEEKED = 1_000
"""Entries of a source that are checked before the work begins."""


def fitted_name(options: IndexOptions) -> str:
    """Name of a model that is fitted with these options."""
    return model_name(options.model or DEFAULT_ENCODER, options.wanted_bits, options.hasher)


def with_encoder(options: Options) -> Options:
    """The options with `DEFAULT_ENCODER` where no model is named."""
    return options if options.model else replace(options, model=DEFAULT_ENCODER)


def check_agrees(options: IndexOptions, card: ModelCard) -> None:
    """Check that an existing model has the wanted bits and hasher.

    Raises:
        InvalidInputError: it has not.
    """
    kind = card.hasher.get("kind")
    if options.bits not in (None, card.bits) or options.hasher not in (None, kind):
        raise InvalidInputError(
            f"model '{card.name}' has {card.bits} bits and the hasher {kind}; name an encoder "
            "to fit another one",
            field="bits",
        )


def chosen_model(
    local: LocalArchive, options: IndexOptions, entries: Iterable[Entry] = ()
) -> Model | None:
    """The archive's model for a job; None if it must be fitted on the media first.

    Args:
        local: an archive open for writing.
        options: which model.
        entries: a new model must be able to code some of them.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        PreconditionError: the model has been replaced.
        as `check_usable`.
    """
    records = local.archive.model_records()
    unspecified = not options.model and options.bits is None and options.hasher is None
    if records and unspecified:
        return local.registry.load(_own(records, entries))
    options = with_encoder(options)
    for name in (options.model, fitted_name(options)):
        for record in records:
            if name in (record.name, record.digest):
                _check_searched(record, records)
                model = local.registry.load(record)
                check_agrees(options, model.card)
                return model
    saved = ready_model(options, local.registry.embedders.named)
    if saved is None:
        return None
    for record in records:
        if record.digest == saved.card.digest:
            _check_searched(record, records)
    check_usable(Model(saved, local.registry.embedders.of(saved)), entries)
    return local.registry.register(saved)


def _own(records: Sequence[ModelRecord], entries: Iterable[Entry]) -> ModelRecord:
    """The first searched model that takes most modalities of the entries."""
    ready = [record for record in records if record.state == "ready"] or list(records)
    kinds = {e.modality for e in islice(entries, PEEKED) if isinstance(e, MediaItem)}
    best = max(ready, key=lambda record: len(kinds & set(record.modalities)))
    if kinds and not kinds & set(best.modalities):
        have = ", ".join(f"{r.name} ({'+'.join(r.modalities)})" for r in ready)
        raise UnsupportedModalityError(
            f"no model of the archive takes {' or '.join(sorted(kinds))}: its models are {have}; "
            "name one that does with --model, `bittern models` lists them",
            field="model",
        )
    return best


def _check_searched(record: ModelRecord, records: Sequence[ModelRecord]) -> None:
    """Refuse a replaced model: no search would find what it codes."""
    if record.state != "retired":
        return
    ready = ", ".join(one.name for one in records if one.state == "ready")
    raise PreconditionError(
        f"model '{record.name}' of this archive has been replaced: searches use {ready}, and would "
        "not find what it codes. Omit --model to use the archive's own; to switch back to this "
        f"one, run bittern reencode with --model {record.name}",
        field="model",
    )


def load_first(
    options: IndexOptions, embedders: Embedders, entries: Iterable[Entry] = ()
) -> Embedder:
    """Load the encoder that the options need, before an archive is created.

    Args:
        options: which model.
        embedders: loads it, and is shared with the archive.
        entries: what is to be coded.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        ModelDamagedError: the files of a saved model contradict each other or the encoder.
        WeightsMissingError: its weights are not on this machine.
        InvalidInputError: unusable bits.
        as `check_usable`.
    """
    options = with_encoder(options)
    check_bits(options.wanted_bits)
    if options.model in CATALOGUE:
        embedder = embedders.named(options.model)
        check_modalities(f"encoder '{options.model}'", embedder.encoder().modalities, entries)
        return embedder
    saved = ready_model(options, embedders.named)
    assert saved is not None  # only encoders of the catalogue are fitted on media
    model = Model(saved, embedders.of(saved))
    check_usable(model, entries)
    return model.embedder


def check_usable(model: Model, entries: Iterable[Entry]) -> None:
    """Check that a saved model works on this machine, and can code some of the entries.

    Raises:
        UnsupportedModalityError: it has no tower for any of the entries.
        WeightsMissingError: its encoder's weights are not on this machine.
        DigestMismatchError: it was made with other weights.
    """
    check_modalities(f"model '{model.card.name}'", model.modalities, entries)
    model.embedder.encoder()
    check_towers(model, islice(entries, PEEKED))
    if model.card.assembly:  # its digests are known without computing them
        for modality in sorted(model.modalities):
            model.check_tower(modality)


def check_modalities(who: str, towers: Collection[Modality], entries: Iterable[Entry]) -> None:
    """Check that at least one of the first `PEEKED` entries has a tower.

    Raises:
        UnsupportedModalityError: the source has no other entries, and no tower takes them.
    """
    known, found = {str(tower) for tower in towers}, set()
    for number, entry in enumerate(entries):
        if isinstance(entry, MediaItem):
            found.add(entry.modality)
        if found & known or number >= PEEKED:
            return
    if found:
        raise UnsupportedModalityError(
            f"{who} takes {', '.join(sorted(towers))}, but the source holds only "
            f"{' and '.join(sorted(found))}; name a model that takes it (`bittern models` lists "
            "models)",
            field="model",
        )


def ready_model(options: IndexOptions, embedder: Callable[[str], Embedder]) -> SavedModel | None:
    """The shipped, calibrated or saved model of this name; None if it must be fitted on media.

    Names of shipped models and of the catalogue come first; other names are the path of a saved
    model's folder, or its name in one of `bittern.service.models.saved.model_folders`.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        ModelDamagedError: the files of a saved model contradict each other.
    """
    options = with_encoder(options)
    for name in (options.model, fitted_name(options)):
        shipped = shipped_model(name)
        if shipped is not None:
            check_agrees(options, shipped.card)
            return shipped
    if options.model == DEFAULT_ENCODER:
        encoder = embedder(options.model).encoder()
        return calibrated_model(options.wanted_bits, encoder, options.hasher)
    if options.model in CATALOGUE:
        return None
    folder = model_folder(options.model)
    if folder is None:
        begun = unfinished_training(options.model)
        if begun is not None:
            raise ModelNotFoundError(
                f"{begun} holds an unfinished training; run its `bittern train` command "
                "again to continue it",
                field="model",
            )
        known = ", ".join(CATALOGUE)
        folders = ", ".join(map(str, model_folders()))
        raise ModelNotFoundError(
            f"there is no model '{options.model}': no encoder ({known}), no model of the "
            f"archive, no folder with a {CARD_FILE}, and no such folder in {folders}",
            field="model",
        )
    saved = load_saved(folder)
    check_agrees(options, saved.card)
    return saved


def encoders_behind(options: IndexOptions) -> tuple[str, ...]:
    """Catalogue names of the encoders that the options may need; none if unknown."""
    options = with_encoder(options)
    if options.model in CATALOGUE:
        return (options.model,)
    try:
        saved = ready_model(options, Embedders(catalogue_encoder).named)
    except BitternError:
        return ()  # a model of the archive, or an error that the job will raise
    return encoder_names(saved.card.encoder) if saved else ()
