"""How people keep iNaturalist's photographs: names below a folder, made of a photograph's id."""

from __future__ import annotations

import re

OPEN_DATA = "https://inaturalist-open-data.s3.amazonaws.com/"
SIZES = ("original", "large", "medium", "small")
"""Longest sides of 2048, 1024, 500 and 240 pixels, best first."""
FETCHED_SIZE = "large"
_PHOTO = re.compile(r"/photos/(?P<id>\d{1,19})/[a-z]+\.(?P<extension>[A-Za-z]{1,5})(?:\?|$)")


def photo_names(photo_id: str, extension: str) -> list[str]:
    """Paths that a photograph may have below the folder with the media, best first."""
    extensions = dict.fromkeys([extension, "jpg", "jpeg"])
    return [
        *(f"{photo_id}/{size}.{each}" for each in extensions for size in SIZES),
        *(f"photos/{photo_id}/{size}.{extension}" for size in SIZES),
        *(f"{photo_id}.{each}" for each in extensions),
    ]


def names_of_address(address: str) -> list[str]:
    """The same for the address of a photograph; nothing for other addresses."""
    match = _PHOTO.search(address)
    return photo_names(match["id"], match["extension"]) if match else []


def photo_address(photo_id: str, extension: str) -> str:
    """Where the open data keep a photograph, in the size that is fetched."""
    return f"{OPEN_DATA}photos/{photo_id}/{FETCHED_SIZE}.{extension}"
