"""Versions of the store's table as Lance describes them: which files each one needs.

Only Lance knows that; it is loaded when a file is missing or damaged, and for backups.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bittern.errors import ArchiveDamagedError
from bittern.index.checksums import TABLE_FOLDER, TABLE_PREFIX
from bittern.index.lance_library import is_failure, lance, reading


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
            return cls(store, version, lance().dataset(str(store / TABLE_FOLDER), version=version))

    @cached_property
    def fragments(self) -> Mapping[int, tuple[str, ...]]:
        """Keys of the data files and the deletion file of each fragment, by fragment number."""
        found = {}
        with reading(self.store):
            for fragment in self.dataset.get_fragments():
                names = [f"data/{file.path}" for file in fragment.data_files()]
                deletions = fragment.deletion_file()
                names += [deletions] if deletions else []
                found[fragment.fragment_id] = tuple(_key(name) for name in names)
        return found

    @cached_property
    def indexes(self) -> Mapping[str, str]:
        """Names of its look-up indexes, by the prefix of the keys of their files."""
        with reading(self.store):
            found = self.dataset.list_indices()
        return {_key(f"_indices/{one['uuid']}") + "/": str(one["name"]) for one in found}

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


def needed_by_any(store: Path, keys: Iterable[str], versions: Iterable[int]) -> set[str]:
    """Those keys whose files any version needs, including the versions of snapshots.

    Args:
        store: folder of the store.
        keys: of files that may be missing.
        versions: numbers of the versions with a manifest; those that cannot be read are skipped.
    """
    left, found = set(keys), set[str]()
    last: TableVersion | None = None
    for number in versions if left else ():
        with suppress(ArchiveDamagedError):
            last = TableVersion.open(store, number)
            found |= last.needed(left)
    for pinned in last.pinned() if last else ():
        found |= pinned.needed(left)
    return found


def _key(name: str) -> str:
    """The key of a file of the table, after a check that it stays in the table's folder."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or ".." in name.split("/"):
        raise ValueError(f"a version names a file {name!r}")
    return TABLE_PREFIX + name
