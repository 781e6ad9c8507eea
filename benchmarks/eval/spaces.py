"""What `--model` names: embedding spaces, and the saved models whose codes live in them.

An encoder of the catalogue is a space of its own: float vectors and training-free codes are
compared in it. A saved model brings the space of its towers, adapters included; models that
share their towers share the space, and are compared in it side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bittern.encoders.base import Modality
from bittern.errors import BitternError
from bittern.hashing.saved_model import SavedModel
from bittern.service.jobs.description import IndexOptions
from bittern.service.jobs.model_choice import DEFAULT_ENCODER, ready_model
from bittern.service.models.model import Embedders, Model, catalogue_encoder
from bittern.service.models.saved import encoder_names, encoders

WORDS, MINILM = "words", "minilm"


@dataclass(frozen=True)
class Space:
    """One embedding space.

    Attributes:
        name: as the results call it.
        towers: what embeds: an `Embedder` of `bittern.service.models.model`, or a suite's own.
        licence: of the weights.
        saved: models whose codes are compared in it.
    """

    name: str
    towers: Any
    licence: str = ""
    saved: tuple[SavedModel, ...] = ()

    @property
    def modalities(self) -> frozenset[str]:
        """Modalities of the towers; loads the encoder."""
        return frozenset(str(m) for m in self.towers.encoder().modalities)

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each tower."""
        return {m: self.towers.digest(Modality(m)) for m in sorted(self.modalities)}


def spaces_for(suite: str, names: Sequence[str], bits: Sequence[int]) -> list[Space]:
    """The spaces that a suite is run in: those of the models named, else the suite's own.

    `words` has an encoder of its own, ``minilm``; all others take ``field`` if nothing is named.

    Raises:
        ModelNotFoundError, ModelDamagedError, WeightsMissingError, DigestMismatchError: a model
            cannot be used here.
    """
    named = list(names) or [MINILM if suite == WORDS else DEFAULT_ENCODER]
    found = spaces([name for name in named if (suite, name) != (WORDS, MINILM)], bits)
    if suite == WORDS and MINILM in named:
        from bittern.benchmarks.eval.suites.words import MiniLMTower

        found.insert(0, Space(MINILM, MiniLMTower(), "Apache-2.0"))
    return _uniquely_named(found)


def _uniquely_named(found: Sequence[Space]) -> list[Space]:
    """The same, with names of their own: those of one name get the digest of their towers."""
    names = [space.name for space in found]
    return [
        replace(space, name=f"{space.name} {_short(space)}")
        if names.count(space.name) > 1
        else space
        for space in found
    ]


def _short(space: Space) -> str:
    text = " ".join(f"{name} {digest}" for name, digest in space.digests.items())
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def spaces(names: Sequence[str], bits: Sequence[int]) -> list[Space]:
    """The spaces of some models, each once, with the models that are ready at these lengths.

    Args:
        names: encoders of the catalogue, folders of saved models or their names.
        bits: code lengths; of an encoder's own ready-made models, those of these lengths are taken.

    Raises:
        ModelNotFoundError, ModelDamagedError, WeightsMissingError, DigestMismatchError: a model
            cannot be used here.
    """
    embedders = Embedders(catalogue_encoder)
    found: dict[int, Space] = {}
    for name in names:
        for space in _spaces_of(name, bits, embedders):
            key = id(space.towers)
            known = found.get(key)
            found[key] = space if known is None else _joined(known, space)
    return list(found.values())


def _spaces_of(name: str, bits: Sequence[int], embedders: Embedders) -> list[Space]:
    catalogue = {info.name: info for info in encoders()}
    if name in catalogue:
        towers = embedders.named(name)
        towers.encoder()
        options = [IndexOptions(model=name, bits=length) for length in bits]
        ready = [ready_model(each, embedders.named) for each in options]
        models = tuple(model for model in ready if model is not None)
        return [Space(name, towers, catalogue[name].licence, models)]
    saved = ready_model(IndexOptions(model=name), embedders.named)
    assert saved is not None, "only encoders of the catalogue have to be fitted"
    towers = embedders.of(saved)
    model = Model(saved, towers)
    for modality in sorted(model.modalities):
        model.check_tower(modality)
    plain = not saved.card.assembly
    own = saved.card.encoder if plain else saved.card.name
    return [Space(own, towers, saved.card.licence, (saved,))]


def _joined(one: Space, other: Space) -> Space:
    known = {model.card.digest for model in one.saved}
    more = tuple(model for model in other.saved if model.card.digest not in known)
    return replace(one, saved=(*one.saved, *more))


def licences_of(names: Sequence[str]) -> list[str]:
    """Encoders behind some models, whose licences are to be shown before their first use."""
    from bittern.service.jobs.model_choice import encoders_behind

    found: list[str] = []
    for name in names:
        try:
            found += encoders_behind(IndexOptions(model=name))
        except BitternError:
            continue  # refused with the reason when it is loaded
    return list(dict.fromkeys(name for names in found for name in encoder_names(names)))
