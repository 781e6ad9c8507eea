"""Media of occurrences, found by id while the occurrences pass by.

Nothing says that an archive's tables are sorted. The smaller of the two, the media, goes into a
temporary SQLite database on disk; occurrences are streamed and never kept. Memory is SQLite's page
cache (2 MB), disk about the size of the media table. The system removes the database when it is
closed or the process dies.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple


class MediaRow(NamedTuple):
    """One row of a media table: where it stands, what it belongs to, and its values."""

    place: str
    key: str
    name: str
    values: dict[str, str]


class MediaIndex:
    """Media rows by the key of what they belong to, and which keys have been asked for."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        for statement in (
            "PRAGMA synchronous=OFF",
            "CREATE TABLE media (number INTEGER PRIMARY KEY, place TEXT, key TEXT, name TEXT, "
            "cells TEXT, UNIQUE (key, name) ON CONFLICT IGNORE)",
            "CREATE TABLE event (key TEXT PRIMARY KEY ON CONFLICT IGNORE, cells TEXT)",
            "CREATE TABLE seen (key TEXT PRIMARY KEY) WITHOUT ROWID",
            "BEGIN",
        ):
            self._db.execute(statement)

    def close(self) -> None:
        """Forget everything."""
        self._db.close()

    def add_medium(self, row: MediaRow) -> bool:
        """Take in a media row; False if its medium stands under the same key already."""
        cursor = self._db.execute(
            "INSERT INTO media (place, key, name, cells) VALUES (?, ?, ?, ?)",
            (row.place, row.key, row.name, json.dumps(row.values)),
        )
        return cursor.rowcount > 0

    def add_event(self, key: str, values: dict[str, str]) -> bool:
        """Take in what is said of an event; False if it stands there already."""
        statement = "INSERT INTO event VALUES (?, ?)"
        return self._db.execute(statement, (key, json.dumps(values))).rowcount > 0

    def event(self, key: str) -> dict[str, str]:
        """What is said of an event; nothing if there is none."""
        row = self._db.execute("SELECT cells FROM event WHERE key = ?", (key,)).fetchone()
        return dict(json.loads(row[0])) if row else {}

    def of(self, key: str) -> Iterator[MediaRow]:
        """The media of a key, in the order of the table."""
        return self._rows("WHERE key = ? ORDER BY number", (key,))

    def first_time(self, key: str) -> bool:
        """Whether this is the first time that this key is asked about."""
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount > 0

    def left(self) -> Iterator[MediaRow]:
        """The media of keys that nobody asked about, in the order of the table."""
        return self._rows("WHERE key NOT IN (SELECT key FROM seen) ORDER BY number", ())

    def _rows(self, condition: str, values: tuple[str, ...]) -> Iterator[MediaRow]:
        query = f"SELECT place, key, name, cells FROM media {condition}"  # noqa: S608  # our own words
        for place, key, name, cells in self._db.execute(query, values):
            yield MediaRow(place, key, name, json.loads(cells))
