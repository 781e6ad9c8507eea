"""The values that go into an archive and come out of it.

The same types serve an archive opened in this process and one on a server. Users import them
from `bittern`. Every folder may import this module; it imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from bittern import result_table
from bittern.checks import MAX_STORED_ID_CHARS
from bittern.errors import BitternError

if TYPE_CHECKING:
    import pyarrow

Metadata = Mapping[str, str | float | int | bool | None]
"""Darwin Core terms under their own names, and the other columns of the source."""

Metric = Literal["asymmetric", "hamming"]
OnDuplicate = Literal["error", "skip", "overwrite"]

MAX_FAILURES_KEPT = 1_000
"""Failures that `AddTotals` keeps word for word; all of them are counted."""


def media_path(root: str, media: str) -> Path | None:
    """The absolute path of a media file below its root; None for an address or an unknown root."""
    path = Path(root, media)
    return path if path.is_absolute() else None


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

    @property
    def path(self) -> Path | None:
        """Absolute path of the media file, or None where it is not known: behind a server, or for
        media from an address. A member of a tar file is named below that file.
        """
        return media_path(self.media_root, self.media)

    def __repr__(self) -> str:
        return f"Observation({self.id!r}, {self.modality}, {self.media!r})"


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result: rank counts from 1, a smaller distance is better."""

    rank: int
    distance: float
    observation: Observation

    @property
    def id(self) -> str:
        """Id of the observation."""
        return self.observation.id

    @property
    def media(self) -> str:
        """File name of the observation's media, as the source gave it."""
        return self.observation.media

    @property
    def path(self) -> Path | None:
        """Absolute path of the observation's media, if it is known; see `Observation.path`."""
        return self.observation.path

    @property
    def metadata(self) -> Metadata:
        """Metadata of the observation, under Darwin Core names."""
        return self.observation.metadata

    def __repr__(self) -> str:
        return f"Hit({self.rank}, {self.id!r}, {self.distance:.2f}, {self.media!r})"


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

    @classmethod
    def failure(cls, occurrence_id: str, error: BitternError, message: str = "") -> AddResult:
        """An item that failed with an error; `message` replaces that of the error."""
        if isinstance(occurrence_id, str) and len(occurrence_id) > MAX_STORED_ID_CHARS:
            occurrence_id = f"{occurrence_id[:100]}…"
        return cls(occurrence_id, AddStatus.FAILED, 0, error.reason, message or error.message)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, in row order; `next_token` is empty on the last page."""

    observations: list[Observation]
    next_token: str


@dataclass(frozen=True, slots=True)
class EngineStats:
    """How the codes of one model and modality are searched.

    Attributes:
        kind: ``flat``, ``ivf`` or ``gpu``.
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
        state: ``ready``, ``pending`` (being coded, not searched yet) or ``retired`` (replaced by
            another model).
    """

    name: str
    digest: str
    bits: int
    rows: Mapping[str, int]
    engines: Mapping[str, EngineStats] = field(default_factory=dict)
    state: str = "ready"


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


@dataclass(frozen=True, slots=True)
class SearchResult(Sequence[Hit]):
    """Hits in order (distance, row), and how they were found. It is a sequence of its hits.

    A search with a `cutoff` may have no hits: nothing in the archive is near enough. `nearest` is
    then the nearest observation.

    Attributes:
        model: name of the model that answered.
        target: ``image`` or ``audio``.
        metric: the metric that was used.
        took_ms: milliseconds from the parsed request to the hits.
        hits: best first.
        engine: what searched: ``flat``, ``ivf``, ``gpu`` or ``sharded``.
        exact: whether none of the nearest can have been missed.
        cutoff: largest distance of a hit, in bits; None where the query had no such limit, and
            where relevance cannot be judged, among fewer than 32 observations.
        nearest: where nothing is near enough, the nearest observation, with rank 1; None where
            there is a hit, or where nothing matches at any distance.
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

    def __len__(self) -> int:
        return len(self.hits)

    @overload
    def __getitem__(self, index: int) -> Hit: ...

    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...

    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        return self.hits[index]

    def to_arrow(self) -> pyarrow.Table:
        """One row per hit: rank, distance, id, media, path, start_s, end_s, and a column per
        metadata name.
        """
        import pyarrow

        return pyarrow.Table.from_pylist(self._rows())

    def to_pandas(self) -> Any:
        """A pandas data frame with the columns of `to_arrow`.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(self._rows())

    def _rows(self) -> list[dict[str, Any]]:
        names = dict.fromkeys(name for hit in self.hits for name in hit.metadata)
        rows = []
        for hit in self.hits:
            own = {
                "rank": hit.rank,
                "distance": hit.distance,
                "id": hit.id,
                "media": hit.media,
                "path": None if hit.path is None else str(hit.path),
                "start_s": hit.observation.start_s,
                "end_s": hit.observation.end_s,
            }
            rows.append(own | {n: hit.metadata.get(n) for n in names if n not in own})
        return rows

    def __str__(self) -> str:
        return result_table.as_text(self)

    def __repr__(self) -> str:
        return f"<SearchResult: {result_table.caption(self)}>"

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
    data: bytes | None = field(default=None, repr=False)
    media_root: str = ""
    metadata: Metadata = field(default_factory=dict)
    url: str | None = None


@dataclass(slots=True)
class AddTotals:
    """What became of the items so far.

    Attributes:
        added: items stored.
        overwritten: items stored in place of older ones.
        skipped: items that were there already.
        failed: items that could not be used.
        observations: how many observations the stored items became.
        failures: the first 1,000 failures, with their reasons.
    """

    added: int = 0
    overwritten: int = 0
    skipped: int = 0
    failed: int = 0
    observations: int = 0
    failures: list[AddResult] = field(default_factory=list)

    @property
    def items(self) -> int:
        """How many items have been answered."""
        return self.added + self.overwritten + self.skipped + self.failed

    def count(self, result: AddResult) -> None:
        """Take one more result into account."""
        if result.status is AddStatus.ADDED:
            self.added += 1
        elif result.status is AddStatus.OVERWRITTEN:
            self.overwritten += 1
        elif result.status is AddStatus.SKIPPED:
            self.skipped += 1
            return
        else:
            self.failed += 1
            if len(self.failures) < MAX_FAILURES_KEPT:
                self.failures.append(result)
            return
        self.observations += result.observations

    def __str__(self) -> str:
        """One line, e.g. ``3 added (7 observations), 1 failed``."""
        counts = [f"{self.added} added"]
        if self.overwritten:
            counts.append(f"{self.overwritten} overwritten")
        counts[-1] += f" ({self.observations} observations)"
        counts += [f"{self.skipped} skipped"] if self.skipped else []
        counts += [f"{self.failed} failed"] if self.failed else []
        return ", ".join(counts)


class Adding(Iterator[list[AddResult]]):
    """Work that happens while it is iterated: one list of results per committed batch.

    Attributes:
        totals: what became of the items answered so far.
    """

    def __init__(self, batches: Iterator[list[AddResult]]) -> None:
        self._batches = batches
        self.totals = AddTotals()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[AddResult]:
        batch = next(self._batches)
        for result in batch:
            self.totals.count(result)
        return batch

    def wait(self) -> AddTotals:
        """Add everything that is left and return the totals."""
        for _ in self:
            pass
        return self.totals

    def close(self) -> None:
        """Stop before the next batch. What has been answered stays."""
        if isinstance(self._batches, Generator):
            self._batches.close()

    def __repr__(self) -> str:
        return f"<Adding: {self.totals}; iterate it, or call wait(), to go on>"


@dataclass(frozen=True, slots=True)
class Encoded:
    """The code of a text, a picture or one window of a recording.

    Attributes:
        code: bits/8 bytes.
        logits: the numbers whose signs the code holds, or empty where they are not wanted.
        start_s: start of the window in seconds; None unless sound.
        end_s: end of the window in seconds; None unless sound.
    """

    code: bytes
    logits: tuple[float, ...] = field(default=(), repr=False)
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What an export writes; see `ArchiveAPI.export`."""

    format: str | None = None
    where: str | None = None
    hits: SearchResult | None = None
    media: tuple[Path, ...] = ()
    on_progress: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export has written.

    Attributes:
        path: the file or folder.
        format: its kind.
        observations: their number.
        left_out: observations that the format cannot contain.
        missing: media that could not be copied; for folders only.
        copied_from: the folders that media were copied from; for folders only.
    """

    path: Path
    format: str
    observations: int
    left_out: int = 0
    missing: int = 0
    copied_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of an archive.

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
