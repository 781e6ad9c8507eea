"""iNat24 in miniature: 11 species, 14 photographs.

train.json
train/00000_Animalia_Chordata_Mammalia_Artiodactyla_Bovidae_Bos_taurus/<uuid>.jpg
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from tests.eval.miniatures import photograph

_MAMMAL = ("Animalia", "Chordata", "Mammalia")
_BIRD = ("Animalia", "Chordata", "Aves")
_INSECT = ("Animalia", "Arthropoda", "Insecta")
_RANKS = ("kingdom", "phylum", "class", "order", "family")

SPECIES: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = [
    ("Bos taurus", "Domestic Cattle", (*_MAMMAL, "Artiodactyla", "Bovidae"), ("calf-1", "cow-1")),
    ("Capra hircus", "Domestic Goat", (*_MAMMAL, "Artiodactyla", "Bovidae"), ("goat-1",)),
    ("Capra nubiana", "Nubian Ibex", (*_MAMMAL, "Artiodactyla", "Bovidae"), ("nubian-ibex-1",)),
    (
        "Giraffa camelopardalis",
        "Giraffe",
        (*_MAMMAL, "Artiodactyla", "Giraffidae"),
        ("giraffe-1", "giraffes-1"),
    ),
    ("Felis catus", "Domestic Cat", (*_MAMMAL, "Carnivora", "Felidae"), ("kitten-1", "cat-1")),
    ("Panthera onca", "Jaguar", (*_MAMMAL, "Carnivora", "Felidae"), ("jaguars-1",)),
    ("Ursus maritimus", "Polar Bear", (*_MAMMAL, "Carnivora", "Ursidae"), ("polar-bear-1",)),
    ("Anser anser", "Greylag Goose", (*_BIRD, "Anseriformes", "Anatidae"), ("greylag-gosling-1",)),
    ("Cygnus olor", "Mute Swan", (*_BIRD, "Anseriformes", "Anatidae"), ("mute-swans-1",)),
    (
        "Apis mellifera",
        "Western Honey Bee",
        (*_INSECT, "Hymenoptera", "Apidae"),
        ("honey-bee-1",),
    ),
    (
        "Papilio machaon",
        "",
        (*_INSECT, "Lepidoptera", "Papilionidae"),
        ("swallowtail-caterpillar-1",),
    ),
]
"""Name, common name (one species has none), ranks, photographs of the sample archive."""

IMAGES: list[tuple[int, str, int]] = [
    (1000 + number, photo, species)
    for number, (species, photo) in enumerate(
        (species, photo) for species, entry in enumerate(SPECIES) for photo in entry[3]
    )
]
"""Id, photograph, position of the species."""


def id_of(photo: str) -> int:
    """The image id of a photograph."""
    return next(own for own, each, _ in IMAGES if each == photo)


def path_of(photo: str) -> str:
    """Where a photograph is, below the folder."""
    species = next(position for _, each, position in IMAGES if each == photo)
    return f"train/{_folder(species)}/{uuid.uuid5(uuid.NAMESPACE_OID, photo)}.jpg"


def metadata() -> dict[str, Any]:
    """What `train.json` holds."""
    return {
        "info": {"description": "miniature", "version": "2024"},
        "images": [
            {
                "id": own,
                "width": 96,
                "height": 64,
                "file_name": path_of(photo),
                "license": own % 2,
                "rights_holder": f"observer {own % 3}",
                "date": "2020-05-17 00:00:00+00:00",
                "latitude": 47.0,
                "longitude": 8.0,
                "location_uncertainty": None,
            }
            for own, photo, _ in IMAGES
        ],
        "annotations": [
            {"id": own, "image_id": own, "category_id": species} for own, _, species in IMAGES
        ],
        "categories": [_category(species) for species in range(len(SPECIES))],
        "licenses": [
            {"id": 0, "name": "Attribution License", "url": ""},
            {"id": 1, "name": "", "url": "http://creativecommons.org/licenses/by-nc/4.0/"},
        ],
    }


def build(folder: Path) -> Path:
    """Fill a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for _, photo, _ in IMAGES:
        photograph(photo, folder / path_of(photo))
    write(folder, metadata())
    return folder


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write `train.json`."""
    (folder / "train.json").write_text(json.dumps(content), "utf-8")


def _folder(species: int) -> str:
    name, _, ranks, _ = SPECIES[species]
    return "_".join([f"{species:05d}", *ranks, *name.split()])


def _category(species: int) -> dict[str, Any]:
    name, common, ranks, _ = SPECIES[species]
    genus, epithet = name.split()
    return {
        "id": species,
        "name": name,
        "common_name": common,
        "supercategory": {"Aves": "Birds", "Mammalia": "Mammals"}.get(ranks[2], "Insects"),
        **dict(zip(_RANKS, ranks, strict=True)),
        "genus": genus,
        "specific_epithet": epithet,
        "image_dir_name": _folder(species),
    }
