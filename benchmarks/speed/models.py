"""The model that the product would take, for measuring with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.report import say
from bittern.hashing.saved import SavedModel
from bittern.hashing.training_free import Kind
from bittern.service.jobs.indexing import IndexOptions, ready_model
from bittern.service.models.fitting import DEFAULT_BITS, fitted_model
from bittern.service.models.loaded import Embedder


def model_of(
    embedder: Embedder,
    media: Callable[[], Mapping[str, NDArray[np.float32]]],
    bits: int = DEFAULT_BITS,
    kind: Kind | None = None,
) -> SavedModel:
    """What `bittern index --bits --hasher` takes: shipped, calibrated, or fitted on the media.

    Args:
        embedder: with its encoder.
        media: per media modality, float32 [n, dim]; called where a hasher is fitted on them.
        bits: code length.
        kind: hasher; None for the default.
    """
    say(f"making {embedder.name}-{bits}{f'-{kind}' if kind else ''}")
    options = IndexOptions(model=embedder.name, bits=bits, hasher=kind)
    saved = ready_model(options, lambda name: embedder)
    return saved or fitted_model(embedder.encoder(), bits, media(), kind)
