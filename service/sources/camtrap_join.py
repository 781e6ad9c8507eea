"""Observations of camera traps, found by the medium or the event that they are about.

Nothing says that the tables are sorted, and observations may be millions: they go into a temporary
SQLite database on disk, which the system removes when it is closed or the process dies. Memory is
SQLite's page cache (2 MB).
"""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime

MAX_OF_A_MEDIUM = 1000
"""Most observations of one medium or event that are looked at."""


class ObservationIndex:
    """The observations of one package."""

    def __init__(self) -> None:
        # An empty name: a private file that is gone when it is closed.
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._longest_s = 0.0
        for statement in (
            "PRAGMA synchronous=OFF",
            "CREATE TABLE observation (number INTEGER PRIMARY KEY, medium TEXT, event TEXT, "
            "deployment TEXT, start REAL, stop REAL, cells TEXT)",
            "CREATE TABLE seen (medium TEXT PRIMARY KEY) WITHOUT ROWID",
            "BEGIN",
        ):
            self._db.execute(statement)

    def close(self) -> None:
        """Forget everything."""
        self._db.close()

    def add(self, cells: dict[str, str]) -> None:
        """Take in one observation: about a medium if it has a `mediaID`, else about an event."""
        start, stop = seconds(cells.get("eventStart", "")), seconds(cells.get("eventEnd", ""))
        if start is not None:
            stop = start if stop is None else max(start, stop)
            self._longest_s = max(self._longest_s, stop - start)
        self._db.execute(
            "INSERT INTO observation (medium, event, deployment, start, stop, cells) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                cells.get("mediaID"),
                cells.get("eventID"),
                cells.get("deploymentID"),
                start,
                stop,
                json.dumps(cells),
            ),
        )

    def sort(self) -> None:
        """After the last `add`: make them findable."""
        for statement in (
            "CREATE INDEX by_medium ON observation (medium) WHERE medium IS NOT NULL",
            "CREATE INDEX by_event ON observation (event) WHERE medium IS NULL",
            "CREATE INDEX by_time ON observation (deployment, start) WHERE medium IS NULL",
        ):
            self._db.execute(statement)

    def of_medium(self, medium: str) -> list[dict[str, str]]:
        """The observations about one medium, in the order of the table."""
        return self._found("medium = ?", (medium,))

    def of_event(self, event: str, deployment: str) -> list[dict[str, str]]:
        """The observations about an event by its id, in the order of the table."""
        return self._found("medium IS NULL AND event = ? AND deployment = ?", (event, deployment))

    def at(self, deployment: str, timestamp: str) -> list[dict[str, str]]:
        """The observations about events of a deployment that a moment lies in."""
        moment = seconds(timestamp)
        if moment is None:
            return []
        # No event that began earlier than the longest one lasts can still go on.
        return self._found(
            "medium IS NULL AND deployment = ? AND start BETWEEN ? AND ? AND stop >= ?",
            (deployment, moment - self._longest_s, moment, moment),
        )

    def first_time(self, medium: str) -> bool:
        """Whether this is the first time that this medium is asked about."""
        return self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (medium,)).rowcount > 0

    def _found(self, condition: str, values: tuple[str | float, ...]) -> list[dict[str, str]]:
        query = (
            f"SELECT cells FROM observation WHERE {condition} "  # noqa: S608  # our own words
            f"ORDER BY number LIMIT {MAX_OF_A_MEDIUM}"
        )
        return [dict(json.loads(row[0])) for row in self._db.execute(query, values)]


def seconds(timestamp: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 date and time; None if it is none."""
    try:
        moment = datetime.fromisoformat(timestamp)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
