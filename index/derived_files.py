"""Arrays that are derived from the store, kept in files between openings.

    ARCHIVE/derived/<name>.json                  what the set is: format, generation, store, files
    ARCHIVE/derived/<name>.<token>.<array>.npy   one array each

A set is trusted only as far as it proves itself. Its JSON file carries its own checksum and
that of every array. It names the store version that the arrays were derived from, and a
version (that one or a later one) by the checksum of its manifest, so that a set of another
archive, or of a store that has been put back to an older state, is told from one of this
store. What does not prove itself is left alone with one line in the log and made anew: a
damaged set costs time, never a right answer.

Writing is at the best of one's ability too: a read-only folder or a full disk costs speed
only. Every writing uses file names of its own and replaces the JSON file last and at once,
so two processes may write at the same time, and a crash leaves the set before.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from bittern.index.derived.arrays import read_array, write_array
from bittern.index.derived.judging import OutdatedError, UnusableError, judging
from bittern.index.store import Store

FORMAT = "bittern-derived"
FORMAT_VERSION = 1
_JSON_LIMIT_BYTES = 1 << 20
_MOST_ARRAYS = 64
_MOST_EXPECTED = 1_024
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,100}")
_ARRAY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,60}")
_STRAYS_AFTER_S = 3600.0
_log = logging.getLogger(__name__)
Arrays = Mapping[str, NDArray[Any] | Sequence[NDArray[Any]]]
"""Arrays by name; one that is in parts is written as one."""


@dataclass(frozen=True)
class DerivedSet:
    """Arrays that have proven to be derived from this store.

    Attributes:
        generation: store version that they were derived from; not later than the store is.
        arrays: read-only, perhaps memory-mapped.
        about: what else was noted down.
    """

    generation: int
    arrays: Mapping[str, NDArray[Any]]
    about: Mapping[str, Any] = field(default_factory=dict)


class DerivedFiles:
    """The derived sets of one archive.

    Args:
        folder: `ARCHIVE/derived`, made when it is first needed.
        store: the archive's table.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self._store = store
        self._ours: set[str] = set()
        self._expected: dict[int, str | None] = {}

    def expect(self, generation: int, identity: str | None) -> None:
        """Note what a generation was when it was read: nothing else is kept as derived from it."""
        self._expected[generation] = identity
        while len(self._expected) > _MOST_EXPECTED:
            self._expected.pop(next(iter(self._expected)))

    def names(self) -> list[str]:
        """The sets that are there, usable or not, by the names of their files."""
        try:
            return sorted(path.stem for path in self.folder.glob("*.json"))
        except OSError:
            return []

    def read(self, name: str) -> Mapping[str, NDArray[Any]] | None:
        """The arrays of a set; None where there is none that can be trusted."""
        found = self.read_set(name)
        return None if found is None else found.arrays

    def read_set(self, name: str) -> DerivedSet | None:
        """A set; None where there is none that can be trusted."""
        if not self._json_file(name).exists():
            return None
        try:
            found = self._checked(name)
        except UnusableError as error:
            level = logging.INFO if isinstance(error, OutdatedError) else logging.WARNING
            _log.log(level, "%s is not used, and made anew: %s", self._json_file(name), error)
            return None
        self._ours.add(name)
        return found

    def refuse(self, name: str, why: str) -> None:
        """Say that a set that proved itself turned out to be of no use, and is made anew."""
        self._ours.discard(name)
        _log.warning("%s is not used, and made anew: %s", self._json_file(name), why)

    def problem(self, name: str) -> str:
        """Why a set cannot be used; empty if it can."""
        try:
            self._checked(name)
        except UnusableError as error:
            return str(error)
        return ""

    def damage(self, name: str) -> str:
        """What is wrong with a set beyond being out of date; empty if nothing is."""
        try:
            self._checked(name)
        except OutdatedError:
            return ""
        except UnusableError as error:
            return str(error)
        return ""

    def write(self, name: str, arrays: Arrays) -> None:
        """Keep arrays that are derived from the newest version of the store."""
        self.write_set(name, arrays, self._store.version)

    def write_set(
        self, name: str, arrays: Arrays, generation: int, about: Mapping[str, Any] | None = None
    ) -> bool:
        """Keep arrays; a failure is logged and costs speed only.

        Args:
            name: lower-case letters, digits, hyphens and underscores.
            arrays: by name, of the same form.
            generation: store version that they were derived from.
            about: more to note down, as JSON.

        Returns:
            whether they are kept.
        """
        identity = self._store.identity(generation)
        if identity is None or self._expected.get(generation, identity) != identity:
            return False
        started = time.monotonic()
        before = self._files_of(name)
        try:
            self.folder.mkdir(exist_ok=True)
            files = self._write_arrays(self._stem(name), arrays)
            self._write_json(
                name,
                {
                    "name": name,
                    "generation": generation,
                    "seen": {"version": generation, "identity": identity},
                    "about": dict(about or {}),
                    "files": files,
                },
            )
        except (OSError, ValueError) as error:
            _log.warning("%s was not written: %s", self._json_file(name), error)
            return False
        _log.info("wrote %s in %.1f s", self._json_file(name), time.monotonic() - started)
        self._ours.add(name)
        self._sweep(name, before, {told["file"] for told in files.values()})
        return True

    def vouch(self) -> None:
        """Note in the sets that this process used or wrote that the store has come so far.

        A set proves itself by a version that is still there; old ones are cleaned up.
        """
        version = self._store.version
        identity = self._store.identity(version)
        for name in sorted(self._ours):
            try:
                with judging():
                    value = self._read_json(name)
                    known = value["seen"]
                    proven = known["identity"] == self._store.identity(known["version"])
                    if identity is None or not proven or known["version"] >= version:
                        continue
                    seen = {"version": version, "identity": identity}
                    self._write_json(name, {**value, "seen": seen})
            except UnusableError as error:
                _log.info("%s was not renewed: %s", self._json_file(name), error)

    # Inside

    def _stem(self, name: str) -> str:
        return name if _NAME.fullmatch(name) else "x" + xxhash.xxh3_64_hexdigest(name.encode())

    def _json_file(self, name: str) -> Path:
        return self.folder / f"{self._stem(name)}.json"

    @judging()
    def _checked(self, name: str) -> DerivedSet:
        value = self._read_json(name)
        generation, seen = value["generation"], value["seen"]
        if not 0 < generation <= seen["version"] <= self._store.version:
            raise OutdatedError(f"it is of version {generation}, not of this store")
        if self._store.identity(seen["version"]) != seen["identity"]:
            raise OutdatedError("it is of another store, or of a version that is gone")
        files = value["files"]
        if len(files) > _MOST_ARRAYS:
            raise ValueError(f"it has {len(files)} arrays, the limit is {_MOST_ARRAYS}")
        arrays = {str(key): read_array(self.folder, told) for key, told in files.items()}
        return DerivedSet(generation, arrays, value["about"])

    @judging()
    def _read_json(self, name: str) -> dict[str, Any]:
        path = self._json_file(name)
        if path.stat().st_size > _JSON_LIMIT_BYTES:
            raise ValueError(f"it is larger than {_JSON_LIMIT_BYTES} bytes")
        outer = json.loads(path.read_text("utf-8"))
        if outer["format"] != FORMAT or outer["format_version"] != FORMAT_VERSION:
            raise ValueError(f"its format is {outer['format']!r} {outer['format_version']!r}")
        value: dict[str, Any] = outer["set"]
        if outer["xxh3"] != _digest(value):
            raise ValueError("it has been damaged: its checksum differs")
        if self._json_file(value["name"]) != path:
            raise ValueError(f"it is {value['name']!r}")
        if not all(isinstance(v, int) for v in (value["generation"], value["seen"]["version"])):
            raise ValueError("its versions are no numbers")
        return value

    def _write_arrays(self, stem: str, arrays: Arrays) -> dict[str, Any]:
        token = secrets.token_hex(6)
        files: dict[str, Any] = {}
        written: list[Path] = []
        try:
            for key, array in arrays.items():
                if not _ARRAY.fullmatch(key):
                    raise ValueError(f"{key!r} is no name of an array")
                path = self.folder / f"{stem}.{token}.{key}.npy"
                written.append(path)
                parts = [array] if isinstance(array, np.ndarray) else list(array)
                files[key] = write_array(path, parts)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise
        return files

    def _write_json(self, name: str, value: dict[str, Any]) -> None:
        outer = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "xxh3": _digest(value),
            "set": value,
        }
        path = self._json_file(name)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(6)}.tmp")
        try:
            with temporary.open("x", encoding="utf-8") as stream:
                json.dump(outer, stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _files_of(self, name: str) -> set[str]:
        try:
            with judging():
                return {str(told["file"]) for told in self._read_json(name)["files"].values()}
        except UnusableError:
            return set()

    def _sweep(self, name: str, before: set[str], used: set[str]) -> None:
        """Remove the files of the set before, and what broken-off writings have left."""
        now = time.time()
        try:
            for path in [
                *self.folder.glob(f"{self._stem(name)}.*.npy"),
                *self.folder.glob("*.tmp"),
            ]:
                # Another process may be writing just now.
                old = path.name in before or now - path.stat().st_mtime > _STRAYS_AFTER_S
                if old and path.name not in used:
                    path.unlink(missing_ok=True)
        except OSError as error:
            _log.info("%s was not swept: %s", self.folder, error)


def _digest(value: Any) -> str:
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True).encode())
