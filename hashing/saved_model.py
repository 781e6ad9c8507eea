"""Saved models: one folder with a JSON card and safetensors, and the digest over both.

    MODEL/
    ├── model.json              the card: encoder, hasher, digest; data, metrics and settings
    ├── hasher.safetensors      the hasher's tensors
    └── adapters.safetensors    trained tensors of the towers, if any

The digest is the SHA-256 of everything that decides a code: the encoder's tower digests
(weights and preprocessing), how its towers are combined and adapted, the hasher's configuration,
and all tensors. Queries search only codes with an equal digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from bittern.errors import BitternError, CodeError, ModelDamagedError, ModelNotFoundError
from bittern.hashing.aligned import ALIGNED, AlignedHasher
from bittern.hashing.hashers import HYBRID, Hasher, HybridHasher, LinearHasher
from bittern.hashing.learned import HASHCODER, LearnedHasher

CARD_FILE = "model.json"
TENSOR_FILE = "hasher.safetensors"
ADAPTER_FILE = "adapters.safetensors"
FORMAT = 2
LINEAR = ("pca", "itq", "lsh")
KINDS = (*LINEAR, ALIGNED, HASHCODER, HYBRID)
_DIGEST_FORMAT = 1
_MOST_HASHERS = 8
_LARGEST_CARD = 1 << 20
_LARGEST_TENSORS = 1 << 30

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class ModelCard:
    """The description of a saved model.

    Attributes:
        name: e.g. ``field-256``.
        bits: code length.
        dim: embedding length.
        encoder: catalogue name of the encoder.
        towers: per modality, the tower's digest (hex SHA-256).
        hasher: the hasher's configuration (`Hasher.config`).
        licence: licences of the encoder's weights.
        digest: hex SHA-256 of everything that decides a code.
        format: version of this layout.
        assembly: per modality, the encoder of the tower and its trained part; empty for unchanged
            towers.
        data: facts about the training data.
        metrics: measured during the training.
        training: the settings of the training.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")
    name: str
    bits: int
    dim: int
    encoder: str
    towers: Mapping[str, str]
    hasher: Mapping[str, Any]
    licence: str = ""
    digest: str = ""
    format: int = FORMAT
    assembly: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


_CARD = TypeAdapter(ModelCard)


@dataclass(frozen=True)
class Story:
    """The origin of a model; on its card, but not in its digest.

    Attributes:
        data: facts about the training data.
        metrics: measured during the training.
        training: the settings.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SavedModel:
    """A card and a hasher; the encoder is only named.

    Attributes:
        card: the description.
        hasher: embeddings in, logits out.
        adapters: trained tensors of the towers, float32, by name; may be empty.
    """

    card: ModelCard
    hasher: Hasher
    adapters: Tensors = field(default_factory=dict)

    @classmethod
    def describe(
        cls,
        name: str,
        hasher: Hasher,
        *,
        encoder: str,
        towers: Mapping[str, str],
        licence: str,
        assembly: Mapping[str, Any] | None = None,
        adapters: Tensors | None = None,
        story: Story | None = None,
    ) -> SavedModel:
        """Write the card for `hasher` on the towers with these digests.

        Args:
            name: for users.
            hasher: of one of `KINDS`.
            encoder: catalogue name of the encoder; of several, joined by ``+``.
            towers: per modality, the tower's digest, adapters included.
            licence: of the encoder's weights.
            assembly: how the towers are combined, as JSON values.
            adapters: tensors that belong to `assembly`.
            story: origin of the model.
        """
        story = story or Story()
        assembly = json.loads(json.dumps(dict(assembly or {})))
        config = json.loads(json.dumps(dict(hasher.config())))
        towers = {str(modality): digest for modality, digest in towers.items()}
        card = ModelCard(
            name=name,
            bits=hasher.bits,
            dim=hasher.dim,
            encoder=encoder,
            towers=towers,
            hasher=config,
            licence=licence,
            digest=model_digest(
                encoder, towers, config, hasher.tensors(), assembly, adapters or {}
            ),
            assembly=assembly,
            data=json.loads(json.dumps(dict(story.data))),
            metrics=json.loads(json.dumps(dict(story.metrics))),
            training=json.loads(json.dumps(dict(story.training))),
        )
        return cls(card, hasher, dict(adapters or {}))

    def files(self) -> dict[str, bytes]:
        """The folder's files by name."""
        from safetensors.numpy import save

        card = json.dumps(asdict(self.card), indent=1, sort_keys=True, ensure_ascii=False)
        files = {
            CARD_FILE: card.encode() + b"\n",
            TENSOR_FILE: save(dict(self.hasher.tensors()), {"digest": self.card.digest}),
        }
        if self.card.assembly:
            files[ADAPTER_FILE] = save(dict(self.adapters), {"digest": self.card.digest})
        return files

    def save(self, folder: Path) -> None:
        """Write the folder, which must not exist yet."""
        folder.mkdir(parents=True)
        for name, content in self.files().items():
            (folder / name).write_bytes(content)

    @classmethod
    def load(cls, folder: Path) -> SavedModel:
        """Read a folder and check that its files belong together.

        Raises:
            ModelNotFoundError: there is no model in this folder.
            ModelDamagedError: a file is missing, too large, or contradicts another.
        """
        if not (folder / CARD_FILE).is_file():
            raise ModelNotFoundError(
                f"{folder} holds no model: there is no {CARD_FILE} in it", field="model"
            )
        card = _read_card(folder / CARD_FILE)
        tensors = _read_tensors(folder / TENSOR_FILE)
        adapters = _read_tensors(folder / ADAPTER_FILE) if card.assembly else {}
        found = model_digest(
            card.encoder, card.towers, card.hasher, tensors, card.assembly, adapters
        )
        if found != card.digest:
            raise ModelDamagedError(
                f"the model in {folder} is damaged: its tensors have the digest {found[:16]}, "
                f"its card says {card.digest[:16]}. Restore the folder from a copy.",
                details={"found": found, "expected": card.digest},
            )
        return cls(card, _restore(card, tensors, folder), adapters)


def model_digest(
    encoder: str,
    towers: Mapping[str, str],
    config: Mapping[str, Any],
    tensors: Tensors,
    assembly: Mapping[str, Any] | None = None,
    adapters: Tensors | None = None,
) -> str:
    """Hex SHA-256 of everything that decides a code."""
    digest = hashlib.sha256()
    head: dict[str, Any] = {
        "format": _DIGEST_FORMAT,
        "encoder": encoder,
        "towers": dict(towers),
        "hasher": dict(config),
    }
    if assembly:
        head["assembly"] = dict(assembly)
    digest.update(json.dumps(head, sort_keys=True, ensure_ascii=False).encode())
    for some in (tensors, adapters or {}):
        for name in sorted(some):
            array = np.ascontiguousarray(some[name])
            digest.update(f"\n{name} {array.dtype.str} {list(array.shape)}\n".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def _read_card(path: Path) -> ModelCard:
    if path.stat().st_size > _LARGEST_CARD:
        raise ModelDamagedError(f"{path} is larger than a model card can be")
    try:
        fields = json.loads(path.read_bytes())
        # A lone surrogate is valid JSON, but cannot be encoded.
        content = json.dumps(fields, ensure_ascii=False).encode()
        if fields.get("format", 0) > FORMAT:
            raise ModelDamagedError(
                f"{path} has format {fields['format']}; this version reads up to {FORMAT}. "
                "Upgrade Bittern."
            )
        _CARD.validate_json(content)
        return ModelCard(**fields)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(name) for name in first["loc"])
        raise ModelDamagedError(f"{path} is not a model card: {where}: {first['msg']}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ModelDamagedError(f"{path} is not a model card: {error}") from error


def _read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not path.is_file():
        raise ModelDamagedError(f"{path} is missing")
    if path.stat().st_size > _LARGEST_TENSORS:
        raise ModelDamagedError(f"{path} is larger than {_LARGEST_TENSORS} bytes")
    try:
        tensors: dict[str, NDArray[np.float32]] = load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelDamagedError(f"{path} cannot be read: {error}") from error
    if any(t.dtype != np.float32 for t in tensors.values()):
        raise ModelDamagedError(f"{path} holds tensors that are not float32")
    return tensors


def _restore(card: ModelCard, tensors: Tensors, folder: Path) -> Hasher:
    if card.hasher.get("kind") not in KINDS:
        raise ModelDamagedError(
            f"the model in {folder} has a hasher of kind {card.hasher.get('kind')!r}, "
            "which this version does not know. Upgrade Bittern."
        )
    try:
        hasher = restore(tensors, card.hasher)
    except BitternError as error:
        raise ModelDamagedError(f"the model in {folder} is damaged: {error}") from error
    if (hasher.bits, hasher.dim) != (card.bits, card.dim):
        raise ModelDamagedError(
            f"the model in {folder} is damaged: its card says {card.bits} bits of {card.dim} "
            f"dimensions, its tensors have {hasher.bits} and {hasher.dim}"
        )
    return hasher


def restore(tensors: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any]) -> Hasher:
    """The hasher with these `tensors` and `config`.

    Raises:
        CodeError: an unknown kind, or values that contradict each other.
    """
    kind = config.get("kind")
    if kind not in KINDS:
        raise CodeError(f"a hasher of kind {kind!r} is not known to this version")
    try:
        if kind == HYBRID:
            return _restore_hybrid(tensors, config)
        if kind == HASHCODER:
            return LearnedHasher.restore(tensors, config)
        if kind == ALIGNED:
            return AlignedHasher.restore(tensors, config)
        return LinearHasher.restore(tensors, config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CodeError(f"its configuration makes no sense: {error!r}") from error


def _restore_hybrid(
    tensors: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any]
) -> Hasher:
    configs = list(config["parts"])
    if len(configs) > _MOST_HASHERS or any(c.get("kind") == HYBRID for c in configs):
        raise CodeError(f"a hybrid has at most {_MOST_HASHERS} hashers, none of them a hybrid")
    hashers = []
    for number, own_config in enumerate(configs):
        prefix = f"part.{number}."
        try:
            mine = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            hashers.append(restore(mine, own_config))
        except BitternError as error:
            raise CodeError(f"hasher {number}: {error.message}") from error
    weights = [float(weight) for weight in config["weights"]]
    restored = HybridHasher(hashers, weights, dict(config["settings"]))
    if extra := set(tensors) - set(restored.tensors()):
        raise CodeError(f"unexpected tensors: {', '.join(sorted(extra))}")
    return restored
