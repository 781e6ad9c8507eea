"""What every hasher is: embeddings in, logits out, codes from their signs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError, UnsupportedModalityError


@runtime_checkable
class Hasher(Protocol):
    """Maps embeddings of any of its modalities into one Hamming space."""

    @property
    def kind(self) -> str:
        """Which method: ``pca``, ``itq``, ``lsh``..."""
        ...

    @property
    def bits(self) -> int:
        """Length of the codes that come out."""
        ...

    @property
    def dim(self) -> int:
        """Length of the embeddings that go in."""
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
        """Everything learned or drawn, by name; what `safetensors` stores."""
        ...

    def config(self) -> Mapping[str, Any]:
        """Everything else that decides the code, as JSON values."""
        ...


def checked_embeddings(
    embeddings: NDArray[np.floating], modality: str, *, dim: int, known: Collection[str]
) -> NDArray[np.float32]:
    """Embeddings that a hasher can take, float32 [n, dim].

    Args:
        embeddings: what was given.
        modality: what it is said to be of.
        dim: length that an embedding must have.
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
