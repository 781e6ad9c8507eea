"""Where media come from: folders, manifests, and what sites and devices export.

base.py       what all sources have in common
formats.py    which formats there are, and which one a path has
folder.py, manifest.py and one file for each further format
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bittern.errors import InvalidInputError, ManifestError, SourceNotFoundError
from bittern.service.sources.addresses import check_prefixes, is_address, parsed
from bittern.service.sources.base import (
    AUDIO_SUFFIXES,
    IMAGE_SUFFIXES,
    Entry,
    Listed,
    Reader,
    Source,
    SourceOptions,
    another_medium,
)
from bittern.service.sources.elsewhere import source_at
from bittern.service.sources.formats import READERS, check_form
from bittern.service.sources.globs import folder_and_glob

__all__ = [
    "AUDIO_SUFFIXES",
    "IMAGE_SUFFIXES",
    "Entry",
    "Listed",
    "Reader",
    "Source",
    "SourceOptions",
    "another_medium",
    "read_source",
]


def read_source(path: Path | str, options: SourceOptions | None = None) -> Source:
    """Find out what a source is; nothing is decoded, and little is read.

    Args:
        path: a folder, a manifest, or a file of one of the other formats; a path with globs
            (``photos/*.jpg``) is what fits them below the folder that it begins with; or, as an
            operator gives it and nobody else, the address of one (``s3://…``, ``https://…``).
        options: how it is to be read.

    Raises:
        SourceNotFoundError: nothing there, or no media in it.
        SourceUnreachableError: its address does not answer.
        ManifestError: it is of no format that can be read, or cannot be read as a whole.
        InvalidInputError: options that mean nothing.
    """
    options = options or SourceOptions()
    check_prefixes(options.fetch)
    if options.format is not None and options.format not in (names := [r.name for r in READERS]):
        raise ManifestError(
            f"there is no format '{options.format}'; there are {', '.join(names)}", field="format"
        )
    if isinstance(path, str) and is_address(path):
        if path.lower().startswith("file://"):
            path = unquote(urlsplit(path).path)
        else:
            parsed(path)
            source = source_at(path, options)
            source = replace(source, fetch=(*options.fetch, *_named(options, source)))
            _refuse_if_empty(source, options)
            return source
    path = Path(path)
    source = replace(_source_here(path, options), fetch=(*options.fetch, *_named(options)))
    _refuse_if_empty(source, options)
    return source


def _named(options: SourceOptions, source: Source | None = None) -> list[str]:
    """Where media may be fetched from because the operator named it: their folder."""
    if options.media is not None:
        folder = options.media
    elif source is None:
        return []
    else:
        whole = source.format == "folder"
        folder = source.address if whole else source.address.rpartition("/")[0]
    if not is_address(folder):
        return []
    folder = folder.partition("?")[0].partition("#")[0]
    try:
        parsed(folder)
    except ManifestError:
        return []  # nothing can be fetched from there; whoever reads it says so
    return [folder]


def _source_here(path: Path, options: SourceOptions) -> Source:
    if options.format is not None:
        reader = next(each for each in READERS if each.name == options.format)
    else:
        reader = next((each for each in READERS if each.recognises(path)), None)  # type: ignore[assignment]
    several = "tar" in (reader.name if reader else "") and set(path.name) & set("*?[{")
    if not several and options.format in (None, "folder"):
        chosen = folder_and_glob(path)
        if chosen is not None:
            return _chosen(*chosen, options)
    if not path.exists() and not several:
        raise SourceNotFoundError(f"there is no folder or manifest at {path}", field="source")
    if not several:
        check_form(path, reader)
    assert reader is not None
    return Source(
        path,
        reader.name,
        partial(reader.entries, path, options),
        partial(reader.counted, path, options),
    )


def _chosen(folder: Path, glob: str, options: SourceOptions) -> Source:
    """The media of a folder that a glob in the source's path fits."""
    if options.include:
        raise InvalidInputError(
            f"the source {folder / glob} says which media are meant, and --include says so too; "
            f"give the folder {folder} and all globs with --include",
            field="include",
        )
    if not folder.is_dir():
        raise SourceNotFoundError(f"there is no folder {folder} to look in", field="source")
    source = _source_here(folder, replace(options, format="folder", include=(glob,)))
    if next(iter(source), None) is None:
        raise SourceNotFoundError(
            f"no photograph or recording fits {folder / glob}; '*' and '?' stand for letters of "
            "one name, '**' for any number of folders",
            field="source",
        )
    return source


def _refuse_if_empty(source: Source, options: SourceOptions) -> None:
    if next(iter(source), None) is not None:
        return
    where = source.address or source.path
    if options.include or options.exclude:
        why = "none of its files is let through by --include and --exclude"
    elif source.format == "folder":
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES | AUDIO_SUFFIXES))
        why = f"none of its files ends in {suffixes}"
    elif source.format == "manifest":
        raise SourceNotFoundError(f"{where} lists no media: it has a header only", field="source")
    else:
        why = f"nothing in it is a photograph or recording, read as {source.format}"
    raise SourceNotFoundError(f"{where} holds no media: {why}", field="source")
