"""Tables of codes: what the columns of a Parquet file are, and what its metadata says.

Codes are fixed-size binary of bits/8 bytes. The schema's metadata names the model, its digest,
the code length and the bit order, without which codes mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from bittern.encoders.base import Modality
from bittern.hashing.saved import ModelCard
from bittern.service.ingest import Embedded
from bittern.service.models.loaded import Model

BIT_ORDER = "bit i of a code is bit i % 8 (little-endian) of byte i // 8"


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
    """The columns that every file has; those of the source's metadata follow."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("occurrenceID", pa.string(), nullable=False),
            pa.field("modality", pa.string(), nullable=False),
            pa.field("media", pa.string(), nullable=False),
            pa.field("start_s", pa.float64()),
            pa.field("end_s", pa.float64()),
            pa.field("code", pa.binary(card.bits // 8), nullable=False),
            pa.field("mediaHash", pa.string()),
            pa.field("mediaBytes", pa.int64()),
            pa.field("mediaModified", pa.int64()),
        ],
        metadata=about_codes(card),
    )


def table_of(batch: Sequence[Embedded], model: Model) -> pa.Table:
    """Codes and metadata of embedded items, one row per observation."""
    rows: list[dict[str, Any]] = []
    metadata: list[Mapping[str, Any]] = []
    for embedded in batch:
        observations = embedded.observations()
        if not observations:
            continue
        codes = model.codes(Modality(observations[0].modality), embedded.stacked())
        mark = embedded.fingerprint
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
                    "mediaHash": mark.content if mark else None,
                    "mediaBytes": mark.size if mark else None,
                    "mediaModified": mark.modified_ns if mark else None,
                }
            )
            metadata.append(seen.metadata)
    schema = schema_of(model.card)
    table = pa.Table.from_pylist(rows, schema=schema)
    for name in dict.fromkeys(name for row in metadata for name in row):
        column = name + "_" if name in schema.names else name
        table = table.append_column(column, _column([row.get(name) for row in metadata]))
    return table


def _column(values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) > 1 and not kinds <= {int, float}:
        values = [None if value is None else str(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, OverflowError):  # whole numbers beyond 64 bits
        return pa.array([None if value is None else str(value) for value in values])


def joined_schema(schemas: Iterable[pa.Schema], *, without: bytes) -> pa.Schema:
    """One schema for all: where types differ, numbers become doubles and others text.

    Args:
        schemas: of the parts.
        without: key of the metadata that is of single parts.
    """
    fields: dict[str, pa.Field] = {}
    metadata: dict[bytes, bytes] = {}
    for schema in schemas:
        metadata.update(schema.metadata or {})
        for field in schema:
            before = fields.get(field.name)
            fields[field.name] = field if before is None else _joined(before, field)
    metadata.pop(without, None)
    as_text = [f.with_type(pa.string()) if f.type == pa.null() else f for f in fields.values()]
    return pa.schema(as_text, metadata=metadata)


def _joined(one: pa.Field, other: pa.Field) -> pa.Field:
    if one.type == other.type or other.type == pa.null():
        return one
    if one.type == pa.null():
        return other
    numbers = {pa.int64(), pa.float64()}
    return one.with_type(pa.float64() if {one.type, other.type} <= numbers else pa.string())


def with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A part's table with the columns and types of the whole."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
