"""A manifest: a table (CSV, tab-separated, Parquet) with a column `media` and any others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bittern.errors import BitternError, ManifestError, SourceNotFoundError
from bittern.files import is_file
from bittern.index.columns import Value
from bittern.service.sources.addresses import below, is_address, may_fetch, parsed
from bittern.service.sources.base import (
    Listed,
    SourceOptions,
    another_medium,
    failed,
    id_of_name,
    modality_of_suffix,
)
from bittern.service.sources.field_values import with_numbers
from bittern.service.sources.headings import column_names, likely_media, shown
from bittern.service.sources.media_locator import FoundMedia
from bittern.service.sources.spill import Spill
from bittern.service.sources.tables import PARQUET_SUFFIXES, TEXT_SUFFIXES, Table
from bittern.types import MediaItem

MANIFEST_SUFFIXES = TEXT_SUFFIXES | PARQUET_SUFFIXES
_EXPORTED = frozenset({"id", "modality", "start_s", "end_s"})
"""Columns of Bittern's own exports. A table with all of these and `occurrenceID` is such an export;
no other table can have columns of these names, see `headings`."""
_OWN = {**{name: name for name in _EXPORTED}, "mediaPath": "mediaRoot"}
"""The columns of such an export that are not metadata, and names that no metadata can have."""
_NOT_KEPT = {*_OWN.values(), "media", "occurrenceID"}
_TYPES = {"stillimage": "image", "image": "image", "sound": "audio", "audio": "audio"}


def is_manifest(path: Path) -> bool:
    """Whether the suffix of a path is that of a table."""
    return path.suffix.lower() in MANIFEST_SUFFIXES


def manifest_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The rows of a manifest on this machine; see `_entries`."""
    return _entries(Table(path.name, path), options)


def remote_manifest_entries(address: str, options: SourceOptions) -> Iterator[Listed]:
    """The rows of a manifest at an address; see `_entries`."""
    return _entries(Table(Path(urlsplit(address).path).name, address), options)


def _entries(table: Table, options: SourceOptions) -> Iterator[Listed]:
    """The rows of a manifest.

    `media` holds paths relative to the manifest (or to `options.media`), absolute paths, or
    addresses below `options.fetch`. `occurrenceID` is the item's id (default: the value of
    `media`), `type` is ``StillImage`` or ``Sound`` (default: by the suffix). All other columns
    become metadata, under the names of `headings.column_names`. Rows may share an `occurrenceID` if
    their media differ.

    A table that was exported from an archive has a row for each window of a recording; these become
    one item with the modality of the column `modality`, without their times.

    Raises:
        ManifestError: the manifest as a whole cannot be read.
    """
    base = _MediaBase.of(table, options)
    separator = table.separator
    with Spill() as seen:
        for row in table.rows(lambda headings: _columns(table, headings, options)):
            own, media = (str(row.cells.get(column, "")) for column in ("occurrenceID", "media"))
            if _EXPORTED & row.cells.keys() and not seen.add_first("windows", f"{own}\0{media}"):
                continue
            try:
                if row.error:
                    raise ManifestError(row.error)
                item = _item(base, with_numbers(row.cells, separator))
                key = f"{item.occurrence_id}\0{item.media}"
                if not seen.add_first("rows", key, row.position):
                    before = str(seen.get("rows", key)).removeprefix(f"{table.name}, ")
                    raise ManifestError(
                        f"'{item.occurrence_id}' with '{item.media}' is in {before} already"
                    )
            except BitternError as error:
                # The first row of an occurrence has the bare id, even if its file is missing.
                seen.add_first("ids", own)
                yield failed(own or media, row.position, error)
                continue
            first = seen.add_first("ids", item.occurrence_id)
            yield Listed(item if first else another_medium(item), row.position)


def _columns(table: Table, headings: list[str], options: SourceOptions) -> list[str]:
    if not headings and not table.is_parquet:
        raise ManifestError(f"{table.location} is empty: it has no header", field="source")
    columns = column_names(headings, options.rename)
    if "media" in columns:
        if {*_EXPORTED, "occurrenceID"} <= set(headings) - options.rename.keys():
            columns = [_OWN.get(h, c) for h, c in zip(headings, columns, strict=True)]
        return columns
    likely = [f"--rename {_quoted(heading)}=media" for heading in likely_media(headings)]
    remedy = (
        f"if one of them has the files, use {' or '.join(likely)}"
        if likely
        else "name the one with the files by --rename HEADING=media"
    )
    raise ManifestError(
        f"{table.location} has no column 'media' with the files' paths; its columns are "
        f"{shown(headings)}: {remedy}",
        field="source",
    )


def _quoted(heading: str) -> str:
    return f"'{heading}'" if not heading.isalnum() else heading


@dataclass(frozen=True)
class _MediaBase:
    """Finds the media of a manifest. Unlike those of an export, its paths may be absolute.

    Attributes:
        folder: base of relative paths; None if that is an address.
        address: base of relative paths; None if that is a folder.
        confined: whether paths may not leave the folder, as in a remote manifest.
        root: `folder` with links followed.
        fetch: prefixes of addresses that may be fetched.
    """

    folder: Path | None
    address: str | None
    confined: bool
    root: str
    fetch: tuple[str, ...]

    @classmethod
    def of(cls, table: Table, options: SourceOptions) -> _MediaBase:
        remote = isinstance(table.location, str)
        beside = str(table.location).rpartition("/")[0] if remote else Path(table.location).parent
        base = str(beside) if options.media is None else options.media
        if is_address(base):
            parsed(base)
            return cls(None, base, True, base, options.fetch)
        folder = Path(base).expanduser()
        if not folder.is_dir():
            raise SourceNotFoundError(f"there is no folder with media at {folder}", field="media")
        return cls(folder, None, remote, str(folder.resolve()), options.fetch)

    def find(self, media: str) -> FoundMedia:
        """The medium of a row."""
        if is_address(media):
            if may_fetch(media, self.fetch):
                return FoundMedia(media, None, "", media)
            raise SourceNotFoundError(
                f"'{media[:200]}' is not fetched unless you allow it: --fetch "
                f"{parsed(media).scheme}://{urlsplit(media).netloc}/"
            )
        if self.address is not None:
            return FoundMedia(media, None, self.root, below(self.address, media))
        assert self.folder is not None
        if self.confined:
            below("", media)
        for name in dict.fromkeys((media, media.replace("\\", "/"))):
            path = self.folder / name
            if is_file(path):
                return FoundMedia(media, path, self.root, None)
        raise SourceNotFoundError(f"there is no file '{media[:200]}' below {self.folder}")


def _item(base: _MediaBase, row: Mapping[str, Value]) -> MediaItem:
    media = str(row.get("media", ""))
    if not media or "\0" in media:
        raise ManifestError("the column 'media' is empty or not a path")
    name = urlsplit(media).path if is_address(media) else media
    kind = str(row.get("modality", "")) or str(row.get("type", ""))
    modality = _TYPES.get(kind.lower()) or modality_of_suffix(name)
    if modality is None:
        raise ManifestError(
            f"the suffix of '{media[:200]}' is not known; add a column 'type' with StillImage or "
            "Sound"
        )
    own = str(row.get("occurrenceID", "")) or id_of_name(media)
    metadata = {c: v for c, v in row.items() if c not in _NOT_KEPT}
    return base.find(media).item(own, modality, metadata)
