"""What an archive holds, counted."""

from __future__ import annotations

from collections.abc import Sequence

from bittern.index.generation import MODALITIES, Generation
from bittern.index.models import ModelRecord
from bittern.types import ArchiveStats, ModelStats


def statistics_of(
    generation: Generation, name: str, records: Sequence[ModelRecord]
) -> ArchiveStats:
    """Counts, models, generation and columns of one generation.

    Args:
        generation: the generation to count.
        name: the archive's name.
        records: the registered models.
    """
    store = generation.store
    recordings = store.read(["occurrenceID"], "modality = 'audio'")["occurrenceID"]
    return ArchiveStats(
        name=name,
        observations={modality: len(generation.of_modality(modality)) for modality in MODALITIES},
        recordings=len(recordings.unique()),
        models=[_model_statistics(generation, record) for record in records],
        generation=generation.version,
        code_bytes=generation.code_bytes,
        columns=dict(store.metadata_types),
    )


def _model_statistics(generation: Generation, record: ModelRecord) -> ModelStats:
    loaded = generation.loaded(record)
    rows = {
        modality: len(loaded[modality])
        if loaded
        else generation.store.count(
            f"`{record.code_column}` IS NOT NULL AND modality = '{modality}'"
        )
        for modality in MODALITIES
    }
    return ModelStats(record.name, record.digest, record.bits, rows)
