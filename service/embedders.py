"""Encoders at work, each loaded once: those of the catalogue, and those that models bring along."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.assembly import assemble
from bittern.encoders.base import AudioWindowing, Encoder, Media, Modality
from bittern.encoders.plans import Plans, plans_from_json
from bittern.errors import ModelDamagedError, ModelNotFoundError
from bittern.hashing.saved import ModelCard, SavedModel, model_digest
from bittern.service.catalogue import encoder_names
from bittern.service.models import Embedder, EncoderLoader


class Embedders:
    """Embedders by what decides them, so that models with the same encoder share one.

    An encoder of the catalogue goes by its name. One that was put together for a model goes by
    its towers and what was trained of them: several hashers over it share it too.
    """

    def __init__(self, load: EncoderLoader) -> None:
        """Begin with nothing loaded.

        Args:
            load: from a catalogue name to an encoder. For towers with adapters it is called
                anew, and must then return a fresh instance.
        """
        self._load = load
        self._known: dict[str, Embedder] = {}
        self._lock = threading.RLock()

    def named(self, encoder: str) -> Embedder:
        """The embedder of an encoder of the catalogue."""
        with self._lock:
            if encoder not in self._known:
                self._known[encoder] = Embedder(encoder, self._load)
            return self._known[encoder]

    def of(self, saved: SavedModel) -> Embedder:
        """The embedder that a model needs; nothing is loaded yet.

        Raises:
            ModelDamagedError: the card contradicts itself.
        """
        card = saved.card
        plans = plans_of(card)
        if not plans:
            return self.named(card.encoder)
        key = "put together: " + model_digest(
            card.encoder, {}, {}, {}, card.assembly, saved.adapters
        )
        with self._lock:
            if key not in self._known:
                self._known[key] = Embedder(
                    card.encoder,
                    lambda name: self._put_together(saved, plans),
                    encoders=encoder_names(card.encoder),
                )
            return self._known[key]

    def _put_together(self, saved: SavedModel, plans: Plans) -> Encoder:
        """Assemble a model's encoder; only encoders that get adapters are loaded anew."""
        changed = {plan.encoder for plan in plans.values() if plan.lora}

        def load(name: str) -> Encoder:
            return self._load(name) if name in changed else _Lent(self.named(name))

        try:
            return assemble(saved.card.name, plans, saved.adapters, load)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(
                f"model '{saved.card.name}' cannot be used here: {error.message}. If a newer "
                "version of Bittern made it, upgrade.",
                field="model",
            ) from error
        except ModelDamagedError as error:
            raise ModelDamagedError(
                f"model '{saved.card.name}' cannot be used: {error.message}. Restore its folder "
                "from a copy, or train it again.",
                field="model",
            ) from error


class _Lent:
    """The encoder of an embedder, which takes turns with whoever else uses it."""

    def __init__(self, embedder: Embedder) -> None:
        encoder = embedder.encoder()
        self._embedder = embedder
        self.name = encoder.name
        self.dim = encoder.dim
        self.modalities: frozenset[Modality] = encoder.modalities
        self.windowing: AudioWindowing | None = encoder.windowing
        self.device = getattr(encoder, "device", "cpu")

    @property
    def digests(self) -> Mapping[Modality, str]:
        """As the encoder's own."""
        return self._embedder.encoder().digests

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        """As the encoder's own."""
        return self._embedder.embed(modality, batch)


def plans_of(card: ModelCard) -> Plans:
    """How a model's encoder is put together; empty for one of the catalogue as it is.

    Raises:
        ModelDamagedError: the card names other encoders or towers than its assembly.
    """
    unknown = sorted(set(card.towers) - set(Modality))
    if unknown or not card.towers:
        raise ModelDamagedError(
            f"model '{card.name}' has towers for {', '.join(unknown) or 'nothing'}; there are "
            f"towers for {', '.join(Modality)}"
        )
    names = encoder_names(card.encoder)
    if not card.assembly:
        if len(names) != 1:
            raise ModelDamagedError(
                f"model '{card.name}' names the encoders {card.encoder!r}, but not how they are "
                "put together"
            )
        return {}
    plans = plans_from_json(card.assembly)
    used = {plan.encoder for plan in plans.values()}
    if used != set(names):
        raise ModelDamagedError(
            f"model '{card.name}' names the encoders {card.encoder!r}, but is put together from "
            f"{'+'.join(sorted(used))!r}"
        )
    if lacking := sorted(set(card.towers) - set(plans)):
        raise ModelDamagedError(
            f"model '{card.name}' has digests of towers for {', '.join(lacking)}, but its "
            "assembly has none"
        )
    return plans
