"""HashCoder: the learned head of CroVCA (arXiv 2510.27584), and the hasher of such heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bittern.errors import CodeError, InvalidInputError
from bittern.hashing.codes import check_bits
from bittern.hashing.hashers import checked_embeddings, checked_mean

Size = Literal["small", "large"]

HASHCODER = "hashcoder"
INITIAL_STD = 0.02
NARROWEST_LARGE = 2048
_HEAD = "head."
_MEAN = "mean."
_COUNTER = "num_batches_tracked"
_PORTION = 4096
"""Rows per pass: 130 MB at the widest layer of a large head on 1024 dimensions."""


class HashCoder(nn.Module):
    """A small network that ends in a batch norm, so each bit is on for about half of the items.

    - ``small``: ``Linear(d, d) ReLU Linear(d, b) BatchNorm1d(b)``
    - ``large``: ``Linear(d, h) GELU Linear(h, h) GELU Linear(h, b) BatchNorm1d(b)`` with
      ``h = max(2 d, 2048)``

    Attributes:
        dim: length of an embedding.
        bits: length of a code.
        size: ``small`` or ``large``.
        layers: the layers in order.
    """

    def __init__(self, dim: int, bits: int, size: Size = "small") -> None:
        """Make a head with random weights: truncated normal, std 0.02; biases zero.

        Raises:
            CodeError: unusable bits.
            InvalidInputError: unusable dim, or no such size.
        """
        super().__init__()
        check_bits(bits)
        if dim < 1:
            raise InvalidInputError(f"dim must be at least 1, not {dim}", field="dim")
        self.dim, self.bits, self.size = dim, bits, size
        middle: list[nn.Module]
        if size == "small":
            middle = [nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, bits)]
        elif size == "large":
            hidden = max(2 * dim, NARROWEST_LARGE)
            middle = [nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()]
            middle.append(nn.Linear(hidden, bits))
        else:
            raise InvalidInputError(
                f"there is no HashCoder '{size}'; there are small and large", field="size"
            )
        self.layers = nn.Sequential(*middle, nn.BatchNorm1d(bits))
        for layer in self.layers:
            _draw(layer)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Logits, [n, bits], of embeddings [n, dim]; the code is ``logits > 0``."""
        logits: torch.Tensor = self.layers(embeddings)
        return logits


def _draw(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=INITIAL_STD)
        nn.init.zeros_(layer.bias)


@dataclass(frozen=True)
class LearnedHasher:
    """``logits = head[modality](embedding - mean[modality])``, in float64.

    Attributes:
        heads: per modality, in evaluation mode; modalities may share one.
        means: per modality float32 [dim], subtracted first; empty to subtract nothing.
        settings: of the training, for the record.
    """

    heads: Mapping[str, HashCoder]
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
        copies = {id(head): _ready(head) for head in heads.values()}
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
        with torch.inference_mode():
            for start in range(0, len(x), _PORTION):
                portion = x[start : start + _PORTION].astype(np.float64)
                if mean is not None:
                    portion -= mean
                out[start : start + len(portion)] = head(torch.from_numpy(portion)).numpy()
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
                for name, tensor in _state(self.heads[modality]).items():
                    out[f"{_HEAD}{modality}.{name}"] = tensor.float().numpy()
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
        built: dict[str, HashCoder] = {}
        for owner in sorted(set(owners.values())):
            prefix = f"{_HEAD}{owner}."
            state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            built[owner] = _built(state, size, owner)
        expected = {f"{_HEAD}{o}.{n}" for o, head in built.items() for n in _state(head)}
        if extra := set(tensors) - expected - {_MEAN + m for m in means}:
            raise CodeError(f"unexpected tensors: {', '.join(sorted(extra))}")
        heads = {modality: built[owner] for modality, owner in owners.items()}
        return cls(heads, means, dict(config["settings"]))


def _ready(head: HashCoder) -> HashCoder:
    """A copy for inference: on the CPU, float64, evaluation mode, float32 values."""
    state = {name: t.detach().cpu().float().double() for name, t in _state(head).items()}
    return _filled(_hollow(head.dim, head.bits, head.size), state)


def _hollow(dim: int, bits: int, size: Any) -> HashCoder:
    """A head without memory for weights; draws nothing from torch's generator."""
    with torch.device("meta"):
        return HashCoder(dim, bits, size)


def _filled(hollow: HashCoder, state: Mapping[str, torch.Tensor]) -> HashCoder:
    """The head with these tensors, for inference."""
    counters = {n: torch.tensor(0) for n in hollow.state_dict() if n.endswith(_COUNTER)}
    hollow.load_state_dict({**state, **counters}, assign=True)
    return hollow.eval().requires_grad_(False)


def _built(state: Mapping[str, NDArray[np.float32]], size: Any, owner: str) -> HashCoder:
    if empty := sorted(name for name, tensor in state.items() if not tensor.size):
        raise CodeError(f"the head of {owner} has nothing in {', '.join(empty)}")
    first = state.get("layers.0.weight")
    last = state.get("layers.4.weight" if size == "large" else "layers.2.weight")
    if first is None or last is None or first.ndim != 2 or last.ndim != 2:
        raise CodeError(f"the head of {owner} lacks its first or last layer")
    # Shapes are compared before anything of their size is allocated.
    head = _hollow(first.shape[1], last.shape[0], size)
    wanted = _state(head)
    if set(state) != set(wanted):
        raise CodeError(
            f"the head of {owner} has other parameters than a {size} HashCoder: "
            f"{', '.join(sorted(set(state) ^ set(wanted)))}"
        )
    for name, tensor in state.items():
        if tensor.shape != tuple(wanted[name].shape):
            raise CodeError(
                f"{name} of the head of {owner} has shape {list(tensor.shape)}, not "
                f"{list(wanted[name].shape)}"
            )
        if not np.isfinite(tensor).all():
            raise CodeError(f"{name} of the head of {owner} holds NaN or infinity")
        if name.endswith("running_var") and (tensor < 0).any():
            raise CodeError(f"{name} of the head of {owner} is negative")
    return _filled(head, {n: torch.from_numpy(t.astype(np.float64)) for n, t in state.items()})


def _state(head: HashCoder) -> dict[str, torch.Tensor]:
    """A head's state without the batch counter, by name."""
    state = head.state_dict()
    return {n: t for n, t in state.items() if not n.endswith(_COUNTER)}
