"""Hashers that need no training: PCA + random rotation, ITQ, random projection.

- ``pca``: Hashing-Baseline (arXiv 2509.14427): PCA without whitening, then a random
  orthogonal rotation, which spreads the variance evenly over the bits.
- ``itq``: Iterative Quantization (Gong & Lazebnik, CVPR 2011): the rotation is learned by
  alternately fixing the signs and solving the orthogonal Procrustes problem.
- ``lsh``: random hyperplanes (Charikar, STOC 2002). Uses only the means of the data.

PCA cannot give more components than the data has dimensions. For more bits, further
independent rotations of the same components are appended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bittern.errors import CodeError, InvalidInputError
from bittern.hashing.codes import check_bits
from bittern.hashing.hashers import LinearHasher

Kind = Literal["pca", "itq", "lsh"]
Embeddings = Mapping[str, NDArray[np.floating]]

_ITQ_ITERATIONS = 50
_SMALLEST_VARIANCE = 1e-7
"""Components with less than this share of the largest variance are rounding noise."""


def fit(
    kind: Kind,
    embeddings: Embeddings,
    bits: int,
    *,
    seed: int = 0,
    basis: Sequence[str] | None = None,
) -> LinearHasher:
    """Fit a training-free hasher.

    Args:
        kind: ``pca``, ``itq`` or ``lsh``.
        embeddings: per modality, float [n, dim], unit norm; one row or more. Each modality is
            centred by its mean.
        bits: code length, a multiple of 8.
        seed: of the random rotation (numpy's PCG64).
        basis: modalities whose rows decide the components, with equal weights; all by default.
            Hashing-Baseline uses the archive side (images or audio).

    Returns:
        A hasher whose logits have a root mean square of 1 over the rows of `basis`.

    Raises:
        CodeError: unusable bits or embeddings.
        InvalidInputError: unknown kind, or no modality.
    """
    check_bits(bits)
    if kind not in get_args(Kind):
        raise InvalidInputError(
            f"there is no hasher '{kind}'; there are {', '.join(get_args(Kind))}", field="hasher"
        )
    checked = {modality: _check(modality, x) for modality, x in embeddings.items()}
    if not checked:
        raise InvalidInputError("a hasher needs embeddings of at least one modality")
    if len({x.shape[1] for x in checked.values()}) > 1:
        raise CodeError(f"dimensions differ: { {m: x.shape[1] for m, x in checked.items()} }")
    # A single row minus its mean would be zero.
    means = {m: x.mean(axis=0) if len(x) > 1 else np.zeros(x.shape[1]) for m, x in checked.items()}
    chosen = list(basis) if basis is not None else sorted(checked)
    centred = _balanced([checked[m] - means[m] for m in chosen])
    rng = np.random.default_rng(seed)
    if kind == "lsh":
        projection = rng.standard_normal((centred.shape[1], bits)) / np.sqrt(centred.shape[1])
    else:
        components = principal_components(centred, bits)
        projection = _rotate(components, centred, bits, rng, learn=kind == "itq")
    rms = float(np.sqrt(np.mean((centred @ projection) ** 2)))
    return LinearHasher(
        kind=kind,
        projection=projection.astype(np.float32),
        means={m: mean.astype(np.float32) for m, mean in means.items()},
        scale=1.0 / rms if rms > 0 else 1.0,
        settings={
            "seed": seed,
            "basis": chosen,
            "rows": {m: len(x) for m, x in sorted(checked.items())},
        },
    )


def _balanced(clouds: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """All rows, scaled to equal weights of the modalities."""
    total = sum(len(x) for x in clouds)
    return np.concatenate([x * np.sqrt(total / (len(clouds) * len(x))) for x in clouds])


def principal_components(centred: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Principal axes in order of falling variance.

    Args:
        centred: float64 [n, dim], zero mean.
        most: largest number of axes.

    Returns:
        float64 [dim, m] with orthonormal columns, 1 <= m <= most: axes whose variance is only
        rounding noise are omitted. Signs are fixed (the largest entry of an axis is positive).
    """
    variances, axes = np.linalg.eigh(centred.T @ centred)
    order = np.argsort(variances)[::-1]
    variances, axes = variances[order], axes[:, order]
    real = int(np.count_nonzero(variances > _SMALLEST_VARIANCE * max(variances[0], 1e-30)))
    axes = axes[:, : max(1, min(most, real))]
    largest = np.abs(axes).argmax(axis=0)
    return axes * np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1.0, 1.0)


def random_rotation(size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """A Haar-random orthogonal matrix, float64 [size, size] (Mezzadri, arXiv math-ph/0609050)."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


def _rotate(
    components: NDArray[np.float64],
    centred: NDArray[np.float64],
    bits: int,
    rng: np.random.Generator,
    *,
    learn: bool,
) -> NDArray[np.float64]:
    """Project on `components` and rotate, with independent rotations until they fill `bits`."""
    blocks: list[NDArray[np.float64]] = []
    projected = centred @ components
    while sum(b.shape[1] for b in blocks) < bits:
        rotation = random_rotation(components.shape[1], rng)
        if learn:
            rotation = _itq_rotation(projected, rotation)
        blocks.append(components @ rotation)
    return np.concatenate(blocks, axis=1)[:, :bits]


def _itq_rotation(
    projected: NDArray[np.float64], rotation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Rotate so that the projected rows are close to the corners of the hypercube."""
    for _ in range(_ITQ_ITERATIONS):
        signs = np.where(projected @ rotation > 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(projected.T @ signs)
        rotation = left @ right
    return rotation


def _check(modality: str, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
    x = np.asarray(embeddings, dtype=np.float64)
    if x.ndim != 2 or 0 in x.shape:
        raise CodeError(
            f"embeddings of {modality} must have shape [n > 0, dim], not {list(x.shape)}"
        )
    if not np.isfinite(x).all():
        raise CodeError(f"embeddings of {modality} hold NaN or infinity")
    return x
