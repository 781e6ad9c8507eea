"""Globs over the paths below a folder: ``*.jpg``, ``2023/**/*.wav``, ``thumbnails``.

``*`` and ``?`` stand for characters other than a slash, ``[ab]`` and ``[!ab]`` for one character,
``**`` for any number of folders. A glob without a slash is held against the names of files and
folders at any depth; one with a slash against the whole path below the source: ``./*.jpg`` fits
there only. A glob that fits a folder takes all that lies below it. Upper and lower case are the
same: cameras write ``.JPG``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from bittern.errors import InvalidInputError

MAX_GLOBS = 100
MAX_GLOB_CHARS = 200
_MAGIC = re.compile(r"[*?\[]")


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
    parsed = [_parts(glob, field) for glob in globs]
    return lambda path: any(_fits(parts, path.split("/")) for parts in parsed)


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


class _Name:
    """A glob over one name: literal pieces with asterisks between them."""

    def __init__(self, glob: str) -> None:
        self._pieces = [re.compile(_piece(p), re.IGNORECASE) for p in _split_at_asterisks(glob)]
        self._tail = re.compile(f"(?:{self._pieces[-1].pattern})\\Z", re.IGNORECASE | re.DOTALL)

    def fits(self, name: str) -> bool:
        """Whether the glob fits the whole name: each piece as far left as it can be."""
        if len(self._pieces) == 1:
            return self._pieces[0].fullmatch(name) is not None
        match = self._pieces[0].match(name)
        for piece in self._pieces[1:-1]:
            match = match and piece.search(name, match.end())
        return match is not None and self._tail.search(name, match.end()) is not None


_Parts = list[_Name | None]
"""One for each folder of a glob; None for any number of folders."""


def _parts(glob: str, field: str) -> _Parts:
    here = glob.strip().startswith("./")
    tidy = glob.strip().removeprefix("./").rstrip("/")
    if not tidy or tidy.startswith("/") or ".." in tidy.split("/") or len(tidy) > MAX_GLOB_CHARS:
        raise InvalidInputError(
            f"{glob[:60]!r} is no glob over paths below the folder, such as '*.jpg' or "
            f"'2023/**/*.wav' (at most {MAX_GLOB_CHARS} characters)",
            field=field,
        )
    parts = tidy.split("/")
    anywhere: _Parts = [None] if len(parts) == 1 and not here else []
    try:
        return anywhere + [None if part == "**" else _Name(part) for part in parts]
    except re.error as error:  # [z-a]
        raise InvalidInputError(f"{glob[:60]!r} is no glob: {error}", field=field) from error


def _fits(parts: _Parts, names: list[str]) -> bool:
    """Whether the parts fit the first names, however many are left."""
    places = {0}
    for part in parts:
        if part is None:
            places = set(range(min(places), len(names) + 1))
        else:
            places = {p + 1 for p in places if p < len(names) and part.fits(names[p])}
        if not places:
            return False
    return True


def _split_at_asterisks(glob: str) -> list[str]:
    pieces, i = [""], 0
    while i < len(glob):
        end = glob.find("]", i + 2) if glob[i] == "[" else -1
        if glob[i] == "*":
            pieces.append("")
        else:
            pieces[-1] += glob[i : max(end, i) + 1]
        i = max(end, i) + 1
    return pieces


def _piece(glob: str) -> str:
    """A piece without asterisks as a regular expression, which fits a fixed number of letters."""
    regex, i = "", 0
    while i < len(glob):
        end = glob.find("]", i + 2) if glob[i] == "[" else -1
        if end > 0:
            negated = "^" if glob[i + 1] == "!" else ""
            listed = re.sub(r"([\\\]\[^&~|])", r"\\\1", glob[i + 1 : end].removeprefix("!"))
            regex += f"[{negated}{listed}]"
            i = end
        else:
            regex += "." if glob[i] == "?" else re.escape(glob[i])
        i += 1
    return regex
