"""Aligned codes: media embeddings moved towards their text embeddings, then PCA and a rotation.

Even in a joint space, images and their captions form separate clouds. A ridge regression of text
embeddings on media embeddings moves the media. It has a closed form, like zero-shot regression
(ESZSL, Romera-Paredes & Torr, ICML 2015), and one parameter. The map is linear and close to the
identity, so it generalises to new classes. PCA and a random rotation follow, as in
Hashing-Baseline (arXiv 2509.14427). Together they are one matrix per modality. Ours (not
published); measured in docs/background/learned-codes.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError
from bittern.hashing.codes import check_bits
from bittern.hashing.hashers import checked_embeddings, checked_mean
from bittern.hashing.training_free import principal_components, random_rotation

ALIGNED = "aligned"
_MAP = "map."
_OFFSET = "offset."
_TEXT = "text"

_SMALLEST_VARIANCE = 1e-12
"""Share of the mean's squared length; less variance is rounding noise of equal rows."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class AlignedHasher:
    """``logits = embedding @ map[modality] + offset[modality]``, in float64.

    Attributes:
        maps: per modality float32 [dim, bits].
        offsets: per modality float32 [bits].
        settings: of the fit, for the record.
    """

    maps: Mapping[str, NDArray[np.float32]]
    offsets: Mapping[str, NDArray[np.float32]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    kind = ALIGNED

    def __post_init__(self) -> None:
        if not self.maps or set(self.maps) != set(self.offsets):
            raise CodeError(
                f"maps are of {sorted(self.maps)}, offsets of {sorted(self.offsets)}: they must "
                "be of the same modalities, one or more"
            )
        shapes = {m.shape for m in self.maps.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise CodeError(f"maps must all be [dim, bits], not {sorted(shapes)}")
        check_bits(self.bits)
        for modality, offset in self.offsets.items():
            if offset.shape != (self.bits,):
                raise CodeError(
                    f"the offset of {modality} has shape {list(offset.shape)}, not [{self.bits}]"
                )
        if not all(np.isfinite(a).all() for a in (*self.maps.values(), *self.offsets.values())):
            raise CodeError("the hasher's numbers are not all finite")

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(next(iter(self.maps.values())).shape[0])

    @property
    def bits(self) -> int:
        """Length of a code."""
        return int(next(iter(self.maps.values())).shape[1])

    @property
    def modalities(self) -> list[str]:
        """Its modalities, sorted."""
        return sorted(self.maps)

    def logits(self, embeddings: NDArray[np.floating], modality: str) -> NDArray[np.float32]:
        """Project embeddings; see `bittern.hashing.hashers.Hasher`.

        Raises:
            CodeError: wrong shape, or a value is not finite.
            UnsupportedModalityError: the hasher was not fitted for this modality.
        """
        x = checked_embeddings(embeddings, modality, dim=self.dim, known=self.maps)
        z = x.astype(np.float64) @ self.maps[modality] + self.offsets[modality]
        return z.astype(np.float32)

    def with_modality(self, new: str, like: str, mean: NDArray[np.floating]) -> AlignedHasher:
        """See `bittern.hashing.hashers.Hasher.with_modality`."""
        centre, matrix = checked_mean(self, new, like, mean), self.maps[like]
        offset = -(centre.astype(np.float64) @ matrix).astype(np.float32)
        maps, offsets = {**self.maps, new: matrix}, {**self.offsets, new: offset}
        return replace(self, maps=maps, offsets=offsets)

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """``map.<modality>`` and ``offset.<modality>``."""
        named = {_MAP + m: t for m, t in self.maps.items()}
        named |= {_OFFSET + m: t for m, t in self.offsets.items()}
        return {n: np.ascontiguousarray(t, dtype=np.float32) for n, t in sorted(named.items())}

    def config(self) -> dict[str, Any]:
        """Kind and settings."""
        return {"kind": ALIGNED, "settings": dict(self.settings)}

    @classmethod
    def restore(
        cls, tensors: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any]
    ) -> AlignedHasher:
        """Build a hasher from what `tensors` and `config` returned.

        Raises:
            CodeError: the tensors do not fit together.
        """
        maps = {n.removeprefix(_MAP): t for n, t in tensors.items() if n.startswith(_MAP)}
        offsets = {n.removeprefix(_OFFSET): t for n, t in tensors.items() if n.startswith(_OFFSET)}
        if len(maps) + len(offsets) != len(tensors):
            raise CodeError(f"unexpected tensors among {sorted(tensors)}")
        return cls(maps, offsets, dict(config["settings"]))


@dataclass
class Moments:
    """First and second moments of media and text embeddings, added batch by batch."""

    dim: int
    weight: float = 0.0
    sum_media: Matrix = field(init=False)
    sum_words: Matrix = field(init=False)
    media_media: Matrix = field(init=False)
    media_words: Matrix = field(init=False)

    def __post_init__(self) -> None:
        self.sum_media, self.sum_words = np.zeros(self.dim), np.zeros(self.dim)
        self.media_media = np.zeros((self.dim, self.dim))
        self.media_words = np.zeros((self.dim, self.dim))

    def add(
        self,
        media: NDArray[np.floating],
        words: NDArray[np.floating],
        weights: NDArray[np.floating] | None = None,
    ) -> None:
        """Add rows.

        Args:
            media: float [n, dim].
            words: float [n, dim], the text of each.
            weights: float [n]; None for equal weights.

        Raises:
            CodeError: shapes that do not fit together, or a value is not finite.
        """
        x, y = np.asarray(media, dtype=np.float64), np.asarray(words, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 2 or x.shape[1] != self.dim:
            raise CodeError(
                f"media and words must both be [n, {self.dim}], not {list(x.shape)} and "
                f"{list(y.shape)}"
            )
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise CodeError("embeddings hold NaN or infinity")
        weighed = x if weights is None else x * np.asarray(weights, dtype=np.float64)[:, None]
        self.weight += float(len(x) if weights is None else np.sum(weights))
        self.sum_media += weighed.sum(axis=0)
        self.sum_words += y.sum(axis=0) if weights is None else np.asarray(weights) @ y
        self.media_media += weighed.T @ x
        self.media_words += weighed.T @ y

    @property
    def mean_media(self) -> Matrix:
        """float64 [dim]."""
        return self.sum_media / max(self.weight, 1e-30)

    @property
    def mean_words(self) -> Matrix:
        """float64 [dim]."""
        return self.sum_words / max(self.weight, 1e-30)

    @property
    def covariance(self) -> Matrix:
        """Covariance of the media, float64 [dim, dim]."""
        mean = self.mean_media
        return self.media_media / max(self.weight, 1e-30) - np.outer(mean, mean)

    @property
    def cross_covariance(self) -> Matrix:
        """Covariance of media and words, float64 [dim, dim]."""
        return self.media_words / max(self.weight, 1e-30) - np.outer(
            self.mean_media, self.mean_words
        )


def alignment_map(moments: Moments, ridge: float) -> Matrix:
    """The matrix A that maps centred media, as rows, towards their text.

    ``A = I + argmin_M |X (I + M) - Y|² + ridge · v · |M|²`` with v the mean variance of X: at
    ridge 0 the plain regression, at infinity the identity.

    Args:
        moments: of the training data.
        ridge: above 0, relative to the variance of the data.

    Returns:
        float64 [dim, dim].

    Raises:
        CodeError: a ridge that is not positive, or rows without any variance.
    """
    if not (np.isfinite(ridge) and ridge > 0):
        raise CodeError(f"ridge must be above 0, not {ridge}")
    covariance = moments.covariance
    variance = float(np.trace(covariance)) / moments.dim
    mean = moments.mean_media
    if not variance > _SMALLEST_VARIANCE * float(mean @ mean):
        raise CodeError("all rows are equal: there is nothing to align")
    identity = np.eye(moments.dim)
    moved = np.linalg.solve(
        covariance + ridge * variance * identity, moments.cross_covariance - covariance
    )
    return np.asarray(identity + moved, dtype=np.float64)


def fit_aligned(
    pairs: Mapping[str, Moments], bits: int, *, ridge: float, seed: int = 0
) -> AlignedHasher:
    """Fit an aligned hasher.

    Args:
        pairs: per medium (``image``, ``audio``), moments of its embeddings and their text.
        bits: code length, a multiple of 8.
        ridge: see `alignment_map`; larger values favour new classes. Choose it on held-out
            classes.
        seed: of the random rotation (numpy's PCG64).

    Returns:
        A hasher for all media and for text; the logits of media have a root mean square of 1.

    Raises:
        CodeError: unusable bits, ridge or moments.
    """
    check_bits(bits)
    if not pairs or _TEXT in pairs:
        raise CodeError(f"pairs are of media and their text, not of {sorted(pairs)}")
    aligned = {medium: alignment_map(moments, ridge) for medium, moments in pairs.items()}
    spread = [_root(a.T @ pairs[medium].covariance @ a) for medium, a in sorted(aligned.items())]
    rows = np.concatenate(spread)
    components = principal_components(rows, bits)
    rng = np.random.default_rng(seed)
    blocks = [
        components @ random_rotation(components.shape[1], rng) for _ in _rounds(bits, components)
    ]
    projection = np.concatenate(blocks, axis=1)[:, :bits]
    # Each root replaces its modality's rows, with weight 1: it has their covariance.
    projection = projection / np.sqrt(np.sum((rows @ projection) ** 2) / (bits * len(pairs)))
    maps = {medium: a @ projection for medium, a in aligned.items()} | {_TEXT: projection}
    centres: dict[str, NDArray[Any]] = {m: moments.mean_media for m, moments in pairs.items()}
    total = sum(moments.weight for moments in pairs.values())
    shares = [m.mean_words * (m.weight / total) for m in pairs.values()]
    centres[_TEXT] = np.sum(shares, axis=0)
    return AlignedHasher(
        maps={m: a.astype(np.float32) for m, a in maps.items()},
        offsets={m: (-centres[m] @ maps[m]).astype(np.float32) for m in maps},
        settings={"ridge": ridge, "seed": seed, "words": _TEXT, "weight": total},
    )


def _rounds(bits: int, components: Matrix) -> Iterable[int]:
    """Independent rotations, until they fill `bits`."""
    return range(-(-bits // components.shape[1]))


def _root(covariance: Matrix) -> Matrix:
    """A matrix R with ``R.T @ R == covariance``."""
    values, axes = np.linalg.eigh(covariance)
    root: Matrix = np.sqrt(np.clip(values, 0, None))[:, None] * axes.T
    return root
