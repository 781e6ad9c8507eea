"""Verifying an archive: all files, then all rows."""

from __future__ import annotations

from collections.abc import Iterator

from bittern.errors import ArchiveDamagedError, BitternError
from bittern.index.checking.contents import CheckedFiles, check_files, content_findings
from bittern.index.checking.findings import Finding, OnChecked, Verification
from bittern.index.checking.orphans import orphans
from bittern.index.checking.rows import derived_damage, index_problems, model_problems, row_problems
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.generation import MODALITIES, Generation
from bittern.index.snapshots import models_in_use

_ROWS_REMEDY = (
    "restore a snapshot or a backup, or delete these observations and index their media again"
)
_MODEL_REMEDY = "restore the archive from a backup, or index media with this model again"
_COLUMN_REMEDY = (
    "open the archive for writing, or run bittern repair; if that leaves it, archive.json is of "
    "another day: restore it from a backup"
)
_INDEX_REMEDY = "open the archive again; if that does not help, run bittern repair"
_HEADER_REMEDY = "run bittern repair"


def verified(
    folder: ArchiveFolder,
    header: Header,
    snapshot: Generation,
    on_checked: OnChecked | None = None,
) -> Verification:
    """Check an archive that is open; nothing is written.

    Args:
        folder: where it lies.
        header: its `archive.json`.
        snapshot: the index that is in use.
        on_checked: called as files are checked.
    """
    files, findings = _files(folder, header, on_checked)
    try:
        findings += _rows(folder, header, snapshot)
        counts = {modality: len(snapshot.of_modality(modality)) for modality in MODALITIES}
        made_anew = list(derived_damage(folder, snapshot))
    except ArchiveDamagedError as error:
        findings.append(Finding("rows", f"rows cannot be read: {error}", "run bittern repair"))
        counts, made_anew = {}, []
    return _verification(folder, header, files, findings, made_anew, counts)


def verified_files(folder: ArchiveFolder, on_checked: OnChecked | None = None) -> Verification:
    """Check the files of an archive that does not open; nothing is written."""
    header: Header | None = None
    findings: list[Finding] = []
    try:
        header = folder.read_header()
    except BitternError as error:
        problem, _, remedy = error.message.partition("; ")
        findings.append(
            Finding("header", problem, remedy or _HEADER_REMEDY, folder.header_file.name)
        )
    files, found = _files(folder, header, on_checked)
    return _verification(folder, header, files, [*findings, *found], [], {})


def _verification(
    folder: ArchiveFolder,
    header: Header | None,
    files: CheckedFiles | None,
    findings: list[Finding],
    made_anew: list[str],
    observations: dict[str, int],
) -> Verification:
    left: list[str] = []
    if files:
        models = _models_in_use(folder, header) if header else None
        known = None if files.unreadable else files.manifests
        paths = orphans(folder, known, models)
        left = [path.relative_to(folder.path).as_posix() for path in paths]
    return Verification(
        findings=findings,
        made_anew=made_anew,
        observations=observations,
        orphans=left,
        files=files.files if files else 0,
        size=files.size if files else 0,
        without_sums=files.without_sums if files else 0,
    )


def _models_in_use(folder: ArchiveFolder, header: Header) -> list[str] | None:
    """Models whose files are needed; None where a snapshot does not tell what it needs."""
    try:
        return models_in_use(folder, header)
    except ArchiveDamagedError:
        return None


def _files(
    folder: ArchiveFolder, header: Header | None, on_checked: OnChecked | None
) -> tuple[CheckedFiles | None, list[Finding]]:
    models = [record.digest for record in header.models] if header else []
    try:
        files = check_files(folder, models, on_checked)
    except OSError as error:
        what = f"the files of the archive cannot be listed ({error})"
        return None, [Finding("version", what, "restore the archive from a backup")]
    return files, list(content_findings(folder, files))


def _rows(folder: ArchiveFolder, header: Header, snapshot: Generation) -> Iterator[Finding]:
    for what in row_problems(header, snapshot):
        yield Finding("rows", what, _ROWS_REMEDY)
    for what in model_problems(folder, header, snapshot):
        remedy = _COLUMN_REMEDY if what.startswith("column ") else _MODEL_REMEDY
        yield Finding("model", what, remedy)
    for what in index_problems(header, snapshot):
        yield Finding("index", what, _INDEX_REMEDY)
