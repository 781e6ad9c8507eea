"""The files of the store: which exist, and which a version needs.

Only Lance knows which files a version needs; it is loaded for that when a file is missing or
damaged, and for backups.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bittern.errors import ArchiveDamagedError
from bittern.index.lance_library import is_failure, lance, reading
from bittern.index.store import TABLE
from bittern.index.versions import manifest_version

_FOLDERS = ("data", "_deletions", "_indices")
"""The table's folders of files that never change once written; manifests are apart."""
PREFIX = f"store/{TABLE}.lance/"
"""Prefix of the keys of the table's files; a key is a POSIX path relative to the archive."""


def table_folder(store: Path) -> Path:
    """The folder of the table in the folder of the store."""
    return store / f"{TABLE}.lance"


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, by name, without symbolic links."""
    if folder.is_dir() and not folder.is_symlink():
        for name in sorted(_names_below(str(folder))):
            yield folder / name


def stored_keys(store: Path) -> list[str]:
    """Keys of the table's files, manifests last.

    Raises:
        OSError: a folder cannot be listed.
    """
    table = table_folder(store)
    keys = [
        f"{PREFIX}{name}/{below}"
        for name in _FOLDERS
        if (table / name).is_dir() and not (table / name).is_symlink()
        for below in sorted(_names_below(str(table / name)))
    ]
    versions = [f"{PREFIX}_versions/{name}" for name in _names_below(str(table / "_versions"))]
    return [*keys, *sorted(name for name in versions if manifest_version(name))]


def _names_below(folder: str) -> Iterator[str]:
    """POSIX paths below a folder, as text: each commit lists thousands of files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from (f"{entry.name}/{name}" for name in _names_below(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield entry.name


def newest_version(keys: Iterable[str]) -> int:
    """The newest version with a manifest; 0 for none."""
    return max(versions_in(keys), default=0)


@dataclass
class TableVersion:
    """One version of the table, as Lance describes it.

    Attributes:
        store: folder of the store.
        number: of the version.
        dataset: Lance's own object.
    """

    store: Path
    number: int
    dataset: Any

    @classmethod
    def open(cls, store: Path, version: int) -> TableVersion:
        """Open a version; the newest one need not be readable for that.

        Raises:
            ArchiveDamagedError: it cannot be read.
            ArchiveVersionError: a newer version of the store's library wrote it.
        """
        with reading(store):
            return cls(store, version, lance().dataset(str(table_folder(store)), version=version))

    @cached_property
    def fragments(self) -> Mapping[int, tuple[str, ...]]:
        """Keys of the data files and the deletion file of each fragment, by fragment number."""
        found = {}
        with reading(self.store):
            for fragment in self.dataset.get_fragments():
                names = [f"data/{file.path}" for file in fragment.data_files()]
                deletions = fragment.deletion_file()
                names += [deletions] if deletions else []
                found[fragment.fragment_id] = tuple(f"{PREFIX}{_checked(name)}" for name in names)
        return found

    @cached_property
    def indexes(self) -> Mapping[str, str]:
        """Names of its look-up indexes, by the prefix of the keys of their files."""
        with reading(self.store):
            found = self.dataset.list_indices()
        return {f"{PREFIX}_indices/{_checked(one['uuid'])}/": str(one["name"]) for one in found}

    def rows_in(self, fragment: int) -> int:
        """Number of rows of a fragment that are not deleted."""
        return int(self.dataset.get_fragment(fragment).metadata.num_rows)

    def needed(self, keys: Iterable[str]) -> set[str]:
        """Those keys whose files this version needs, without its manifest."""
        own = {key for files in self.fragments.values() for key in files}
        indexes = tuple(self.indexes)
        return {key for key in keys if key in own or key.startswith(indexes or ("\0",))}

    def is_readable(self, fragment: int) -> bool:
        """Whether every row of a fragment can be read."""
        try:
            for _ in self.dataset.get_fragment(fragment).to_batches():
                pass
        except BaseException as error:
            if not is_failure(error):
                raise
            return False
        return True

    def pinned(self) -> Iterator[TableVersion]:
        """The pinned versions that can be read."""
        with reading(self.store):
            names = list(self.dataset.branches.list())
        for name in names:
            with suppress(ArchiveDamagedError), reading(self.store):
                dataset = self.dataset.checkout_version((name, None))
                yield TableVersion(self.store, dataset.version, dataset)


def needed_by_any(store: Path, keys: Iterable[str], present: Iterable[str]) -> set[str]:
    """Those keys whose files any version needs, including the versions of snapshots.

    Args:
        store: folder of the store.
        keys: of files that may be missing.
        present: keys of existing files, whose manifests tell the versions.
    """
    left, found = set(keys), set()
    last: TableVersion | None = None
    for number in versions_in(present):
        with suppress(ArchiveDamagedError):
            last = TableVersion.open(store, number)
            found |= last.needed(left)
    for pinned in last.pinned() if last else ():
        found |= pinned.needed(left)
    return found


def versions_in(keys: Iterable[str]) -> list[int]:
    """The versions with a manifest, the newest first."""
    found = {manifest_version(key) for key in keys if key.startswith(PREFIX)}
    return sorted(found - {0}, reverse=True)


def _checked(name: str) -> str:
    """Check that a file's name stays below its folder."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or ".." in name.split("/"):
        raise ValueError(f"a version names a file {name!r}")
    return name
