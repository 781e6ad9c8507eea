"""Models in memory: an encoder, loaded when first needed, and a hasher."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.assembly import Plans, assemble
from bittern.encoders.base import AudioWindowing, Encoder, Media, Modality
from bittern.errors import (
    DigestMismatchError,
    ModelDamagedError,
    ModelNotFoundError,
    UnsupportedModalityError,
)
from bittern.hashing.codes import pack
from bittern.hashing.saved_model import LINEAR, ModelCard, SavedModel, model_digest
from bittern.service.models.saved import encoder_names, plans_of

EncoderLoader = Callable[[str], Encoder]
CACHED_TEXTS = 1_000
"""Query texts whose embeddings an embedder keeps: 4 MB at 1,024 dimensions."""


def catalogue_encoder(name: str) -> Encoder:
    """Load an encoder by its catalogue name."""
    from bittern.encoders.catalogue import load_encoder

    return load_encoder(name)


class Embedder:
    """An encoder that is loaded when first needed; one thread at a time runs its network."""

    def __init__(
        self, name: str, load: EncoderLoader, *, encoders: Sequence[str] | None = None
    ) -> None:
        """Load nothing yet.

        Args:
            name: argument of `load`.
            load: makes the encoder.
            encoders: catalogue names of its encoders; None for `name` alone.
        """
        self.name = name
        self.encoders: tuple[str, ...] = (name,) if encoders is None else tuple(encoders)
        self._load = load
        self._encoder: Encoder | None = None
        self._lock = threading.RLock()
        self._texts: dict[str, NDArray[np.float32]] = {}
        self._texts_lock = threading.Lock()

    def encoder(self) -> Encoder:
        """The encoder, loaded if necessary.

        Raises:
            WeightsMissingError: the weights are not on this machine.
        """
        if self._encoder is not None:  # decoding threads do not wait for the network
            return self._encoder
        with self._lock:
            if self._encoder is None:
                self._encoder = self._load(self.name)
            return self._encoder

    @property
    def windowing(self) -> AudioWindowing | None:
        """How recordings are cut for this encoder."""
        return self.encoder().windowing

    def digest(self, modality: Modality) -> str:
        """The tower's digest on this machine."""
        with self._lock:
            return self.encoder().digests[modality]

    def require(self, modality: Modality) -> None:
        """Check that there is a tower for `modality`.

        Raises:
            UnsupportedModalityError: there is none.
        """
        towers = self.encoder().modalities
        if modality not in towers:
            raise UnsupportedModalityError(
                f"encoder '{self.name}' takes {', '.join(sorted(towers))}, not {modality}",
                details={"encoder": self.name, "modality": str(modality)},
            )

    def embed(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        """Embeddings of a batch, float32 [n, dim], unit norm."""
        self.require(modality)
        with self._lock:
            return self.encoder().encode(modality, batch)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The embedding of a query's text, float32 [1, dim], unit norm; not to be changed.

        The latest texts are cached: the same one again needs no network.
        """
        with self._texts_lock:
            found = self._texts.pop(text, None)
            if found is not None:
                self._texts[text] = found  # now the latest
                return found
        found = self.embed(Modality.TEXT, [text])
        with self._texts_lock:
            self._texts[text] = found
            while len(self._texts) > CACHED_TEXTS:
                del self._texts[next(iter(self._texts))]
        return found


class Model:
    """An embedder and its hasher: media or words in, logits and codes out."""

    def __init__(self, saved: SavedModel, embedder: Embedder) -> None:
        self.saved = saved
        self.embedder = embedder
        self._checked: set[Modality] = set()

    @property
    def card(self) -> ModelCard:
        """The description of the model."""
        return self.saved.card

    @property
    def digest(self) -> str:
        """Hex SHA-256 of everything that decides a code."""
        return self.saved.card.digest

    @property
    def modalities(self) -> frozenset[Modality]:
        """The modalities that it can code."""
        return frozenset(Modality(m) for m in self.card.towers)

    def embed(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        """Embeddings of a batch, float32 [n, dim], unit norm.

        Raises:
            UnsupportedModalityError: no such tower.
            DigestMismatchError: this machine has other weights than the model was made with.
        """
        self.check_tower(modality)
        return self.embedder.embed(modality, batch)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """As `embed` for one text, whose embedding may be cached: float32 [1, dim]."""
        self.check_tower(Modality.TEXT)
        return self.embedder.embed_query(text)

    def logits(self, modality: Modality, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of embeddings: float32 [n, dim] in, float32 [n, bits] out."""
        return self.saved.hasher.logits(embeddings, modality)

    def codes(self, modality: Modality, embeddings: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Codes of embeddings: float32 [n, dim] in, uint8 [n, bits/8] out."""
        return pack(self.logits(modality, embeddings))

    def require(self, modality: Modality) -> None:
        """Check that the model codes `modality`; its encoder may have more towers than it uses.

        Raises:
            UnsupportedModalityError: it does not.
        """
        if modality not in self.modalities:
            raise UnsupportedModalityError(
                f"model '{self.card.name}' takes {' and '.join(sorted(self.modalities))}, "
                f"not {modality}",
                details={"model": self.card.name, "modality": str(modality)},
            )

    def check_tower(self, modality: Modality) -> None:
        """Check that this machine has the weights that the model was made with.

        Raises:
            UnsupportedModalityError: the model has no such tower.
            DigestMismatchError: other weights.
        """
        if modality in self._checked:
            return
        self.require(modality)
        here, made_with = self.embedder.digest(modality), self.card.towers[modality]
        if here != made_with:
            again = "train the model" if self._is_trained() else "index"
            raise DigestMismatchError(
                f"the {modality} weights of '{self._encoder_of(modality)}' on this machine (digest "
                f"{here[:12]}) are not those that model '{self.card.name}' was made with "
                f"({made_with[:12]}). Bring the same weights, or {again} again with these.",
                details={"here": here, "model": made_with},
            )
        self._checked.add(modality)

    def _encoder_of(self, modality: Modality) -> str:
        """Catalogue name of the tower's encoder."""
        plan = self.card.assembly.get(modality)
        return str(plan["encoder"]) if plan else self.card.encoder

    def _is_trained(self) -> bool:
        """Whether it was trained, not fitted on an archive's media."""
        return bool(self.card.assembly) or self.card.hasher.get("kind") not in LINEAR


class Embedders:
    """Embedders, each loaded once: models with the same encoder share one.

    A catalogue encoder is known by its name, an assembled one by the digest of its towers and
    adapters, so that models with the same towers share it.
    """

    def __init__(self, load: EncoderLoader) -> None:
        """Load nothing yet.

        Args:
            load: from a catalogue name to an encoder; each call must return a new instance, to
                which adapters may be added.
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
        key = "assembled: " + model_digest(card.encoder, {}, {}, {}, card.assembly, saved.adapters)
        with self._lock:
            if key not in self._known:
                self._known[key] = Embedder(
                    card.encoder,
                    lambda name: self._assembled(saved, plans),
                    encoders=encoder_names(card.encoder),
                )
            return self._known[key]

    def _assembled(self, saved: SavedModel, plans: Plans) -> Encoder:
        """Assemble a model's encoder; only encoders that get adapters are loaded again."""
        changed = {plan.encoder for plan in plans.values() if plan.lora}

        def load(name: str) -> Encoder:
            return self._load(name) if name in changed else _SharedEncoder(self.named(name))

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


class _SharedEncoder:
    """The encoder of an embedder, with its lock."""

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
        """As the encoder's."""
        return self._embedder.encoder().digests

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        """As the encoder's."""
        return self._embedder.embed(modality, batch)
