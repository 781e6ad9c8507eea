"""The CSV that iNaturalist's page "Export observations" makes, alone or in its zip.

What its columns mean: https://www.inaturalist.org/terminology. Observers choose the columns, so
none but `id` and one of `image_url` and `sound_url` is needed. The export names the first
photograph and the first sound of an observation, and no others.

Columns that begin with `private_` are never read. They hold the true place of observations whose
coordinates are obscured, and only who may see it finds them filled in; an archive may be shown to
others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from bittern.errors import BitternError, ManifestError
from bittern.index.columns import DARWIN_CORE, MetadataColumns, Value
from bittern.service.sources.base import Listed, SourceOptions, another_medium, failed
from bittern.service.sources.delimited import Dialect
from bittern.service.sources.headings import kept_names
from bittern.service.sources.inaturalist_files import header, table
from bittern.service.sources.inaturalist_media import names_of_address
from bittern.service.sources.licences import ALL_RIGHTS_RESERVED, licence_code
from bittern.service.sources.media_locator import MediaPlaces
from bittern.types import MediaItem

SITE = "https://www.inaturalist.org"
VERSION = "4.0"
"""Version of the Creative Commons licences that the site means."""
OBSCURED_M = 31_500.0
"""Diagonal of the cells of 0.2 degrees that coordinates are moved within, at the equator, in m."""
_OBSCURED = "coordinates obscured by iNaturalist"
_COMMAS = Dialect()
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
_TELLING = {
    "observed_on", "quality_grade", "image_url", "sound_url", "user_login", "place_guess",
    "species_guess", "iconic_taxon_name", "positional_accuracy", "coordinates_obscured",
    "captive_cultivated", "scientific_name", "common_name", "taxon_id", "geoprivacy",
    "num_identification_agreements", "private_latitude",
}  # fmt: skip


def is_inaturalist_export(path: Path) -> bool:
    """Whether a file's header is that of an export."""
    if path.suffix.lower() not in (".csv", ".gz", ".zip") or not path.is_file():
        return False
    headings = set(header(path, _COMMAS))
    return "id" in headings and "media" not in headings and len(headings & _TELLING) >= 3


def inaturalist_export_entries(path: Path, options: SourceOptions) -> Iterator[Listed]:
    """The photographs and sounds of an export, in its order; the rest has none to be coded.

    Raises:
        ManifestError: it cannot be read as a whole, or names no media.
    """
    headings = header(path, _COMMAS)
    if "id" not in headings or not {"image_url", "sound_url"} & set(headings):
        raise ManifestError(
            f"{path} has no column 'id', or neither 'image_url' nor 'sound_url'; tick them where "
            "iNaturalist asks for the columns of the export",
            field="source",
        )
    places = MediaPlaces(path, options)
    for line, values, wrong in table(path, _COMMAS):
        place = f"{path.name}, line {line}"
        if wrong:
            yield failed("", place, ManifestError(wrong))
        else:
            yield from _media(place, values, places)


def _media(place: str, values: dict[str, str], places: MediaPlaces) -> Iterator[Listed]:
    """The entries of one observation; the first has its bare id."""
    named = [(values[column], kind) for column, kind in _MEDIA if values.get(column)]
    occurrence = values.get("url") or f"{SITE}/observations/{values['id']}"
    for count, (address, modality) in enumerate(named):
        try:
            if not values["id"]:
                raise ManifestError("the row has no id")
            found = places.find(address, also=names_of_address(address))
            item = MediaItem(
                occurrence_id=occurrence,
                media=found.media,
                modality=modality,
                path=found.path,
                media_root=found.media_root,
                metadata={**_metadata(values), "accessURI": address},
                url=found.url,
            )
        except BitternError as error:
            yield failed(occurrence if values["id"] else "", place, error)
        else:
            yield Listed(another_medium(item) if count else item, place)


def _metadata(values: Mapping[str, str]) -> dict[str, Value]:
    """An observation's columns as Darwin Core has them.

    Raises:
        MetadataError: a coordinate or an uncertainty that is none.
    """
    headings = [h for h in values if h not in _LEFT_OUT and not h.lower().startswith("private_")]
    names = kept_names([_TERMS.get(heading, heading) for heading in headings])
    kept: dict[str, Value] = {
        name: values[heading] for name, heading in zip(names, headings, strict=True)
    }
    kept = {name: value for name, value in kept.items() if value != ""}
    if "coordinates_obscured" in values:
        # Where another column contradicts it, the coordinates are as likely not the true ones.
        kept["coordinates_obscured"] = is_obscured(values)
    if is_obscured(values):
        kept["dataGeneralizations"] = _OBSCURED
    if "license" in values:
        told = values["license"]
        kept["license"] = licence_code(told, VERSION) if told else ALL_RIGHTS_RESERVED
    if person := values.get("user_name") or values.get("user_login"):
        kept["rightsHolder"] = kept["recordedBy"] = person
    if rank := _rank(values):
        kept["taxonRank"] = rank
    kept.update(_uncertainty(values))
    numbers = {str(n): kept[n] for n in ("decimalLatitude", "decimalLongitude") if n in kept}
    MetadataColumns(DARWIN_CORE).accept(numbers)
    return kept


def is_obscured(values: Mapping[str, str]) -> bool:
    """Whether the coordinates that the site shows are not the true ones."""
    hidden = ("obscured", "private")
    return (
        values.get("coordinates_obscured", "").lower() in ("true", "t", "1")
        or values.get("geoprivacy", "").lower() in hidden
        or values.get("taxon_geoprivacy", "").lower() in hidden
        or bool(values.get("private_latitude") or values.get("private_longitude"))
    )


def _uncertainty(values: Mapping[str, str]) -> dict[str, Value]:
    """`coordinateUncertaintyInMeters`: where coordinates are obscured, never the true place's."""
    told = {
        column: values[column]
        for column in ("public_positional_accuracy", "positional_accuracy")
        if values.get(column)
    }
    columns = MetadataColumns(DARWIN_CORE)
    metres = {
        column: columns.accept({"coordinateUncertaintyInMeters": value})
        for column, value in told.items()
    }
    numbers = {c: float(v["coordinateUncertaintyInMeters"]) for c, v in metres.items()}
    if not is_obscured(values):
        own = numbers.get("positional_accuracy", numbers.get("public_positional_accuracy"))
        return {} if own is None else {"coordinateUncertaintyInMeters": own}
    if not values.get("latitude"):
        return {}
    if "public_positional_accuracy" not in numbers:
        numbers["public_positional_accuracy"] = OBSCURED_M
    return {"coordinateUncertaintyInMeters": max(numbers.values())}


def _rank(values: Mapping[str, str]) -> str:
    """The rank whose name the scientific name is; empty if the export does not tell."""
    name = values.get("scientific_name")
    ranks = (rank for rank in _LOW_RANKS if name and values.get(f"taxon_{rank}_name") == name)
    return next(ranks, "")
