"""iNaturalist's open data: the tables photos, observations, observers and taxa.

https://github.com/inaturalist/inaturalist-open-data: tab-separated, without quotes, each plain or
with gzip. Only photos and observations are needed; without the others there are no names.

Nobody has all the photographs. Where they are not fetched, the folder with the media is listed
first, and only rows of photographs that are there become entries; the hundreds of millions of
others are passed over silently. Where they may be fetched, every row becomes an entry: cut the
tables to what is wanted before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from bittern.errors import BitternError, ManifestError, SourceNotFoundError
from bittern.index.columns import DARWIN_CORE, MetadataColumns, Value
from bittern.service.sources.base import (
    IMAGE_SUFFIXES,
    Listed,
    SourceOptions,
    another_medium,
    failed,
)
from bittern.service.sources.delimited import TAB_SEPARATED
from bittern.service.sources.inaturalist_export import SITE, VERSION
from bittern.service.sources.inaturalist_files import Row, header, table
from bittern.service.sources.inaturalist_media import OPEN_DATA, SIZES, photo_address
from bittern.service.sources.inaturalist_tables import JoinedTables
from bittern.service.sources.licences import licence_code
from bittern.service.sources.media_locator import MediaPlaces
from bittern.types import MediaItem

_NEEDED = {
    "photos": {"photo_id", "observation_uuid", "extension"},
    "observations": {"observation_uuid", "taxon_id"},
}
_OPTIONAL = {"observers": {"observer_id"}, "taxa": {"taxon_id", "ancestry"}}
_PHOTO = re.compile(r"\d{1,18}")
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,5}")
_PHOTO_COLUMNS = ("photo_id", "photo_uuid", "position", "width", "height")
_OBSERVATION_COLUMNS = {
    "latitude": "decimalLatitude",
    "longitude": "decimalLongitude",
    "positional_accuracy": "coordinateUncertaintyInMeters",
    "observed_on": "eventDate",
    "taxon_id": "taxonID",
    "quality_grade": "quality_grade",
    "anomaly_score": "anomaly_score",
}


def is_open_data(path: Path) -> bool:
    """Whether a path is a folder with the tables, or one of its tables of photographs."""
    photos = _table(path if path.is_dir() else path.parent, "photos")
    if photos is None or (not path.is_dir() and path != photos):
        return False
    return _NEEDED["photos"] <= set(header(photos, TAB_SEPARATED))


def open_data_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The photographs of the open data that are here or may be fetched, in the table's order.

    Raises:
        ManifestError: a table that is needed cannot be read.
        SourceNotFoundError: a table is missing, or no photograph is here.
    """
    folder = path if path.is_dir() else path.parent
    with closing(JoinedTables()) as joined:
        listed = False
        for each in _Listing(folder, options, joined).entries():
            listed = True
            yield each
    if not listed:
        raise SourceNotFoundError(
            f"no photograph that {folder} tells of is here: files are looked for as "
            "PHOTO_ID/original.jpg (or large, medium, small) and as PHOTO_ID.jpg. Say where they "
            f"are with --media FOLDER, or allow them to be fetched with --fetch {OPEN_DATA}",
            field="source",
        )


class _Listing:
    """One pass over the tables of one folder."""

    def __init__(self, folder: Path, options: SourceOptions, joined: JoinedTables) -> None:
        self.folder, self.joined = folder, joined
        self.tables = _tables(folder)
        self.places = MediaPlaces(folder, options)
        self.columns = MetadataColumns(DARWIN_CORE)

    def entries(self) -> Iterator[Listed]:
        photos, joined = self.tables["photos"], self.joined
        for root in self.places.folders:
            for photo, file in local_photos(root):
                joined.add_local(photo, file)
        fetches = self.places.fetches
        if not fetches:
            yield from self._take(photos, self._want)
        observations = self.tables["observations"]
        yield from self._take(
            observations, lambda row: joined.add_observation(row.values, always=fetches)
        )
        if "observers" in self.tables:
            yield from self._take(
                self.tables["observers"], lambda row: joined.add_observer(row.values)
            )
        if "taxa" in self.tables:
            yield from self._take(self.tables["taxa"], lambda row: joined.add_taxon(row.values))
        for row in table(photos, TAB_SEPARATED) if fetches else joined.wanted():
            yield self._photo(row)
        for file in joined.unmet():
            message = f"no row of {photos.name} has the id of the file '{file}'"
            yield failed(file, "", SourceNotFoundError(message))

    def _take(self, path: Path, take: Callable[[Row], object]) -> Iterator[Listed]:
        for row in table(path, TAB_SEPARATED):
            if row.wrong:
                yield failed("", f"{path.name}, line {row.line}", ManifestError(row.wrong))
            else:
                take(row)

    def _want(self, row: Row) -> None:
        if self.joined.local(row.values["photo_id"]) is not None:
            self.joined.want(row)

    def _photo(self, row: Row) -> Listed:
        place = f"{self.tables['photos'].name}, line {row.line}"
        photo = row.values.get("photo_id", "")
        try:
            if row.wrong:
                raise ManifestError(row.wrong)
            item = self._item(row.values)
        except BitternError as error:
            return failed(f"photo {photo}" if photo else "", place, error)
        bare = self.joined.first_of(row.values["observation_uuid"])
        return Listed(item if bare else another_medium(item), place)

    def _item(self, values: dict[str, str]) -> MediaItem:
        photo, extension = values["photo_id"], values["extension"].lower()
        if not _PHOTO.fullmatch(photo) or not _EXTENSION.fullmatch(extension):
            raise ManifestError(f"'{photo[:40]}.{extension[:40]}' is no photograph's name")
        key = values["observation_uuid"]
        observation = self.joined.observation(key)
        if observation is None:
            raise ManifestError(f"no row of observations.csv has the uuid '{key[:80]}'")
        local = self.joined.local(photo)
        address = photo_address(photo, extension)
        found = self.places.find(
            "" if local else address, also=[local] if local else (), addresses=()
        )
        metadata = self._metadata(values, observation)
        return MediaItem(
            occurrence_id=f"{SITE}/observations/{key}",
            media=found.media,
            modality="image",
            path=found.path,
            media_root=found.media_root,
            metadata=metadata,
            url=found.url,
        )

    def _metadata(self, photo: dict[str, str], observation: dict[str, str]) -> dict[str, Value]:
        kept: dict[str, Value] = {c: photo[c] for c in _PHOTO_COLUMNS if photo.get(c)}
        for heading, name in _OBSERVATION_COLUMNS.items():
            if observation.get(heading):
                kept[name] = observation[heading]
        kept.update(self.joined.taxon(observation.get("taxon_id", "")))
        kept["references"] = f"{SITE}/observations/{photo['observation_uuid']}"
        if photo.get("license"):
            kept["license"] = licence_code(photo["license"], VERSION)
        person = photo.get("observer_id") or observation.get("observer_id", "")
        if name := self.joined.observer(person):
            kept["rightsHolder"] = kept["recordedBy"] = name
        known = {column: value for column, value in kept.items() if column in DARWIN_CORE}
        return {**kept, **self.columns.accept(known)}


def local_photos(folder: Path) -> Iterator[tuple[int, str]]:
    """Photographs below a folder: ``12/original.jpg``, ``photos/12/large.jpeg`` or ``12.jpg``.

    Yields:
        Id and path relative to the folder; of several sizes the largest, in no order of ids.
    """
    for prefix in ("", "photos"):
        directory = folder / prefix
        if not directory.is_dir():
            continue
        with os.scandir(directory) as entries:
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


def _table(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}.csv", folder / f"{name}.csv.gz")
    return next((path for path in paths if path.is_file()), None)


def _tables(folder: Path) -> dict[str, Path]:
    tables: dict[str, Path] = {}
    for name, wanted in {**_NEEDED, **_OPTIONAL}.items():
        path = _table(folder, name)
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
