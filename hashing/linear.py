"""The form that every training-free hasher takes: centre, project, scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError
from bittern.hashing.codes import check_bits
from bittern.hashing.hashers import checked_embeddings

_MEAN = "mean."


@dataclass(frozen=True)
class LinearHasher:
    """``logits = scale * (embedding - mean[modality]) @ projection``.

    Attributes:
        kind: how `projection` was found: ``pca``, ``itq`` or ``lsh``.
        projection: float32 [dim, bits].
        means: per modality, float32 [dim]; text and image clouds sit apart, so each is
            centred by its own mean.
        scale: positive; sets how soft the query of an asymmetric search is, never the code.
        settings: what the fit was asked for (seed and the like), for the record.
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

    def logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        """Project embeddings; see `bittern.hashing.hashers.Hasher`.

        Raises:
            CodeError: wrong shape, or a value is not finite.
            UnsupportedModalityError: the hasher was not fitted for this modality.
        """
        x = checked_embeddings(embeddings, modality, dim=self.dim, known=self.means)
        centred = x - self.means[modality]
        # Row by row a BLAS product may round differently than in a batch; float64 keeps that
        # rounding far below what could turn a sign that float32 embeddings have settled.
        z = centred.astype(np.float64) @ self.projection.astype(np.float64)
        return (z * self.scale).astype(np.float32)

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
            CodeError: the parts do not fit together.
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
