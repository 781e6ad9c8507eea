"""Observations, hits and what the archive answers: plain values, no behaviour.

The same dataclasses come back from an archive opened in process and from a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Metadata = Mapping[str, str | float | int | bool | None]
"""Darwin Core terms as they stand, plus whatever other columns the source had."""

Metric = Literal["asymmetric", "hamming"]
OnDuplicate = Literal["error", "skip", "overwrite"]


@dataclass(frozen=True, slots=True)
class Observation:
    """One searchable thing: a photograph, or one window of a recording.

    Attributes:
        id: unique in its archive. The `occurrenceID` of the media; for one window of a longer
            recording `occurrenceID#t=start,end` (a W3C media fragment, in seconds).
        occurrence_id: the media's own identifier, shared by all windows of a recording.
        modality: ``image`` or ``audio``.
        media: file name as the source gave it, relative to `media_root` where that is set.
        media_root: folder on the machine that indexed the media; never sent over the wire.
        start_s: start of the window in seconds; None for a photograph.
        end_s: end of the window in seconds; None for a photograph.
        metadata: Darwin Core and other columns.
        row: position in the archive's total order; -1 before it is stored.
    """

    id: str
    occurrence_id: str
    modality: str
    media: str
    media_root: str = ""
    start_s: float | None = None
    end_s: float | None = None
    metadata: Metadata = field(default_factory=dict)
    row: int = -1


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
class Hit:
    """One search result: rank counts from 1, a smaller distance is better."""

    rank: int
    distance: float
    observation: Observation


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of one search, and how they were found.

    Attributes:
        hits: best first.
        engine: ``flat``, ``ivf``, ``graph`` or ``gpu``.
        exact: whether nothing nearer can have been missed.
        cutoff: distance beyond which nothing was let through, because a largest distance was
            given or because it is irrelevant; None where there was no such limit.
    """

    hits: list[Hit]
    engine: str = "flat"
    exact: bool = True
    cutoff: float | None = None


class AddStatus(StrEnum):
    """What became of one item handed to `add`."""

    ADDED = "added"
    OVERWRITTEN = "overwritten"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AddResult:
    """What became of one media item (all windows of a recording share one result).

    Attributes:
        occurrence_id: the item's identifier.
        status: added, overwritten, skipped or failed.
        observations: how many observations it became.
        reason: machine-readable reason of a failure, else empty.
        message: human-readable reason of a failure or a skip, else empty.
    """

    occurrence_id: str
    status: AddStatus
    observations: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, in row order; `next_token` is empty on the last page."""

    observations: list[Observation]
    next_token: str


@dataclass(frozen=True, slots=True)
class EngineStats:
    """How the codes of one model and modality are searched.

    Attributes:
        kind: ``flat``, ``ivf``, ``graph`` or ``gpu``.
        exact: whether it never misses a nearest row.
        reason: why it is this one, for people.
        rows: rows that it searches.
        code_bytes: bytes of codes.
        other_bytes: bytes besides the codes: layouts for scanning, indexes.
        building: what is being built in the background; empty where nothing is.
    """

    kind: str
    exact: bool
    reason: str
    rows: int
    code_bytes: int
    other_bytes: int
    building: str = ""


@dataclass(frozen=True, slots=True)
class ModelStats:
    """One model of an archive.

    Attributes:
        name: its name.
        digest: hex SHA-256 of everything that decides its codes.
        bits: code length.
        rows: rows coded, by modality.
        engines: how its codes are searched, by modality; only of codes that are loaded.
    """

    name: str
    digest: str
    bits: int
    rows: Mapping[str, int]
    engines: Mapping[str, EngineStats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ArchiveStats:
    """What an archive holds.

    Attributes:
        name: folder name.
        observations: rows by modality.
        recordings: distinct `occurrence_id` among the audio rows.
        models: the models that coded them.
        generation: store version that the index reflects.
        code_bytes: bytes of codes held in memory.
        columns: metadata columns and their types (``string``, ``double``...).
    """

    name: str
    observations: Mapping[str, int]
    recordings: int
    models: list[ModelStats]
    generation: int
    code_bytes: int
    columns: Mapping[str, str]
