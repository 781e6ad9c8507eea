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
    MANIFEST_SUFFIXES,
    manifest_entries,
    table_entries,
)
from bittern.service.sources.tables import Table
from bittern.service.sources.tar import (
    TAR_SUFFIXES,
    is_shards,
    remote_shard_entries,
    shard_entries,
)
from bittern.service.sources.xeno_canto import is_xeno_canto, xeno_canto_entries

READERS: tuple[Reader, ...] = (
    # The first that recognises a path reads it: special formats come before general ones.
    Reader("camtrap-dp", "a Camtrap DP package", is_camtrap, camtrap_entries),
    Reader("coco", "COCO-style JSON: iNat, iNatSounds, camera traps", is_coco, coco_entries),
    Reader("xeno-canto", "answers of xeno-canto's interface", is_xeno_canto, xeno_canto_entries),
    Reader(
        "darwin-core",
        "a Darwin Core Archive or GBIF download: a zip, or the folder with its meta.xml",
        is_darwin_core,
        darwin_core_entries,
    ),
    Reader(
        "inaturalist-open-data",
        "a folder with iNaturalist's tables photos, observations, observers and taxa",
        is_open_data,
        open_data_entries,
    ),
    Reader(
        "inaturalist",
        "iNaturalist's export of observations: its CSV, or the zip around it",
        is_inaturalist_export,
        inaturalist_export_entries,
    ),
    Reader("tar", "tar shards in the layout of webdataset", is_shards, shard_entries),
    Reader("folder", "a folder of media", Path.is_dir, folder_entries),
    Reader(
        "manifest",
        "a CSV, tab-separated or Parquet file with a column `media`",
        lambda path: path.suffix.lower() in MANIFEST_SUFFIXES,
        manifest_entries,
    ),
)

REMOTE_FORMATS = ("folder", "manifest", "tar")
_ONLY_FILES = frozenset({"coco", "inaturalist", "manifest"})
_ONLY_FOLDERS = frozenset({"folder"})
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
    if options.format is not None and options.format not in (names := [r.name for r in READERS]):
        raise ManifestError(
            f"unknown format '{options.format}'; the formats are {', '.join(names)}",
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
        _check_form(path, reader)
    assert reader is not None
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
    found = options.format
    if found is None:
        is_tar = path.name.lower().endswith(TAR_SUFFIXES)
        is_table = path.suffix.lower() in MANIFEST_SUFFIXES
        found = "tar" if is_tar else "manifest" if is_table else "folder"
    if found not in REMOTE_FORMATS:
        raise ManifestError(
            f"'{found}' cannot be read from an address, only {', '.join(REMOTE_FORMATS)}; "
            "copy it to this machine first",
            field="format",
        )
    if found == "folder":
        listing = partial(remote_folder_entries, address.rstrip("/"), options)
    elif found == "tar":
        listing = partial(remote_shard_entries, address, options)
    else:
        listing = partial(table_entries, Table(path.name, address), options)
    return Source(path, found, listing, address=address)


def _check_form(path: Path, reader: Reader | None) -> None:
    """Refuse a path that does not fit the format, or any format if there is no reader.

    Raises:
        ManifestError: a folder instead of a file, or the reverse; an empty file; a packed file, or
            an unknown format.
    """
    name = reader.name if reader else ""
    if path.is_dir() and name in _ONLY_FILES:
        raise ManifestError(
            f"{path} is a folder; the format {name} needs a file: give the file in it",
            field="source",
        )
    if path.is_file() and name in _ONLY_FOLDERS:
        raise ManifestError(f"{path} is a file; the format {name} needs a folder", field="source")
    if path.is_file() and name != "tar" and not path.stat().st_size:
        raise ManifestError(f"{path} is empty, a file of 0 bytes; copy it again", field="source")
    if reader is None:
        raise _unknown(path)


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
