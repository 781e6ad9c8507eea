"""Observations as the store takes them and gives them back: with codes and fingerprints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bittern.types import Hit, Observation


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a media file was when it was coded, to tell later whether it has changed.

    Attributes:
        content: XXH3 of the file's bytes, 128 bits, as 32 hex digits. Not secure against
            somebody who wants two files to look alike; against chance it is.
        size: bytes.
        modified_ns: time of the last change, nanoseconds since 1970; None where there is none
            to be had, as inside another file.
    """

    content: str
    size: int
    modified_ns: int | None = None


@dataclass(frozen=True, slots=True)
class CodedObservation:
    """An observation with what one model made of it.

    Attributes:
        observation: what was coded.
        code: uint8 [bits/8].
        embedding: float [dim], unit norm, or None when embeddings are not kept.
        fingerprint: of the media file; None where it is not known.
    """

    observation: Observation
    code: NDArray[np.uint8]
    embedding: NDArray[np.floating] | None = None
    fingerprint: Fingerprint | None = None


@dataclass(frozen=True, slots=True)
class CodedBefore:
    """A media item that a model has coded already.

    Attributes:
        media_root: folder that its media came from, or an empty string.
        fingerprint: of the media file then; None where it was not kept.
    """

    media_root: str
    fingerprint: Fingerprint | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of one search, and how they were found.

    Attributes:
        hits: best first.
        engine: ``flat``, ``ivf`` or ``gpu``.
        exact: whether nothing nearer can have been missed.
        cutoff: distance beyond which nothing was let through, because a largest distance was
            given or because it is irrelevant; None where there was no such limit.
    """

    hits: list[Hit]
    engine: str = "flat"
    exact: bool = True
    cutoff: float | None = None
