"""The hasher of trained heads (`bittern.hashing.hashcoder`), in NumPy: a query needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError
from bittern.hashing.codes import check_bits
from bittern.hashing.hashers import checked_embeddings, checked_mean

if TYPE_CHECKING:
    from bittern.hashing.hashcoder import HashCoder

Size = Literal["small", "large"]

HASHCODER = "hashcoder"
NARROWEST_LARGE = 2048
_HEAD = "head."
_MEAN = "mean."
_COUNTER = "num_batches_tracked"
_BATCH_NORM_EPS = 1e-5
_PORTION = 4096
"""Rows per pass: 130 MB at the widest layer of a large head on 1024 dimensions."""


def wide(dim: int) -> int:
    """Width of the hidden layers of a large head on `dim` dimensions."""
    return max(2 * dim, NARROWEST_LARGE)


@dataclass(frozen=True)
class Head:
    """A trained `HashCoder`, for inference.

    Attributes:
        dim: length of an embedding.
        bits: length of a code.
        size: ``small`` or ``large``.
        state: the parameters by their names in the `HashCoder`, float64 with float32 values.
    """

    dim: int
    bits: int
    size: Size
    state: Mapping[str, NDArray[np.float64]]

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits: float64 [n, dim] in, [n, bits] out."""
        *linear, norm = _layers(self.size)
        for layer in linear[:-1]:
            x = self._linear(layer, x)
            x = np.maximum(x, 0) if self.size == "small" else _gelu(x)
        x = self._linear(linear[-1], x)
        state = self.state
        deviation = np.sqrt(state[f"{norm}.running_var"] + _BATCH_NORM_EPS)
        scaled = (x - state[f"{norm}.running_mean"]) / deviation * state[f"{norm}.weight"]
        logits: NDArray[np.float64] = scaled + state[f"{norm}.bias"]
        return logits

    def _linear(self, layer: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        y: NDArray[np.float64] = x @ self.state[f"{layer}.weight"].T
        return y + self.state[f"{layer}.bias"]


def _layers(size: str) -> list[str]:
    """Names of the layers with parameters: the linear ones in order, then the batch norm."""
    return [f"layers.{n}" for n in ((0, 2, 3) if size == "small" else (0, 2, 4, 5))]


def _gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import erf  # only large heads need it

    y: NDArray[np.float64] = 0.5 * x * (1 + erf(x * np.sqrt(0.5)))
    return y


@dataclass(frozen=True)
class LearnedHasher:
    """``logits = head[modality](embedding - mean[modality])``, in float64.

    Attributes:
        heads: per modality, in evaluation mode; modalities may share one.
        means: per modality float32 [dim], subtracted first; empty to subtract nothing.
        settings: of the training, for the record.
    """

    heads: Mapping[str, Head]
    means: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    kind = HASHCODER

    @classmethod
    def from_modules(
        cls,
        heads: Mapping[str, HashCoder],
        means: Mapping[str, NDArray[np.float32]] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> LearnedHasher:
        """A hasher of copies of trained heads.

        Args:
            heads: per modality; the same object for modalities that share a head.
            means: per modality float32 [dim], subtracted from embeddings first.
            settings: for the record, as JSON values.

        Raises:
            CodeError: no head, or heads of different dim, bits or size.
        """
        copies = {id(head): _copied(head) for head in heads.values()}
        shared = {modality: copies[id(head)] for modality, head in heads.items()}
        return cls(shared, dict(means or {}), dict(settings or {}))

    def __post_init__(self) -> None:
        shapes = {(head.dim, head.bits, head.size) for head in self.heads.values()}
        if len(shapes) != 1:
            raise CodeError(f"heads must have one dim, bits and size, not {sorted(shapes)}")
        if self.means and set(self.means) != set(self.heads):
            raise CodeError(
                f"means are of {sorted(self.means)}, but heads are of {sorted(self.heads)}"
            )
        for modality, mean in self.means.items():
            if mean.shape != (self.dim,) or not np.isfinite(mean).all():
                raise CodeError(f"the mean of {modality} is not [{self.dim}] finite numbers")

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return next(iter(self.heads.values())).dim

    @property
    def bits(self) -> int:
        """Length of a code."""
        return next(iter(self.heads.values())).bits

    @property
    def modalities(self) -> list[str]:
        """Its modalities, sorted."""
        return sorted(self.heads)

    def logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        """Run the head; see `bittern.hashing.hashers.Hasher`.

        Raises:
            CodeError: wrong shape, or a value is not finite.
            UnsupportedModalityError: there is no head for this modality.
        """
        x = checked_embeddings(embeddings, modality, dim=self.dim, known=self.heads)
        head, mean = self.heads[modality], self.means.get(modality)
        out = np.empty((len(x), self.bits), dtype=np.float32)
        for start in range(0, len(x), _PORTION):
            portion = x[start : start + _PORTION].astype(np.float64)
            if mean is not None:
                portion -= mean
            out[start : start + len(portion)] = head(portion)
        return out

    def with_modality(self, new: str, like: str, mean: NDArray[np.floating]) -> LearnedHasher:
        """See `bittern.hashing.hashers.Hasher.with_modality`."""
        centre = checked_mean(self, new, like, mean)
        means = {**self.means, new: centre} if self.means else {}
        return replace(self, heads={**self.heads, new: self.heads[like]}, means=means)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """``head.<modality>.<parameter>`` and ``mean.<modality>``; a shared head comes once."""
        out: dict[str, NDArray[np.float32]] = {}
        for modality, owner in self._owners().items():
            if modality == owner:
                for name, tensor in self.heads[modality].state.items():
                    out[f"{_HEAD}{modality}.{name}"] = tensor.astype(np.float32)
        for modality, mean in sorted(self.means.items()):
            out[_MEAN + modality] = np.ascontiguousarray(mean, dtype=np.float32)
        return out

    def config(self) -> dict[str, Any]:
        """Kind, size, the owner of each modality's head, and the settings of the training."""
        return {
            "kind": HASHCODER,
            "size": next(iter(self.heads.values())).size,
            "heads": self._owners(),
            "settings": dict(self.settings),
        }

    def _owners(self) -> dict[str, str]:
        """Per modality the first modality, in alphabetical order, with the same head."""
        first: dict[int, str] = {}
        return {m: first.setdefault(id(self.heads[m]), m) for m in sorted(self.heads)}

    @classmethod
    def restore(
        cls, tensors: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any]
    ) -> LearnedHasher:
        """Build a hasher from what `tensors` and `config` returned.

        Raises:
            CodeError: the tensors do not fit together.
        """
        owners: Mapping[str, str] = dict(config["heads"])
        size = config["size"]
        means = {n.removeprefix(_MEAN): t for n, t in tensors.items() if n.startswith(_MEAN)}
        built: dict[str, Head] = {}
        for owner in sorted(set(owners.values())):
            prefix = f"{_HEAD}{owner}."
            state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            built[owner] = _built(state, size, owner)
        expected = {f"{_HEAD}{o}.{n}" for o, head in built.items() for n in head.state}
        if extra := set(tensors) - expected - {_MEAN + m for m in means}:
            raise CodeError(f"unexpected tensors: {', '.join(sorted(extra))}")
        heads = {modality: built[owner] for modality, owner in owners.items()}
        return cls(heads, means, dict(config["settings"]))


def _copied(head: HashCoder) -> Head:
    """A trained head for inference: float32 values."""
    state = {
        name: tensor.detach().cpu().float().double().numpy().copy()
        for name, tensor in head.state_dict().items()
        if not name.endswith(_COUNTER)
    }
    return Head(head.dim, head.bits, head.size, state)


def _built(state: Mapping[str, NDArray[np.float32]], size: Any, owner: str) -> Head:
    if empty := sorted(name for name, tensor in state.items() if not tensor.size):
        raise CodeError(f"the head of {owner} has nothing in {', '.join(empty)}")
    if size not in ("small", "large"):
        raise CodeError(f"the head of {owner} has size {size!r}; there are small and large")
    first = state.get(f"{_layers(size)[0]}.weight")
    last = state.get(f"{_layers(size)[-2]}.weight")
    if first is None or last is None or first.ndim != 2 or last.ndim != 2:
        raise CodeError(f"the head of {owner} lacks its first or last layer")
    dim, bits = first.shape[1], check_bits(last.shape[0])
    wanted = _shapes(dim, bits, size)
    if set(state) != set(wanted):
        raise CodeError(
            f"the head of {owner} has other parameters than a {size} HashCoder: "
            f"{', '.join(sorted(set(state) ^ set(wanted)))}"
        )
    for name, tensor in state.items():
        if tensor.shape != wanted[name]:
            raise CodeError(
                f"{name} of the head of {owner} has shape {list(tensor.shape)}, not "
                f"{list(wanted[name])}"
            )
        if not np.isfinite(tensor).all():
            raise CodeError(f"{name} of the head of {owner} holds NaN or infinity")
        if name.endswith("running_var") and (tensor < 0).any():
            raise CodeError(f"{name} of the head of {owner} is negative")
    return Head(dim, bits, size, {name: state[name].astype(np.float64) for name in wanted})


def _shapes(dim: int, bits: int, size: Size) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of a `HashCoder` by name, in its order."""
    *linear, norm = _layers(size)
    widths = [dim, *[dim if size == "small" else wide(dim)] * (len(linear) - 1), bits]
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, (before, after) in zip(linear, pairwise(widths), strict=True):
        shapes |= {f"{layer}.weight": (after, before), f"{layer}.bias": (after,)}
    names = ("weight", "bias", "running_mean", "running_var")
    return shapes | {f"{norm}.{name}": (bits,) for name in names}
