"""Temporary tables on disk, for joins of more rows than fit into memory.

The tables of an export may be unsorted and have repeated rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any, Self

_CACHE_KIB = 16 << 10


class Spill:
    """Maps and lists of JSON values by key, in a temporary SQLite database on disk.

    A map has one value for a key (`add_first`, `get`), a list any number of them in order (`add`,
    `find`). Memory is SQLite's page cache, at most 16 MiB. The operating system removes the
    database when it is closed or the process dies. Names of tables are constants of the caller and
    go into the SQL unquoted.
    """

    def __init__(self) -> None:
        # An empty name: a private file without a directory entry.
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        self._db.execute("BEGIN")
        self._made: set[str] = set()
        self._timed: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def __del__(self) -> None:
        self._db.close()

    def add_first(self, table: str, key: str, value: object = None) -> bool:
        """Add a value to a map unless it has the key; returns whether it was added."""
        self._make(table, "(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        statement = f"INSERT OR IGNORE INTO {table} VALUES (?, ?)"  # noqa: S608
        return self._db.execute(statement, (key, _packed(value))).rowcount > 0

    def get(self, table: str, key: str) -> Any:
        """The value of a key of a map; None if the map does not have it."""
        row = next(self._map_rows(table, "WHERE key = ?", key), None)
        return None if row is None else row[1]

    def has(self, table: str, key: str) -> bool:
        """Whether a map has a key."""
        return next(self._map_rows(table, "WHERE key = ?", key), None) is not None

    def items(self, table: str) -> Iterator[tuple[str, Any]]:
        """Keys and values of a map, in the order of the keys."""
        return self._map_rows(table, "ORDER BY key")

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
        self._db.execute(statement, (key, at, _packed(value)))

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

    def _map_rows(self, table: str, condition: str, *values: str) -> Iterator[tuple[str, Any]]:
        return self._select(table, condition, *values) if table in self._made else iter(())

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
            yield key, None if value is None else json.loads(value)


def _packed(value: object) -> str | None:
    return None if value is None else json.dumps(value)
