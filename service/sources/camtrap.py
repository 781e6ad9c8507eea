"""Camtrap DP 1.0, exported by camera-trap platforms (Agouti, Trapper, Wildlife Insights).

A package has a ``datapackage.json`` that describes three tables: deployments (where and when a
camera stood), media, and observations about single media or about events of several. Each medium
becomes an entry with the metadata of its deployment and observations. The tables are streamed,
from a folder or a zip; observations go to disk, the description and the deployments stay in memory.

The format's libraries are not used: `camtrapdp` 0.1 requires pandas 2 and reads whole tables;
`frictionless` 5 has twelve dependencies and fetches schemas from any address in the package.
Version, tables, columns and keys are checked here.

https://camtrap-dp.tdwg.org
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from bittern.errors import ManifestError, SourceNotFoundError
from bittern.index.columns import Value
from bittern.service.sources.addresses import is_address
from bittern.service.sources.base import Listed, SourceOptions, listed
from bittern.service.sources.field_values import (
    BETWEEN,
    checked,
    event_date,
    licence,
    number,
    renamed,
    text,
)
from bittern.service.sources.listing import Listing
from bittern.service.sources.media_locator import FoundMedia, modality_of_media
from bittern.service.sources.packed import PackedFiles, check_inside, describes
from bittern.service.sources.tables import Dialect, Row, named_rows
from bittern.types import MediaItem

DESCRIPTOR = "datapackage.json"
MAX_DESCRIPTOR_BYTES = 64 << 20
MAX_DEPLOYMENTS = 1_000_000
"""Most deployments of a package; they are held in memory."""
MAX_OF_A_MEDIUM = 1000
"""Most observations of one medium or event that are used."""
REQUIRED = {
    "deployments": ("deploymentID", "latitude", "longitude"),
    "media": ("mediaID", "deploymentID", "timestamp", "filePath", "fileMediatype"),
    "observations": ("observationID", "deploymentID", "observationLevel", "observationType"),
}
"""Required columns, by table."""
_VERSION = re.compile(r"camtrap-dp/v?([0-9]+\.[0-9]+[0-9A-Za-z.-]*)")
_MISSING = frozenset({"", "NaN", "nan"})
_OF_DEPLOYMENTS = {
    **dict.fromkeys(
        ("deploymentID", "locationID", "locationName", "cameraID", "cameraModel", "timestampIssues",
         "baitUse", "featureType", "habitat", "deploymentGroups", "deploymentTags")
    ),
    "latitude": "decimalLatitude",
    "longitude": "decimalLongitude",
    "coordinateUncertainty": "coordinateUncertaintyInMeters",
}  # fmt: skip
"""Columns that are kept; None keeps the name."""
_OF_MEDIA = ("captureMethod", "favorite", "mediaComments")
_OF_TAXA = ("taxonID", "taxonRank", "kingdom", "phylum", "class", "order", "family", "genus")
_SEVERAL = ("sex", "lifeStage", "behavior")
"""Columns of a medium's only species: values of all its observations."""
_SINGLE = ("individualID", "classificationMethod", "observationTags", "observationComments")
_SINGLE_NUMBERS = {
    "count": "individualCount",  # as Darwin Core has it; `count` is a function in conditions
    "classificationProbability": "classificationProbability",
}
"""Like `_SINGLE`, columns of a medium's only observation."""


def is_camtrap(path: Path) -> bool:
    """Whether a folder, a datapackage.json or a zip is a Camtrap DP of any version."""
    inside = path.parent if path.name == DESCRIPTOR else path
    # The profile may be anywhere in the file.
    return describes(inside, DESCRIPTOR, b"camtrap-dp", MAX_DESCRIPTOR_BYTES)


def camtrap_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The media of a Camtrap DP package; see docs/reference/source-formats.md for the columns.

    Raises:
        ManifestError: not of version 1.0, or a table lacks a required column.
        SourceNotFoundError: a table or the folder `options.media` is missing.
    """
    inside = path.parent if path.name == DESCRIPTOR else path
    with PackedFiles(inside, DESCRIPTOR) as files, _Media(path, options, files) as media:
        yield from media.entries()


@dataclass(frozen=True)
class _Resource:
    """One of the tables, as datapackage.json describes it."""

    names: tuple[str, ...]
    dialect: Dialect
    gzipped: bool


class _Package:
    """The tables of one package.

    Attributes:
        description: content of datapackage.json.

    Raises:
        ManifestError: it cannot be read, is not of version 1.0, or lacks a table.
        SourceNotFoundError: no datapackage.json.
    """

    def __init__(self, files: PackedFiles) -> None:
        self._files = files
        self.description = self._described()
        self._tables = {name: self._resource(name) for name in REQUIRED}

    def rows(self, table: str) -> Iterator[Row[str]]:
        """The rows of ``deployments``, ``media`` or ``observations``.

        Raises:
            ManifestError: the table cannot be read, or lacks a required column.
        """
        described = self._tables[table]
        for name in described.names:
            try:
                with self._files.open(name) as raw:
                    stream = gzip.GzipFile(fileobj=raw) if described.gzipped else raw
                    yield from self._rows_of(name, cast(IO[bytes], stream), table)
            except (OSError, EOFError, zlib.error) as error:
                raise ManifestError(f"{name} cannot be read: {error}", field="source") from error

    def _rows_of(self, name: str, stream: IO[bytes], table: str) -> Iterator[Row[str]]:
        def columns(headings: list[str]) -> list[str]:
            missing = [column for column in REQUIRED[table] if column not in headings]
            if missing:
                raise ManifestError(
                    f"{name} has no column {', '.join(missing)}, which Camtrap DP requires; its "
                    f"columns are {', '.join(headings)[:300] or 'none'}",
                    field="source",
                )
            return headings

        dialect = self._tables[table].dialect
        return named_rows(stream, dialect, name, columns, _MISSING)

    def _described(self) -> dict[str, Any]:
        content = self._files.description(MAX_DESCRIPTOR_BYTES)
        try:
            description = json.loads(content.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"{DESCRIPTOR} is not valid JSON: {error}", field="source"
            ) from error
        version = _version(description)
        if version is None:
            raise ManifestError(
                f"{DESCRIPTOR} is not a Camtrap DP: its profile is another one",
                field="source",
            )
        if not re.fullmatch(r"1\.0(\.[0-9]+)?", version):
            raise ManifestError(
                f"the package is Camtrap DP {version[:20]}; only versions 1.0.x can be read: "
                "export it again in one of these",
                field="source",
            )
        return dict(description)

    def _resource(self, name: str) -> _Resource:
        resources = self.description.get("resources")
        for resource in resources if isinstance(resources, list) else []:
            if isinstance(resource, dict) and resource.get("name") == name:
                return _described_resource(name, resource)
        raise ManifestError(
            f"{DESCRIPTOR} has no resource '{name}'; a Camtrap DP has {', '.join(REQUIRED)}",
            field="source",
        )


def _version(description: object) -> str | None:
    profile = description.get("profile") if isinstance(description, dict) else None
    found = _VERSION.search(profile) if isinstance(profile, str) else None
    return found[1] if found else None


def _described_resource(name: str, resource: dict[str, Any]) -> _Resource:
    paths = resource.get("path")
    paths = paths if isinstance(paths, list) else [paths]
    names = tuple(check_inside(path, DESCRIPTOR) for path in paths)
    if not names:
        raise ManifestError(f"the table '{name}' has no path", field="source")
    dialect = resource.get("dialect")
    separator = dialect.get("delimiter", ",") if isinstance(dialect, dict) else ","
    encoding = str(resource.get("encoding", "utf-8"))
    gzipped = resource.get("compression") == "gz" or any(n.endswith(".gz") for n in names)
    return _Resource(names, Dialect(separator=str(separator), encoding=encoding), gzipped)


class _Media(Listing):
    """One pass over a package: media, joined with their deployment and observations."""

    def __init__(self, path: Path, options: SourceOptions, files: PackedFiles) -> None:
        super().__init__(path, options)
        self._package = _Package(files)
        self._about_all = _about_all(self._package.description)
        self._taxa = _taxa(self._package.description)
        self._deployments: dict[str, dict[str, Value]] = {}
        self._longest_s = 0.0

    def entries(self) -> Iterator[Listed]:
        """The media in the order of their table."""
        deployments, observations = (
            self._package.rows(table) for table in ("deployments", "observations")
        )
        yield from self.stored(deployments, self._store_deployment, _cell("deploymentID"))
        yield from self.stored(observations, self._store_observation, _cell("observationID"))
        for row in self._package.rows("media"):
            yield listed(_cell("mediaID")(row), row.position, partial(self._item, row))

    def _store_deployment(self, row: Row[str]) -> None:
        own = row.required("deploymentID")
        if own in self._deployments:
            raise ManifestError(f"an earlier row has the deployment '{own[:80]}'")
        if len(self._deployments) >= MAX_DEPLOYMENTS:
            raise ManifestError(f"the package has more than {MAX_DEPLOYMENTS:,} deployments")
        # If a value is invalid, media of the deployment still get its id.
        self._deployments[own] = {"deploymentID": own}
        self._deployments[own] = checked(renamed(row.cells, _OF_DEPLOYMENTS))

    def _store_observation(self, row: Row[str]) -> None:
        """Store one: about a medium if it has a `mediaID`, else about an event."""
        row.required("observationID")
        cells = row.cells
        if "mediaID" in cells:
            self.tables.add("of_medium", cells["mediaID"], cells)
            return
        deployment = cells.get("deploymentID", "")
        if "eventID" in cells:
            self.tables.add("of_event", f"{deployment}\0{cells['eventID']}", cells)
        start, stop = _seconds(cells.get("eventStart", "")), _seconds(cells.get("eventEnd", ""))
        if start is not None:
            stop = start if stop is None else max(start, stop)
            self._longest_s = max(self._longest_s, stop - start)
            self.tables.add("by_time", deployment, [stop, cells], at=start)

    def _item(self, row: Row[str]) -> MediaItem:
        own, cells = row.required("mediaID"), row.cells
        deployment = row.required("deploymentID")
        if not self.tables.add_first("media", own):
            raise ManifestError(f"an earlier row has the medium '{own[:80]}'")
        if deployment not in self._deployments:
            raise ManifestError(f"there is no deployment '{deployment[:80]}' in this package")
        metadata = checked(
            {
                **renamed(cells, dict.fromkeys(_OF_MEDIA)),
                "eventDate": event_date(cells.get("timestamp", "")),
                "filePublic": _is_true(cells["filePublic"]) if "filePublic" in cells else None,
                **self._about_all,
                **self._deployments[deployment],
                **_summary(*self._observations(cells), self._taxa),
            }
        )
        name = cells.get("filePath", "")
        if not name:
            raise ManifestError("the row has no filePath")
        modality = modality_of_media(name, mime=cells.get("fileMediatype", ""))
        found = self.locator.find(name, also=_names_on_disk(cells) if is_address(name) else ())
        _refuse_private_address(cells, found)
        return found.item(own, modality, metadata)

    def _observations(self, cells: Mapping[str, str]) -> tuple[str, str, list[dict[str, str]]]:
        """Level, event and rows of the observations of a medium; if it has none, of its event."""
        deployment = cells["deploymentID"]
        about_it = self._first_of(self.tables.find("of_medium", cells["mediaID"]))
        found = [each for each in about_it if each.get("observationType") != "unclassified"]
        events = [e for e in (cells.get("eventID"), *(o.get("eventID") for o in about_it)) if e]
        if found:
            return "media", events[0] if events else "", found
        if events:
            found = self._first_of(self.tables.find("of_event", f"{deployment}\0{events[0]}"))
        found = found or self._during(deployment, cells.get("timestamp", ""))
        events = events or [e for e in (o.get("eventID") for o in found) if e]
        return "event", events[0] if events else "", found

    def _during(self, deployment: str, timestamp: str) -> list[dict[str, str]]:
        """The observations about a deployment's events at a moment."""
        moment = _seconds(timestamp)
        if moment is None:
            return []
        # Events that began more than the longest duration ago are over.
        begun = self.tables.between("by_time", deployment, moment - self._longest_s, moment)
        return self._first_of(cells for stop, cells in begun if stop >= moment)

    @staticmethod
    def _first_of(rows: Iterator[dict[str, str]]) -> list[dict[str, str]]:
        return list(islice(rows, MAX_OF_A_MEDIUM))


def _cell(column: str) -> Callable[[Row[str]], str]:
    return lambda row: row.cells.get(column, "")


def _seconds(timestamp: str) -> float | None:
    """Seconds since 1970 of an ISO 8601 date and time; None if it is none."""
    try:
        moment = datetime.fromisoformat(timestamp)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _about_all(description: dict[str, Any]) -> dict[str, Value | None]:
    """Licence and rights holder of all media of the package."""
    licences = [
        licence(text(each.get("name"))) or licence(text(each.get("path")))
        for each in _objects(description.get("licenses"))
        if each.get("scope") == "media"
    ]
    holders = [
        text(each.get("title"))
        for each in _objects(description.get("contributors"))
        if each.get("role") == "rightsHolder"
    ]
    return {
        "license": BETWEEN.join(dict.fromkeys(filter(None, licences))),
        "rightsHolder": BETWEEN.join(dict.fromkeys(filter(None, holders))),
        "coordinatePrecision": number(text(description.get("coordinatePrecision"))),
    }


def _taxa(description: dict[str, Any]) -> dict[str, dict[str, Value]]:
    """Columns of the package's taxa, by scientific name."""
    taxa: dict[str, dict[str, Value]] = {}
    for each in _objects(description.get("taxonomic")):
        name = text(each.get("scientificName"))
        columns: dict[str, Value] = {column: text(each.get(column)) for column in _OF_TAXA}
        columns["species"] = name if columns["taxonRank"] == "species" else ""
        named = each.get("vernacularNames")
        by_language = named if isinstance(named, dict) else {}
        languages = [*("eng", "en"), *by_language]  # the towers read English best
        names = (text(by_language.get(language)) for language in languages)
        columns["vernacularName"] = next(filter(None, names), "")
        taxa[name] = columns
    return taxa


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _is_true(cell: str) -> bool:
    return cell.lower() in ("true", "1")


def _summary(
    level: str, event: str, found: list[dict[str, str]], taxa: dict[str, dict[str, Value]]
) -> dict[str, Value]:
    """Observations as columns of their medium."""
    columns: dict[str, Value] = {"eventID": event}
    if not found:
        return columns
    species = _distinct(found, "scientificName")
    labels = (each.get("scientificName") or each.get("observationType", "") for each in found)
    columns["observationLevel"] = level
    columns["observationType"] = BETWEEN.join(_distinct(found, "observationType"))
    columns["label"] = BETWEEN.join(dict.fromkeys(filter(None, labels)))
    if len(species) != 1:
        return columns
    of_species = [each for each in found if each.get("scientificName") == species[0]]
    columns.update(taxa.get(species[0], {}))
    columns["scientificName"] = species[0]
    for column in _SEVERAL:
        columns[column] = BETWEEN.join(_distinct(of_species, column))
    if len(of_species) == 1:
        only = of_species[0]
        columns.update({column: only.get(column, "") for column in _SINGLE})
        numbers = {term: number(only.get(column, "")) for column, term in _SINGLE_NUMBERS.items()}
        columns.update({term: value for term, value in numbers.items() if value is not None})
    return columns


def _distinct(found: list[dict[str, str]], column: str) -> list[str]:
    return list(dict.fromkeys(each[column] for each in found if column in each))


def _names_on_disk(cells: Mapping[str, str]) -> list[str]:
    """Usual file names of downloaded media: by deployment and file, or by id."""
    name = cells.get("fileName", "")
    plain = [
        f"{cells['deploymentID']}/{name}",
        f"{cells['mediaID']}{PurePosixPath(name).suffix or '.jpg'}",
    ]
    folders = [f for each in plain for f in PurePosixPath(each).parts[:-1]]
    safe = name and "\\" not in "".join(plain) and "\0" not in "".join(plain)
    return plain if safe and folders == [cells["deploymentID"]] and ".." not in folders else []


def _refuse_private_address(cells: Mapping[str, str], found: FoundMedia) -> None:
    if found.url is not None and not _is_true(cells.get("filePublic", "true")):
        raise SourceNotFoundError(
            f"'{found.media[:200]}' is not public (filePublic is false) and is not fetched; put "
            "the file beside the package, or give its folder with --media FOLDER"
        )
