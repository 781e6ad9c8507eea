"""Which formats sources can have, and which one a path has."""

from __future__ import annotations

from pathlib import Path

from service.sources.base import Reader
from service.sources.camtrap import camtrap_entries, is_camtrap
from service.sources.coco import coco_entries, is_coco
from service.sources.darwin_core import darwin_core_entries, is_darwin_core
from service.sources.folder import folder_count, folder_entries
from service.sources.inaturalist_export import (
    inaturalist_export_entries,
    is_inaturalist_export,
)
from service.sources.inaturalist_open_data import is_open_data, open_data_entries
from service.sources.manifest import MANIFEST_SUFFIXES, manifest_count, manifest_entries
from service.sources.tar import is_shards, shard_entries
from service.sources.xeno_canto import is_xeno_canto, xeno_canto_entries

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
