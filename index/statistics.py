"""What an archive holds, counted."""

from __future__ import annotations

from collections.abc import Sequence

from bittern.index.generation import MODALITIES, Snapshot
from bittern.index.models import ModelRecord
from bittern.index.observation import ArchiveStats, ModelStats


def statistics_of(snapshot: Snapshot, name: str, records: Sequence[ModelRecord]) -> ArchiveStats:
    """Counts, models, generation and columns of one snapshot.

    Args:
        snapshot: the generation to count.
        name: the archive's name.
        records: the registered models.
    """
    store = snapshot.store
    recordings = store.read(["occurrenceID"], "modality = 'audio'")["occurrenceID"]
    return ArchiveStats(
        name=name,
        observations={modality: len(snapshot.of_modality(modality)) for modality in MODALITIES},
        recordings=len(recordings.unique()),
        models=[_model_statistics(snapshot, record) for record in records],
        generation=snapshot.generation,
        code_bytes=snapshot.code_bytes,
        columns=dict(store.metadata_types),
    )


def _model_statistics(snapshot: Snapshot, record: ModelRecord) -> ModelStats:
    loaded = snapshot.loaded(record)
    rows = {
        modality: len(loaded[modality])
        if loaded
        else snapshot.store.count(f"`{record.code_column}` IS NOT NULL AND modality = '{modality}'")
        for modality in MODALITIES
    }
    return ModelStats(record.name, record.digest, record.bits, rows)
