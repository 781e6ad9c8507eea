"""Which modalities a hasher knows, and how it learns another one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError
from bittern.hashing.aligned import AlignedHasher
from bittern.hashing.hashers import Hasher
from bittern.hashing.hybrid import HybridHasher
from bittern.hashing.learned import LearnedHasher
from bittern.hashing.linear import LinearHasher


def modalities_of(hasher: Hasher) -> list[str]:
    """What a hasher can code, sorted.

    Raises:
        CodeError: a kind of hasher that this does not know.
    """
    if isinstance(hasher, LinearHasher):
        return sorted(hasher.means)
    if isinstance(hasher, LearnedHasher):
        return sorted(hasher.heads)
    if isinstance(hasher, AlignedHasher):
        return sorted(hasher.maps)
    if isinstance(hasher, HybridHasher):
        return sorted(set.intersection(*(set(modalities_of(p)) for p in hasher.parts)))
    raise _unknown(hasher)


def with_modality(hasher: Hasher, new: str, like: str, mean: NDArray[np.floating]) -> Hasher:
    """The hasher, with one more modality in the space of another.

    Embeddings of the new one are centred by their own mean and then treated as those of `like`:
    the same projection, the same head. One that was there under this name is replaced.

    Args:
        hasher: any of those that are saved with models.
        new: e.g. ``audio``.
        like: e.g. ``text``.
        mean: float [dim] of the new modality's embeddings.

    Raises:
        CodeError: `like` is unknown to the hasher, the mean has another length or is not finite,
            or a kind of hasher that this does not know.
    """
    if like not in modalities_of(hasher):
        raise CodeError(
            f"the hasher knows {', '.join(modalities_of(hasher))}, not {like}", field="teacher"
        )
    centre = np.asarray(mean, dtype=np.float32)
    if centre.shape != (hasher.dim,) or not np.isfinite(centre).all():
        raise CodeError(f"the mean of {new} must be [{hasher.dim}] finite numbers")
    if isinstance(hasher, LinearHasher):
        return replace(hasher, means={**hasher.means, new: centre})
    if isinstance(hasher, LearnedHasher):
        means = {**hasher.means, new: centre} if hasher.means else {}
        return replace(hasher, heads={**hasher.heads, new: hasher.heads[like]}, means=means)
    if isinstance(hasher, AlignedHasher):
        matrix = hasher.maps[like]
        offset = -(centre.astype(np.float64) @ matrix).astype(np.float32)
        maps, offsets = {**hasher.maps, new: matrix}, {**hasher.offsets, new: offset}
        return replace(hasher, maps=maps, offsets=offsets)
    if isinstance(hasher, HybridHasher):
        parts = [with_modality(part, new, like, centre) for part in hasher.parts]
        return replace(hasher, parts=parts)
    raise _unknown(hasher)


def _unknown(hasher: Hasher) -> CodeError:
    return CodeError(f"a hasher of kind {hasher.kind!r} cannot be told its modalities")
