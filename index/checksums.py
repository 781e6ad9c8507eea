"""The checksums of an archive's files: `ARCHIVE/sums`, one line per file, appended only.

    <check> <xxh3> <size> <path>

`xxh3` is the XXH3-128 of the file's bytes, `size` their number, `path` a JSON string relative
to the archive, `check` the XXH3-64 of the rest of the line. A file that is written anew gets a
new line; the last one counts, and `-` for its checksum says that the file was taken away. Every
file of the store is written once and never changed, so a line holds for as long as its file is
there.

A commit gets its lines after its files are on the disk and before it is acknowledged. A line
that was cut off at the end, by a crash while it was written, is one that the next writer adds
again. The whole log is replaced at once when most of its lines are of files that are gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from bittern.files import replace_file

NAME = "sums"
_GONE = "-"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Sum:
    """What a file was when it was written.

    Attributes:
        xxh3: XXH3-128 of its bytes, as 32 hex digits.
        size: bytes.
    """

    xxh3: str
    size: int


@dataclass
class Sums:
    """What the log says, as it was read.

    Attributes:
        files: path relative to the archive, POSIX, to the file's checksum.
        lines: how many lines it has, obsolete ones included.
        torn: whether its last line was cut off.
        damaged: numbers of other lines that cannot be used, from 1.
        present: whether there is a log.
    """

    files: dict[str, Sum] = field(default_factory=dict)
    lines: int = 0
    torn: bool = False
    damaged: list[int] = field(default_factory=list)
    present: bool = False


def sum_of(path: Path, sync: bool = False) -> Sum:
    """A file's checksum, read from the disk or its cache.

    Args:
        path: the file.
        sync: first make sure that it is on the disk.

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
    return Sum(digest.hexdigest(), size)


def read_sums(archive: Path) -> Sums:
    """What an archive's log says; an empty one where there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        data = (archive / NAME).read_bytes()
    except FileNotFoundError:
        return Sums()
    found = Sums(present=True)
    lines = data.split(b"\n")
    found.torn = bool(lines.pop())
    for number, line in enumerate(lines, 1):
        found.lines += 1
        try:
            path, told = _parsed(line)
        except (ValueError, TypeError):
            found.damaged.append(number)
            continue
        if told is None:
            found.files.pop(path, None)
        else:
            found.files[path] = told
    return found


def append_sums(archive: Path, files: Mapping[str, Sum | None]) -> None:
    """Add lines; None for files that were taken away.

    They are not waited for: what they tell of is on the disk, and gets its line again from the
    next writer if a power cut takes it away.

    Raises:
        OSError: the disk refuses; the log may end in a torn line.
    """
    handle = os.open(archive / NAME, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        _write(handle, _lines(files))
    finally:
        os.close(handle)


def replace_sums(archive: Path, files: Mapping[str, Sum]) -> None:
    """Replace the log, durably and at once.

    Raises:
        OSError: the disk refuses; the log is what it was.
    """
    replace_file(archive / NAME, _lines(files), prefix=f".{NAME}-")


def files_below(folder: Path) -> Iterable[Path]:
    """The files in a folder and the folders in it; symbolic links are left out."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _lines(files: Mapping[str, Sum] | Mapping[str, Sum | None]) -> bytes:
    return b"".join(_line(path, told) for path, told in files.items())


def _line(path: str, told: Sum | None) -> bytes:
    xxh3, size = (told.xxh3, told.size) if told else (_GONE, 0)
    rest = f"{xxh3} {size} {json.dumps(path)}".encode()
    return f"{xxhash.xxh3_64_hexdigest(rest)} ".encode() + rest + b"\n"


def _parsed(line: bytes) -> tuple[str, Sum | None]:
    check, _, rest = line.partition(b" ")
    if xxhash.xxh3_64_hexdigest(rest).encode() != check:
        raise ValueError("it has been damaged: its check differs")
    xxh3, size, path = rest.decode().split(" ", 2)
    return str(json.loads(path)), None if xxh3 == _GONE else Sum(xxh3, int(size))
