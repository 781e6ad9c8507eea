"""Every kind of hasher that can be saved, and how it is restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import BitternError, CodeError
from bittern.hashing import aligned, hybrid
from bittern.hashing.hashers import Hasher
from bittern.hashing.linear import LinearHasher

LINEAR = ("pca", "itq", "lsh")
LEARNED = "hashcoder"
KINDS = (*LINEAR, aligned.KIND, LEARNED, hybrid.KIND)
_MOST_PARTS = 8


def restore(tensors: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any]) -> Hasher:
    """The hasher whose `tensors` and `config` these are.

    Raises:
        CodeError: an unknown kind, or parts that do not fit together.
    """
    kind = config.get("kind")
    if kind not in KINDS:
        raise CodeError(f"a hasher of kind {kind!r} is not known to this version")
    try:
        if kind == hybrid.KIND:
            return _restore_hybrid(tensors, config)
        if kind == LEARNED:
            from bittern.hashing.learned import LearnedHasher

            return LearnedHasher.restore(tensors, config)
        if kind == aligned.KIND:
            return aligned.AlignedHasher.restore(tensors, config)
        return LinearHasher.restore(tensors, config)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CodeError(f"its configuration makes no sense: {error!r}") from error


def _restore_hybrid(
    tensors: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any]
) -> Hasher:
    configs = list(config["parts"])
    if len(configs) > _MOST_PARTS or any(c.get("kind") == hybrid.KIND for c in configs):
        raise CodeError(f"a hybrid has at most {_MOST_PARTS} parts, none of them a hybrid")
    parts = []
    for number, of_part in enumerate(configs):
        try:
            parts.append(restore(hybrid.part_tensors(tensors, number), of_part))
        except BitternError as error:
            raise CodeError(f"part {number}: {error.message}") from error
    weights = [float(weight) for weight in config["weights"]]
    restored = hybrid.HybridHasher(parts, weights, dict(config["settings"]))
    if extra := set(tensors) - set(restored.tensors()):
        raise CodeError(f"unexpected tensors: {', '.join(sorted(extra))}")
    return restored
