"""Globs over the paths below a folder: ``*.jpg``, ``2023/**/*.wav``, ``thumbnails``.

``*`` and ``?`` stand for characters other than a slash, ``[ab]`` and ``[!ab]`` for one character,
``**`` for any number of folders. A glob without a slash is compared with the names of files and
folders at any depth; one with a slash with the whole path below the source: ``./*.jpg`` fits
there only. A glob that fits a folder takes all that lies below it. Upper and lower case are the
same: cameras write ``.JPG``.
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
    """Whether one of the globs fits a path or a folder above it; None where there are no globs.

    Time grows with the length of a path times that of a glob, whatever they are.

    Raises:
        InvalidInputError: an empty glob, one that climbs, too long ones or too many.
    """
    if not globs:
        return None
    if len(globs) > MAX_GLOBS:
        raise InvalidInputError(f"{len(globs)} globs, the limit is {MAX_GLOBS}", field=field)
    compiled = [_levels(glob, field) for glob in globs]
    return lambda path: any(_fits(levels, path.split("/")) for levels in compiled)


def folder_and_glob(path: Path) -> tuple[Path, str] | None:
    """A path with globs, such as ``gbif/*.jpg``, as a folder and a glob over what lies below it.

    Returns:
        None if there is something of just this name, or no glob in it.
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
    """Whether the levels fit the first names, however many are left."""
    ends = {0}
    for level in levels:
        if level is None:
            ends = set(range(min(ends), len(names) + 1))
        else:
            ends = {end + 1 for end in ends if end < len(names) and level.match(names[end])}
        if not ends:
            return False
    return True
