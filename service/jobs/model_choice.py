"""Choosing the model of a job: the archive's, a shipped or saved one, or one still to be fitted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import get_args

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
from bittern.hashing.saved import CARD_FILE, ModelCard, SavedModel
from bittern.hashing.training_free import Kind
from bittern.index.models import ModelRecord
from bittern.service.engine import Engine
from bittern.service.ingest.commit import COMMIT_ITEMS, COMMIT_S, check_towers
from bittern.service.ingest.items import Entry
from bittern.service.models.fitting import DEFAULT_BITS, calibrated_model, model_name, shipped_model
from bittern.service.models.loaded import Embedder, Embedders, Model
from bittern.service.models.saved import (
    encoder_names,
    load_saved,
    model_folder,
    model_folders,
    unfinished_training,
)
from bittern.types import MediaItem, OnDuplicate

DEFAULT_ENCODER = "field"
PEEKED = 1_000
"""Entries of a source that are looked at before the work begins."""


@dataclass(frozen=True)
class IndexOptions:
    """How a source is indexed.

    Attributes:
        model: a model of the archive, an encoder of the catalogue, a shipped model, the folder
            of a saved one, or that folder's name in `./models` or `$BITTERN_MODELS`; the first
            of these that there is. Empty for the archive's own: the first that is searched and
            takes the source's media. Where there is none yet, or `bits` or `hasher` are asked
            for, empty means `DEFAULT_ENCODER`.
        bits: code length, where a hasher is made; None for 256.
        hasher: kind of hasher, where one is made; None for the encoder's default.
        on_duplicate: what to do with items that the archive has already.
        keep_embeddings: store float16 embeddings beside the codes.
        commit_items: most items of one atomic commit.
        commit_s: seconds after which what is coded is committed, however little that is.
    """

    model: str = ""
    bits: int | None = None
    hasher: Kind | None = None
    on_duplicate: OnDuplicate = "skip"
    keep_embeddings: bool = False
    commit_items: int = COMMIT_ITEMS
    commit_s: float = COMMIT_S

    @property
    def wanted_bits(self) -> int:
        """Code length of a hasher that is made now."""
        return DEFAULT_BITS if self.bits is None else self.bits

    @property
    def model_name(self) -> str:
        """Name of the model that an encoder of this name gets."""
        return model_name(self.model or DEFAULT_ENCODER, self.wanted_bits, self.hasher)

    @property
    def leave_it(self) -> bool:
        """Whether nothing is said of the model, so that an archive's own is meant."""
        return not self.model and self.bits is None and self.hasher is None

    def named(self) -> IndexOptions:
        """These options with a model named: `DEFAULT_ENCODER` where nobody chose one."""
        return self if self.model else replace(self, model=DEFAULT_ENCODER)

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


def chosen_model(
    engine: Engine, options: IndexOptions, entries: Iterable[Entry] = ()
) -> Model | None:
    """The model that the options ask for; None if it is still to be fitted on the media.

    Args:
        engine: an archive open for writing.
        options: which model.
        entries: a model that is new to the archive must be able to code some of them.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        PreconditionError: a model that another has replaced.
        as `check_usable`.
    """
    records = engine.archive.models()
    if records and options.leave_it:
        return engine.loaded(_own(records, entries))
    options = options.named()
    for name in (options.model, options.model_name):
        for record in records:
            if name in (record.name, record.digest):
                _check_searched(record, records)
                model = engine.loaded(record)
                options.agreeing(model.card)
                return model
    saved = ready_model(options, engine.embedders.named)
    if saved is None:
        return None
    for record in records:
        if record.digest == saved.card.digest:
            _check_searched(record, records)
    check_usable(Model(saved, engine.embedders.of(saved)), entries)
    return engine.register(saved)


def _own(records: Sequence[ModelRecord], entries: Iterable[Entry]) -> ModelRecord:
    """The first model of an archive that is searched and takes most kinds of the entries."""
    ready = [record for record in records if record.state == "ready"] or list(records)
    found = {e.modality for e in islice(entries, PEEKED) if isinstance(e, MediaItem)}
    best = max(ready, key=lambda record: len(found & set(record.modalities)))
    if found and not found & set(best.modalities):
        have = ", ".join(f"{r.name} ({'+'.join(r.modalities)})" for r in ready)
        raise UnsupportedModalityError(
            f"no model of the archive takes {' or '.join(sorted(found))}: its models are {have}; "
            "name one that does with --model, `bittern models` lists them",
            field="model",
        )
    return best


def _check_searched(record: ModelRecord, records: Sequence[ModelRecord]) -> None:
    """Refuse a model that another has replaced: no search would find what it codes."""
    if record.state != "retired":
        return
    ready = ", ".join(one.name for one in records if one.state == "ready")
    raise PreconditionError(
        f"model '{record.name}' of this archive has been replaced: searches ask {ready}, and would "
        "not find what it codes. Name no model, then the archive's own is used; to make it the "
        f"first again, run bittern reencode with --model {record.name}",
        field="model",
    )


def load_first(
    options: IndexOptions, embedders: Embedders, entries: Iterable[Entry] = ()
) -> Embedder:
    """Load the encoder that the options need, before an archive is made for them.

    Args:
        options: which model.
        embedders: where it is loaded, for the engine to find it there.
        entries: what is to be coded.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        ModelDamagedError: a saved model whose parts do not fit each other or the encoder.
        WeightsMissingError: its weights are not on this machine.
        InvalidInputError: unusable bits or hasher.
        as `check_usable`.
    """
    options = options.named()
    check_bits(options.wanted_bits)
    if options.hasher not in (None, *get_args(Kind)):
        raise InvalidInputError(
            f"there is no hasher '{options.hasher}'; there are {', '.join(get_args(Kind))}",
            field="hasher",
        )
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
    """Check that a saved model works on this machine, and can code what it is to code.

    Raises:
        UnsupportedModalityError: it has no tower for any of the entries.
        WeightsMissingError: the weights behind it are not on this machine.
        DigestMismatchError: they are not those that it was made with.
    """
    check_modalities(f"model '{model.card.name}'", model.modalities, entries)
    model.embedder.encoder()
    check_towers(model, islice(entries, PEEKED))
    if model.card.assembly:  # its digests are known as soon as it is loaded
        for modality in sorted(model.modalities):
            model.check_tower(modality)


def check_modalities(who: str, towers: Collection[Modality], entries: Iterable[Entry]) -> None:
    """Check that not all of the entries are of modalities that there is no tower for.

    Of a large source the beginning is looked at; it is refused only if that is all of it.

    Raises:
        UnsupportedModalityError: they are.
    """
    known, found = {str(tower) for tower in towers}, set()
    for number, entry in enumerate(entries):
        if isinstance(entry, MediaItem):
            found.add(entry.modality)
        if found & known or number >= PEEKED:
            return
    if found:
        raise UnsupportedModalityError(
            f"{who} takes {', '.join(sorted(towers))}, but the source holds nothing but "
            f"{' and '.join(sorted(found))}; name a model that takes it, `bittern models` lists "
            "them",
            field="model",
        )


def ready_model(options: IndexOptions, embedder: Callable[[str], Embedder]) -> SavedModel | None:
    """The shipped, calibrated or saved model of this name; None if it needs media to be fitted.

    Names of shipped models and of the catalogue come first; anything else is the path of a
    saved model's folder, or its name in one of `bittern.service.models.saved.model_folders`.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        ModelDamagedError: a saved model whose parts do not fit each other.
    """
    options = options.named()
    for name in (options.model, options.model_name):
        shipped = shipped_model(name)
        if shipped is not None:
            options.agreeing(shipped.card)
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
                f"{begun} holds a training that is not finished; run its `bittern train` command "
                "again, it goes on from there",
                field="model",
            )
        known = ", ".join(CATALOGUE)
        folders = ", ".join(map(str, model_folders()))
        raise ModelNotFoundError(
            f"there is no model '{options.model}': it is no encoder ({known}), no model of the "
            f"archive, no folder with a {CARD_FILE}, and no such folder in {folders}",
            field="model",
        )
    saved = load_saved(folder)
    options.agreeing(saved.card)
    return saved


def encoders_behind(options: IndexOptions) -> tuple[str, ...]:
    """Catalogue names of the encoders that the options may need; none if that is unknown."""
    options = options.named()
    if options.model in CATALOGUE:
        return (options.model,)
    try:
        saved = ready_model(options, _none_loaded)
    except BitternError:
        return ()  # a model of the archive, or one that will be refused with the reason
    return encoder_names(saved.card.encoder) if saved else ()


def _none_loaded(name: str) -> Embedder:
    raise AssertionError(f"{name} is loaded for catalogue names only")
