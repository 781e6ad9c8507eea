"""Which media on its own disks a server may code because a call asks for it.

A call names a folder that the operator has allowed and a path below it. Nothing that it leads
to may lie elsewhere: neither the source, by `..` or a link, nor a file that a manifest names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from bittern.errors import InvalidInputError, PreconditionError, SourceNotFoundError
from bittern.service.sources import Entry, Listed, Source, SourceOptions, read_source
from bittern.service.sources.base import modality_of_suffix
from bittern.types import AddResult, AddStatus, MediaItem

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_SOURCE_CHARS = 4_096


class AllowedFolders:
    """The folders below which calls may name media.

    Args:
        folders: by the name that calls use.

    Raises:
        InvalidInputError: a name with other characters than letters, digits and ``._-``, or a
            path that is no folder.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        for name, folder in folders.items():
            if not _NAME.fullmatch(name):
                raise InvalidInputError(
                    f"{name!r} cannot be the name of an allowed folder: use letters, digits, "
                    "'.', '_' and '-'; write NAME=FOLDER to give it another",
                    field="jobs_from",
                )
            if not folder.is_dir():
                raise InvalidInputError(f"there is no folder at {folder}", field="jobs_from")
        self._folders = {name: folder.resolve() for name, folder in folders.items()}

    @property
    def names(self) -> list[str]:
        """What calls can begin a source with."""
        return sorted(self._folders)

    def allows(self, asked: str) -> bool:
        """Whether the folder that a source begins with is allowed."""
        return asked.split("/")[0] in self._folders

    def find(self, asked: str, field: str = "source") -> Path:
        """What a call names, below an allowed folder.

        Args:
            asked: ``NAME`` or ``NAME/path/below``.
            field: of the request, for messages.

        Raises:
            PreconditionError: no folder is allowed at all.
            InvalidInputError: it is no such path, or leads out of the folder.
            SourceNotFoundError: no folder of this name is allowed, or nothing is there.
        """
        if not self._folders:
            raise PreconditionError(
                "this server codes nothing from its own disks: its operator has allowed no "
                "folder (bittern serve --jobs-from FOLDER)",
                field=field,
            )
        path = PurePosixPath(asked)
        usable = 0 < len(asked) <= _MAX_SOURCE_CHARS and asked.isprintable()
        if not usable or path.is_absolute() or ".." in path.parts or "://" in asked:
            raise InvalidInputError(
                f"{field} is the name of an allowed folder and a path below it, without '..', "
                f"not {asked[:100]!r}; allowed are {', '.join(self.names)}",
                field=field,
            )
        folder = self._folders.get(path.parts[0]) if path.parts else None
        if folder is None:
            raise SourceNotFoundError(
                f"no folder called {asked[:100]!r} is allowed here; allowed are "
                f"{', '.join(self.names)}",
                field=field,
            )
        found = folder.joinpath(*path.parts[1:])
        if not lies_below(found, folder):
            raise InvalidInputError(f"'{asked[:100]}' leads out of its folder", field=field)
        if not found.exists():
            raise SourceNotFoundError(f"there is nothing at '{asked[:200]}'", field=field)
        return found

    def source(self, asked: str, options: SourceOptions) -> Source:
        """The media that a call names; those that lie elsewhere are entries that have failed.

        Raises:
            as `find` and `bittern.service.sources.read_source`; nothing is ever fetched.
        """
        path = self.find(asked)
        if options.media is not None:
            options = replace(options, media=str(self.find(options.media, "media")))
        _refuse_links_out(path, list(self._folders.values()))
        source = read_source(path, replace(options, fetch=()))
        listing = source.listing

        def confined() -> Iterator[Listed]:
            for listed in listing():
                yield listed._replace(entry=self._confined(listed.entry))

        return replace(source, listing=confined)

    def without_paths(self, text: str) -> str:
        """A message for callers: they learn the folders' names, not where these lie."""
        for name, folder in self._folders.items():
            text = text.replace(str(folder), name)
        return text

    def _confined(self, entry: Entry) -> Entry:
        if not isinstance(entry, MediaItem) or entry.path is None:
            return entry
        if any(lies_below(Path(entry.path), folder) for folder in self._folders.values()):
            return entry
        refusal = SourceNotFoundError("")
        return AddResult(
            entry.occurrence_id,
            AddStatus.FAILED,
            reason=refusal.reason,
            message=f"'{entry.media[:200]}' lies outside the folders that the operator has allowed",
        )


def _refuse_links_out(path: Path, folders: Sequence[Path]) -> None:
    """Refuse a folder with a link to something else than media that lies elsewhere.

    Links to media are judged one by one as they are listed; tables, pages and shards are opened
    by whoever lists them.
    """
    for directory, _, names in os.walk(path) if path.is_dir() else ():
        for name in names:
            one = Path(directory, name)
            if modality_of_suffix(one) is not None or not one.is_symlink():
                continue
            if not any(lies_below(one, folder) for folder in folders):
                shown = one.relative_to(path).as_posix()
                raise InvalidInputError(f"'{shown[:200]}' leads out of its folder", field="source")


def lies_below(path: Path, folder: Path) -> bool:
    """Whether a path, with all links followed, is a folder or lies below it."""
    try:
        resolved = path.resolve()
    except (OSError, RuntimeError, ValueError):
        return False
    return resolved == folder or folder in resolved.parents
