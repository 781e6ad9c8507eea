"""The open data's tables in a temporary SQLite database, for joining.

`photos.csv` has hundreds of millions of rows, `observations.csv` too; none is held in memory. What
is looked up lies on disk, in a file that the system removes when it is closed or the process dies:
about 150 bytes for each observation and 60 for each taxon that are needed. Memory is SQLite's page
cache (2 MB) and the names of the last `TAXA_KEPT` taxa.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from functools import lru_cache

from bittern.service.sources.inaturalist_files import Row

_DIGITS = re.compile(r"\d{1,18}")
TAXA_KEPT = 10_000
RANKS = frozenset({"kingdom", "phylum", "class", "order", "family", "genus", "species"})
_SCHEMA = (
    "PRAGMA synchronous=OFF",
    "CREATE TABLE local (photo INTEGER PRIMARY KEY ON CONFLICT IGNORE, file TEXT, met INTEGER)",
    "CREATE TABLE wanted (number INTEGER PRIMARY KEY, line INTEGER, observation TEXT, cells TEXT)",
    "CREATE TABLE needed (observation TEXT PRIMARY KEY ON CONFLICT IGNORE) WITHOUT ROWID",
    "CREATE TABLE observation (key TEXT PRIMARY KEY ON CONFLICT IGNORE, cells TEXT)",
    "CREATE TABLE observer (key TEXT PRIMARY KEY ON CONFLICT IGNORE, name TEXT)",
    "CREATE TABLE taxon (key INTEGER PRIMARY KEY ON CONFLICT IGNORE, ancestry TEXT, rank TEXT, "
    "name TEXT)",
    "CREATE TABLE seen (observation TEXT PRIMARY KEY) WITHOUT ROWID",
    "BEGIN",
)


class JoinedTables:
    """What photographs are joined with."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        for statement in _SCHEMA:
            self._db.execute(statement)
        self.taxon = lru_cache(TAXA_KEPT)(self._taxon)

    def close(self) -> None:
        """Forget everything."""
        self._db.close()

    # Media that are here

    def add_local(self, photo: int, file: str) -> None:
        """Say that a photograph is here; the first file of it counts."""
        self._db.execute("INSERT INTO local VALUES (?, ?, 0)", (photo, file))

    def local(self, photo: str) -> str | None:
        """The file of a photograph; None if it is not here."""
        if not _DIGITS.fullmatch(photo):
            return None
        row = self._db.execute(
            "UPDATE local SET met = 1 WHERE photo = ? RETURNING file", (int(photo),)
        ).fetchone()
        return str(row[0]) if row else None

    def unmet(self) -> Iterator[str]:
        """Files of photographs that no row was about, in the order of their ids."""
        rows = self._db.execute("SELECT file FROM local WHERE NOT met ORDER BY photo")
        return (str(file) for (file,) in rows)

    # Photographs that are wanted

    def want(self, row: Row) -> None:
        """Keep a row of photos.csv, and remember that its observation is needed."""
        observation = row.values.get("observation_uuid", "")
        self._db.execute("INSERT INTO needed VALUES (?)", (observation,))
        self._db.execute(
            "INSERT INTO wanted (line, observation, cells) VALUES (?, ?, ?)",
            (row.line, observation, json.dumps(row.values)),
        )

    def wanted(self) -> Iterator[Row]:
        """The kept rows of photos.csv, in their order."""
        rows = self._db.execute("SELECT line, cells FROM wanted ORDER BY number")
        return (Row(line, json.loads(cells), "") for line, cells in rows)

    def first_of(self, observation: str) -> bool:
        """Whether this is the first photograph of an observation that is asked about."""
        cursor = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (observation,))
        return cursor.rowcount > 0

    # Other tables

    def add_observation(self, values: dict[str, str], *, always: bool) -> None:
        """Keep a row of observations.csv if it is needed, or `always`."""
        key = values.get("observation_uuid", "")
        query = "SELECT 1 FROM needed WHERE observation = ?"
        if always or self._db.execute(query, (key,)).fetchone():
            statement = "INSERT INTO observation VALUES (?, ?)"
            self._db.execute(statement, (key, json.dumps(values)))

    def add_observer(self, values: dict[str, str]) -> None:
        """Keep a row of observers.csv: the name, or the login where there is none."""
        name = values.get("name") or values.get("login", "")
        self._db.execute("INSERT INTO observer VALUES (?, ?)", (values.get("observer_id"), name))

    def add_taxon(self, values: dict[str, str]) -> bool:
        """Keep a row of taxa.csv; False if its id is no number."""
        key = values.get("taxon_id", "")
        if not _DIGITS.fullmatch(key):
            return False
        told = [values.get(heading, "") for heading in ("ancestry", "rank", "name")]
        self._db.execute("INSERT INTO taxon VALUES (?, ?, ?, ?)", (int(key), *told))
        return True

    def observation(self, key: str) -> dict[str, str] | None:
        """An observation's row; None if there is none."""
        query = "SELECT cells FROM observation WHERE key = ?"
        row = self._db.execute(query, (key,)).fetchone()
        return dict(json.loads(row[0])) if row else None

    def observer(self, key: str) -> str:
        """Name of an observer; empty if there is none."""
        row = self._db.execute("SELECT name FROM observer WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else ""

    def _taxon(self, key: str) -> dict[str, str]:
        """`scientificName`, `taxonRank` and the names of the main ranks; nothing if unknown."""
        own = self._taxon_row(key)
        if own is None:
            return {}
        ancestry, rank, name = own
        names = {"scientificName": name, "taxonRank": rank}
        if rank in RANKS:
            names[rank] = name
        # The description has backslashes between the ids, the files have slashes.
        for ancestor in re.split(r"[/\\]", ancestry)[:100]:
            row = self._taxon_row(ancestor)
            if row is not None and row[1] in RANKS:
                names.setdefault(row[1], row[2])
        return {column: value for column, value in names.items() if value}

    def _taxon_row(self, key: str) -> tuple[str, str, str] | None:
        if not _DIGITS.fullmatch(key):
            return None
        query = "SELECT ancestry, rank, name FROM taxon WHERE key = ?"
        row = self._db.execute(query, (int(key),)).fetchone()
        return None if row is None else (row[0], row[1].lower(), row[2])
