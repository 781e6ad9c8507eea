"""Versions of the store's table as Lance describes them: which files each one needs.

Only Lance knows that; it is loaded when a file is missing or damaged, and for backups.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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

    def rows_in(self, fragments: Iterable[int]) -> int:
        """Number of rows of some fragments that are not deleted."""
        return sum(int(self.dataset.get_fragment(n).metadata.num_rows) for n in fragments)

    def ids(self, without: Collection[int] = ()) -> list[str]:
        """Ids of the observations, without those of some fragments."""
        found: list[str] = []
        with reading(self.store):
            for fragment in self.dataset.get_fragments():
                if fragment.fragment_id not in without:
                    found += fragment.to_table(columns=["id"])["id"].to_pylist()
        return found

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

    def lost_fragments(self, damaged: Collection[str]) -> list[int]:
        """Fragments that cannot be read, or of which a file is among the damaged ones."""
        return [
            number
            for number, keys in self.fragments.items()
            if not set(keys).isdisjoint(damaged) or not self.is_readable(number)
        ]

    def lost_indexes(self, damaged: Iterable[str]) -> list[str]:
        """Names of the look-up indexes of which a file is among the damaged ones."""
        prefixes = {prefix for prefix in self.indexes for key in damaged if key.startswith(prefix)}
        return sorted({self.indexes[prefix] for prefix in prefixes})

    def only_moves_rows(self, number: int) -> bool:
        """Whether an earlier version, or this one, has the rows of the version before it.

        A compaction and a new look-up index leave the rows as they are.
        """
        operations = lance().LanceOperation
        try:
            operation: Any = self.dataset.read_transaction(number).operation
        except TypeError as error:  # Lance 14 describes no compaction of a table with indexes
            return "RewrittenIndex" in str(error)
        except BaseException as error:
            if not is_failure(error):
                raise
            return False
        # Lance has no class for reserving numbers of fragments, which a compaction begins with.
        rewrites = (operations.Rewrite, operations.CreateIndex, operations.UpdateConfig)
        return isinstance(operation, rewrites) or type(operation) is operations.BaseOperation

    def pinned(self) -> Iterator[TableVersion]:
        """The pinned versions that can be read."""
        with reading(self.store):
            names = list(self.dataset.branches.list())
        for name in names:
            with suppress(ArchiveDamagedError), reading(self.store):
                dataset = self.dataset.checkout_version((name, None))
                yield TableVersion(self.store, dataset.version, dataset)

    def make_newest(self, newest: int, fragments: Sequence[int], indexes: Iterable[str]) -> None:
        """Commit this version again, without what is lost; numbers of versions are not reused.

        Args:
            newest: the newest version that is known to have existed.
            fragments: numbers of fragments to leave out.
            indexes: names of look-up indexes to leave out.
        """
        path = str(self.store / TABLE_FOLDER)
        with reading(self.store):
            dataset = lance().dataset(path, version=self.number)
            while self.number < newest and dataset.version <= newest:
                dataset.restore()
            if fragments:
                operation = lance().LanceOperation.Delete([], list(fragments), "false")
                dataset = lance().LanceDataset.commit(path, operation, read_version=dataset.version)
            for name in indexes:
                dataset.drop_index(name)


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
