"""iNaturalist's open data: the tables photos, observations, observers and taxa.

https://github.com/inaturalist/inaturalist-open-data: tab-separated, without quotes, each plain or
with gzip. Only photos and observations are required; the others add names.

If photographs are not fetched, the folder with the media is listed first, and only rows of local
photographs become entries; the hundreds of millions of other rows are skipped silently. If they may
be fetched, every row becomes an entry: reduce the tables before.

No table is held in memory: lookups go to disk, about 150 bytes per observation and 60 per taxon.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from bittern.errors import ManifestError, SourceNotFoundError
from bittern.index.columns import DARWIN_CORE, MetadataColumns, Value
from bittern.service.sources.base import (
    IMAGE_SUFFIXES,
    Listed,
    SourceOptions,
    failed,
    not_empty,
)
from bittern.service.sources.field_values import licence, renamed
from bittern.service.sources.inaturalist_export import SITE, SIZES, VERSION, header, table_rows
from bittern.service.sources.listing import Listing
from bittern.service.sources.tables import TAB_SEPARATED, Row
from bittern.types import MediaItem

OPEN_DATA = "https://inaturalist-open-data.s3.amazonaws.com/"
FETCHED_SIZE = "large"
TAXA_KEPT = 10_000
"""Taxa whose names are held in memory."""
RANKS = frozenset({"kingdom", "phylum", "class", "order", "family", "genus", "species"})
_NEEDED = {
    "photos": {"photo_id", "observation_uuid", "extension"},
    "observations": {"observation_uuid", "taxon_id"},
}
_OPTIONAL = {"observers": {"observer_id"}, "taxa": {"taxon_id", "ancestry"}}
_PHOTO = re.compile(r"\d{1,18}")
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,5}")
_PHOTO_COLUMNS = dict.fromkeys(("photo_id", "photo_uuid", "position", "width", "height"))
_OBSERVATION_COLUMNS = {
    "latitude": "decimalLatitude",
    "longitude": "decimalLongitude",
    "positional_accuracy": "coordinateUncertaintyInMeters",
    "observed_on": "eventDate",
    "taxon_id": "taxonID",
    "quality_grade": None,
    "anomaly_score": None,
}


def is_open_data(path: Path) -> bool:
    """Whether a path is a folder with the tables, or one of its tables of photographs."""
    photos = _table_file(path if path.is_dir() else path.parent, "photos")
    if photos is None or (not path.is_dir() and path != photos):
        return False
    return _NEEDED["photos"] <= set(header(photos, TAB_SEPARATED))


def open_data_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The photographs of the open data that are local or may be fetched, in the table's order.

    Raises:
        ManifestError: a required table cannot be read.
        SourceNotFoundError: a table is missing, or no photograph was found.
    """
    folder = path if path.is_dir() else path.parent
    with _Photos(folder, options) as photos:
        yield from not_empty(
            photos.entries(),
            f"none of the photographs in the tables in {folder} was found; file names are "
            "PHOTO_ID/original.jpg (or large, medium, small) or PHOTO_ID.jpg. Give their "
            f"folder with --media FOLDER, or allow fetching with --fetch {OPEN_DATA}",
        )


class _Photos(Listing):
    """One pass over the tables of one folder."""

    def __init__(self, folder: Path, options: SourceOptions) -> None:
        super().__init__(folder, options)
        self.files = _table_files(folder)
        self.fetches = bool(options.fetch)
        self.taxon = lru_cache(TAXA_KEPT)(self._taxon)

    def entries(self) -> Iterator[Listed]:
        """The photographs, then the local files without a row."""
        for photo, file in _local_photos(self.locator.folder):
            self.tables.add_first("local", _sortable(photo), file)
        if not self.fetches:
            yield from self.stored(self._rows("photos"), self._store_photo)
        yield from self.stored(self._rows("observations"), self._store_observation)
        yield from self.stored(self._rows("observers"), self._store_observer)
        yield from self.stored(self._rows("taxa"), self._store_taxon)
        wanted = (Row(*values) for _, values in self.tables.rows("wanted"))
        for row in self._rows("photos") if self.fetches else wanted:
            yield self._photo(row)
        for key, file in self.tables.items("local"):
            if not self.tables.has("met", key):
                message = f"no row of {self.files['photos'].name} has the id of the file '{file}'"
                yield failed(file, "", SourceNotFoundError(message))

    def _rows(self, table: str) -> Iterator[Row[str]]:
        file = self.files.get(table)
        return table_rows(file, TAB_SEPARATED) if file else iter(())

    def _store_photo(self, row: Row[str]) -> None:
        if self._local(row.cells["photo_id"]) is not None:
            self.tables.add_first("needed", row.cells["observation_uuid"])
            self.tables.add("wanted", "", row)

    def _store_observation(self, row: Row[str]) -> None:
        key = row.cells["observation_uuid"]
        if self.fetches or self.tables.has("needed", key):
            self.tables.add_first("observations", key, row.cells)

    def _store_observer(self, row: Row[str]) -> None:
        name = row.cells.get("name") or row.cells.get("login", "")
        self.tables.add_first("observers", row.cells["observer_id"], name)

    def _store_taxon(self, row: Row[str]) -> None:
        cells = row.cells
        values = [cells["ancestry"], cells.get("rank", "").lower(), cells.get("name", "")]
        self.tables.add_first("taxa", cells["taxon_id"], values)

    def _local(self, photo: str) -> str | None:
        """The local file of a row's photograph; None if there is none."""
        if not _PHOTO.fullmatch(photo):
            return None
        key = _sortable(int(photo))
        file: str | None = self.tables.get("local", key)
        if file is not None:
            self.tables.add_first("met", key)
        return file

    def _taxon(self, key: str) -> dict[str, str]:
        """`scientificName`, `taxonRank` and the names of the main ranks; empty if unknown."""
        own = self.tables.get("taxa", key)
        if own is None:
            return {}
        ancestry, rank, name = own
        names = {"scientificName": name, "taxonRank": rank}
        if rank in RANKS:
            names[rank] = name
        # Documented with backslashes between the ids; the files have slashes.
        for ancestor in re.split(r"[/\\]", ancestry)[:100]:
            above = self.tables.get("taxa", ancestor)
            if above is not None and above[1] in RANKS:
                names.setdefault(above[1], above[2])
        return {column: value for column, value in names.items() if value}

    def _photo(self, row: Row[str]) -> Listed:
        if row.error:
            return failed("", row.position, ManifestError(row.error))
        photo, key = row.cells["photo_id"], row.cells["observation_uuid"]
        name = f"photo {photo}" if photo else row.position
        return self.medium(row.position, key, lambda: self._item(row.cells), name)

    def _item(self, row: Mapping[str, str]) -> MediaItem:
        photo, extension = row["photo_id"], row["extension"].lower()
        if not _PHOTO.fullmatch(photo) or not _EXTENSION.fullmatch(extension):
            raise ManifestError(f"'{photo[:40]}.{extension[:40]}' is not the name of a photograph")
        local = self._local(photo)
        key = row["observation_uuid"]
        observation = self.tables.get("observations", key)
        if observation is None:
            raise ManifestError(f"no row of observations.csv has the uuid '{key[:80]}'")
        address = f"{OPEN_DATA}photos/{photo}/{FETCHED_SIZE}.{extension}"
        found = self.locator.find("" if local else address, also=[local] if local else ())
        metadata = self._metadata(row, observation)
        return found.item(f"{SITE}/observations/{key}", "image", metadata)

    def _metadata(
        self, photo: Mapping[str, str], observation: Mapping[str, str]
    ) -> dict[str, Value]:
        kept: dict[str, Value] = {
            **renamed(photo, _PHOTO_COLUMNS),
            **renamed(observation, _OBSERVATION_COLUMNS),
        }
        kept.update(self.taxon(observation.get("taxon_id", "")))
        kept["references"] = f"{SITE}/observations/{photo['observation_uuid']}"
        if photo.get("license"):
            kept["license"] = licence(photo["license"], VERSION)
        person = photo.get("observer_id") or observation.get("observer_id", "")
        if name := self.tables.get("observers", person):
            kept["rightsHolder"] = kept["recordedBy"] = name
        known = {column: value for column, value in kept.items() if column in DARWIN_CORE}
        return {**kept, **MetadataColumns(DARWIN_CORE).accept(known)}


def _sortable(photo: int) -> str:
    return f"{photo:019}"


def _local_photos(folder: Path | None) -> Iterator[tuple[int, str]]:
    """Photographs below a folder: ``12/original.jpg``, ``photos/12/large.jpeg`` or ``12.jpg``.

    Yields:
        Id and path relative to the folder; of several sizes the largest, in no order of ids.
    """
    for prefix in ("", "photos"):
        if folder is None or not (folder / prefix).is_dir():
            continue
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                stem, suffix = _split(entry.name)
                if not _PHOTO.fullmatch(stem):
                    continue
                if suffix.lower() in IMAGE_SUFFIXES:
                    yield int(stem), os.path.join(prefix, entry.name)  # noqa: PTH118
                elif not suffix and entry.is_dir():
                    file = _largest(entry.path)
                    if file:
                        yield int(stem), f"{Path(prefix, entry.name, file)}"


def _largest(directory: str) -> str:
    with os.scandir(directory) as entries:
        split = [(*_split(entry.name), entry.name) for entry in entries]
    sizes = {stem: name for stem, suffix, name in sorted(split) if suffix.lower() in IMAGE_SUFFIXES}
    return next((sizes[size] for size in SIZES if size in sizes), "")


def _split(name: str) -> tuple[str, str]:
    """``("12", ".jpg")`` of ``12.jpg``; strings, as there may be millions."""
    stem, dot, suffix = name.rpartition(".")
    return (stem, dot + suffix) if stem else (name, "")


def _table_file(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}.csv", folder / f"{name}.csv.gz")
    return next((path for path in paths if path.is_file()), None)


def _table_files(folder: Path) -> dict[str, Path]:
    tables: dict[str, Path] = {}
    for name, wanted in {**_NEEDED, **_OPTIONAL}.items():
        path = _table_file(folder, name)
        if path is None and name in _NEEDED:
            raise SourceNotFoundError(
                f"{folder} has no {name}.csv or {name}.csv.gz, which the open data need; download "
                f"it from {OPEN_DATA}{name}.csv.gz",
                field="source",
            )
        if path is None:
            continue
        missing = wanted - set(header(path, TAB_SEPARATED))
        if missing:
            raise ManifestError(
                f"{path} has no column {', '.join(sorted(missing))}; the open data's tables are "
                "tab-separated, with a header",
                field="source",
            )
        tables[name] = path
    return tables
