"""Globs over the paths below a folder: ``*.jpg``, ``2023/**/*.wav``, ``thumbnails``.

``*`` and ``?`` stand for characters other than a slash, ``[ab]`` and ``[!ab]`` for one character,
``**`` for any number of folders. A glob without a slash is compared with the names of files and
folders at any depth, one with a slash with the whole path below the source: ``./*.jpg`` matches
files of the source folder itself. A glob that matches a folder includes everything below it. Case
is ignored: cameras write ``.JPG``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bittern.errors import InvalidInputError

MAX_GLOBS = 100
MAX_GLOB_CHARS = 200
_MAGIC = re.compile(r"[*?\[]")

_Levels = list[re.Pattern[str] | None]
"""One for each folder of a glob; None for any number of folders."""


def matcher(globs: Sequence[str], field: str) -> Callable[[str], bool] | None:
    """Whether one of the globs matches a path or a folder above it; None without globs.

    Time is proportional to the length of the path times that of the glob.

    Raises:
        InvalidInputError: a glob that is empty, too long or contains ``..``, or too many globs.
    """
    if not globs:
        return None
    if len(globs) > MAX_GLOBS:
        raise InvalidInputError(f"{len(globs)} globs, the limit is {MAX_GLOBS}", field=field)
    compiled = [_levels(glob, field) for glob in globs]
    return lambda path: any(_fits(levels, path.split("/")) for levels in compiled)


def folder_and_glob(path: Path) -> tuple[Path, str] | None:
    """Split a path with globs, such as ``gbif/*.jpg``, into a folder and a glob below it.

    Returns:
        None if the path exists, or has no glob.
    """
    if not _MAGIC.search(str(path)) or path.exists():
        return None
    folder = path
    while _MAGIC.search(str(folder)):
        folder = folder.parent
    return folder, f"./{path.relative_to(folder).as_posix()}"


def _levels(glob: str, field: str) -> _Levels:
    here = glob.strip().startswith("./")
    tidy = glob.strip().removeprefix("./").rstrip("/")
    if not tidy or tidy.startswith("/") or ".." in tidy.split("/") or len(tidy) > MAX_GLOB_CHARS:
        raise InvalidInputError(
            f"{glob[:60]!r} is not a valid glob; write one such as '*.jpg' or "
            f"'2023/**/*.wav' (at most {MAX_GLOB_CHARS} characters)",
            field=field,
        )
    names = tidy.split("/")
    anywhere: _Levels = [None] if len(names) == 1 and not here else []
    return anywhere + [None if name == "**" else _compiled(name) for name in names]


def _compiled(name: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(name), re.IGNORECASE)


def _fits(levels: _Levels, names: list[str]) -> bool:
    """Whether the levels match the first names."""
    ends = {0}
    for level in levels:
        if level is None:
            ends = set(range(min(ends), len(names) + 1))
        else:
            ends = {end + 1 for end in ends if end < len(names) and level.match(names[end])}
        if not ends:
            return False
    return True
