"""Observations with codes and fingerprints, for the store and from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.types import Hit, Observation


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Identifies the content of a media file when it was coded, to detect changes.

    Attributes:
        content: XXH3-128 of the file's bytes, as 32 hex digits; not secure against intentional
            collisions.
        size: bytes.
        modified_ns: time of the last change, nanoseconds since 1970; None if unknown, as inside
            another file.
    """

    content: str
    size: int
    modified_ns: int | None = None


@dataclass(frozen=True, slots=True)
class CodedObservation:
    """An observation with its code by one model.

    Attributes:
        observation: without its code.
        code: uint8 [bits/8].
        embedding: float [dim], unit norm; None if embeddings are not stored.
        fingerprint: of the media file; None if unknown.
    """

    observation: Observation
    code: NDArray[np.uint8]
    embedding: NDArray[np.floating] | None = None
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True, slots=True)
class CodedBefore:
    """A media item that a model has already coded.

    Attributes:
        media_root: folder of its media, or an empty string.
        fingerprint: of the media file then; None if it was not stored.
    """

    media_root: str
    fingerprint: Fingerprint | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of one search, and how they were found.

    Attributes:
        hits: best first.
        engine: ``flat``, ``ivf`` or ``gpu``.
        exact: whether no nearer observation can be missing.
        cutoff: largest distance of a hit, given by the caller or by the relevance threshold; None
            without a limit.
    """

    hits: list[Hit]
    engine: str = "flat"
    exact: bool = True
    cutoff: float | None = None
