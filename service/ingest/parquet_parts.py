"""Codes in a Parquet file: its columns, and the durable Parquet parts of a running job.

    OUT.parts/job.json              the job, with the digest of its model
    OUT.parts/model/                that model, if it was fitted on these media
    OUT.parts/part-00000000.parquet one for each commit, written durably
    OUT.parts/lock                  held by the process that writes

A part records how many entries of the listing it covers, and a digest of them. A resumed job
compares its listing with the parts. Parts before the first difference are used; later entries are
coded again. So rows and order are those of an uninterrupted job.

Codes are fixed-size binary of bits/8 bytes. The schema's metadata holds model, digest, code length
and bit order. With embeddings, there is a column of float32 lists, and the metadata hold the
digests of the towers: `bittern.service.ingest.precomputed` reads such a file.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from xxhash import xxh3_128

from bittern.encoders.base import Modality
from bittern.errors import BitternError, PreconditionError
from bittern.files import replace_file, writing_file
from bittern.hashing.saved_model import ModelCard, SavedModel
from bittern.index.observation import Fingerprint
from bittern.service.ingest.items import UNCHANGED, Embedded, Recheck, read
from bittern.service.ingest.precomputed import EMBEDDING, TOWERS_KEY
from bittern.service.models.model import Model
from bittern.service.models.saved import load_saved
from bittern.service.sources.base import Entry
from bittern.types import AddResult, AddStatus, MediaItem

CODED_BEFORE = "CODED_BEFORE"
"""Reason of a skip: a part has its codes."""
BIT_ORDER = "bit i of a code is bit i % 8 (little-endian) of byte i // 8"
_PART = b"bittern.part"
_ROWS_AT_ONCE = 1 << 16
T = TypeVar("T")


def about_codes(card: ModelCard) -> dict[str, str]:
    """Model and bit order, as Parquet schema metadata."""
    return {
        "bittern.model": card.name,
        "bittern.digest": card.digest,
        "bittern.encoder": card.encoder,
        "bittern.bits": str(card.bits),
        "bittern.bit_order": BIT_ORDER,
    }


def schema_of(card: ModelCard, *, keep_embeddings: bool = False) -> pa.Schema:
    """The columns of every file; those of the source's metadata follow."""
    about, stored = about_codes(card), []
    if keep_embeddings:
        about[TOWERS_KEY.decode()] = json.dumps(dict(card.towers))
        stored = [pa.field(EMBEDDING, pa.list_(pa.float32(), card.dim), nullable=False)]
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
            *stored,
        ],
        metadata=about,
    )


def table_of(batch: Sequence[Embedded], model: Model, *, keep_embeddings: bool = False) -> pa.Table:
    """Codes and metadata of embedded items, one row per observation."""
    rows: list[dict[str, Any]] = []
    metadata: list[Mapping[str, Any]] = []
    for embedded in batch:
        observations = embedded.observations()
        if not observations:
            continue
        codes = model.codes(Modality(observations[0].modality), embedded.stacked())
        file = embedded.fingerprint
        for seen, code, embedding in zip(observations, codes, embedded.embeddings, strict=True):
            rows.append(
                {
                    "id": seen.id,
                    "occurrenceID": seen.occurrence_id,
                    "modality": seen.modality,
                    "media": seen.media,
                    "start_s": seen.start_s,
                    "end_s": seen.end_s,
                    "code": code.tobytes(),
                    "mediaHash": file.content if file else None,
                    "mediaBytes": file.size if file else None,
                    "mediaModified": file.modified_ns if file else None,
                    **({EMBEDDING: embedding} if keep_embeddings else {}),
                }
            )
            metadata.append(seen.metadata)
    table = pa.Table.from_pylist(
        rows, schema=schema_of(model.card, keep_embeddings=keep_embeddings)
    )
    own = table.schema.names
    for name in dict.fromkeys(name for row in metadata for name in row):
        column = name + "_" if name in own else name
        table = table.append_column(column, _column([row.get(name) for row in metadata]))
    return table


def _column(values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) <= 1 or kinds <= {int, float}:
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, OverflowError):  # whole numbers beyond 64 bits
            pass
    return pa.array([None if value is None else str(value) for value in values])


@dataclass(frozen=True)
class ParquetPart:
    """One part.

    Attributes:
        path: of its file.
        entries: how many entries of the listing it covers.
        rows: how many codes it holds.
        listing: digest of these entries.
        failures: of these entries, those that could not be used.
    """

    path: Path
    entries: int
    rows: int
    listing: str
    failures: tuple[AddResult, ...]


class ParquetParts:
    """The parts of one file. Made by `ParquetParts.begin`.

    Attributes:
        rows: codes that they hold.
    """

    def __init__(self, to: Path, folder: Path, lock: FileLock) -> None:
        self._to, self._folder, self._lock = to, folder, lock
        self._number = 0
        self._covered = 0
        self._committed = 0
        self.rows = 0

    @classmethod
    def begin(cls, to: Path, job: Mapping[str, Any]) -> ParquetParts:
        """Begin, or continue, the parts of a file.

        Args:
            to: the Parquet file that they will become.
            job: what is coded, and how: JSON values.

        Raises:
            PreconditionError: there are parts of another job, or another process is writing
                them.
        """
        folder = to.with_name(to.name + ".parts")
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise PreconditionError(
                f"another process is writing {to} (its parts are in {folder}); wait until it is "
                "done, or stop it"
            ) from None
        parts = cls(to, folder, lock)
        try:
            parts._check_job(job)
        except BaseException:
            lock.release()
            raise
        return parts

    def close(self) -> None:
        """Release the folder; the parts stay."""
        self._lock.release()

    def _check_job(self, job: Mapping[str, Any]) -> None:
        record = self._folder / "job.json"
        wanted = json.loads(json.dumps(job))
        try:
            found = json.loads(record.read_bytes())
        except (FileNotFoundError, ValueError):
            found = None
        if not self._paths():
            if found != wanted:
                shutil.rmtree(self._folder / "model", ignore_errors=True)
            replace_file(record, json.dumps(wanted, indent=1).encode())
        elif found != wanted:
            changed = [key for key in wanted if (found or {}).get(key) != wanted[key]]
            was = [f"{key} {json.dumps((found or {}).get(key))[:120]}" for key in changed]
            raise PreconditionError(
                f"{self._folder} holds the unfinished codes of another job (its "
                f"{', '.join(changed) or 'job'} differs: {', '.join(was) or 'unknown'}); run that "
                "command again to finish it, or remove the folder to start over"
            )

    # The model

    def fitted_model(self) -> SavedModel | None:
        """The model that the job has fitted; None if there is none."""
        folder = self._folder / "model"
        return load_saved(folder) if folder.is_dir() else None

    def keep_model(self, saved: SavedModel) -> None:
        """Save the model that the parts are coded with."""
        fresh = self._folder / "model.new"
        shutil.rmtree(fresh, ignore_errors=True)
        saved.save(fresh)
        fresh.rename(self._folder / "model")

    # Resuming

    def without_coded(self, entries: Iterable[Entry], digest: str) -> Iterator[Entry]:
        """The results of entries that parts cover, then the remaining entries.

        Parts that do not match the listing are removed.

        Args:
            entries: the whole listing.
            digest: of the model.
        """
        listing = iter(entries)
        paths = self._paths()
        while paths:
            part = _read_part(paths[0], digest)
            if part is None or paths[0].name != _name(self._number):
                break
            covered = list(islice(listing, part.entries))
            if len(covered) != part.entries or not _matches(part, covered):
                listing = chain(covered, listing)
                break
            paths.pop(0)
            self._number += 1
            self._covered += part.entries
            self.rows += part.rows
            yield from _results(part, covered)
        for path in paths:
            path.unlink()
        yield from listing

    def fresh(self, batch: Sequence[T]) -> Sequence[T]:
        """The entries of the next batch that no part covers yet."""
        begin = max(0, self._covered - self._committed)
        self._committed += len(batch)
        return batch[begin:]

    def write(self, table: pa.Table, listed: Sequence[Entry], failures: Sequence[AddResult]) -> int:
        """Store one part durably; returns its size in bytes."""
        about = {
            "entries": len(listed),
            "listing": listing_digest(listed),
            "failures": [[f.occurrence_id, f.reason, f.message] for f in failures],
        }
        metadata = {**(table.schema.metadata or {}), _PART: json.dumps(about).encode()}
        path = self._folder / _name(self._number)
        with writing_file(path) as stream:
            pq.write_table(table.replace_schema_metadata(metadata), stream)
        self._number += 1
        self.rows += table.num_rows
        return path.stat().st_size

    # The end

    def join(self) -> None:
        """Write the parts as one file, atomically, and remove them."""
        paths = self._paths()
        schema = _joined_schema([pq.read_schema(path) for path in paths])
        with (
            writing_file(self._to) as stream,
            pq.ParquetWriter(stream, schema) as writer,
        ):
            waiting: list[pa.Table] = []
            for path in paths:
                waiting.append(_with_schema(pq.read_table(path), schema))
                if sum(table.num_rows for table in waiting) >= _ROWS_AT_ONCE:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
        self.remove()

    def remove(self) -> None:
        """Remove the parts."""
        self._lock.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))


def _name(number: int) -> str:
    return f"part-{number:08d}.parquet"


def _read_part(path: Path, digest: str) -> ParquetPart | None:
    """A part; None if it is damaged, or of another model."""
    try:
        file = pq.read_metadata(path)
        metadata = file.metadata
        if metadata[b"bittern.digest"].decode() != digest:
            return None
        about = json.loads(metadata[_PART])
        failures = tuple(
            AddResult(name, AddStatus.FAILED, 0, reason, message)
            for name, reason, message in about["failures"]
        )
        rows = file.num_rows
        return ParquetPart(path, int(about["entries"]), rows, str(about["listing"]), failures)
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return None


def _matches(part: ParquetPart, covered: Sequence[Entry]) -> bool:
    """Whether a part holds these entries, and their files have not changed."""
    if listing_digest(covered) != part.listing:
        return False
    try:
        columns = ["occurrenceID", "mediaHash", "mediaBytes", "mediaModified"]
        rows = pq.read_table(part.path, columns=columns).to_pylist()
    except (OSError, pa.ArrowInvalid):
        return False
    known = {
        row["occurrenceID"]: Fingerprint(row["mediaHash"], row["mediaBytes"], row["mediaModified"])
        for row in rows
        if row["mediaHash"] is not None
    }
    items = [e for e in covered if isinstance(e, MediaItem) and e.occurrence_id in known]
    return all(_is_unchanged(item, known[item.occurrence_id]) for item in items)


def _is_unchanged(item: MediaItem, before: Fingerprint) -> bool:
    if item.path is None and item.data is None:
        return True  # an address is not fetched again
    try:
        result = read(Recheck(item, before, moved=False, changed="refuse")).result
    except BitternError:
        return False
    return result is not None and result.reason == UNCHANGED


def _results(part: ParquetPart, covered: Sequence[Entry]) -> Iterator[AddResult]:
    failed = {failure.occurrence_id: failure for failure in part.failures}
    for entry in covered:
        name = entry.occurrence_id
        yield failed.get(name) or AddResult(
            name,
            AddStatus.SKIPPED,
            reason=CODED_BEFORE,
            message=f"'{name}' was coded before the job was stopped",
        )


def listing_digest(entries: Sequence[Entry]) -> str:
    """Digest of listed entries, 32 hex digits; does not cover the content of their files."""
    digest = xxh3_128()
    for entry in entries:
        if isinstance(entry, MediaItem):
            values = [entry.occurrence_id, entry.media, entry.modality, dict(entry.metadata)]
        else:
            values = [entry.occurrence_id, entry.status, entry.reason, entry.message]
        digest.update(json.dumps(values, ensure_ascii=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _joined_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """One schema for all parts: where types differ, numbers become doubles and others text."""
    fields: dict[str, pa.Field] = {}
    metadata: dict[bytes, bytes] = {}
    for schema in schemas:
        metadata.update(schema.metadata or {})
        for field in schema:
            before = fields.get(field.name)
            fields[field.name] = field if before is None else _joined_field(before, field)
    metadata.pop(_PART, None)
    typed = [f.with_type(pa.string()) if f.type == pa.null() else f for f in fields.values()]
    return pa.schema(typed, metadata=metadata)


def _joined_field(one: pa.Field, other: pa.Field) -> pa.Field:
    if one.type == other.type or other.type == pa.null():
        return one
    if one.type == pa.null():
        return other
    numbers = {pa.int64(), pa.float64()}
    return one.with_type(pa.float64() if {one.type, other.type} <= numbers else pa.string())


def _with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table of a part with the columns and types of the whole file."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
