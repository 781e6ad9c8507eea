"""Writing an archive's observations to a file: CSV, JSON Lines or Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from bittern.errors import QueryError
from hashing.saved import SavedModel
from index.archive import Archive
from index.columns import as_given
from service.coding import about_codes, check_folder

SUFFIXES = (".csv", ".jsonl", ".parquet")


def export_archive(
    path: Path,
    to: Path,
    where: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write observations in row order; the file appears when it is complete.

    CSV and JSON Lines hold identity and metadata; Parquet also holds the codes of the archive's
    first model, which its schema metadata describes.

    Args:
        path: the archive.
        to: the file; its suffix decides the format.
        where: SQL condition over the columns.
        on_progress: called with rows written so far, and how many there will be.

    Returns:
        How many observations were written.

    Raises:
        QueryError: a suffix that is none of .csv, .jsonl and .parquet.
        FilterError: `where` is not a filter.
    """
    if to.suffix.lower() not in SUFFIXES:
        raise QueryError(
            f"'{to.name}' should end in one of {', '.join(SUFFIXES)}: that decides the format",
            field="to",
        )
    check_folder(to)
    partial = to.with_name(to.name + ".partial")
    with Archive.open(path) as archive:
        total = len(archive.rows(where))
        done = 0

        def counted(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            nonlocal done
            for batch in batches:
                yield batch
                done += batch.num_rows
                on_progress(done, total)

        try:
            if to.suffix.lower() == ".parquet":
                _write_parquet(partial, archive, where, counted)
            else:
                write = _write_csv if to.suffix.lower() == ".csv" else _write_json_lines
                write(partial, counted(archive.iter_batches(where=where)), _empty(archive))
            partial.replace(to)
        finally:
            partial.unlink(missing_ok=True)
    return done


def _empty(archive: Archive) -> pa.Schema:
    """The columns of an export without rows."""
    return pa.schema([(column, pa.string()) for column in archive.stats().columns])


def _write_csv(to: Path, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
    first = next(batches, pa.RecordBatch.from_pylist([], schema=schema))
    with pa.csv.CSVWriter(to, first.schema) as writer:
        writer.write_batch(first)
        for batch in batches:
            writer.write_batch(batch)


def _write_json_lines(to: Path, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
    with to.open("w", encoding="utf-8") as file:
        for batch in batches:
            for row in batch.to_pylist():
                known = {name: as_given(value) for name, value in row.items() if value is not None}
                file.write(json.dumps(known, ensure_ascii=False) + "\n")


def _write_parquet(
    to: Path,
    archive: Archive,
    where: str | None,
    counted: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]],
) -> None:
    models = archive.models()
    digest = models[0].digest if models else None
    batches = counted(archive.iter_batches(model=digest, where=where))
    first = next(batches, pa.RecordBatch.from_pylist([], schema=_empty(archive)))
    schema = first.schema
    if digest:
        card = SavedModel.load(archive.model_folder(digest)).card
        schema = schema.with_metadata(about_codes(card))
    with pq.ParquetWriter(to, schema) as writer:
        writer.write_batch(first.replace_schema_metadata(schema.metadata))
        for batch in batches:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
