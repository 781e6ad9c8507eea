"""Data of an archive for encoding it again: media without codes, fingerprints, embeddings."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bittern.index.archive import Archive
from bittern.index.columns import FINGERPRINT
from bittern.index.models import ModelRecord
from bittern.index.observation import Fingerprint
from bittern.index.store import one_of
from bittern.types import Observation


@dataclass
class StoredMedium:
    """A photograph or recording of an archive.

    Attributes:
        observations: the whole medium, or its windows.
        fingerprint: of the file when it was coded; None if it was not stored.
        embeddings: float32 [dim] for each observation; empty if any has none.
    """

    observations: list[Observation] = field(default_factory=list)
    fingerprint: Fingerprint | None = None
    embeddings: list[NDArray[np.float32]] = field(default_factory=list)


def lacking(archive: Archive, model: str, modalities: Collection[str]) -> list[str]:
    """`occurrenceID`s of media without any code of a model, in row order.

    Args:
        archive: open.
        model: digest of a registered model, pending or not.
        modalities: ``image``, ``audio`` or both.
    """
    column, store = archive._model(model).code_column, archive._current().store
    kinds = one_of("modality", sorted(modalities))
    without = store.read(["row", "occurrenceID"], f"`{column}` IS NULL AND {kinds}")
    names = pc.unique(without.sort_by("row")["occurrenceID"])
    coded = store.read(["occurrenceID"], f"`{column}` IS NOT NULL")["occurrenceID"]
    if len(coded) and len(names):
        names = names.filter(pc.invert(pc.is_in(names, value_set=pc.unique(coded))))
    found: list[str] = names.to_pylist()
    return found


def media_of(
    archive: Archive, names: Sequence[str], embeddings_of: ModelRecord | None = None
) -> dict[str, StoredMedium]:
    """Media by their `occurrenceID`s, in row order.

    Args:
        archive: open.
        names: `occurrenceID`s.
        embeddings_of: a model whose stored embeddings are read; None for none.
    """
    snapshot = archive._current()
    store, where = snapshot.store, one_of("occurrenceID", names)
    fingerprints = ["row", *(name for name in FINGERPRINT if store.field_type(name) is not None)]
    embeddings = [] if embeddings_of is None else [embeddings_of.embedding_column]
    rows = store.read([*fingerprints, *embeddings], where)
    about = {value["row"]: value for value in rows.select(fingerprints).to_pylist()}
    vectors = _vectors(rows, embeddings_of) if embeddings_of is not None else {}
    found: dict[str, StoredMedium] = {}
    for seen in snapshot.by_condition(where):
        medium = found.setdefault(seen.occurrence_id, StoredMedium())
        medium.observations.append(seen)
        medium.fingerprint = medium.fingerprint or _fingerprint(about[seen.row])
        if seen.row in vectors:
            medium.embeddings.append(vectors[seen.row])
    for medium in found.values():
        if len(medium.embeddings) < len(medium.observations):
            medium.embeddings = []
    return found


def has_embeddings(archive: Archive, record: ModelRecord) -> bool:
    """Whether embeddings of a model are stored."""
    store = archive._current().store
    column = record.embedding_column
    return store.field_type(column) is not None and store.count(f"`{column}` IS NOT NULL") > 0


def some_embeddings(
    archive: Archive, record: ModelRecord, modality: str, most: int
) -> NDArray[np.float32]:
    """Stored embeddings of the first observations of a modality: float32 [n, dim]."""
    store, column = archive._current().store, record.embedding_column
    table = store.read(["row"], f"`{column}` IS NOT NULL AND {one_of('modality', [modality])}")
    first = table.sort_by("row")["row"].to_pylist()[:most]
    if not first:
        return np.empty((0, 0), np.float32)
    rows = store.read(["row", column], f"`row` IN ({', '.join(map(str, first))})").sort_by("row")
    return np.stack(list(_vectors(rows, record).values()))


def _vectors(rows: pa.Table, record: ModelRecord) -> dict[int, NDArray[np.float32]]:
    column = rows[record.embedding_column]
    valid = np.asarray(column.is_valid())
    numbers = np.asarray(rows["row"])[valid]
    held = column.drop_null().combine_chunks()
    if isinstance(held, pa.ChunkedArray):
        held = pa.concat_arrays(held.chunks) if held.num_chunks else held.chunk(0)
    flat = np.asarray(held.flatten(), dtype=np.float32).reshape(len(numbers), -1)
    return {int(row): vector for row, vector in zip(numbers, flat, strict=True)}


def _fingerprint(value: dict[str, object]) -> Fingerprint | None:
    content, size, modified = (value.get(name) for name in FINGERPRINT)
    if not isinstance(content, str) or not isinstance(size, int):
        return None
    return Fingerprint(content, size, modified if isinstance(modified, int) else None)
