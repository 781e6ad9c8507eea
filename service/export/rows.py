"""Rows to export: of an archive, of a search, or observations in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from bittern.index.columns import DARWIN_CORE, IDENTITY, ColumnType, Value, as_given
from bittern.types import Hit, Observation, media_path

if TYPE_CHECKING:
    from bittern.index.archive import Archive

BATCH_ROWS = 1_000
HIT_COLUMNS: Mapping[str, ColumnType] = {"rank": "int64", "distance": "double"}
"""Leading columns of hits."""
PATH = "mediaPath"
"""Column of the absolute path of the media file, beside `media`; empty where it is not known."""
_ARROW: Mapping[ColumnType, pa.DataType] = {
    "string": pa.string(),
    "double": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
}


@dataclass
class ExportRows:
    """Observations to export; can be iterated once.

    Attributes:
        schema: ``rank`` and ``distance`` for hits, `index.columns.IDENTITY`, metadata, and
            ``code`` if codes are wanted.
        total: number of observations.
        stream: the observations, in order.
        done: observations that the writer has read.
        left_out: observations so far that the format cannot contain.
    """

    schema: pa.Schema
    total: int
    stream: Iterable[pa.RecordBatch]
    done: int = 0
    left_out: int = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows; updates `done`."""
        for batch in self.stream:
            self.done += batch.num_rows
            yield batch

    def records(self) -> Iterator[list[dict[str, Value]]]:
        """The rows batch by batch, as dictionaries without null values."""
        for batch in self.batches():
            yield [
                {name: as_given(value) for name, value in row.items() if value is not None}
                for row in batch.to_pylist()
            ]


def rows_of_archive(
    archive: Archive, where: str | None = None, *, codes: bool = False, paths: bool = False
) -> ExportRows:
    """An archive's observations of one generation, in row order.

    Args:
        archive: open.
        where: SQL condition; None for all.
        codes: also the codes of the archive's first model, which the schema's metadata describes.
        paths: also `PATH`, on the machine that has the media.

    Raises:
        FilterError: `where` is not a filter.
    """
    models = archive.model_records() if codes else []
    digest = models[0].digest if models else None
    metadata: Mapping[str, ColumnType] = archive.stats().columns  # type: ignore[assignment]
    first = _identity(metadata, paths)
    stored = [*IDENTITY, *metadata, "mediaRoot"] if PATH in first else None
    stream = archive.iter_batches(stored, model=digest, where=where, batch_rows=BATCH_ROWS)
    fields = [(name, _ARROW[kind]) for name, kind in {**first, **metadata}.items()]
    schema = pa.schema(fields)
    if digest:
        from bittern.hashing.saved_model import SavedModel
        from bittern.service.ingest.parquet_parts import about_codes

        card = SavedModel.load(archive.model_folder(digest)).card
        schema = schema.append(pa.field("code", pa.binary(card.bits // 8)))
        schema = schema.with_metadata(about_codes(card))
    return ExportRows(schema, len(archive.rows(where)), _as(schema, stream))


def _identity(metadata: Mapping[str, ColumnType], paths: bool) -> Mapping[str, ColumnType]:
    """The identity columns; with `PATH`, unless the metadata have a column of that name."""
    if not paths or PATH.lower() in map(str.lower, metadata):
        return IDENTITY
    columns = list(IDENTITY.items())
    after = list(IDENTITY).index("media") + 1
    return dict([*columns[:after], (PATH, "string"), *columns[after:]])


def _as(schema: pa.Schema, stream: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in stream:
        if "mediaRoot" in batch.schema.names:
            located = zip(batch["mediaRoot"].to_pylist(), batch["media"].to_pylist(), strict=True)
            paths = [_path(root or "", media) for root, media in located]
            batch = batch.append_column(PATH, pa.array(paths, pa.string()))
        # A commit may have added a column in between.
        known = [
            batch.column(name).cast(type_)
            if name in batch.schema.names
            else pa.nulls(batch.num_rows, type_)
            for name, type_ in zip(schema.names, schema.types, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(known, schema=schema)


def _path(root: str, media: str) -> str | None:
    path = media_path(root, media)
    return None if path is None else str(path)


def rows_of_hits(hits: Sequence[Hit], *, paths: bool = False) -> ExportRows:
    """The hits of a search, best first, with rank and distance in bits; `paths`: also `PATH`."""
    firsts: list[dict[str, Value]] = [{"rank": h.rank, "distance": h.distance} for h in hits]
    return _rows([hit.observation for hit in hits], firsts, HIT_COLUMNS, paths=paths)


def rows_of_observations(observations: Sequence[Observation]) -> ExportRows:
    """Observations in memory, in their order."""
    return _rows(observations, [{} for _ in observations], {})


def _rows(
    observations: Sequence[Observation],
    firsts: Sequence[Mapping[str, Value]],
    columns: Mapping[str, ColumnType],
    *,
    paths: bool = False,
) -> ExportRows:
    metadata = metadata_types(observations)
    own = _identity(metadata, paths and any(one.path is not None for one in observations))
    names = {name: f"{name}_" if name.lower() in columns else name for name in metadata}
    fields = [(name, _ARROW[kind]) for name, kind in {**columns, **own}.items()]
    fields += [(names[name], _ARROW[kind]) for name, kind in metadata.items()]
    schema = pa.schema(fields)

    def record(observation: Observation, first: Mapping[str, Value]) -> dict[str, Value | None]:
        known = {
            names[name]: fitted(value, metadata[name])
            for name, value in observation.metadata.items()
            if value is not None
        }
        path = {PATH: _path(observation.media_root, observation.media)} if PATH in own else {}
        return {**first, **identity(observation), **path, **known}

    def stream() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(observations), BATCH_ROWS):
            batch = slice(start, start + BATCH_ROWS)
            records = list(map(record, observations[batch], firsts[batch]))
            yield pa.RecordBatch.from_pylist(records, schema=schema)

    return ExportRows(schema, len(observations), stream())


def identity(observation: Observation) -> dict[str, Value | None]:
    """The identity columns of an observation."""
    return {
        "id": observation.id,
        "occurrenceID": observation.occurrence_id,
        "modality": observation.modality,
        "media": observation.media,
        "start_s": observation.start_s,
        "end_s": observation.end_s,
    }


def metadata_types(observations: Iterable[Observation]) -> dict[str, ColumnType]:
    """The columns of some observations' metadata, with a type that holds all of their values.

    Darwin Core terms first, in their order; then the others, by name.
    """
    found: dict[str, set[type]] = {}
    for observation in observations:
        for name, value in observation.metadata.items():
            if value is not None:
                found.setdefault(name, set()).add(type(value))
    ordered = [name for name in DARWIN_CORE if name in found]
    ordered += sorted(found.keys() - DARWIN_CORE.keys())
    return {name: _common(found[name], DARWIN_CORE.get(name)) for name in ordered}


def _common(kinds: set[type], known: ColumnType | None) -> ColumnType:
    numbers = kinds <= {int, float}
    if known is not None and (known == "string" or numbers):
        return known
    if kinds == {bool}:
        return "bool"
    if kinds == {int}:
        return "int64"
    return "double" if numbers else "string"


def fitted(value: Value, kind: ColumnType) -> Value:
    """A value as its column's type."""
    if kind == "string" and not isinstance(value, str):
        return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    return float(value) if kind == "double" else value
