"""A folder of media, and the walk through folders that sources elsewhere share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from bittern.errors import BitternError, ManifestError, SourceNotFoundError
from bittern.service.sources.base import Listed, SourceOptions, failed, modality_of_suffix
from bittern.service.sources.globs import matcher
from bittern.service.sources.ids import id_of_name
from bittern.service.sources.names import Names, names_of_siblings
from bittern.types import AddResult, AddStatus, MediaItem

MAX_DEPTH = 100
"""Deepest nesting of folders."""


class Directory(NamedTuple):
    """What lies in one folder.

    Attributes:
        folders: names.
        files: names.
        links: names of links to folders, which are not followed.
    """

    folders: list[str]
    files: list[str]
    links: list[str]


class Found(NamedTuple):
    """One media file: its path below the source, and what the folders' names tell about it."""

    media: str
    modality: str
    names: Names


def folder_entries(folder: Path, options: SourceOptions) -> Iterator[Listed]:
    """The media below a folder: of each folder first the files, then what its folders hold.

    Names are gone through in their order, and hidden ones left out. Memory is bounded by the names
    in one folder, and those of the folders on the way to it. Links to files are media; links to
    folders are not followed, and told. What folders' names tell about species becomes metadata
    (`bittern.service.sources.names`).
    """
    root = str(folder.resolve())
    for found in walk(lambda below: _directory(folder / below), folder.resolve().name, options):
        if isinstance(found, Listed):
            yield found
            continue
        item = MediaItem(
            occurrence_id=id_of_name(found.media),
            media=found.media,
            modality=found.modality,
            path=folder / found.media,
            media_root=root,
            metadata=found.names,
        )
        yield Listed(item, found.media)


def folder_count(folder: Path, options: SourceOptions) -> int:
    """How many media lie below a folder."""
    return sum(1 for _ in walk(lambda below: _directory(folder / below), "", options))


def walk(
    look: Callable[[str], Directory], name: str, options: SourceOptions
) -> Iterator[Found | Listed]:
    """The media below a folder, wherever that is.

    Args:
        look: lists the folder at a path below the source; "" is the source itself. Raises a
            `BitternError` where that cannot be done.
        name: the source's own name.
        options: `include` and `exclude` are globs over paths, see `bittern.service.sources.globs`.

    Yields:
        media, and what could not be looked into, as entries.

    Raises:
        BitternError: the source itself cannot be looked into.
    """
    include, exclude = matcher(options.include, "include"), matcher(options.exclude, "exclude")
    waiting: list[tuple[str, Names | None]] = [("", None)]
    while waiting:
        below, names = waiting.pop()
        try:
            here = look(below)
        except BitternError as error:
            if not below:
                raise
            yield failed(below, "", error)
            continue
        prefix = f"{below}/" if below else ""
        for file in sorted(here.files):
            media = prefix + file
            modality = None if file.startswith(".") else modality_of_suffix(Path(file))
            if modality is None or (include and not include(media)):
                continue
            if not (exclude and exclude(media)):
                yield Found(media, modality, names or {}) if _is_text(file) else _unwritable(media)
        folders = _kept(here.folders, prefix, exclude)
        for link in _kept(here.links, prefix, exclude):
            yield _skipped(prefix + link)
        if folders and prefix.count("/") >= MAX_DEPTH:
            yield failed(below, "", ManifestError(f"folders lie more than {MAX_DEPTH} deep"))
            continue
        told = names_of_siblings(folders, below.rpartition("/")[2] or name) if not names else {}
        waiting += [(prefix + each, names or told.get(each)) for each in reversed(folders)]


def _kept(names: list[str], prefix: str, exclude: Callable[[str], bool] | None) -> list[str]:
    visible = sorted(each for each in names if not each.startswith("."))
    return [each for each in visible if not (exclude and exclude(prefix + each))]


def _directory(path: Path) -> Directory:
    here = Directory([], [], [])
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.is_dir():
                    here.files.append(entry.name)
                elif entry.is_symlink():
                    here.links.append(entry.name)
                else:
                    here.folders.append(entry.name)
    except OSError as error:
        raise SourceNotFoundError(
            f"the folder '{path}' cannot be read: {error.strerror}", field="source"
        ) from error
    return here


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _unwritable(media: str) -> Listed:
    shown = media.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    error = ManifestError(f"the name of '{shown}' is no UTF-8 text; rename the file")
    return failed(shown, "", error)


def _skipped(link: str) -> Listed:
    message = (
        f"'{link}' is a link to a folder, and these are not followed: give what it leads to as a "
        "source of its own"
    )
    return Listed(AddResult(link, AddStatus.SKIPPED, 0, "LINKED_FOLDER", message), link)
