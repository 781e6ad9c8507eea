"""Lines of TREC files: ids with whitespace, limits on what is read, files that appear whole."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote

from bittern.errors import InvalidInputError, LimitExceededError, QrelsError, SourceNotFoundError
from bittern.files import sync_folder

MAX_LINE_BYTES = 64 << 10
"""Longest line."""
MAX_LINES = 50_000_000
"""Most lines that are read of a file."""
_TO_ESCAPE = re.compile(r"[\s\x00-\x1f\x7f]|%(?=[0-9A-Fa-f]{2})")
_BOM = b"\xef\xbb\xbf"


def escaped(name: str) -> str:
    """An id as it stands in a file: whitespace and control characters as in addresses.

    A ``%`` is only escaped where two hex digits follow it; no two ids become one.

    Raises:
        QrelsError: it is empty, or no Unicode text.
    """
    if not name:
        raise QrelsError("an id is empty: it cannot be written to a TREC file; give it a name")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise QrelsError(
            f"the id {name!r} holds half of a surrogate pair: it is no Unicode text and cannot be "
            "written; give it another name"
        ) from error
    return _TO_ESCAPE.sub(lambda found: _percent(found[0]), name)


def _percent(text: str) -> str:
    return quote(text, safe="")


def places_by_id(names: Sequence[str]) -> dict[str, int]:
    """Places by id: as it is written, and as it is where that is nobody else's.

    Raises:
        QrelsError: an id stands for two, is empty, or no Unicode text.
    """
    found: dict[str, int] = {}
    for place, name in enumerate(names):
        if found.setdefault(escaped(name), place) != place:
            raise QrelsError(f"the id {name!r} stands for two things; ids must be unique")
    for place, name in enumerate(names):
        found.setdefault(name, place)
    return found


def lines_of(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of every line that is not blank.

    Raises:
        SourceNotFoundError: there is no such file.
        QrelsError: a line is no UTF-8 text, or the file cannot be read.
        LimitExceededError: too many lines, or one that is too long.
    """
    if not path.is_file():
        raise SourceNotFoundError(f"there is no file {path}", field="qrels")
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                cells = _cells(path, number, raw)
                if cells:
                    yield number, cells
    except OSError as error:
        raise QrelsError(f"{path} cannot be read: {error}", field="qrels") from error


def _cells(path: Path, number: int, raw: bytes) -> list[str]:
    if len(raw) > MAX_LINE_BYTES:
        raise LimitExceededError(
            f"{path}, line {number}: longer than {MAX_LINE_BYTES >> 10} KiB; this is no TREC file",
            field="qrels",
        )
    if number > MAX_LINES:
        raise LimitExceededError(
            f"{path} has more than {MAX_LINES:,} lines, which is the limit; split the queries over "
            "several files",
            field="qrels",
        )
    if number == 1:
        raw = raw.removeprefix(_BOM)
    try:
        # Whitespace is ASCII's, as for trec_eval: a no-break space is part of an id.
        return [cell.decode() for cell in raw.split()]
    except UnicodeDecodeError as error:
        raise QrelsError(
            f"{path}, line {number} is not UTF-8 text ({error.reason}); save the file as UTF-8",
            field="qrels",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` once it is complete and on the disk.

    Raises:
        InvalidInputError: there is no folder to write it into.
    """
    if not path.parent.is_dir():
        raise InvalidInputError(
            f"there is no folder {path.parent} to write {path.name} into", field="to"
        )
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
