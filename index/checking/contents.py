"""Every file of an archive against its checksum; versions against the files that they need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bittern.index.checking.findings import Finding, OnChecked
from bittern.index.checking.manifests import (
    Manifest,
    UnreadableManifestError,
    manifest_files,
    read_manifest,
    table_folder,
)
from bittern.index.checking.opening import file_problem, newest_settled
from bittern.index.checksums import NAME, Sums, files_below, read_sums
from bittern.index.folder import ArchiveFolder

REPAIR = "run bittern repair, or restore the archive from a backup"
_REREGISTER = (
    "restore it from a backup, or index one media file again with this model, which brings its "
    "files back after bittern repair"
)


@dataclass
class CheckedFiles:
    """What the files of an archive are, each checked once.

    Attributes:
        sums: the log of checksums.
        manifests: versions that can be read, by number, the oldest first.
        unreadable: manifests that cannot, with the reason.
        problems: files that are not what was written, by path relative to the archive.
        without_sums: files in use that have no checksum.
        files: files that were compared with their checksums.
        size: their bytes.
    """

    sums: Sums
    manifests: dict[int, Manifest] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    without_sums: int = 0
    files: int = 0
    size: int = 0

    def broken(self, folder: ArchiveFolder, named: Manifest) -> list[str]:
        """Files of a version that are not what was written."""
        prefix = store_prefix(folder)
        return [file.path for file in named.files if f"{prefix}/{file.path}" in self.problems]


def store_prefix(folder: ArchiveFolder) -> str:
    """The table's folder, relative to the archive."""
    return table_folder(folder.store).relative_to(folder.path).as_posix()


def check_files(
    folder: ArchiveFolder, models: Iterable[str], on_checked: OnChecked | None = None
) -> CheckedFiles:
    """Compare all files that versions and models need with their checksums.

    Args:
        folder: where the archive lies.
        models: digests of its models.
        on_checked: called as it goes on.

    Raises:
        OSError: the archive's folders cannot be listed.
    """
    found = CheckedFiles(read_sums(folder.path))
    paths = manifest_files(folder.store)
    sizes: dict[str, int | None] = {}
    for version, path in paths.items():
        sizes[path.relative_to(folder.path).as_posix()] = None
        try:
            named = found.manifests[version] = read_manifest(path)
        except (OSError, UnreadableManifestError) as error:
            found.unreadable[path] = str(error)
            continue
        for file in named.files:
            sizes[f"{store_prefix(folder)}/{file.path}"] = file.size
    sizes |= _model_files(folder, found.sums, set(models))
    total = sum((told.size for key, told in found.sums.files.items() if key in sizes))
    for key, size in sizes.items():
        told = found.sums.files.get(key)
        if problem := file_problem(folder.path / key, size, told, True):
            found.problems[key] = problem
        if told is None:
            found.without_sums += 1
            continue
        found.files += 1
        found.size += told.size
        if on_checked:
            on_checked(found.size, total)
    for path in list(paths.values()):
        key = path.relative_to(folder.path).as_posix()
        if key in found.problems:
            found.unreadable.setdefault(path, found.problems[key])
    found.manifests = {
        version: named
        for version, named in found.manifests.items()
        if paths[version] not in found.unreadable
    }
    return found


def content_findings(folder: ArchiveFolder, found: CheckedFiles) -> Iterator[Finding]:
    """What is wrong with the files, one finding each."""
    prefix = store_prefix(folder)
    newest = max((*found.manifests, 0))
    present = [*found.manifests, *(_version(path) for path in found.unreadable)]
    settled = newest_settled(folder, found.sums)
    if settled > max(present, default=0):
        what = f"version {settled} of the store was stored and is gone"
        yield Finding("version", what, REPAIR)
    for path, why in found.unreadable.items():
        key = path.relative_to(folder.path).as_posix()
        what = f"{key}, version {_version(path)} of the store, cannot be read: {why}"
        yield Finding("version", what, REPAIR, key)
    needed = {f"{prefix}/{file.path}" for file in found.manifests[newest].files} if newest else {}
    for key, problem in found.problems.items():
        if key.startswith("models/"):
            yield Finding("model", f"{key} {problem}", _REREGISTER, key)
        elif key.endswith(".manifest"):
            continue
        elif key in needed:
            remedy = REPAIR
            if "/_indices/" in key:
                remedy = "run bittern repair: it drops the look-up index, which is made anew"
            yield Finding("checksum", f"{key} {problem}", remedy, key)
        else:
            remedy = "run bittern repair: only earlier versions need it"
            yield Finding("checksum", f"{key} {problem}", remedy, key)
    if found.sums.damaged:
        lines = ", ".join(map(str, found.sums.damaged[:5]))
        remedy = "run bittern repair: it writes the checksums again from files that are sound"
        yield Finding("checksum", f"{NAME} is damaged in line {lines}", remedy, NAME)


def _version(path: Path) -> int:
    return 2**64 - 1 - int(path.stem) if len(path.stem) == 20 else int(path.stem)


def _model_files(folder: ArchiveFolder, sums: Sums, models: set[str]) -> dict[str, int | None]:
    """Files of models that are there, or should be."""
    keys = [key for key in sums.files if key.startswith("models/") and key.split("/")[1] in models]
    for digest in sorted(models):
        model = folder.models / digest
        keys += [path.relative_to(folder.path).as_posix() for path in files_below(model)]
    return dict.fromkeys(keys)
