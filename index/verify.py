"""Verifying an archive: the contents of all files, then whether rows, models and index agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bittern.errors import ArchiveDamagedError, BitternError
from bittern.files import link_problem
from bittern.index.checksums import (
    LOG_NAME,
    TABLE_PREFIX,
    Checksums,
    StoredFiles,
    file_problem,
    files_below,
    read_checksums,
    stored_files,
    version_of,
)
from bittern.index.columns import is_code_or_embedding
from bittern.index.derived_files import DerivedFiles
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.generation import MODALITIES, Generation
from bittern.index.leftovers import leftover_files
from bittern.index.models import ModelRecord
from bittern.index.snapshots import models_in_use
from bittern.index.store import Store
from bittern.index.table_versions import TableVersion, needed_by_any

_SHOWN = 5
_REPAIR = "run bittern verify --repair, or restore the archive from a backup"
_OLD_FILE = "run bittern verify --repair: only earlier versions or snapshots need it"
_INDEX_FILE = "run bittern verify --repair: it drops the look-up index, which is then built again"
_LOG = "run bittern verify --repair: it writes the checksums again from the sound files"
_MODEL_FILE = (
    "restore it from a backup, or run bittern verify --repair and index one media file with this "
    "model, which brings its files back"
)
_ROWS = "restore a snapshot or a backup, or delete these observations and index their media again"
_MODEL = "restore the archive from a backup, or index media with this model again"
_COLUMN = (
    "open the archive for writing, or run bittern verify --repair; if that leaves it, "
    "archive.json is older than the store: restore it from a backup"
)
_INDEX = "open the archive again; if that does not help, run bittern verify --repair"

Kind = Literal["link", "header", "checksum", "version", "rows", "model", "index", "codes"]
"""The subject of a problem: a symbolic link or special file, archive.json, a file's content, a
version of the store, inconsistent rows, a model's files or column, the index in memory, or
recomputed codes."""
OnChecked = Callable[[int, int], None]
"""Called with bytes checked so far, and bytes to check in all."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    Attributes:
        kind: its subject.
        what: the problem, with the file or the values.
        remedy: what to do.
        path: the damaged file, relative to the archive; "" for none.
    """

    kind: Kind
    what: str
    remedy: str
    path: str = ""

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying an archive.

    Attributes:
        findings: its problems; empty if it is sound.
        made_anew: unusable derived files, one line each, with the reason. No problem: they are
            built again when needed.
        observations: rows by modality.
        orphans: unneeded files, relative to the archive; no problem.
        files: number of files that were compared with their checksums.
        size: bytes of those files.
        without_checksums: number of files without a checksum; the next writer adds it.
    """

    findings: list[Finding]
    made_anew: list[str] = field(default_factory=list)
    observations: Mapping[str, int] = field(default_factory=dict)
    orphans: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0
    without_checksums: int = 0

    @property
    def problems(self) -> list[str]:
        """The problems with their remedies, one line each."""
        return [str(finding) for finding in self.findings]


def verified_files(folder: ArchiveFolder, on_checked: OnChecked | None = None) -> Verification:
    """Check the files of an archive that cannot be opened; nothing is written.

    If there are links among them, these are all that is checked: nothing is read through a link.
    """
    if linked := _linked(folder):
        return linked
    try:
        return _verified_files(folder, folder.read_header(), on_checked)
    except BitternError as error:
        problem, _, remedy = error.message.partition("; ")
        broken = Finding("header", problem, remedy or _REPAIR, folder.header_file.name)
        found = _verified_files(folder, None, on_checked)
        return replace(found, findings=[broken, *found.findings])


def verified(
    folder: ArchiveFolder,
    header: Header,
    generation: Generation,
    on_checked: OnChecked | None = None,
) -> Verification:
    """Check an archive that is open; nothing is written.

    Args:
        folder: the archive's folder.
        header: its `archive.json`.
        generation: in use.
        on_checked: called after each file.
    """
    if linked := _linked(folder):
        return linked
    found = _verified_files(folder, header, on_checked)
    counts, made_anew = {}, []
    try:
        if found.without_checksums:
            for _ in generation.store.batches(generation.store.columns):
                pass
        found.findings.extend(_row_findings(generation.store))
        found.findings.extend(_model_findings(folder, header, generation.store))
        found.findings.extend(_index_findings(header.models, generation))
        counts = {modality: len(generation.of_modality(modality)) for modality in MODALITIES}
        derived = DerivedFiles(folder.derived, generation.store)
        damages = {name: derived.damage(name) for name in derived.names()}
        made_anew = [f"{name}: {damage}" for name, damage in damages.items() if damage]
    except ArchiveDamagedError as error:
        found.findings.append(Finding("rows", f"rows cannot be read: {error.message}", _REPAIR))
    return replace(found, observations=counts, made_anew=made_anew)


# Files


@dataclass
class ComparedFiles:
    """The files of store and models, compared with their checksums.

    Attributes:
        log: the checksums.
        stored: existing files of the table.
        problems: missing and damaged files: their problem by key.
        without_checksums: keys of files without a checksum.
        files: number of compared files.
        size: their bytes.
    """

    log: Checksums
    stored: StoredFiles
    problems: dict[str, str] = field(default_factory=dict)
    without_checksums: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0


def compare_files(
    folder: ArchiveFolder, models: Iterable[str], on_checked: OnChecked | None = None
) -> ComparedFiles:
    """Compare all files of the store and of models with their checksums.

    Args:
        folder: the archive's folder.
        models: digests of its models.
        on_checked: called after each file.

    Raises:
        OSError: the archive's folders cannot be listed.
    """
    found = ComparedFiles(read_checksums(folder.path), stored_files(folder.store))
    present = found.stored.keys
    for digest in models:
        below = files_below(folder.models / digest)
        present += [path.relative_to(folder.path).as_posix() for path in below]
    prefixes = (TABLE_PREFIX, *(f"models/{digest}/" for digest in models))
    expected = {key: one for key, one in found.log.files.items() if key.startswith(prefixes)}
    total = sum(recorded.size for recorded in expected.values())
    for key in dict.fromkeys([*expected, *present]):
        recorded = expected.get(key)
        if problem := file_problem(folder.path / key, recorded):
            found.problems[key] = problem
        if recorded is None:
            found.without_checksums.append(key)
        else:
            found.files += 1
            found.size += recorded.size
            if on_checked:
                on_checked(found.size, total)
    for key in _removed(folder, found, (expected.keys() & found.problems).difference(present)):
        del found.problems[key]
    return found


def _removed(folder: ArchiveFolder, found: ComparedFiles, missing: set[str]) -> set[str]:
    """Missing files of the table that no version needs.

    They were removed, but the writer was killed before it recorded that.
    """
    stored = found.stored
    old = {
        key for key in missing if key.startswith(TABLE_PREFIX) and version_of(key) <= stored.newest
    }
    return old - needed_by_any(folder.store, old, stored.manifests)


def _verified_files(
    folder: ArchiveFolder, header: Header | None, on_checked: OnChecked | None
) -> Verification:
    try:
        models = [record.digest for record in header.models] if header else []
        files = compare_files(folder, models, on_checked)
    except OSError as error:
        return _unlisted(error)
    try:
        used = models_in_use(folder, header) if header else None
    except ArchiveDamagedError:  # an unreadable snapshot: its models are unknown
        used = None
    return Verification(
        findings=list(_file_findings(folder, files)),
        orphans=[path.relative_to(folder.path).as_posix() for path in leftover_files(folder, used)],
        files=files.files,
        size=files.size,
        without_checksums=len(files.without_checksums),
    )


def _unlisted(error: OSError) -> Verification:
    what = f"the files of the archive cannot be listed ({error})"
    return Verification([Finding("version", what, "restore the archive from a backup")])


def _linked(folder: ArchiveFolder) -> Verification | None:
    """One finding for each symbolic link, pipe and device; None if there is none."""
    found = []
    try:
        for path in sorted(folder.links()):
            name = path.relative_to(folder.path).as_posix()
            problem, _, remedy = link_problem(path).rpartition("; ")
            found.append(Finding("link", f"{name} {problem}", remedy, name))
    except OSError as error:
        return _unlisted(error)
    return Verification(found) if found else None


def _file_findings(folder: ArchiveFolder, files: ComparedFiles) -> Iterator[Finding]:
    """The problems of the files, one finding each."""
    newest = files.stored.newest
    if files.log.newest > newest:
        yield Finding("version", f"version {files.log.newest} of the store is missing", _REPAIR)
    needed = set(files.problems)
    if needed:
        try:
            needed = TableVersion.open(folder.store, newest).needed(needed)
        except BitternError as error:
            what = f"version {newest} of the store cannot be read: {error.message}"
            yield Finding("version", what, _REPAIR)
    for key, problem in files.problems.items():
        if key.startswith("models/"):
            yield Finding("model", f"{key} {problem}", _MODEL_FILE, key)
        elif version := version_of(key):
            what = f"{key}, version {version} of the store, cannot be used: it {problem}"
            yield Finding("version", what, _REPAIR, key)
        elif key not in needed:
            yield Finding("checksum", f"{key} {problem}", _OLD_FILE, key)
        else:
            remedy = _INDEX_FILE if "/_indices/" in key else _REPAIR
            yield Finding("checksum", f"{key} {problem}", remedy, key)
    if files.log.damaged:
        lines = ", ".join(map(str, files.log.damaged[:_SHOWN]))
        yield Finding("checksum", f"{LOG_NAME} is damaged in line {lines}", _LOG, LOG_NAME)


# Rows, models and index


def _row_findings(store: Store) -> Iterator[Finding]:
    for what in _row_problems(store):
        yield Finding("rows", what, _ROWS)


def _row_problems(store: Store) -> Iterator[str]:
    """Inconsistent rows, one line each."""
    table = store.read(["row", "id", "occurrenceID", "modality", "media", "start_s", "end_s"])
    for column in ("row", "id"):
        counts = table[column].value_counts()
        values, times = counts.field("values"), counts.field("counts")
        repeated = values.filter(pc.greater(times, 1)).to_pylist()
        if repeated:
            yield f"{len(repeated)} values of {column} occur more than once: {_some(repeated)}"
    for column in ("row", "id", "occurrenceID", "modality", "media"):
        if missing := table[column].null_count:
            yield f"{missing} rows have no {column}"
    ids, owners = table["id"], table["occurrenceID"]
    start, end = table["start_s"], table["end_s"]
    backward = pc.fill_null(pc.or_(pc.less_equal(end, start), pc.less(start, 0.0)), False)
    no_window = pc.or_(pc.xor(pc.is_null(start), pc.is_null(end)), backward)
    no_modality = pc.invert(pc.is_in(table["modality"], pa.array(MODALITIES)))
    strangers = [
        name
        for name, owner in zip(ids.to_pylist(), owners.to_pylist(), strict=True)
        if name != owner and not str(name).startswith(f"{owner}#t=")
    ]
    for wrong, what in (
        (ids.filter(no_modality).to_pylist(), "observations are neither image nor audio"),
        (ids.filter(no_window).to_pylist(), "windows do not run forward from 0 s or later"),
        (strangers, "observation ids do not belong to their occurrenceID"),
    ):
        if wrong:
            yield f"{len(wrong)} {what}: {_some(wrong)}"


def _some(values: list[object]) -> str:
    return ", ".join(map(str, values[:_SHOWN])) + (", ..." if len(values) > _SHOWN else "")


def _model_findings(folder: ArchiveFolder, header: Header, store: Store) -> Iterator[Finding]:
    """Models without files or codes, and codes without a model."""
    for record in header.models:
        model_folder = folder.models / record.digest
        if not model_folder.is_dir():
            what = f"{_label(record)} has lost its files: {model_folder} is missing"
            yield Finding("model", what, _MODEL)
        found = store.field_type(record.code_column)
        if found != pa.binary(record.bits // 8):
            what = (
                f"{_label(record)} should have codes of {record.bits} bits, the store has {found}"
            )
            yield Finding("model", what, _MODEL)
    named = {name for record in header.models for name in record.columns}
    for name in store.columns:
        if is_code_or_embedding(name) and name not in named:
            what = f"column {name} belongs to no registered model (a registration was interrupted)"
            yield Finding("model", what, _COLUMN)
    codes = [record.code_column for record in header.models if record.code_column in store.columns]
    none = " AND ".join(f"`{name}` IS NULL" for name in codes) or "true"
    if uncoded := store.count(none):
        yield Finding("model", f"{uncoded} observations have no code of any model", _MODEL)


def _index_findings(models: Iterable[ModelRecord], generation: Generation) -> Iterator[Finding]:
    """Differences between the index in use and the store."""
    fresh = Generation(generation.store)
    if not fresh.has_rows_of(generation):
        yield Finding("index", "the index does not hold the rows of the store", _INDEX)
        return
    for record in models:
        if record.code_column not in generation.store.columns:
            continue
        used, stored = generation.codes(record), fresh.codes(record)
        for modality in MODALITIES:
            same = np.array_equal(used[modality].rows, stored[modality].rows)
            if not same or not np.array_equal(used[modality].codes, stored[modality].codes):
                what = f"the {modality} index of {_label(record)} differs from the store"
                yield Finding("index", what, _INDEX)


def _label(record: ModelRecord) -> str:
    return f"model {record.name} ({record.digest[:16]})"
