"""The plan of a batch: each item checked, duplicates resolved, rows numbered.

Nothing here writes. The plan is one set of rows for one atomic commit.

An item is a media item: all windows of one recording, or one photograph. It is a duplicate if the
archive, or the batch before it, has its `occurrenceID`:

    in the archive            error    skip     overwrite
    no                        added    added    added
    coded by this model       failed   skipped  every row of the item is replaced
    coded by others only      filled   filled   filled

To *fill* an item is to add this model's codes to its observations. Metadata and other models' codes
stay; windows that only this model has become new rows. To replace an item is to drop all its rows
and the codes of all models, which belong to the replaced media.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bittern.checks import MAX_MEDIA_NAME_BYTES, MAX_STORED_ID_CHARS, check_name
from bittern.errors import BitternError, CodeError, DuplicateObservationError, MetadataError
from bittern.index.columns import MetadataColumns, Value
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedObservation
from bittern.index.store import is_unicode
from bittern.types import AddResult, AddStatus, Observation, OnDuplicate

MAX_WINDOWS = 100_000
"""Most observations of one media item."""
_WINDOW = "#t="
_MODALITIES = ("image", "audio")


@dataclass(slots=True)
class StoredItem:
    """The rows that the archive already has of one media item.

    Attributes:
        modality: ``image`` or ``audio``.
        rows: row number by observation id.
        coded: whether this model has coded any of them.
    """

    modality: str
    rows: dict[str, int] = field(default_factory=dict)
    coded: bool = False


@dataclass(slots=True)
class PlannedItem:
    """One item to store.

    Attributes:
        status: added or overwritten.
        observations: checked, with their codes.
        metadata: fitted to the columns, one per observation.
        stored: its rows in the archive, or None.
    """

    status: AddStatus
    observations: Sequence[CodedObservation]
    metadata: list[dict[str, Value]]
    stored: StoredItem | None

    @property
    def fills(self) -> bool:
        """Whether it adds codes to stored rows."""
        return self.stored is not None and self.status is AddStatus.ADDED


@dataclass(slots=True)
class Plan:
    """The plan of one call of `add`.

    Attributes:
        items: those to store, by `occurrenceID`.
        results: one per given item, in order.
    """

    items: dict[str, PlannedItem]
    results: list[AddResult]


class Planner:
    """Checks the items of one batch against the archive and against each other.

    Args:
        record: the model that coded the batch.
        columns: the archive's metadata columns; those of the batch are added.
        stored: items of the archive, by `occurrenceID`.
        on_duplicate: the policy, see the table.
        embedding_dim: length of the stored embeddings; None if there are none.
    """

    def __init__(
        self,
        record: ModelRecord,
        columns: MetadataColumns,
        stored: Mapping[str, StoredItem],
        on_duplicate: OnDuplicate,
        embedding_dim: int | None,
    ) -> None:
        self._record = record
        self._columns = columns
        self._stored = stored
        self._on_duplicate = on_duplicate
        self.embedding_dim = embedding_dim
        self._items: dict[str, PlannedItem] = {}

    def plan(self, items: Sequence[Sequence[CodedObservation]]) -> Plan:
        """Check every item; a bad one fails alone."""
        results = [self._checked(item, number) for number, item in enumerate(items)]
        return Plan(self._items, results)

    def _checked(self, item: Sequence[CodedObservation], number: int) -> AddResult:
        name = item[0].observation.occurrence_id if item else f"item {number}"
        try:
            if not item:
                raise MetadataError(f"item {number} of the batch holds no observations")
            return self._accept(name, item)
        except BitternError as error:
            return AddResult.failure(name, error)

    def _accept(self, name: str, item: Sequence[CodedObservation]) -> AddResult:
        stored, planned = self._stored.get(name), self._items.get(name)
        if stored is None:  # earlier releases took other names
            check_name(name, "occurrenceID")
            check_name(item[0].observation.media, "media", MAX_MEDIA_NAME_BYTES)
        _check_identity(name, item)
        dim = self._check_codes(name, item)
        modality = item[0].observation.modality
        known = planned.observations[0].observation.modality if planned else None
        known = known or (stored.modality if stored else modality)
        duplicate = planned is not None or (stored is not None and stored.coded)
        replace = duplicate and self._on_duplicate == "overwrite"
        if duplicate and self._on_duplicate == "skip":
            return AddResult(name, AddStatus.SKIPPED, message=f"{name} is already in the archive")
        if (duplicate and not replace) or (known != modality and not replace):
            kind = "" if known == modality else f" as {known}, not {modality}"
            raise DuplicateObservationError(
                f"occurrenceID {name!r} is already in the archive{kind}; give each media item "
                "its own occurrenceID, or add with on_duplicate 'skip' or 'overwrite'",
                field="occurrenceID",
            )
        metadata = self._metadata(item)
        self.embedding_dim = dim
        status = AddStatus.OVERWRITTEN if replace else AddStatus.ADDED
        self._items[name] = PlannedItem(status, item, metadata, stored)
        return AddResult(name, status, len(item))

    def _metadata(self, item: Sequence[CodedObservation]) -> list[dict[str, Value]]:
        fitted: dict[int, dict[str, Value]] = {}
        for coded in item:
            metadata = coded.observation.metadata
            if id(metadata) not in fitted:
                fitted[id(metadata)] = self._columns.accept(metadata)
        return [fitted[id(coded.observation.metadata)] for coded in item]

    def _check_codes(self, name: str, item: Sequence[CodedObservation]) -> int | None:
        """Check codes and embeddings; returns the embeddings' length."""
        width, dim = self._record.bits // 8, self.embedding_dim
        for coded in item:
            code = np.asarray(coded.code)
            if code.dtype != np.uint8 or code.shape != (width,):
                raise CodeError(
                    f"{name!r} has a code of {code.dtype} {list(code.shape)}; model "
                    f"{self._record.name} ({self._record.digest[:16]}) makes uint8 [{width}]",
                    field="code",
                )
            if coded.embedding is None:
                continue
            embedding = np.asarray(coded.embedding)
            dim = dim or embedding.size
            if embedding.shape != (dim,) or not np.isfinite(embedding.astype(np.float16)).all():
                raise CodeError(
                    f"{name!r} has an embedding of shape {list(embedding.shape)}; "
                    f"{dim} finite numbers are needed",
                    field="embedding",
                )
        return dim


def _check_identity(name: str, item: Sequence[CodedObservation]) -> None:
    if _WINDOW in name:
        raise MetadataError(
            f"an occurrenceID cannot contain {_WINDOW!r}, which marks windows: {name[:60]!r}",
            field="occurrenceID",
        )
    if len(item) > MAX_WINDOWS:
        raise MetadataError(f"{name!r} has {len(item)} windows, the limit is {MAX_WINDOWS}")
    ids: set[str] = set()
    for coded in item:
        observation = coded.observation
        _check_observation(name, observation, item[0].observation.modality)
        if observation.id in ids:
            raise MetadataError(f"observation id {observation.id!r} occurs twice", field="id")
        ids.add(observation.id)


def _check_observation(name: str, observation: Observation, modality: str) -> None:
    own_id = observation.id == name or observation.id.startswith(name + _WINDOW)
    if observation.occurrence_id != name or not own_id or len(observation.id) > MAX_STORED_ID_CHARS:
        raise MetadataError(
            f"observation id {observation.id[:60]!r} does not belong to occurrenceID {name!r}: "
            f"it must be that, or that and {_WINDOW}start,end",
            field="id",
        )
    if observation.modality not in _MODALITIES or observation.modality != modality:
        raise MetadataError(
            f"{observation.id!r} has modality {observation.modality!r}: it must be 'image' or "
            "'audio', the same for all windows",
            field="modality",
        )
    start, end = observation.start_s, observation.end_s
    if (start is None) != (end is None):
        raise MetadataError(f"{observation.id!r} has only one end of its window", field="start_s")
    if start is not None and end is not None and not (0 <= start < end and math.isfinite(end)):
        raise MetadataError(
            f"{observation.id!r} has a window from {start} to {end} s: it must start at 0 or "
            "later and end after that",
            field="start_s",
        )
    if not all(map(is_unicode, (observation.id, observation.media, observation.media_root))):
        raise MetadataError(
            f"{observation.id!r} has an id or media name that is not Unicode text", field="media"
        )


def rows_of(
    items: Iterable[PlannedItem], record: ModelRecord, committed: int, next_row: int
) -> tuple[dict[str, list[Any]], int]:
    """The new rows of planned items as columns, without the filled rows.

    Args:
        items: to store.
        record: the model.
        committed: the store version that the commit will make.
        next_row: the first free row number.

    Returns:
        columns of equal length, and the next free row number.
    """
    rows: list[dict[str, Any]] = []
    names: dict[str, None] = {}
    for item in items:
        stored = item.stored.rows if item.stored else {}
        for coded, metadata in zip(item.observations, item.metadata, strict=True):
            if item.fills and coded.observation.id in stored:
                continue
            row = stored.get(coded.observation.id)
            if row is None:
                row, next_row = next_row, next_row + 1
            rows.append({**metadata, **_own_columns(coded, record, row, committed)})
            names.update(dict.fromkeys(rows[-1]))
    return {name: [row.get(name) for row in rows] for name in names}, next_row


def _own_columns(
    coded: CodedObservation, record: ModelRecord, row: int, committed: int
) -> dict[str, Any]:
    observation = coded.observation
    columns: dict[str, Any] = {
        "row": row,
        "committed": committed,
        "id": observation.id,
        "occurrenceID": observation.occurrence_id,
        "modality": observation.modality,
        "media": observation.media,
        "mediaRoot": observation.media_root,
        "start_s": observation.start_s,
        "end_s": observation.end_s,
        record.code_column: np.asarray(coded.code).tobytes(),
    }
    if coded.fingerprint is not None:
        columns["mediaHash"] = coded.fingerprint.content
        columns["mediaBytes"] = coded.fingerprint.size
        columns["mediaModified"] = coded.fingerprint.modified_ns
    if coded.embedding is not None:
        columns[record.embedding_column] = np.asarray(coded.embedding, dtype=np.float16)
    return columns
