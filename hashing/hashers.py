"""The interface of hashers, and the linear and hybrid ones, which need only NumPy.

A hasher maps embeddings to logits; codes are their signs. Learned heads are in
`bittern.hashing.hashcoder`, aligned ones in `bittern.hashing.aligned`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError, UnsupportedModalityError
from bittern.hashing.codes import check_bits

HYBRID = "hybrid"
LEAST_WEIGHT = 1e-6
"""Least weight of a hasher in a hybrid."""
_MEAN = "mean."
_PART = "part."


@runtime_checkable
class Hasher(Protocol):
    """Maps embeddings of any of its modalities into one Hamming space."""

    @property
    def kind(self) -> str:
        """Its method: ``pca``, ``itq``, ``lsh``..."""
        ...

    @property
    def bits(self) -> int:
        """Length of the codes that come out."""
        ...

    @property
    def dim(self) -> int:
        """Length of the embeddings that go in."""
        ...

    @property
    def modalities(self) -> list[str]:
        """What it can code, sorted."""
        ...

    def logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        """Project embeddings.

        Args:
            embeddings: float [n, dim].
            modality: ``text``, ``image`` or ``audio``; decides the centre (or the head).

        Returns:
            float32 [n, bits]; the code is ``logits > 0``.

        Raises:
            CodeError: wrong shape, or a value is not finite.
        """
        ...

    def tensors(self) -> Mapping[str, NDArray[np.float32]]:
        """Its arrays by name, for `safetensors`."""
        ...

    def config(self) -> Mapping[str, Any]:
        """All other values that decide the code, as JSON values."""
        ...

    def with_modality(self, new: str, like: str, mean: NDArray[np.floating]) -> Hasher:
        """A hasher with a further modality in the space of another.

        Its embeddings are centred by their own mean and then hashed like those of `like`. An
        existing modality of this name is replaced.

        Args:
            new: e.g. ``audio``.
            like: e.g. ``text``.
            mean: float [dim] of the new modality's embeddings.

        Raises:
            CodeError: unknown `like`, or a mean of another length or not finite.
        """
        ...


def checked_embeddings(
    embeddings: NDArray[np.floating], modality: str, *, dim: int, known: Collection[str]
) -> NDArray[np.float32]:
    """Embeddings that a hasher can take, float32 [n, dim].

    Args:
        embeddings: of the caller.
        modality: of the embeddings.
        dim: required length.
        known: the hasher's modalities.

    Raises:
        CodeError: wrong shape, or a value is not finite.
        UnsupportedModalityError: the hasher does not know this modality.
    """
    x = np.asarray(embeddings, dtype=np.float32)
    if x.ndim != 2 or x.shape[1] != dim:
        raise CodeError(f"embeddings must have shape [n, {dim}], not {list(x.shape)}")
    if not np.isfinite(x).all():
        raise CodeError("embeddings hold NaN or infinity")
    if modality not in known:
        raise UnsupportedModalityError(
            f"this hasher knows {', '.join(sorted(known))}, not {modality}"
        )
    return x


def checked_mean(
    hasher: Hasher, new: str, like: str, mean: NDArray[np.floating]
) -> NDArray[np.float32]:
    """A mean that `Hasher.with_modality` can take, float32 [dim].

    Raises:
        CodeError: as `Hasher.with_modality`.
    """
    if like not in hasher.modalities:
        raise CodeError(
            f"the hasher knows {', '.join(hasher.modalities)}, not {like}", field="teacher"
        )
    centre = np.asarray(mean, dtype=np.float32)
    if centre.shape != (hasher.dim,) or not np.isfinite(centre).all():
        raise CodeError(f"the mean of {new} must be [{hasher.dim}] finite numbers")
    return centre


@dataclass(frozen=True)
class LinearHasher:
    """``logits = scale * (embedding - mean[modality]) @ projection``.

    Attributes:
        kind: method that found `projection`: ``pca``, ``itq`` or ``lsh``.
        projection: float32 [dim, bits].
        means: per modality, float32 [dim]; text and images form separate clouds, so each is
            centred by its own mean.
        scale: positive; sets how soft the query of an asymmetric search is, not the code.
        settings: of the fit (seed and the like), for the record.
    """

    kind: str
    projection: NDArray[np.float32]
    means: Mapping[str, NDArray[np.float32]]
    scale: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.projection.ndim != 2:
            raise CodeError(f"projection must be [dim, bits], not {list(self.projection.shape)}")
        check_bits(self.projection.shape[1])
        for modality, mean in self.means.items():
            if mean.shape != (self.dim,):
                raise CodeError(
                    f"the mean of {modality} has shape {list(mean.shape)}, not [{self.dim}]"
                )
        arrays = [self.projection, *self.means.values()]
        if not all(np.isfinite(a).all() for a in arrays):
            raise CodeError("the hasher's numbers are not all finite")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise CodeError(f"scale must be positive, not {self.scale}")

    @property
    def dim(self) -> int:
        """Length of the embeddings that go in."""
        return int(self.projection.shape[0])

    @property
    def bits(self) -> int:
        """Length of the codes that come out."""
        return int(self.projection.shape[1])

    @property
    def modalities(self) -> list[str]:
        """What it can code, sorted."""
        return sorted(self.means)

    def logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        """Project embeddings; see `Hasher`.

        Raises:
            CodeError: wrong shape, or a value is not finite.
            UnsupportedModalityError: the hasher was not fitted for this modality.
        """
        x = checked_embeddings(embeddings, modality, dim=self.dim, known=self.means)
        centred = x - self.means[modality]
        # BLAS products of one row and of a batch may round differently. In float64 that is too
        # little to change the sign of a logit of float32 embeddings.
        z = centred.astype(np.float64) @ self.projection.astype(np.float64)
        return (z * self.scale).astype(np.float32)

    def with_modality(self, new: str, like: str, mean: NDArray[np.floating]) -> LinearHasher:
        """See `Hasher.with_modality`."""
        return replace(self, means={**self.means, new: checked_mean(self, new, like, mean)})

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """`projection` and one ``mean.<modality>`` per modality."""
        out = {"projection": np.ascontiguousarray(self.projection, dtype=np.float32)}
        for modality, mean in sorted(self.means.items()):
            out[_MEAN + modality] = np.ascontiguousarray(mean, dtype=np.float32)
        return out

    def config(self) -> dict[str, Any]:
        """Kind, scale and the settings of the fit."""
        return {"kind": self.kind, "scale": self.scale, "settings": dict(self.settings)}

    @classmethod
    def restore(
        cls, tensors: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any]
    ) -> LinearHasher:
        """Build a hasher from what `tensors` and `config` returned.

        Raises:
            CodeError: the tensors do not fit together.
        """
        projection = tensors.get("projection")
        if projection is None:
            raise CodeError("there is no tensor named 'projection'")
        means = {
            name.removeprefix(_MEAN): tensor
            for name, tensor in tensors.items()
            if name.startswith(_MEAN)
        }
        if set(tensors) != {"projection", *(_MEAN + m for m in means)}:
            raise CodeError(f"unexpected tensors: {sorted(set(tensors) - {'projection'})}")
        return cls(
            kind=str(config["kind"]),
            projection=projection,
            means=means,
            scale=float(config["scale"]),
            settings=dict(config["settings"]),
        )


@dataclass(frozen=True)
class HybridHasher:
    """Concatenated logits of several hashers, each with a weight in the query.

    Training-free bits serve all queries; learned bits are better for the training classes. Ours
    (not published); measured in docs/background/learned-codes.md.

    A query weighs bit i with ``tanh(z_i / 2)``. For a weight w, logits become
    ``2 artanh(w tanh(z / 2))``: the sign, and so the code, is the same; the query's weight of the
    bit is multiplied by exactly w. Search needs no change for that.

    Attributes:
        hashers: for the same embeddings, in the order of their bits.
        weights: per hasher, 1e-6 to 1.
        settings: how hashers and weights were chosen, for the record.
    """

    hashers: Sequence[Hasher]
    weights: Sequence[float]
    settings: Mapping[str, Any] = field(default_factory=dict)

    kind = HYBRID

    def __post_init__(self) -> None:
        if len(self.hashers) < 2 or len(self.hashers) != len(self.weights):
            raise CodeError(
                "a hybrid needs two hashers or more and a weight for each, not "
                f"{len(self.hashers)} and {len(self.weights)}"
            )
        if len({one.dim for one in self.hashers}) > 1:
            raise CodeError(f"hashers differ in dim: {[one.dim for one in self.hashers]}")
        if not all(LEAST_WEIGHT <= weight <= 1 for weight in self.weights):
            raise CodeError(
                f"weights must be {LEAST_WEIGHT:g} to 1, not {list(self.weights)}; only their "
                "ratio counts, so divide by the largest"
            )

    @property
    def dim(self) -> int:
        """Length of the embeddings that go in."""
        return self.hashers[0].dim

    @property
    def bits(self) -> int:
        """Length of the codes that come out."""
        return sum(one.bits for one in self.hashers)

    @property
    def modalities(self) -> list[str]:
        """The modalities of all its hashers, sorted."""
        return sorted(set.intersection(*(set(one.modalities) for one in self.hashers)))

    def logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        """Weighted logits of all hashers; see `Hasher`.

        Raises:
            CodeError: wrong shape, or a value is not finite.
            UnsupportedModalityError: a hasher does not know this modality.
        """
        logits = [one.logits(embeddings, modality) for one in self.hashers]
        weighed = [weigh(z, w) for z, w in zip(logits, self.weights, strict=True)]
        return np.concatenate(weighed, axis=1)

    def with_modality(self, new: str, like: str, mean: NDArray[np.floating]) -> HybridHasher:
        """See `Hasher.with_modality`."""
        centre = checked_mean(self, new, like, mean)
        hashers = [one.with_modality(new, like, centre) for one in self.hashers]
        return replace(self, hashers=hashers)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The tensors of all hashers, as ``part.<number>.<name>``."""
        return {
            f"{_PART}{number}.{name}": tensor
            for number, one in enumerate(self.hashers)
            for name, tensor in one.tensors().items()
        }

    def config(self) -> dict[str, Any]:
        """Kind, weights, their configurations and the settings."""
        return {
            "kind": HYBRID,
            "weights": [float(weight) for weight in self.weights],
            "parts": [dict(one.config()) for one in self.hashers],
            "settings": dict(self.settings),
        }


def weigh(logits: NDArray[np.float32], weight: float) -> NDArray[np.float32]:
    """Logits whose ``tanh(z / 2)`` is that of `logits` times `weight`; signs stay.

    Args:
        logits: float32 [n, bits].
        weight: above 0, at most 1.
    """
    if weight == 1.0:
        return logits
    scaled = weight * np.tanh(logits.astype(np.float64) / 2)
    weighed: NDArray[np.float32] = (2 * np.arctanh(scaled)).astype(np.float32)
    # A logit that float32 rounds to 0 keeps its sign.
    return np.where((weighed > 0) == (logits > 0), weighed, logits)
