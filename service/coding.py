"""Codes of a source in a Parquet file, without an archive.

The file's schema metadata names the model, its digest, the code length and the bit order;
codes are fixed-size binary of bits/8 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import pyarrow as pa
import pyarrow.parquet as pq

from bittern.errors import InvalidInputError, SourceNotFoundError
from encoders.base import Modality
from hashing.saved import ModelCard
from index.observation import AddResult, AddStatus
from service.committing import COMMIT_ITEMS, batched, check_towers, without_untaken
from service.embedders import Embedders
from service.engine import catalogue_encoder
from service.indexing import (
    IndexReport,
    Progress,
    enough_to_fit,
    fitted_on_sample,
)
from service.model_choice import IndexOptions, ready_model
from service.models import EncoderLoader, Model
from service.pipeline import Embedded, Entry, embed_items

BIT_ORDER = "bit i of a code is bit i % 8 (little-endian) of byte i // 8"


def code_source(
    entries: Sequence[Entry],
    to: Path,
    options: IndexOptions,
    on_batch: Progress = lambda results: None,
    *,
    load_encoder: EncoderLoader = catalogue_encoder,
    embedders: Embedders | None = None,
) -> IndexReport:
    """Code every entry into the Parquet file `to`; it appears when it is complete.

    Args:
        entries: what `service.sources.read_source` listed.
        to: a Parquet file.
        options: which model; nothing else of them plays a part.
        on_batch: called with the results of every batch.
        load_encoder: from a catalogue name to an encoder.
        embedders: encoders that may be loaded already, instead of `load_encoder`.

    Raises:
        ModelNotFoundError: no encoder or model of this name.
        WeightsMissingError: the model's weights are not on this machine.
        SourceNotFoundError: none of the entries could be coded.
    """
    begun = perf_counter()
    check_parquet(to)
    check_folder(to)
    report = IndexReport()
    embedders = embedders or Embedders(load_encoder)
    saved = ready_model(options, embedders.named)
    embedder = embedders.of(saved) if saved else embedders.named(options.model)
    if saved is not None:
        model = Model(saved, embedder)
        check_towers(model, entries)
        entries = list(without_untaken(model, entries))
    stream = embed_items(embedder, entries, report.times)
    fitted_on: list[Embedded] = []
    if saved is None:
        fitted_on = enough_to_fit(stream)
        saved = fitted_on_sample(embedder, fitted_on, options)
    if saved is None:
        raise SourceNotFoundError("none of the media could be used, so no hasher can be fitted")
    model = Model(saved, embedder)
    report.model = model.card.name
    partial = to.with_name(to.name + ".partial")
    try:
        with pq.ParquetWriter(partial, schema_of(model.card)) as writer:
            for embedded in (fitted_on, stream):
                for batch in batched(embedded, COMMIT_ITEMS):
                    writer.write_table(_table(batch, model))
                    results = [_result(e) for e in batch]
                    report.count(results)
                    on_batch(results)
        if not report.observations:
            raise SourceNotFoundError(
                "none of the media could be used: "
                + "; ".join(f.message for f in report.failures[:3])
            )
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
    report.seconds = perf_counter() - begun
    return report


def check_folder(to: Path) -> None:
    """Check that a file can be written at `to`, before any work is done for it.

    Raises:
        InvalidInputError: its folder is not there, or `to` is a folder itself.
    """
    if not to.absolute().parent.is_dir():
        raise InvalidInputError(f"there is no folder {to.parent} to write {to.name} into")
    if to.is_dir():
        raise InvalidInputError(f"{to} is a folder; name a file in it")


def check_parquet(to: Path) -> None:
    """Check that the name of a Parquet file says so.

    Raises:
        InvalidInputError: another suffix.
    """
    if to.suffix.lower() != ".parquet":
        raise InvalidInputError(f"codes are written as Parquet; name the file {to.stem}.parquet")


def about_codes(card: ModelCard) -> dict[str, str]:
    """What a reader must know to use the codes, as Parquet schema metadata."""
    return {
        "bittern.model": card.name,
        "bittern.digest": card.digest,
        "bittern.encoder": card.encoder,
        "bittern.bits": str(card.bits),
        "bittern.bit_order": BIT_ORDER,
    }


def schema_of(card: ModelCard) -> pa.Schema:
    """Columns of the file."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("occurrenceID", pa.string(), nullable=False),
            pa.field("modality", pa.string(), nullable=False),
            pa.field("media", pa.string(), nullable=False),
            pa.field("start_s", pa.float64()),
            pa.field("end_s", pa.float64()),
            pa.field("code", pa.binary(card.bits // 8), nullable=False),
        ],
        metadata=about_codes(card),
    )


def _table(batch: Sequence[Embedded], model: Model) -> pa.Table:
    rows = []
    for embedded in batch:
        observations = embedded.observations()
        if not observations:
            continue
        codes = model.codes(Modality(observations[0].modality), embedded.stacked())
        for seen, code in zip(observations, codes, strict=True):
            rows.append(
                {
                    "id": seen.id,
                    "occurrenceID": seen.occurrence_id,
                    "modality": seen.modality,
                    "media": seen.media,
                    "start_s": seen.start_s,
                    "end_s": seen.end_s,
                    "code": code.tobytes(),
                }
            )
    return pa.Table.from_pylist(rows, schema=schema_of(model.card))


def _result(embedded: Embedded) -> AddResult:
    if embedded.result is not None:
        return embedded.result
    assert embedded.item is not None
    return AddResult(embedded.item.occurrence_id, AddStatus.ADDED, len(embedded.embeddings))
