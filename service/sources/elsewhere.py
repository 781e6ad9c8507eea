"""Sources at an address that an operator gave: a folder, a manifest, or tar shards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from bittern.errors import ManifestError, SourceNotFoundError
from bittern.service.sources.base import Listed, Source, SourceOptions
from bittern.service.sources.folder import Directory, walk
from bittern.service.sources.ids import id_of_name
from bittern.service.sources.manifest import MANIFEST_SUFFIXES, table_entries
from bittern.service.sources.remote import repeated, system_of
from bittern.service.sources.tables import Table
from bittern.service.sources.tar import TAR_SUFFIXES, remote_shard_entries
from bittern.types import MediaItem

REMOTE_FORMATS = ("folder", "manifest", "tar")


def source_at(address: str, options: SourceOptions) -> Source:
    """A source at an address.

    What it is is told by the end of the address: a table, tar shards, else a folder.

    Raises:
        ManifestError: a format that can only be read from this machine.
        InvalidInputError: an address of a kind that cannot be read.
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
        listing = partial(_folder_entries, address.rstrip("/"), options)
    elif found == "tar":
        listing = partial(remote_shard_entries, address, options)
    else:
        listing = partial(table_entries, Table(path.name, address), options)
    return Source(path, found, listing, address=address)


def _folder_entries(address: str, options: SourceOptions) -> Iterator[Listed]:
    system, root = system_of(address)
    is_http = address.lower().startswith(("http://", "https://"))
    base = root.rstrip("/")
    for found in walk(partial(_directory, system, base, address), Path(base).name, options):
        if isinstance(found, Listed):
            yield found
            continue
        media = unquote(found.media) if is_http else found.media
        item = MediaItem(
            occurrence_id=id_of_name(media),
            media=media,
            modality=found.modality,
            media_root=address,
            metadata=found.names,
            url=f"{address}/{found.media}",
        )
        yield Listed(item, found.media)


def _directory(system: Any, root: str, address: str, below: str) -> Directory:
    """What lies in a folder; links that a web page has to somewhere else are passed over."""
    path = f"{root}/{below}" if below else root
    asked = f"{path}/"
    rows = repeated(lambda: system.ls(asked, detail=True), f"{address}/{below}".rstrip("/"))
    with contextlib.suppress(Exception):  # a cache of listings would grow without end
        system.invalidate_cache(path)
    here = Directory([], [], [])
    for row in rows:
        name = str(row["name"])
        is_folder = row.get("type") == "directory" or name.endswith("/")
        name = name.rstrip("/")
        if not name.startswith(asked):
            continue
        name = name.removeprefix(asked)
        if name and "/" not in name and name not in (".", "..") and not set(name) & set("?#"):
            (here.folders if is_folder else here.files).append(name)
    if not below and not rows:
        raise SourceNotFoundError(f"there is nothing at {address}", field="source")
    return Directory(sorted(set(here.folders)), sorted(set(here.files)), [])
