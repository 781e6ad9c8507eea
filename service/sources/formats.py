"""Which formats sources can have, and which one a path has."""

from __future__ import annotations

import zipfile
from pathlib import Path

from bittern.errors import ManifestError
from bittern.service.sources.base import Reader
from bittern.service.sources.camtrap import camtrap_entries, is_camtrap
from bittern.service.sources.coco import coco_entries, is_coco
from bittern.service.sources.darwin_core import darwin_core_entries, is_darwin_core
from bittern.service.sources.folder import folder_count, folder_entries
from bittern.service.sources.inaturalist_export import (
    inaturalist_export_entries,
    is_inaturalist_export,
)
from bittern.service.sources.inaturalist_open_data import is_open_data, open_data_entries
from bittern.service.sources.manifest import MANIFEST_SUFFIXES, manifest_count, manifest_entries
from bittern.service.sources.tar import is_shards, shard_entries
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
    Reader("folder", "a folder of media", Path.is_dir, folder_entries, folder_count),
    Reader(
        "manifest",
        "a CSV, tab-separated or Parquet file with a column `media`",
        lambda path: path.suffix.lower() in MANIFEST_SUFFIXES,
        manifest_entries,
        manifest_count,
    ),
)

_ONLY_FILES = frozenset({"coco", "inaturalist", "manifest"})
_ONLY_FOLDERS = frozenset({"folder"})
_PACKED = frozenset({".zip", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst"})


def check_form(path: Path, reader: Reader | None) -> None:
    """Refuse what is there with what is wrong with it, before it is read.

    Args:
        path: of something that exists.
        reader: that is to read it; None if no format was recognised.

    Raises:
        ManifestError: a folder where the format is a file or the other way round; an empty file;
            something packed, or anything else that no format is recognised in.
    """
    name = reader.name if reader else ""
    if path.is_dir() and name in _ONLY_FILES:
        raise ManifestError(
            f"{path} is a folder, and {name} is read from a file; name the file in it",
            field="source",
        )
    if path.is_file() and name in _ONLY_FOLDERS:
        raise ManifestError(
            f"{path} is a file, and {name} is read from a folder; name the folder", field="source"
        )
    if path.is_file() and name != "tar" and not path.stat().st_size:
        raise ManifestError(f"{path} is empty, a file of 0 bytes; copy it again", field="source")
    if reader is None:
        raise _unknown(path)


def _unknown(path: Path) -> ManifestError:
    """What to say of something that is of no known format."""
    if path.suffix.lower() == ".zip" and not zipfile.is_zipfile(path):
        return ManifestError(
            f"{path} is a zip that is damaged or cut off; download or copy it again",
            field="source",
        )
    if path.suffix.lower() in _PACKED:
        return ManifestError(
            f"{path} is no export that is read packed as it is; unpack it and give the folder or "
            "the table that was in it",
            field="source",
        )
    return ManifestError(
        f"{path} is neither a folder nor a manifest (a .csv, .tsv or .parquet file), nor "
        f"anything else that can be read: {', '.join(each.name for each in READERS)}; if it "
        "is one of these by another name, say which with --format",
        field="source",
    )
