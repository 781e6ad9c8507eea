"""A new version of a damaged store that consists of what is whole.

LanceDB cannot open a table whose newest manifest is damaged, nor drop rows whose file is gone.
So the new version is tried in a folder of its own, beside links to the files of the store,
before anything in the archive is touched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bittern.errors import ArchiveDamagedError
from bittern.index.checking.contents import CheckedFiles
from bittern.index.checking.manifests import (
    Manifest,
    changes_rows,
    manifest_files,
    mended,
    read_manifest,
    table_folder,
)
from bittern.index.checking.opening import newest_settled
from bittern.index.folder import ArchiveFolder
from bittern.index.store import Store


@dataclass(frozen=True, slots=True)
class Mending:
    """A version that puts a store right.

    Attributes:
        base: the version that it is made from.
        version: its number, greater than any that was there.
        manifest: its manifest.
        fragments: parts of the base that cannot be read and are left out.
        indexes_dropped: whether look-up indexes are left out; they are made anew.
        newer: versions after the base that are given up.
        only_moved: whether those held the same rows.
        lost: ids of observations that it lacks, as far as they can be told.
        lost_rows: how many it lacks of those that the base has.
    """

    base: int
    version: int
    manifest: bytes
    fragments: tuple[int, ...]
    indexes_dropped: bool
    newer: tuple[int, ...]
    only_moved: bool
    lost: tuple[str, ...]
    lost_rows: int


def plan_mending(folder: ArchiveFolder, files: CheckedFiles) -> Mending | None:
    """How to put the store right; None where its newest version is whole.

    Raises:
        ArchiveDamagedError: nothing can be saved.
    """
    paths = manifest_files(folder.store)
    newest = max([*paths, newest_settled(folder, files.sums)])
    if not files.manifests:
        raise ArchiveDamagedError(
            f"no version of the store at {folder.store} can be read; restore the archive from a "
            "backup, or index the media again into a new folder"
        )
    base, only_moved = _base(folder, files, newest)
    named = files.manifests[base]
    broken = set(files.broken(folder, named))
    fragments = {f.fragment for f in named.files if f.path in broken and f.fragment is not None}
    indexes = not any(file.path in broken for file in named.files if file.fragment is None)
    if base == newest and indexes and not fragments and _is_readable(folder, base):
        return None
    manifest = mended(paths[base], newest + 1, fragments, indexes)
    if not _reads(folder, manifest, newest + 1):
        fragments |= _unreadable_fragments(folder, paths[base], named, newest + 1)
        indexes = False
        manifest = mended(paths[base], newest + 1, fragments, indexes)
        if not _reads(folder, manifest, newest + 1):
            raise ArchiveDamagedError(
                f"nothing of version {base} of the store at {folder.store} can be read; restore "
                "the archive from a backup, or index the media again into a new folder"
            )
    return Mending(
        base=base,
        version=newest + 1,
        manifest=manifest,
        fragments=tuple(sorted(fragments)),
        indexes_dropped=not indexes,
        newer=tuple(range(base + 1, newest + 1)),
        only_moved=only_moved,
        lost=tuple(_lost(folder, files, manifest, newest + 1)),
        lost_rows=sum(named.rows.get(fragment, 0) for fragment in fragments),
    )


def _base(folder: ArchiveFolder, files: CheckedFiles, newest: int) -> tuple[int, bool]:
    """The version to start from, and whether those after it have the same rows."""
    readable = max(files.manifests)
    only_moved = readable == newest
    for version in sorted(files.manifests, reverse=True):
        if only_moved and not files.broken(folder, files.manifests[version]):
            return version, True
        if version - 1 not in files.manifests:
            break
        only_moved = only_moved and not changes_rows(folder.store, files.manifests[version])
        if not only_moved:
            break
    return readable, readable == newest


def _is_readable(folder: ArchiveFolder, version: int) -> bool:
    with _beside(folder, {}) as store:
        return _read_all(store, version)


def _reads(folder: ArchiveFolder, manifest: bytes, version: int) -> bool:
    with _beside(folder, {version: manifest}) as store:
        return _read_all(store, version)


def _read_all(path: Path, version: int) -> bool:
    try:
        store = Store(path, version)
        for _ in store.batches(store.columns):
            pass
    except ArchiveDamagedError:
        return False
    return True


def _unreadable_fragments(
    folder: ArchiveFolder, path: Path, named: Manifest, version: int
) -> set[int]:
    fragments = {file.fragment for file in named.files if file.fragment is not None}
    return {
        one
        for one in fragments
        if not _reads(folder, mended(path, version, fragments - {one}, False), version)
    }


def _lost(
    folder: ArchiveFolder, files: CheckedFiles, manifest: bytes, version: int
) -> Collection[str]:
    """Ids that the newest version that still tells its ids has, and the new one has not."""
    with _beside(folder, {version: manifest}) as store:
        left = set(Store(store, version).read(["id"])["id"].to_pylist())
    for before in sorted(files.manifests, reverse=True):
        with _beside(folder, {}) as store:
            try:
                ids = Store(store, before).read(["id"])["id"].to_pylist()
            except ArchiveDamagedError:
                continue
        return [one for one in ids if one not in left]
    return []


@contextmanager
def _beside(folder: ArchiveFolder, added: dict[int, bytes]) -> Iterator[Path]:
    """A folder with the store as it would be: its readable versions, and some more."""
    table = table_folder(folder.store)
    with tempfile.TemporaryDirectory(prefix="bittern-repair-") as scratch:
        beside = Path(scratch) / table.name
        versions = beside / "_versions"
        versions.mkdir(parents=True)
        for name in ("data", "_deletions", "_indices", "_transactions"):
            if (table / name).is_dir():
                (beside / name).symlink_to((table / name).resolve(), target_is_directory=True)
        for path in manifest_files(folder.store).values():
            try:
                read_manifest(path)
            except (OSError, ValueError):
                continue
            (versions / path.name).write_bytes(path.read_bytes())
        for version, manifest in added.items():
            (versions / manifest_name(version)).write_bytes(manifest)
        yield Path(scratch)


def manifest_name(version: int) -> str:
    """What the manifest of a version is called."""
    return f"{2**64 - 1 - version:020}.manifest"
