"""Verifying an archive: the contents of all files, then whether rows, models and index agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bittern.errors import ArchiveDamagedError, BitternError
from bittern.index.checksums import NAME, Checksums, file_problem, read_checksums
from bittern.index.columns import is_code_or_embedding
from bittern.index.derived_files import DerivedFiles
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.generation import MODALITIES, Generation
from bittern.index.leftovers import leftover_files
from bittern.index.snapshots import models_in_use
from bittern.index.store import Store
from bittern.index.table_versions import (
    PREFIX,
    TableVersion,
    files_below,
    needed_by_any,
    newest_version,
    stored_keys,
    versions_in,
)

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

Kind = Literal["header", "checksum", "version", "rows", "model", "index", "codes"]
"""The subject of a problem: archive.json, a file's content, a version of the store, inconsistent
rows, a model's files or column, the index in memory, or recomputed codes."""
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


@dataclass
class ComparedFiles:
    """The files of store and models, compared with their checksums.

    Attributes:
        log: the checksums.
        keys: existing files of the table; a key is a path relative to the archive.
        problems: missing and damaged files: their problem by key.
        without_checksums: keys of files without a checksum.
        files: number of compared files.
        size: their bytes.
    """

    log: Checksums
    keys: list[str]
    problems: dict[str, str] = field(default_factory=dict)
    without_checksums: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0

    @property
    def newest_recorded(self) -> int:
        """The newest version in the log; 0 for none."""
        return newest_version(self.log.files)


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
    found = ComparedFiles(read_checksums(folder.path), stored_keys(folder.store))
    present, prefixes = [*found.keys], [PREFIX]
    for digest in models:
        prefixes.append(f"models/{digest}/")
        below = files_below(folder.models / digest)
        present += [path.relative_to(folder.path).as_posix() for path in below]
    expected = [key for key in found.log.files if key.startswith(tuple(prefixes))]
    total = sum(found.log.files[key].size for key in expected)
    for key in dict.fromkeys([*expected, *present]):
        recorded = found.log.files.get(key)
        if problem := file_problem(folder.path / key, recorded):
            found.problems[key] = problem
        if recorded is None:
            found.without_checksums.append(key)
        else:
            found.files += 1
            found.size += recorded.size
            if on_checked:
                on_checked(found.size, total)
    missing = set(found.problems) & set(expected) - set(present)
    lost = {key for key in missing if not key.startswith(PREFIX)}
    newest = newest_version(found.keys)
    lost |= {key for key in missing if max(versions_in([key]), default=0) > newest}
    lost |= needed_by_any(folder.store, missing - lost, found.keys) if missing - lost else set()
    for key in missing - lost:  # removed, but the writer was killed before it recorded that
        del found.problems[key]
    return found


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
    found = _verified_files(folder, header, [], on_checked)
    counts, made_anew = {}, []
    try:
        if found.without_checksums:
            for _ in generation.store.batches(generation.store.columns):
                pass
        found.findings.extend(_row_findings(folder, header, generation))
        counts = {modality: len(generation.of_modality(modality)) for modality in MODALITIES}
        derived = DerivedFiles(folder.derived, generation.store)
        damages = {name: derived.damage(name) for name in derived.names()}
        made_anew = [f"{name}: {damage}" for name, damage in damages.items() if damage]
    except ArchiveDamagedError as error:
        found.findings.append(Finding("rows", f"rows cannot be read: {error.message}", _REPAIR))
    return replace(found, observations=counts, made_anew=made_anew)


def verified_files(folder: ArchiveFolder, on_checked: OnChecked | None = None) -> Verification:
    """Check the files of an archive that cannot be opened; nothing is written."""
    try:
        return _verified_files(folder, folder.read_header(), [], on_checked)
    except BitternError as error:
        problem, _, remedy = error.message.partition("; ")
        broken = Finding("header", problem, remedy or _REPAIR, folder.header_file.name)
        return _verified_files(folder, None, [broken], on_checked)


def _verified_files(
    folder: ArchiveFolder,
    header: Header | None,
    findings: list[Finding],
    on_checked: OnChecked | None,
) -> Verification:
    try:
        models = [record.digest for record in header.models] if header else []
        files = compare_files(folder, models, on_checked)
    except OSError as error:
        what = f"the files of the archive cannot be listed ({error})"
        remedy = "restore the archive from a backup"
        return Verification([*findings, Finding("version", what, remedy)])
    findings += _file_findings(folder, files)
    try:
        used = models_in_use(folder, header) if header else None
    except ArchiveDamagedError:  # an unreadable snapshot: its models are unknown
        used = None
    orphans = [path.relative_to(folder.path).as_posix() for path in leftover_files(folder, used)]
    return Verification(
        findings=findings,
        orphans=orphans,
        files=files.files,
        size=files.size,
        without_checksums=len(files.without_checksums),
    )


def _file_findings(folder: ArchiveFolder, files: ComparedFiles) -> Iterator[Finding]:
    """The problems of the files, one finding each."""
    newest = newest_version(files.keys)
    if files.newest_recorded > newest:
        what = f"version {files.newest_recorded} of the store is missing"
        yield Finding("version", what, _REPAIR)
    needed: set[str] | None = None
    if files.problems:
        try:
            needed = TableVersion.open(folder.store, newest).needed(files.problems)
        except BitternError as error:
            what = f"version {newest} of the store cannot be read: {error.message}"
            yield Finding("version", what, _REPAIR)
    for key, problem in files.problems.items():
        if key.startswith("models/"):
            yield Finding("model", f"{key} {problem}", _MODEL_FILE, key)
        elif found := versions_in([key]):
            what = f"{key}, version {found[0]} of the store, cannot be used: it {problem}"
            yield Finding("version", what, _REPAIR, key)
        elif needed is not None and key not in needed:
            yield Finding("checksum", f"{key} {problem}", _OLD_FILE, key)
        else:
            remedy = _INDEX_FILE if "/_indices/" in key else _REPAIR
            yield Finding("checksum", f"{key} {problem}", remedy, key)
    if files.log.damaged:
        lines = ", ".join(map(str, files.log.damaged[:_SHOWN]))
        yield Finding("checksum", f"{NAME} is damaged in line {lines}", _LOG, NAME)


def _row_findings(
    folder: ArchiveFolder, header: Header, generation: Generation
) -> Iterator[Finding]:
    for what in _row_problems(generation.store):
        yield Finding("rows", what, _ROWS)
    for what in _model_problems(folder, header, generation.store):
        yield Finding("model", what, _COLUMN if what.startswith("column ") else _MODEL)
    for what in _index_problems(header, generation):
        yield Finding("index", what, _INDEX)


def _some(values: pa.ChunkedArray | list[object]) -> str:
    shown = values[:_SHOWN]
    texts = [str(value) for value in (shown if isinstance(shown, list) else shown.to_pylist())]
    return ", ".join(texts) + (", ..." if len(values) > _SHOWN else "")


def _row_problems(store: Store) -> Iterator[str]:
    """Inconsistent rows, one line each."""
    table = store.read(["row", "id", "occurrenceID", "modality", "media", "start_s", "end_s"])
    for column in ("row", "id"):
        counts = table[column].value_counts()
        values, times = counts.field("values"), counts.field("counts")
        twice = values.filter(pc.greater(times, 1))
        if len(twice):
            yield f"{len(twice)} values of {column} occur more than once: {_some(twice)}"
    for column in ("row", "id", "occurrenceID", "modality", "media"):
        if missing := table[column].null_count:
            yield f"{missing} rows have no {column}"
    names = table["id"]
    strange = pc.invert(pc.is_in(table["modality"], pa.array(MODALITIES)))
    if len(found := names.filter(strange)):
        yield f"{len(found)} observations are neither image nor audio: {_some(found)}"
    start, end = table["start_s"], table["end_s"]
    uneven = pc.xor(pc.is_null(start), pc.is_null(end))
    backward = pc.fill_null(pc.or_(pc.less_equal(end, start), pc.less(start, 0.0)), False)
    if len(found := names.filter(pc.or_(uneven, backward))):
        yield f"{len(found)} windows do not run forward from 0 s or later: {_some(found)}"
    strangers = [
        name
        for name, owner in zip(names.to_pylist(), table["occurrenceID"].to_pylist(), strict=True)
        if name != owner and not str(name).startswith(f"{owner}#t=")
    ]
    if strangers:
        yield (
            f"{len(strangers)} observation ids do not belong to their occurrenceID: "
            f"{_some(list(strangers))}"
        )


def _model_problems(folder: ArchiveFolder, header: Header, store: Store) -> Iterator[str]:
    """Models without files or codes, and codes without a model, one line each."""
    expected = set()
    for record in header.models:
        label = f"model {record.name} ({record.digest[:16]})"
        expected |= {record.code_column, record.embedding_column}
        model_folder = folder.models / record.digest
        if not model_folder.is_dir():
            yield f"{label} has lost its files: {model_folder} is missing"
        found = store.field_type(record.code_column)
        if found != pa.binary(record.bits // 8):
            yield f"{label} should have codes of {record.bits} bits, the store has {found}"
    strangers = [name for name in store.columns if is_code_or_embedding(name)]
    for name in strangers:
        if name not in expected:
            yield f"column {name} belongs to no registered model (a registration was interrupted)"
    codes = [record.code_column for record in header.models if record.code_column in store.columns]
    none = " AND ".join(f"`{name}` IS NULL" for name in codes) or "true"
    if uncoded := store.count(none):
        yield f"{uncoded} observations have no code of any model"


def _index_problems(header: Header, generation: Generation) -> Iterator[str]:
    """Differences between the index in use and the store, one line each."""
    fresh = Generation(generation.store)
    if not fresh.has_rows_of(generation):
        yield "the index does not hold the rows of the store"
        return
    for record in header.models:
        if record.code_column not in generation.store.columns:
            continue
        used, stored = generation.codes(record), fresh.codes(record)
        for modality in MODALITIES:
            same = np.array_equal(used[modality].rows, stored[modality].rows)
            if not same or not np.array_equal(used[modality].codes, stored[modality].codes):
                yield (
                    f"the {modality} index of model {record.name} ({record.digest[:16]}) differs "
                    "from the store"
                )
