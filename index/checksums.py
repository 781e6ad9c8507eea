"""The files of an archive, and their checksums in the log `ARCHIVE/sums`.

The log has one line per file:

    <check> <xxh3> <size> <path>

`xxh3` is the XXH3-128 of the file's bytes, `size` their number, `path` a JSON string relative
to the archive, `check` the XXH3-64 of the rest of the line. The last line of a file counts; ``-``
as its checksum says that the file was removed. Files of the store never change once written.

The lines of a commit are added after its files are on the disk and before it is acknowledged. A
last line that was cut off by a crash is no damage: the next writer adds it again. The log is
rewritten when most of its lines are obsolete.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from bittern.files import replace_file
from bittern.index.store import TABLE
from bittern.index.versions import manifest_version

LOG_NAME = "sums"
TABLE_FOLDER = f"{TABLE}.lance"
TABLE_PREFIX = f"store/{TABLE_FOLDER}/"
"""Prefix of the keys of the table's files; a key is a POSIX path relative to the archive."""
_DATA_FOLDERS = ("data", "_deletions", "_indices")
"""The table's folders of files that never change once written; manifests are apart."""
_REMOVED = "-"
_LINE = re.compile(r"(-|[0-9a-f]{32}) ([0-9]{1,18}) (\".*\")", re.ASCII)
_LONGEST_KEY = 4_096
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """The files of the table.

    Attributes:
        data: keys of data files, deletion files and look-up indexes, sorted.
        manifests: key of the manifest by version, the newest first.
    """

    data: list[str]
    manifests: dict[int, str]

    @property
    def keys(self) -> list[str]:
        """All keys, manifests last."""
        return [*self.data, *self.manifests.values()]

    @property
    def newest(self) -> int:
        """The newest version; 0 for none."""
        return next(iter(self.manifests), 0)


def stored_files(store: Path) -> StoredFiles:
    """List the files of the table in the folder of the store, without symbolic links.

    Raises:
        OSError: a folder cannot be listed.
    """
    table = store / TABLE_FOLDER
    data = [
        f"{TABLE_PREFIX}{name}/{below}"
        for name in _DATA_FOLDERS
        if (table / name).is_dir() and not (table / name).is_symlink()
        for below in sorted(_names_below(str(table / name)))
    ]
    names = [f"{TABLE_PREFIX}_versions/{name}" for name in _names_below(str(table / "_versions"))]
    versions = {number: key for key in names if (number := version_of(key))}
    return StoredFiles(data, dict(sorted(versions.items(), reverse=True)))


def version_of(key: str) -> int:
    """The version whose manifest a file is; 0 for another file."""
    return manifest_version(key) if key.startswith(TABLE_PREFIX) else 0


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and its subfolders, by name, without symbolic links."""
    if folder.is_dir() and not folder.is_symlink():
        for name in sorted(_names_below(str(folder))):
            yield folder / name


def _names_below(folder: str) -> Iterator[str]:
    """POSIX paths below a folder, as text: each commit lists thousands of files."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from (f"{entry.name}/{name}" for name in _names_below(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield entry.name


@dataclass(frozen=True, slots=True)
class Checksum:
    """A file's checksum and size when it was written.

    Attributes:
        xxh3: XXH3-128 of its bytes, as 32 hex digits.
        size: bytes.
    """

    xxh3: str
    size: int


@dataclass
class Checksums:
    """The content of the log.

    Attributes:
        files: path relative to the archive, POSIX, to the file's checksum.
        lines: number of lines, including obsolete ones.
        torn: whether its last line was cut off.
        damaged: numbers of other invalid lines, from 1.
        present: whether the log exists.
    """

    files: dict[str, Checksum] = field(default_factory=dict)
    lines: int = 0
    torn: bool = False
    damaged: list[int] = field(default_factory=list)
    present: bool = False

    @property
    def newest(self) -> int:
        """The newest version of the store with a checksum; 0 for none."""
        return max(map(version_of, self.files), default=0)


def checksum_of(path: Path, sync: bool = False) -> Checksum:
    """A file's checksum.

    Args:
        path: the file.
        sync: first sync it to the disk.

    Raises:
        OSError: it cannot be read.
    """
    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb", buffering=0) as stream:
        if sync:
            os.fsync(stream.fileno())
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Checksum(digest.hexdigest(), size)


def file_problem(path: Path, recorded: Checksum | None, contents: bool = True) -> str:
    """The problem of a file; empty if it is sound.

    Args:
        path: the file.
        recorded: its checksum, if it has one.
        contents: compare its contents with the checksum, not only its size.
    """
    try:
        size = path.stat().st_size
        if recorded is None:
            return ""
        if size != recorded.size:
            how = f"has {size} bytes" if size else "is empty"
            return f"{how} instead of {recorded.size}"
        if contents and checksum_of(path) != recorded:
            return "is damaged: its checksum differs"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def read_checksums(archive: Path) -> Checksums:
    """Read an archive's log; an empty one if there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        data = (archive / LOG_NAME).read_bytes()
    except FileNotFoundError:
        return Checksums()
    found = Checksums(present=True)
    lines = data.split(b"\n")
    found.torn = bool(lines.pop())
    for number, line in enumerate(lines, 1):
        found.lines += 1
        try:
            path, recorded = _parsed(line)
        except (ValueError, TypeError):
            found.damaged.append(number)
            continue
        if recorded is None:
            found.files.pop(path, None)
        else:
            found.files[path] = recorded
    return found


def append_checksums(archive: Path, files: Mapping[str, Checksum | None]) -> None:
    """Add lines; None for files that were removed.

    The log is not synced: the files are on the disk, and the next writer adds lost lines again.

    Raises:
        OSError: the disk refuses; the log may end in a torn line.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    handle = os.open(archive / LOG_NAME, flags, 0o666)
    try:
        left = memoryview(_lines(files))
        while left:
            left = left[os.write(handle, left) :]
    finally:
        os.close(handle)


def replace_checksums(archive: Path, files: Mapping[str, Checksum]) -> None:
    """Replace the log durably and atomically.

    Raises:
        OSError: the disk refuses; the log is unchanged.
    """
    replace_file(archive / LOG_NAME, _lines(files), prefix=f".{LOG_NAME}-")


def _lines(files: Mapping[str, Checksum] | Mapping[str, Checksum | None]) -> bytes:
    lines = b""
    for path, recorded in files.items():
        xxh3, size = (recorded.xxh3, recorded.size) if recorded else (_REMOVED, 0)
        rest = f"{xxh3} {size} {json.dumps(path)}".encode()
        lines += f"{xxhash.xxh3_64_hexdigest(rest)} ".encode() + rest + b"\n"
    return lines


def _parsed(line: bytes) -> tuple[str, Checksum | None]:
    check, _, rest = line.partition(b" ")
    if xxhash.xxh3_64_hexdigest(rest).encode() != check:
        raise ValueError("its check differs")
    if not (fields := _LINE.fullmatch(rest.decode())):
        raise ValueError("it is no line of this log")
    xxh3, size, path = fields.groups()
    return _key(json.loads(path)), None if xxh3 == _REMOVED else Checksum(xxh3, int(size))


def _key(path: str) -> str:
    """The path in a line, after a check that it is one of a file below the archive."""
    names = path.split("/")
    if (
        not {"", ".", ".."}.isdisjoint(names)
        or len(path.encode()) > _LONGEST_KEY
        or any(one in path for one in "\0\\")
    ):
        raise ValueError("its path is not below the archive")
    return path
