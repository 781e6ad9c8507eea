"""Where media come from: folders, manifests, and what sites and devices export.

base.py       what all sources have in common
formats.py    which formats there are, and which one a path has
folder.py, manifest.py and one file for each further format
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from bittern.errors import ManifestError, SourceNotFoundError
from service.sources.base import (
    AUDIO_SUFFIXES,
    IMAGE_SUFFIXES,
    Entry,
    Listed,
    Reader,
    Source,
    SourceOptions,
    another_medium,
)
from service.sources.formats import READERS

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
        path: a folder, a manifest, or a file of one of the other formats.
        options: how it is to be read.

    Raises:
        SourceNotFoundError: nothing there, or no media in it.
        ManifestError: it is of no format that can be read, or cannot be read as a whole.
    """
    options = options or SourceOptions()
    path = Path(path)
    if not path.exists():
        raise SourceNotFoundError(f"there is no folder or manifest at {path}", field="source")
    reader = next((each for each in READERS if each.recognises(path)), None)
    if options.format is not None:
        reader = next((each for each in READERS if each.name == options.format), None)
        if reader is None:
            raise ManifestError(
                f"there is no format '{options.format}'; there are "
                f"{', '.join(each.name for each in READERS)}",
                field="format",
            )
    if reader is None:
        raise ManifestError(
            f"{path} is neither a folder nor a manifest (a .csv or .tsv file)", field="source"
        )
    source = Source(path, reader.name, partial(reader.entries, path, options))
    if next(iter(source), None) is None:
        if path.is_dir():
            raise SourceNotFoundError(
                f"{path} holds no media: none of its files ends in "
                f"{', '.join(sorted(IMAGE_SUFFIXES | AUDIO_SUFFIXES))}",
                field="source",
            )
        raise SourceNotFoundError(f"{path} lists no media: it has a header only", field="source")
    return source
