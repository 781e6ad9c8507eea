"""What systems are handed, checked; and digests of what they make of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.systems.base import Metric, Training
from bittern.errors import CodeError, InvalidInputError
from bittern.hashing.codes import check_bits

SHOWN_ROWS = 5


def checked(embeddings: NDArray[np.floating], dim: int, what: str) -> NDArray[np.float32]:
    """Embeddings as float32 [n, dim].

    Args:
        embeddings: what was given.
        dim: length that an embedding must have.
        what: ``items`` or ``queries``, for the message.

    Raises:
        CodeError: wrong shape, or a value is not finite; says in which rows.
    """
    x = np.asarray(embeddings)
    if x.ndim != 2 or x.shape[1] != dim or not np.issubdtype(x.dtype, np.floating):
        raise CodeError(
            f"embeddings of {what} must be float [n, {dim}], not {x.dtype} {list(x.shape)}"
        )
    with np.errstate(over="ignore"):
        x = np.ascontiguousarray(x, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if len(bad):
        shown = ", ".join(str(row) for row in bad[:SHOWN_ROWS])
        more = f" and {len(bad) - SHOWN_ROWS} more" if len(bad) > SHOWN_ROWS else ""
        raise CodeError(
            f"embeddings of {what} hold NaN or infinity in row {shown}{more} of {len(x)}: embed "
            "those again, or leave them out",
            details={"row": str(bad[0]), "rows": str(len(bad))},
        )
    return x


def checked_training(training: Training) -> Training:
    """The same training part, with every row finite and both sides of one length.

    Raises:
        CodeError: see `checked`; also where a side has no row at all.
    """
    dim = training.items.shape[1] if training.items.ndim == 2 else 0
    for what, rows in (("training items", training.items), ("training queries", training.queries)):
        if not len(checked(rows, dim, what)):
            raise CodeError(f"there are no {what}: nothing can be fitted on none")
    return training


def check_metric(metric: Metric, offered: tuple[Metric, ...]) -> Metric:
    """Return `metric` if it is among those offered.

    Raises:
        InvalidInputError: it is not.
    """
    if metric not in offered:
        raise InvalidInputError(
            f"this system offers {' and '.join(offered)} distances, not {metric!r}", field="metric"
        )
    return metric


def centres(training: Training) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means of training items and of training queries, float32 [dim] each.

    Where both sides are the same, the items' mean is that of both. A single row is no cloud:
    its centre is 0, as in `bittern.hashing.training_free`.
    """
    items = _centre(training.items)
    same = training.asked_side == training.item_side
    return items, items if same else _centre(training.queries)


def _centre(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    if len(rows) < 2:
        return np.zeros(rows.shape[1], dtype=np.float32)
    mean: NDArray[np.float32] = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def reason_against(bits: int | None) -> str:
    """Why there is no code of this length; empty where there is."""
    if bits is None:
        return "it takes a code length"
    try:
        check_bits(bits)
    except CodeError as error:
        return error.message
    return ""


def digest_of(head: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Hex SHA-256 of JSON values and arrays, by name."""
    digest = hashlib.sha256(json.dumps(dict(head), sort_keys=True, ensure_ascii=False).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"\n{name} {array.dtype.str} {list(array.shape)}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
