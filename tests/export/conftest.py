"""A small archive of photographs and recordings, with media on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bittern.index.archive import Archive
from bittern.index.observation import CodedObservation
from tests.index.samples import OWL, photo, recording

PHOTOGRAPHS: list[tuple[str, dict[str, Any]]] = [
    (
        "heron",
        {
            "scientificName": "Ardea cinerea",
            "vernacularName": "Grey Heron",
            "license": "CC-BY-4.0",
            "rightsHolder": "A. Person",
            "eventDate": "2024-05-17",
            "decimalLatitude": 52.1,
            "decimalLongitude": -0.25,
            "references": "https://www.inaturalist.org/observations/123456",
            "individualCount": 3,
            "captive": False,
        },
    ),
    (
        "owl",
        {
            "scientificName": "Bubo bubo",
            "decimalLatitude": 7.0,
            "decimalLongitude": 4.0,
            "coordinateUncertaintyInMeters": 28_000.0,
            "license": "CC0-1.0",
            "references": "https://example.org/observations/9",
        },
    ),
    ("nowhere", {"vernacularName": '=HYPERLINK("http://evil","x")', "decimalLatitude": 1.5}),
]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder with the archive's media, one of them missing."""
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "heron.jpg").write_bytes(b"picture of a heron")
    (folder / "owl.jpg").write_bytes(b"picture of an owl")
    (folder / "frogs.wav").write_bytes(b"sound of frogs")
    return folder


@pytest.fixture
def marsh(tmp_path: Path, media: Path) -> Iterator[Archive]:
    def below(items: list[CodedObservation]) -> list[CodedObservation]:
        return [
            replace(item, observation=replace(item.observation, media_root=str(media)))
            for item in items
        ]

    with Archive.create(tmp_path / "marsh") as archive:
        archive.register_model(OWL, {})
        items = [below(photo(name, metadata)) for name, metadata in PHOTOGRAPHS]
        frogs = {"scientificName": "Rana\ttemporaria", "decimalLatitude": 1.0}
        archive.add([*items, below(recording("frogs", 2, frogs))], model=OWL.digest)
        yield archive
