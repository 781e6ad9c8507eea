"""Camtrap DP 1.0: what camera-trap platforms (Agouti, Trapper, Wildlife Insights) export.

A package has deployments (where and when a camera stood), media, and observations about single
media or about events of several. Each medium becomes an entry with what is known of its deployment
and of what was seen.

The format's libraries were weighed and left: `camtrapdp` 0.1 is bound to pandas 2 and reads tables
whole; `frictionless` 5 brings twelve packages and fetches each table's schema from whatever
address the package names. What a reader has to rely on (version, tables, columns, keys) is checked
here instead.

https://camtrap-dp.tdwg.org
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Any

from bittern.errors import BitternError, ManifestError, SourceNotFoundError
from bittern.index.columns import Value
from bittern.service.sources.base import Listed, SourceOptions, failed
from bittern.service.sources.camtrap_join import ObservationIndex
from bittern.service.sources.camtrap_package import CamtrapPackage, TableRow, is_camtrap
from bittern.service.sources.field_values import checked, event_date, licence, number, text
from bittern.service.sources.media_locator import (
    FoundMedia,
    MediaPlaces,
    is_address,
    modality_of_media,
)
from bittern.types import MediaItem

__all__ = ["camtrap_entries", "is_camtrap"]

MAX_DEPLOYMENTS = 1_000_000
"""Most deployments of a package; they are held in memory."""
BETWEEN = " | "
_OF_DEPLOYMENTS = {
    "deploymentID": "deploymentID",
    "latitude": "decimalLatitude",
    "longitude": "decimalLongitude",
    "coordinateUncertainty": "coordinateUncertaintyInMeters",
    **{
        each: each
        for each in (
            "locationID",
            "locationName",
            "cameraID",
            "cameraModel",
            "timestampIssues",
            "baitUse",
            "featureType",
            "habitat",
            "deploymentGroups",
            "deploymentTags",
        )
    },
}
_OF_MEDIA = ("captureMethod", "favorite", "mediaComments")
_OF_TAXA = ("taxonID", "taxonRank", "kingdom", "phylum", "class", "order", "family", "genus")
_SEVERAL = ("sex", "lifeStage", "behavior")
"""Of the one species of a medium: values of all its observations."""
_SINGLE = ("individualID", "classificationMethod", "observationTags", "observationComments")
_SINGLE_NUMBERS = {
    "count": "individualCount",  # as Darwin Core has it; `count` is a function in conditions
    "classificationProbability": "classificationProbability",
}
"""These and the former: of the one observation of a medium."""


def camtrap_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The media of a Camtrap DP package; docs/reference/sources-camtrap.md lists the fields.

    Raises:
        ManifestError: it is not of version 1.0, or a table lacks a column that is required.
        SourceNotFoundError: a table is missing, or there is no such folder as `options.media`.
    """
    with closing(CamtrapPackage(path)) as package, closing(ObservationIndex()) as observations:
        about_all = _about_all(package.description)
        taxa = _taxa(package.description)
        deployments: dict[str, dict[str, Value]] = {}
        for row in package.rows("deployments"):
            try:
                _take_deployment(row, deployments)
            except BitternError as error:
                yield failed(row.cells.get("deploymentID", row.place), row.place, error)
        for row in package.rows("observations"):
            try:
                _take_observation(row, observations)
            except BitternError as error:
                yield failed(row.cells.get("observationID", row.place), row.place, error)
        observations.sort()
        places = MediaPlaces(path, options, [package.folder])
        for row in package.rows("media"):
            try:
                deployment = _deployment_of(row, deployments, observations)
                told = _seen(row.cells, observations, taxa)
                metadata = {**_of_medium(row.cells), **about_all, **deployment, **told}
                yield Listed(_item(row.cells, checked(metadata), places), row.place)
            except BitternError as error:
                yield failed(row.cells.get("mediaID", row.place), row.place, error)


def _take_deployment(row: TableRow, deployments: dict[str, dict[str, Value]]) -> None:
    own = _needed(row, "deploymentID")
    if own in deployments:
        raise ManifestError(f"the deployment '{own[:80]}' stands in an earlier row already")
    if len(deployments) >= MAX_DEPLOYMENTS:
        raise ManifestError(f"the package has more than {MAX_DEPLOYMENTS:,} deployments")
    columns = {term: row.cells.get(column) for column, term in _OF_DEPLOYMENTS.items()}
    # Its media keep what else is known of them where the place is none.
    deployments[own] = {"deploymentID": own}
    deployments[own] = checked(columns)


def _take_observation(row: TableRow, observations: ObservationIndex) -> None:
    _needed(row, "observationID")
    observations.add(row.cells)


def _deployment_of(
    row: TableRow, deployments: dict[str, dict[str, Value]], observations: ObservationIndex
) -> dict[str, Value]:
    own = _needed(row, "mediaID")
    deployment = _needed(row, "deploymentID")
    if not observations.first_time(own):
        raise ManifestError(f"the medium '{own[:80]}' stands in an earlier row already")
    found = deployments.get(deployment)
    if found is None:
        raise ManifestError(f"there is no deployment '{deployment[:80]}' in this package")
    return found


def _needed(row: TableRow, column: str) -> str:
    if row.wrong:
        raise ManifestError(row.wrong)
    value = row.cells.get(column)
    if value is None:
        raise ManifestError(f"the row has no {column}")
    return value


def _about_all(description: dict[str, Any]) -> dict[str, Value | None]:
    """What the package says of all its media: their licence, and who holds the rights."""
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
    """Scientific name to what the package tells of the taxon."""
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


def _of_medium(cells: dict[str, str]) -> dict[str, Value]:
    columns: dict[str, Value] = {c: cells[c] for c in _OF_MEDIA if c in cells}
    columns["eventDate"] = event_date(cells.get("timestamp", ""))
    if "filePublic" in cells:
        columns["filePublic"] = _is_true(cells["filePublic"])
    return columns


def _is_true(told: str) -> bool:
    return told.lower() in ("true", "1")


def _seen(
    cells: dict[str, str], index: ObservationIndex, taxa: dict[str, dict[str, Value]]
) -> dict[str, Value]:
    """What was seen on a medium; what was seen in its event where nobody looked at it alone."""
    deployment = cells["deploymentID"]
    about_it = index.of_medium(cells["mediaID"])
    found = [each for each in about_it if each.get("observationType") != "unclassified"]
    level = "media"
    events = [e for e in (cells.get("eventID"), *(o.get("eventID") for o in about_it)) if e]
    if not found:
        level = "event"
        found = index.of_event(events[0], deployment) if events else []
        found = found or index.at(deployment, cells.get("timestamp", ""))
        events = events or [e for e in (o.get("eventID") for o in found) if e]
    columns: dict[str, Value] = {"eventID": events[0] if events else ""}
    if not found:
        return columns
    species = _distinct(found, "scientificName")
    types = _distinct(found, "observationType")
    labels = (each.get("scientificName") or each.get("observationType", "") for each in found)
    columns["observationLevel"] = level
    columns["observationType"] = BETWEEN.join(types)
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


def _distinct(observations: list[dict[str, str]], column: str) -> list[str]:
    return list(dict.fromkeys(each[column] for each in observations if column in each))


def _item(cells: dict[str, str], metadata: dict[str, Value], places: MediaPlaces) -> MediaItem:
    name = cells.get("filePath", "")
    if not name:
        raise ManifestError("the row has no filePath")
    modality = modality_of_media(name, mime=cells.get("fileMediatype", ""))
    found = places.find(name, also=_names_on_disk(cells) if is_address(name) else ())
    _refuse_private_address(cells, found)
    return MediaItem(
        occurrence_id=cells["mediaID"],
        media=found.media,
        modality=modality,
        path=found.path,
        media_root=found.media_root,
        metadata=metadata,
        url=found.url,
    )


def _names_on_disk(cells: dict[str, str]) -> list[str]:
    """Names that people download media by: of their deployment and file, or of their id."""
    name = cells.get("fileName", "")
    plain = [
        f"{cells['deploymentID']}/{name}",
        f"{cells['mediaID']}{PurePosixPath(name).suffix or '.jpg'}",
    ]
    folders = [part for each in plain for part in PurePosixPath(each).parts[:-1]]
    safe = name and "\\" not in "".join(plain) and "\0" not in "".join(plain)
    return plain if safe and folders == [cells["deploymentID"]] and ".." not in folders else []


def _refuse_private_address(cells: dict[str, str], found: FoundMedia) -> None:
    if found.url is not None and not _is_true(cells.get("filePublic", "true")):
        raise SourceNotFoundError(
            f"'{found.media[:200]}' is not public (filePublic is false) and is not fetched; put "
            "the file beside the package, or say where it is with --media FOLDER"
        )
