"""The formats of sources, and their detection."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bittern.errors import InvalidInputError, ManifestError, SourceNotFoundError
from bittern.service.sources.addresses import check_prefixes, is_address, parsed
from bittern.service.sources.base import (
    AUDIO_SUFFIXES,
    IMAGE_SUFFIXES,
    Reader,
    Source,
    SourceOptions,
)
from bittern.service.sources.camtrap import camtrap_entries, is_camtrap
from bittern.service.sources.coco import coco_entries, is_coco
from bittern.service.sources.darwin_core import darwin_core_entries, is_darwin_core
from bittern.service.sources.folder import folder_entries, remote_folder_entries
from bittern.service.sources.globs import folder_and_glob
from bittern.service.sources.inaturalist_export import (
    inaturalist_export_entries,
    is_inaturalist_export,
)
from bittern.service.sources.inaturalist_open_data import is_open_data, open_data_entries
from bittern.service.sources.manifest import (
    is_manifest,
    manifest_entries,
    remote_manifest_entries,
)
from bittern.service.sources.tar import is_shards, is_tar, remote_shard_entries, shard_entries
from bittern.service.sources.xeno_canto import is_xeno_canto, xeno_canto_entries

READERS: tuple[Reader, ...] = (
    # The first that recognises a path reads it: special formats come before general ones.
    Reader("camtrap-dp", is_camtrap, camtrap_entries),
    Reader("coco", is_coco, coco_entries, "file"),
    Reader("xeno-canto", is_xeno_canto, xeno_canto_entries),
    Reader("darwin-core", is_darwin_core, darwin_core_entries),
    Reader("inaturalist-open-data", is_open_data, open_data_entries),
    Reader("inaturalist", is_inaturalist_export, inaturalist_export_entries, "file"),
    Reader("tar", is_shards, shard_entries, "pattern", remote_shard_entries),
    Reader("folder", Path.is_dir, folder_entries, "folder", remote_folder_entries),
    Reader("manifest", is_manifest, manifest_entries, "file", remote_manifest_entries),
)
_BY_NAME = {reader.name: reader for reader in READERS}
_PACKED = frozenset({".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst"})


def read_source(path: Path | str, options: SourceOptions | None = None) -> Source:
    """Detect the format of a source; nothing is decoded, and little is read.

    Args:
        path: a folder, a manifest, or a file of another format; a path with globs
            (``photos/*.jpg``); or, from an operator only, an address (``s3://…``, ``https://…``).
        options: how to read it.

    Raises:
        SourceNotFoundError: it does not exist, or has no media.
        SourceUnreachableError: its address does not respond.
        ManifestError: an unknown format, or the source as a whole cannot be read.
        InvalidInputError: invalid options.
    """
    options = options or SourceOptions()
    check_prefixes(options.fetch)
    if options.format is not None and options.format not in _BY_NAME:
        raise ManifestError(
            f"unknown format '{options.format}'; the formats are {', '.join(_BY_NAME)}",
            field="format",
        )
    if isinstance(path, str) and path.lower().startswith("file://"):
        path = unquote(urlsplit(path).path)
    if isinstance(path, str) and is_address(path):
        parsed(path)
        source = _remote_source(path, options)
        folder = path if source.format == "folder" else path.rpartition("/")[0]
    else:
        source, folder = _local_source(Path(path), options), ""
    fetch = (*options.fetch, *_named_folder(folder if options.media is None else options.media))
    source = replace(source, fetch=fetch)
    _refuse_if_empty(source, options)
    return source


def _named_folder(folder: str) -> list[str]:
    """The address of the media's folder, which the operator named and so may be fetched."""
    if not is_address(folder):
        return []
    folder = folder.partition("?")[0].partition("#")[0]
    try:
        parsed(folder)
    except ManifestError:
        return []  # nothing can be fetched from it; the reader reports it
    return [folder]


def _local_source(path: Path, options: SourceOptions) -> Source:
    if options.format is not None:
        reader: Reader | None = _BY_NAME[options.format]
    else:
        reader = next((each for each in READERS if each.recognises(path)), None)
    if reader is None or reader.form != "pattern" or not set(path.name) & set("*?[{"):
        chosen = folder_and_glob(path) if options.format in (None, "folder") else None
        if chosen is not None:
            return _chosen(*chosen, options)
        if not path.exists():
            raise SourceNotFoundError(f"there is no folder or manifest at {path}", field="source")
        _check_form(path, reader)
    if reader is None:
        raise _unknown(path)
    return Source(path, reader.name, partial(reader.entries, path, options))


def _chosen(folder: Path, glob: str, options: SourceOptions) -> Source:
    """The media of a folder that match a glob in the source's path."""
    if options.include:
        raise InvalidInputError(
            f"the source {folder / glob} is a glob already; to use --include as well, give the "
            f"folder {folder} and pass all globs with --include",
            field="include",
        )
    if not folder.is_dir():
        raise SourceNotFoundError(f"there is no folder {folder}", field="source")
    source = _local_source(folder, replace(options, format="folder", include=(glob,)))
    if next(iter(source), None) is None:
        raise SourceNotFoundError(
            f"no photograph or recording matches {folder / glob}; '*' and '?' match letters "
            "within one name, '**' any number of folders",
            field="source",
        )
    return source


def _refuse_if_empty(source: Source, options: SourceOptions) -> None:
    if next(iter(source), None) is not None:
        return
    where = source.address or source.path
    if options.include or options.exclude:
        why = "--include and --exclude leave none of its files"
    elif source.format == "folder":
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES | AUDIO_SUFFIXES))
        why = f"none of its files ends in {suffixes}"
    elif source.format == "manifest":
        raise SourceNotFoundError(f"{where} lists no media: it has only a header", field="source")
    else:
        why = f"read as {source.format}, it contains no photograph or recording"
    raise SourceNotFoundError(f"{where} has no media: {why}", field="source")


def _remote_source(address: str, options: SourceOptions) -> Source:
    """A folder, a manifest or tar shards at an address.

    The end of the address decides: a table, tar shards, else a folder.

    Raises:
        ManifestError: a format that can only be read from this machine.
        InvalidInputError: an unreadable kind of address.
    """
    path = Path(urlsplit(address).path)
    detected = "tar" if is_tar(path.name) else "manifest" if is_manifest(path) else "folder"
    name = options.format or detected
    entries = _BY_NAME[name].remote_entries
    if entries is None:
        remote = ", ".join(reader.name for reader in READERS if reader.remote_entries)
        raise ManifestError(
            f"'{name}' cannot be read from an address, only {remote}; copy it to this machine "
            "first",
            field="format",
        )
    return Source(path, name, partial(entries, address, options), address=address)


def _check_form(path: Path, reader: Reader | None) -> None:
    """Refuse a path that does not fit the format.

    Raises:
        ManifestError: a folder instead of a file, or the reverse; an empty file.
    """
    name, form = (reader.name, reader.form) if reader else ("", "")
    if path.is_dir() and form == "file":
        raise ManifestError(
            f"{path} is a folder; the format {name} needs a file: give the file in it",
            field="source",
        )
    if path.is_file() and form == "folder":
        raise ManifestError(f"{path} is a file; the format {name} needs a folder", field="source")
    if path.is_file() and form != "pattern" and not path.stat().st_size:
        raise ManifestError(f"{path} is empty, a file of 0 bytes; copy it again", field="source")


def _unknown(path: Path) -> ManifestError:
    """The error for an unknown format."""
    if path.suffix.lower() == ".zip" and not zipfile.is_zipfile(path):
        return ManifestError(
            f"{path} is a damaged or incomplete zip; download or copy it again",
            field="source",
        )
    if path.suffix.lower() in _PACKED:
        return ManifestError(
            f"{path} cannot be read while it is packed; unpack it, and give the folder or "
            "the table inside",
            field="source",
        )
    return ManifestError(
        f"the format of {path} is unknown: it is not a folder, not a table (.csv, .tsv or "
        f".parquet), and none of {', '.join(each.name for each in READERS)}; if it is one of "
        "these, name it with --format",
        field="source",
    )
