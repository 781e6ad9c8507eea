"""What callers ask of an archive, and what they get back: plain values.

In-process use, the gRPC server and the gRPC client share these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bittern.index.observation import Hit, Metadata, Metric
from bittern.service import result_table

MAX_K = 10_000
"""Most hits one search may ask for."""
MAX_TEXT_CHARS = 2_000
"""Longest text query, in characters."""
DEFAULT_K = 10


@dataclass(frozen=True, slots=True)
class Query:
    """One search. Exactly one of `text`, `image`, `audio`, `id` and `code` is given.

    Attributes:
        text: words, in the language of the model.
        image: bytes of a picture file.
        audio: bytes of a sound file; the windows of a longer one are averaged.
        id: an observation of the archive, whose stored code becomes the query.
        code: bits/8 bytes, made by the same model.
        target: ``image`` or ``audio``; None means images where the archive has some.
        k: how many hits, 1 to 10,000.
        where: SQL condition over the metadata columns.
        metric: None means asymmetric where the query has logits, else hamming.
        model: name or digest (or its first 8+ digits); None means, of those with both towers,
            the one that coded most of the target.
        within: hits no farther than this, in bits; None means at whatever distance. Looked for
            exactly unless the query has a `recall`.
        relevance: leave out what is not relevant: ``strict``, ``usual`` or ``loose``, or the share
            of queries about something else altogether that may get an answer, 0.001 to 0.5; None
            means show the nearest, whatever they are. Such a search is exact.
        recall: share of the true k nearest that has to be found; 1 means exactly these, less
            lets an approximate engine answer where there is one that is faster. None means what
            the archive was opened with, which is 1 unless that was said otherwise.
    """

    text: str | None = None
    image: bytes | None = None
    audio: bytes | None = None
    id: str | None = None
    code: bytes | None = None
    target: str | None = None
    k: int = DEFAULT_K
    where: str | None = None
    metric: Metric | None = None
    model: str | None = None
    within: float | None = None
    relevance: str | float | None = None
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits in order (distance, row), and how they were found.

    No hits beside a `cutoff` are an answer: nothing in the archive is near enough. `nearest` then
    is what comes closest.

    Attributes:
        model: name of the model that answered.
        target: ``image`` or ``audio``.
        metric: the metric that was used.
        took_ms: milliseconds from the parsed request to the hits.
        hits: best first.
        engine: what searched: ``flat``, ``ivf``, ``graph``, ``gpu`` or ``sharded``.
        exact: whether none of the nearest can have been missed.
        cutoff: distance in bits beyond which nothing is a hit; None where that was not asked for,
            and where relevance cannot be judged, among fewer than 32 observations.
        nearest: where nothing is near enough, the nearest of what was left out, with rank 1;
            None where there is a hit, or nothing to be found at whatever distance.
    """

    model: str
    target: str
    metric: Metric
    took_ms: float
    hits: list[Hit]
    engine: str = "flat"
    exact: bool = True
    cutoff: float | None = None
    nearest: Hit | None = None

    def __str__(self) -> str:
        return result_table.as_text(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return result_table.as_html(self)


@dataclass(frozen=True, slots=True)
class MediaItem:
    """One photograph or recording on its way into an archive.

    Attributes:
        occurrence_id: identifier, unique among the media of the archive.
        media: file name as the source gives it; shown with every hit.
        modality: ``image`` or ``audio``.
        path: where the file is, or None when `data` holds its bytes.
        data: the file's bytes, or None when `path` is given.
        media_root: folder that `media` is relative to, kept for local use.
        metadata: Darwin Core and other columns.
        url: where the file can be fetched, as an operator allowed it; None when one of the two is
            given. Never taken from the wire.
    """

    occurrence_id: str
    media: str
    modality: str
    path: Path | None = None
    data: bytes | None = None
    media_root: str = ""
    metadata: Metadata = field(default_factory=dict)
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Encoded:
    """The code of one piece of media or text.

    Attributes:
        code: bits/8 bytes.
        logits: the numbers whose signs the code holds, or empty when not asked for.
        start_s: start of the window in seconds; None unless sound.
        end_s: end of the window in seconds; None unless sound.
    """

    code: bytes
    logits: tuple[float, ...] = ()
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model that an archive can be asked through.

    Attributes:
        name: e.g. ``field-256``.
        digest: hex SHA-256 of everything that decides its codes.
        bits: code length.
        encoder: catalogue name of the encoder.
        modalities: its towers.
        rows: coded rows of this archive by modality.
        weights: ``ready``, or what is missing and how to bring it.
        licence: licences of the weights.
    """

    name: str
    digest: str
    bits: int
    encoder: str
    modalities: tuple[str, ...]
    rows: Mapping[str, int] = field(default_factory=dict)
    weights: str = "ready"
    licence: str = ""
