"""What is checked whenever an archive is opened: enough that nothing damaged goes unseen for long.

Sizes of all files that the newest version needs, its manifest, and which rows are deleted are
checked at every opening; contents of data files where that takes a few hundredths of a
second. `bittern verify` checks all contents.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bittern.errors import ArchiveDamagedError, ArchiveVersionError
from bittern.index.checking.manifests import (
    Manifest,
    UnreadableManifestError,
    manifest_files,
    read_manifest,
    table_folder,
)
from bittern.index.checksums import Sum, Sums, read_sums, sum_of
from bittern.index.folder import ArchiveFolder

CONTENTS_UP_TO_BYTES = 64 << 20
"""Bytes of the newest version up to which contents are compared at opening: XXH3 reads what is
in memory at several GB/s, and what is not as fast as the store would read it after."""
_SHOWN = 3


def check_at_open(folder: ArchiveFolder) -> None:
    """Check what the newest version of an archive's store needs.

    What cannot be understood here is left to the store, which is opened next.

    Raises:
        ArchiveDamagedError: a file is missing, cut short, or not what was written.
        ArchiveVersionError: a newer version of the store's library wrote it.
    """
    try:
        # The log before the folder: a commit may be made meanwhile, by another process.
        sums = read_sums(folder.path)
        manifests = manifest_files(folder.store)
    except OSError as error:
        raise _damaged(folder, str(error)) from error
    _check_newest(folder, sums, max(manifests, default=0))
    if not manifests:
        return
    path = list(manifests.values())[-1]
    problems = list(_manifest_problems(folder, path, sums))
    try:
        named = read_manifest(path)
    except (OSError, UnreadableManifestError) as error:
        if problems:
            raise _damaged(folder, "; ".join(problems)) from error
        return
    if named.is_newer and not problems:
        raise ArchiveVersionError(
            f"the store of the archive at {folder.path} uses features of a newer LanceDB "
            f"(flags {named.flags:#x}): update with pip install -U bittern-search",
            details={"found": hex(named.flags)},
        )
    problems += _file_problems(folder, named, sums)
    if problems:
        more = f", and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise _damaged(folder, "; ".join(problems[:_SHOWN]) + more)


def newest_settled(folder: ArchiveFolder, sums: Sums) -> int:
    """The newest version that was acknowledged, as far as the log tells; 0 for none."""
    versions = table_folder(folder.store).relative_to(folder.path) / "_versions"
    found = 0
    for key in sums.files:
        if key.startswith(f"{versions.as_posix()}/") and key.endswith(".manifest"):
            name = Path(key).stem
            if name.isdecimal():
                found = max(found, 2**64 - 1 - int(name) if len(name) == 20 else int(name))
    return found


def file_problem(path: Path, size: int | None, told: Sum | None, contents: bool) -> str:
    """What is wrong with a file; empty if nothing is.

    Args:
        path: the file.
        size: bytes that it should have, if that is known.
        told: its checksum, if there is one.
        contents: also compare its contents with the checksum.
    """
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    for wanted in (size, told.size if told else None):
        if wanted is not None and found != wanted:
            how = "is empty" if not found else f"has {found} bytes"
            return f"{how}, {wanted} were written"
    if contents and told:
        try:
            if sum_of(path) != told:
                return "is not what was written: its checksum differs"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
    return ""


def _check_newest(folder: ArchiveFolder, sums: Sums, newest: int) -> None:
    settled = newest_settled(folder, sums)
    if settled > newest:
        raise _damaged(
            folder, f"version {settled} was stored, {newest or 'none'} is the newest that is there"
        )


def _manifest_problems(folder: ArchiveFolder, path: Path, sums: Sums) -> Iterator[str]:
    told = sums.files.get(path.relative_to(folder.path).as_posix())
    if problem := file_problem(path, None, told, True):
        yield f"_versions/{path.name} {problem}"


def _file_problems(folder: ArchiveFolder, named: Manifest, sums: Sums) -> Iterator[str]:
    table = table_folder(folder.store)
    prefix = table.relative_to(folder.path).as_posix()
    small = sum(file.size or 0 for file in named.files) <= CONTENTS_UP_TO_BYTES
    for file in named.files:
        told = sums.files.get(f"{prefix}/{file.path}")
        contents = small or file.path.startswith("_deletions/")
        if problem := file_problem(table / file.path, file.size, told, contents):
            yield f"{file.path} {problem}"


def _damaged(folder: ArchiveFolder, problems: str) -> ArchiveDamagedError:
    return ArchiveDamagedError(
        f"the archive's store at {folder.store} cannot be read: {problems}; run bittern verify "
        f"{folder.path} to see all, bittern repair to save what is whole, "
        "or restore the archive from a backup"
    )
