"""The CSV that iNaturalist's page "Export observations" makes, alone or in its zip.

Terminology: https://www.inaturalist.org/terminology. Users choose the columns; only `id` and one of
`image_url` and `sound_url` are required. The export names only the first photograph and the first
sound of an observation.

Columns that begin with `private_` are never stored: they hold the true position of observations
whose coordinates are obscured, and an archive may be shown to others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from bittern.errors import ManifestError
from bittern.index.columns import DARWIN_CORE, MetadataColumns, Value
from bittern.service.sources.base import Listed, SourceOptions, another_medium, failed, listed
from bittern.service.sources.field_values import ALL_RIGHTS_RESERVED, licence
from bittern.service.sources.headings import kept_names
from bittern.service.sources.media_locator import MediaLocator
from bittern.service.sources.packed import head_of, unpacked
from bittern.service.sources.tables import COMMA_SEPARATED, Dialect, Row, named_rows
from bittern.types import MediaItem

SITE = "https://www.inaturalist.org"
VERSION = "4.0"
"""Version of the site's Creative Commons licences."""
OBSCURED_M = 31_500.0
"""Diagonal in m, at the equator, of the cells of 0.2 degrees in which coordinates are obscured."""
SIZES = ("original", "large", "medium", "small")
"""Longest sides of 2048, 1024, 500 and 240 pixels, best first."""
_MAX_HEADINGS = 10_000
_PHOTO = re.compile(r"/photos/(?P<id>\d{1,19})/[a-z]+\.(?P<extension>[A-Za-z]{1,5})(?:\?|$)")
_METRES = "coordinateUncertaintyInMeters"
_OBSCURED = "coordinates obscured by iNaturalist"
_RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
_LOW_RANKS = ("form", "variety", "subspecies", "hybrid", "species", "genushybrid", "genus",
              "subtribe", "tribe", "supertribe", "subfamily", "family", "superfamily", "suborder",
              "order", "superorder", "subclass", "class", "superclass", "subphylum", "phylum",
              "kingdom")  # fmt: skip
_TERMS: Mapping[str, str] = {
    "id": "catalogNumber",
    "url": "references",
    "observed_on": "eventDate",
    "observed_on_string": "verbatimEventDate",
    "latitude": "decimalLatitude",
    "longitude": "decimalLongitude",
    "place_guess": "locality",
    "place_country_name": "country",
    "place_state_name": "stateProvince",
    "place_county_name": "county",
    "scientific_name": "scientificName",
    "common_name": "vernacularName",
    "taxon_id": "taxonID",
    "license": "license",
    "description": "occurrenceRemarks",
    **{f"taxon_{rank}_name": rank for rank in _RANKS},
}
"""Headings to Darwin Core terms; the others keep their names."""
_MEDIA = (("image_url", "image"), ("sound_url", "audio"))
_LEFT_OUT = {"image_url", "sound_url", "positional_accuracy", "public_positional_accuracy"}
_TYPICAL = {
    "observed_on", "quality_grade", "image_url", "sound_url", "user_login", "place_guess",
    "species_guess", "iconic_taxon_name", "positional_accuracy", "coordinates_obscured",
    "captive_cultivated", "scientific_name", "common_name", "taxon_id", "geoprivacy",
    "num_identification_agreements", "private_latitude",
}  # fmt: skip


def is_inaturalist_export(path: Path) -> bool:
    """Whether a file's header is that of an export."""
    if path.suffix.lower() not in (".csv", ".gz", ".zip") or not path.is_file():
        return False
    headings = set(header(path, COMMA_SEPARATED))
    return "id" in headings and "media" not in headings and len(headings & _TYPICAL) >= 3


def inaturalist_export_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The photographs and sounds of an export, in its order.

    Raises:
        ManifestError: it cannot be read as a whole, or names no media.
    """
    headings = header(path, COMMA_SEPARATED)
    if "id" not in headings or not {"image_url", "sound_url"} & set(headings):
        raise ManifestError(
            f"{path} has no column 'id', or neither 'image_url' nor 'sound_url'; select them "
            "on iNaturalist's export page",
            field="source",
        )
    locator = MediaLocator(path, options)
    for row in table_rows(path, COMMA_SEPARATED):
        if row.error:
            yield failed("", row.position, ManifestError(row.error))
        else:
            yield from _media(row.position, row.cells, locator)


def _media(position: str, values: Mapping[str, str], locator: MediaLocator) -> Iterator[Listed]:
    """The entries of one observation; the first has its bare id."""
    named = [(values[column], kind) for column, kind in _MEDIA if values.get(column)]
    occurrence = values.get("url") or f"{SITE}/observations/{values['id']}"

    def item(address: str, modality: str) -> MediaItem:
        if not values["id"]:
            raise ManifestError("the row has no id")
        photo = _PHOTO.search(address)
        also = _photo_names(photo["id"], photo["extension"]) if photo else []
        found = locator.find(address, also=also)
        made = found.item(occurrence, modality, {**_metadata(values), "accessURI": address})
        return made if (address, modality) == named[0] else another_medium(made)

    for medium in named:
        yield listed(occurrence if values["id"] else "", position, partial(item, *medium))


def _photo_names(photo_id: str, extension: str) -> list[str]:
    """Possible paths of a photograph below the folder with the media, best first."""
    extensions = dict.fromkeys([extension, "jpg", "jpeg"])
    return [
        *(f"{photo_id}/{size}.{each}" for each in extensions for size in SIZES),
        *(f"photos/{photo_id}/{size}.{extension}" for size in SIZES),
        *(f"{photo_id}.{each}" for each in extensions),
    ]


def header(path: Path, dialect: Dialect) -> list[str]:
    """Headings of a table of iNaturalist's; none if it cannot be read."""
    try:
        headings = head_of(path).partition(b"\n")[0].decode("utf-8-sig")
    except UnicodeDecodeError:
        return []
    return [each.strip().strip('"') for each in headings.split(dialect.separator)]


def table_rows(path: Path, dialect: Dialect) -> Iterator[Row[str]]:
    """The rows of a table of iNaturalist's, with their empty cells.

    Raises:
        ManifestError: the table as a whole cannot be read.
    """

    def columns(headings: list[str]) -> list[str]:
        if len(headings) > _MAX_HEADINGS:
            raise ManifestError(f"{path} has more than {_MAX_HEADINGS:,} columns", field="source")
        return headings

    with unpacked(path) as file:
        yield from named_rows(file, dialect, path.name, columns, frozenset())


def _metadata(values: Mapping[str, str]) -> dict[str, Value]:
    """An observation's columns as Darwin Core terms.

    Raises:
        MetadataError: an invalid coordinate or uncertainty.
    """
    headings = [h for h in values if h not in _LEFT_OUT and not h.lower().startswith("private_")]
    names = kept_names([_TERMS.get(heading, heading) for heading in headings])
    kept: dict[str, Value] = {
        name: values[heading] for name, heading in zip(names, headings, strict=True)
    }
    kept = {name: value for name, value in kept.items() if value != ""}
    if "coordinates_obscured" in values:
        # If another column contradicts it, the coordinates count as obscured.
        kept["coordinates_obscured"] = _is_obscured(values)
    if _is_obscured(values):
        kept["dataGeneralizations"] = _OBSCURED
    if "license" in values:
        own = values["license"]
        kept["license"] = licence(own, VERSION) if own else ALL_RIGHTS_RESERVED
    if person := values.get("user_name") or values.get("user_login"):
        kept["rightsHolder"] = kept["recordedBy"] = person
    if rank := _rank(values):
        kept["taxonRank"] = rank
    kept.update(_uncertainty(values))
    numbers = {str(n): kept[n] for n in ("decimalLatitude", "decimalLongitude") if n in kept}
    MetadataColumns(DARWIN_CORE).accept(numbers)
    return kept


def _is_obscured(values: Mapping[str, str]) -> bool:
    """Whether the published coordinates differ from the true ones."""
    hidden = ("obscured", "private")
    return (
        values.get("coordinates_obscured", "").lower() in ("true", "t", "1")
        or values.get("geoprivacy", "").lower() in hidden
        or values.get("taxon_geoprivacy", "").lower() in hidden
        or bool(values.get("private_latitude") or values.get("private_longitude"))
    )


def _uncertainty(values: Mapping[str, str]) -> dict[str, Value]:
    """`coordinateUncertaintyInMeters`: of obscured coordinates, never that of the true ones."""
    metres: dict[str, float] = {}
    for column in ("public_positional_accuracy", "positional_accuracy"):
        if values.get(column):
            accepted = MetadataColumns(DARWIN_CORE).accept({_METRES: values[column]})
            metres[column] = float(accepted[_METRES])
    if not _is_obscured(values):
        own = metres.get("positional_accuracy", metres.get("public_positional_accuracy"))
        return {} if own is None else {_METRES: own}
    if not values.get("latitude"):
        return {}
    metres.setdefault("public_positional_accuracy", OBSCURED_M)
    return {_METRES: max(metres.values())}


def _rank(values: Mapping[str, str]) -> str:
    """The rank of the scientific name; empty if unknown."""
    name = values.get("scientific_name")
    ranks = (rank for rank in _LOW_RANKS if name and values.get(f"taxon_{rank}_name") == name)
    return next(ranks, "")
