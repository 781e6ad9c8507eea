"""Temporary tables on disk, for joins of more rows than fit into memory.

The tables of an export may be unsorted and have repeated rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Self

IN_MEMORY_BYTES = 32 << 20
"""Maps of one `Spill` that are larger than this go to disk; about 150,000 keys."""
_KEY_BYTES = 200
"""Of a key in memory, without its text."""
_CACHE_KIB = 16 << 10


class Spill:
    """Maps and lists of JSON values by key, in a temporary SQLite database on disk.

    A map has one value for a key (`add_first`, `get`), a list any number of them in order (`add`,
    `find`). Small maps stay in memory. Memory is `IN_MEMORY_BYTES` and SQLite's page cache, at most
    16 MiB. The operating system removes the database when it is closed or the process dies. Names
    of tables are constants of the caller and go into the SQL unquoted.
    """

    def __init__(self) -> None:
        # An empty name: a private file without a directory entry.
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self._db.execute("BEGIN")
        self._made: set[str] = set()
        self._timed: set[str] = set()
        self._maps: dict[str, dict[str, str | None]] = {}
        self._left = IN_MEMORY_BYTES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the tables."""
        self._db.close()

    __del__ = close

    def add_first(self, table: str, key: str, value: object = None) -> bool:
        """Add a value to a map unless it has the key; returns whether it was added."""
        packed = None if value is None else json.dumps(value)
        if self._left < 0:
            self._make_map(table)
            return self._insert(table, [(key, packed)])
        known = self._maps.setdefault(table, {})
        if key in known:
            return False
        known[key] = packed
        self._left -= _KEY_BYTES + len(key) + len(packed or "")
        if self._left < 0:
            for name, values in self._maps.items():
                self._make_map(name)
                self._insert(name, values.items())
            self._maps.clear()
        return True

    def get(self, table: str, key: str) -> Any:
        """The value of a key of a map; None if the map does not have it."""
        row = next(self._map_rows(table, key), None)
        return None if row is None else row[1]

    def has(self, table: str, key: str) -> bool:
        """Whether a map has a key."""
        return next(self._map_rows(table, key), None) is not None

    def items(self, table: str) -> Iterator[tuple[str, Any]]:
        """Keys and values of a map, in the order of the keys."""
        return self._map_rows(table)

    def add(self, table: str, key: str, value: object, *, at: float | None = None) -> None:
        """Add a value to the list of a key.

        Args:
            table: name of the table.
            key: whose list.
            value: of JSON.
            at: a number that `between` finds it by.
        """
        self._make_list(table)
        if at is not None:
            self._timed.add(table)
        statement = f"INSERT INTO {table} (key, at, value) VALUES (?, ?, ?)"  # noqa: S608
        self._db.execute(statement, (key, at, None if value is None else json.dumps(value)))

    def find(self, table: str, key: str) -> Iterator[Any]:
        """The list of a key, in the order in which its values were added."""
        self._index(table)
        return (value for _, value in self._select(table, "WHERE key = ? ORDER BY number", key))

    def between(self, table: str, key: str, low: float, high: float) -> Iterator[Any]:
        """As `find`, of the values that were added `at` a number from `low` to `high`."""
        self._index(table)
        condition = "WHERE key = ? AND at BETWEEN ? AND ? ORDER BY number"
        return (value for _, value in self._select(table, condition, key, low, high))

    def rows(self, table: str) -> Iterator[tuple[str, Any]]:
        """Key and value of all list entries, in the order of adding."""
        self._make_list(table)
        return self._select(table, "ORDER BY number")

    def _map_rows(self, table: str, key: str | None = None) -> Iterator[tuple[str, Any]]:
        if table in self._made:
            condition = "ORDER BY key" if key is None else "WHERE key = ?"
            yield from self._select(table, condition, *([] if key is None else [key]))
            return
        known = self._maps.get(table, {})
        for each in sorted(known) if key is None else [key] if key in known else []:
            yield each, _unpacked(known[each])

    def _make_map(self, table: str) -> None:
        self._make(table, "(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")

    def _insert(self, table: str, rows: Iterable[tuple[str, str | None]]) -> bool:
        statement = f"INSERT OR IGNORE INTO {table} VALUES (?, ?)"  # noqa: S608
        return self._db.executemany(statement, rows).rowcount > 0

    def _make_list(self, table: str) -> None:
        self._make(table, "(number INTEGER PRIMARY KEY, key TEXT, at REAL, value TEXT)")

    def _make(self, table: str, columns: str) -> None:
        if table not in self._made:
            self._db.execute(f"CREATE TABLE {table} {columns}")
            self._made.add(table)

    def _index(self, table: str) -> None:
        """Index a list when it is first searched: that is faster than row by row."""
        self._make_list(table)
        index = f"index_of_{table}"
        if index not in self._made:
            columns = "key, at" if table in self._timed else "key"
            self._db.execute(f"CREATE INDEX {index} ON {table} ({columns})")
            self._made.add(index)

    def _select(
        self, table: str, condition: str, *values: str | float
    ) -> Iterator[tuple[str, Any]]:
        statement = f"SELECT key, value FROM {table} {condition}"  # noqa: S608
        for key, value in self._db.execute(statement, values):
            yield key, _unpacked(value)


def _unpacked(value: str | None) -> Any:
    return None if value is None else json.loads(value)
