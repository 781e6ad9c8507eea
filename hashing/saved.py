"""Saved models: one folder with a JSON card and safetensors, and the digest over both.

    MODEL/
    ├── model.json            the card: encoder, hasher, digest
    └── hasher.safetensors    the hasher's tensors

The digest is the SHA-256 of everything that decides a code: the encoder's tower digests
(weights and preprocessing), the hasher's configuration and its tensors. Codes and queries
meet only when their digests are equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import BitternError, ModelDamagedError, ModelNotFoundError
from hashing.base import Hasher
from hashing.linear import LinearHasher

CARD_FILE = "model.json"
TENSOR_FILE = "hasher.safetensors"
FORMAT = 1
_LARGEST_CARD = 1 << 20
_LARGEST_TENSORS = 1 << 30
_LINEAR_KINDS = frozenset({"pca", "itq", "lsh"})


@dataclass(frozen=True)
class ModelCard:
    """What a saved model says of itself.

    Attributes:
        name: e.g. ``field-256``.
        bits: code length.
        dim: embedding length.
        encoder: catalogue name of the encoder.
        towers: per modality, the tower's digest (hex SHA-256).
        hasher: the hasher's configuration (`Hasher.config`).
        licence: licences of the weights behind it.
        digest: hex SHA-256 of everything that decides a code.
        format: version of this layout.
    """

    name: str
    bits: int
    dim: int
    encoder: str
    towers: Mapping[str, str]
    hasher: Mapping[str, Any]
    licence: str = ""
    digest: str = ""
    format: int = FORMAT


@dataclass(frozen=True)
class SavedModel:
    """A card with its hasher; the encoder is named, not included."""

    card: ModelCard
    hasher: Hasher

    @classmethod
    def describe(
        cls, name: str, hasher: Hasher, *, encoder: str, towers: Mapping[str, str], licence: str
    ) -> SavedModel:
        """Write the card for `hasher` on the towers with these digests."""
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
            digest=model_digest(encoder, towers, config, hasher.tensors()),
        )
        return cls(card, hasher)

    def files(self) -> dict[str, bytes]:
        """The folder's files by name."""
        from safetensors.numpy import save

        card = json.dumps(asdict(self.card), indent=1, sort_keys=True, ensure_ascii=False)
        return {
            CARD_FILE: card.encode() + b"\n",
            TENSOR_FILE: save(dict(self.hasher.tensors()), {"digest": self.card.digest}),
        }

    def save(self, folder: Path) -> None:
        """Write the folder, which must not exist yet."""
        folder.mkdir(parents=True)
        for name, content in self.files().items():
            (folder / name).write_bytes(content)

    @classmethod
    def load(cls, folder: Path) -> SavedModel:
        """Read a folder and check that its parts belong together.

        Raises:
            ModelNotFoundError: there is no model in this folder.
            ModelDamagedError: a part is missing, too large, or contradicts another.
        """
        if not (folder / CARD_FILE).is_file():
            raise ModelNotFoundError(
                f"{folder} holds no model: there is no {CARD_FILE} in it", field="model"
            )
        card = _read_card(folder / CARD_FILE)
        tensors = _read_tensors(folder / TENSOR_FILE)
        found = model_digest(card.encoder, card.towers, card.hasher, tensors)
        if found != card.digest:
            raise ModelDamagedError(
                f"the model in {folder} is damaged: its parts have the digest {found[:16]}, "
                f"its card says {card.digest[:16]}. Restore the folder from a copy.",
                details={"found": found, "expected": card.digest},
            )
        return cls(card, _restore(card, tensors, folder))


def model_digest(
    encoder: str,
    towers: Mapping[str, str],
    config: Mapping[str, Any],
    tensors: Mapping[str, NDArray[np.float32]],
) -> str:
    """Hex SHA-256 of everything that decides a code."""
    digest = hashlib.sha256()
    head = {"format": FORMAT, "encoder": encoder, "towers": dict(towers), "hasher": dict(config)}
    digest.update(json.dumps(head, sort_keys=True, ensure_ascii=False).encode())
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        digest.update(f"\n{name} {array.dtype.str} {list(array.shape)}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _read_card(path: Path) -> ModelCard:
    if path.stat().st_size > _LARGEST_CARD:
        raise ModelDamagedError(f"{path} is larger than a model card can be")
    try:
        fields = json.loads(path.read_bytes())
        if fields.get("format", 0) > FORMAT:
            raise ModelDamagedError(
                f"{path} has format {fields['format']}; this version reads up to {FORMAT}. "
                "Upgrade Bittern."
            )
        card = ModelCard(**fields)
        typed = (
            isinstance(card.name, str)
            and isinstance(card.bits, int)
            and isinstance(card.dim, int)
            and isinstance(card.encoder, str)
            and isinstance(card.digest, str)
            and isinstance(card.hasher, dict)
            and isinstance(card.towers, dict)
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelDamagedError(f"{path} is not a model card: {error}") from error
    if not typed:
        raise ModelDamagedError(f"{path} is not a model card: a field has the wrong type")
    return card


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


def _restore(
    card: ModelCard, tensors: Mapping[str, NDArray[np.float32]], folder: Path
) -> LinearHasher:
    if card.hasher.get("kind") not in _LINEAR_KINDS:
        raise ModelDamagedError(
            f"the model in {folder} has a hasher of kind {card.hasher.get('kind')!r}, "
            "which this version does not know. Upgrade Bittern."
        )
    try:
        hasher = LinearHasher.restore(tensors, card.hasher)
    except (BitternError, KeyError, TypeError, ValueError) as error:
        raise ModelDamagedError(f"the model in {folder} is damaged: {error}") from error
    if (hasher.bits, hasher.dim) != (card.bits, card.dim):
        raise ModelDamagedError(
            f"the model in {folder} is damaged: its card says {card.bits} bits of {card.dim} "
            f"dimensions, its tensors have {hasher.bits} and {hasher.dim}"
        )
    return hasher
