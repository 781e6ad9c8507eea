"""Codes on their way into one Parquet file: parts that survive a kill, and their joining.

    OUT.parts/job.json              what is being coded, by which model
    OUT.parts/model/                that model, where it was fitted on these very media
    OUT.parts/part-00000.parquet    one for each commit: written aside, synced, then renamed
    OUT.parts/lock                  held by the process that writes

A part knows how many entries of the listing it covers, and a digest of them. A job that is begun
again goes through the listing with the parts: as long as they agree, and the files are what they
were, they are kept. What follows the first difference is coded again, so that in the end rows and
order are those of a job that nothing has disturbed.
"""

from __future__ import annotations

import json
import os
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

from bittern.errors import BitternError, PreconditionError
from bittern.hashing.saved import SavedModel
from bittern.index.observation import Fingerprint
from bittern.service.ingest import Entry
from bittern.service.ingest.code_tables import joined_schema, with_schema
from bittern.service.ingest.items import Recheck
from bittern.service.ingest.reading import UNCHANGED, read
from bittern.service.models.saved import load_saved
from bittern.types import AddResult, AddStatus, MediaItem

CODED_BEFORE = "CODED_BEFORE"
"""Reason of a skip: a part holds it."""
_PART = b"bittern.part"
_ROWS_AT_ONCE = 1 << 16
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        path: of its file.
        entries: how many entries of the listing it covers.
        listing: digest of these.
        failures: of them, those that could not be used.
        rows: how many codes it holds.
    """

    path: Path
    entries: int
    rows: int
    listing: str
    failures: tuple[AddResult, ...]


class Parts:
    """The parts of one file. Made by `Parts.begin`.

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
    def begin(cls, to: Path, job: Mapping[str, Any]) -> Parts:
        """Begin, or go on with, the parts of a file.

        Args:
            to: the Parquet file that they will become.
            job: what is coded, and how: JSON values.

        Raises:
            PreconditionError: the parts that are there belong to another job, or another
                process is writing them.
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
            parts._agree(job)
        except BaseException:
            lock.release()
            raise
        return parts

    def close(self) -> None:
        """Let go of the folder; what is in it stays."""
        self._lock.release()

    def _agree(self, job: Mapping[str, Any]) -> None:
        about = self._folder / "job.json"
        wanted = json.loads(json.dumps(job))
        try:
            found = json.loads(about.read_bytes())
        except (FileNotFoundError, ValueError):
            found = None
        if not self._paths():
            if found != wanted:
                shutil.rmtree(self._folder / "model", ignore_errors=True)
            _write_synced(about, json.dumps(wanted, indent=1).encode())
        elif found != wanted:
            changed = [k for k in wanted if (found or {}).get(k) != wanted[k]]
            raise PreconditionError(
                f"{self._folder} holds the unfinished codes of another job (its "
                f"{', '.join(changed) or 'job'} differs: {_shown(found, changed)}); run that "
                "command again to finish it, or remove the folder to begin anew"
            )

    # The model

    def fitted_model(self) -> SavedModel | None:
        """The model that was fitted when the job began; None if there is none."""
        folder = self._folder / "model"
        return load_saved(folder) if folder.is_dir() else None

    def keep_model(self, saved: SavedModel) -> None:
        """Keep the model that the parts to come are coded with."""
        fresh = self._folder / "model.new"
        shutil.rmtree(fresh, ignore_errors=True)
        saved.save(fresh)
        fresh.rename(self._folder / "model")

    # Going on

    def kept(self, entries: Iterable[Entry], digest: str) -> Iterator[AddResult | Entry]:
        """The listing without what parts hold: first results of parts, then entries to code.

        Parts that do not agree with the listing are removed.

        Args:
            entries: all of the listing.
            digest: of the model.
        """
        listing = iter(entries)
        paths = self._paths()
        while paths:
            part = _part(paths[0], digest)
            if part is None or paths[0].name != _name(self._number):
                break
            covered = list(islice(listing, part.entries))
            if len(covered) != part.entries or not _agrees(part, covered):
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
        """Of what comes through in the order of the listing, what no part holds yet."""
        begin = max(0, self._covered - self._committed)
        self._committed += len(batch)
        return batch[begin:]

    def write(self, table: pa.Table, listed: Sequence[Entry], failures: Sequence[AddResult]) -> int:
        """Keep one part durably; its size in bytes."""
        about = {
            "entries": len(listed),
            "listing": listing_digest(listed),
            "failures": [[f.occurrence_id, f.reason, f.message] for f in failures],
        }
        metadata = {**(table.schema.metadata or {}), _PART: json.dumps(about).encode()}
        path = self._folder / _name(self._number)
        fresh = path.with_suffix(".new")
        pq.write_table(table.replace_schema_metadata(metadata), fresh)
        _sync(fresh)
        fresh.replace(path)
        _sync(self._folder)
        self._number += 1
        self.rows += table.num_rows
        return path.stat().st_size

    # The end

    def join(self) -> None:
        """Make the file of the parts, at once, and remove them."""
        partial = self._to.with_name(self._to.name + ".partial")
        paths = self._paths()
        schema = joined_schema([pq.read_schema(path) for path in paths], without=_PART)
        try:
            with pq.ParquetWriter(partial, schema) as writer:
                waiting: list[pa.Table] = []
                for path in paths:
                    waiting.append(with_schema(pq.read_table(path), schema))
                    if sum(table.num_rows for table in waiting) >= _ROWS_AT_ONCE:
                        writer.write_table(pa.concat_tables(waiting))
                        waiting = []
                if waiting:
                    writer.write_table(pa.concat_tables(waiting))
            _sync(partial)
            partial.replace(self._to)
            _sync(self._to.absolute().parent)
        finally:
            partial.unlink(missing_ok=True)
        self.remove()

    def remove(self) -> None:
        """Remove the parts."""
        self._lock.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))


def _name(number: int) -> str:
    return f"part-{number:08d}.parquet"


def _part(path: Path, digest: str) -> Part | None:
    """What a part says of itself; None if it is damaged, or of another model."""
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
        return Part(path, int(about["entries"]), file.num_rows, str(about["listing"]), failures)
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return None


def _agrees(part: Part, covered: Sequence[Entry]) -> bool:
    """Whether entries are those that a part was made of, and their files what they were."""
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
        return True  # an address is not fetched again to find out
    try:
        result = read(Recheck(item, before, moved=False, changed="refuse")).result
    except BitternError:
        return False
    return result is not None and result.reason == UNCHANGED


def _results(part: Part, covered: Sequence[Entry]) -> Iterator[AddResult]:
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
    """Of entries as they were listed, 32 hex digits; says nothing of their files' content."""
    digest = xxh3_128()
    for entry in entries:
        if isinstance(entry, MediaItem):
            told = [entry.occurrence_id, entry.media, entry.modality, dict(entry.metadata)]
        else:
            told = [entry.occurrence_id, entry.status, entry.reason, entry.message]
        digest.update(json.dumps(told, ensure_ascii=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _shown(found: Mapping[str, Any] | None, names: Sequence[str]) -> str:
    return ", ".join(f"{n} {json.dumps((found or {}).get(n))[:120]}" for n in names) or "unknown"


def _write_synced(path: Path, data: bytes) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(data)
    _sync(fresh)
    fresh.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a loss of power."""
    if os.name != "posix" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
