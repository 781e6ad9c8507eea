"""iNatSounds 2024 with 16 recordings, in the layout of the release."""

from __future__ import annotations

import json
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

SAMPLE = Path(__file__).resolve().parents[3] / "bittern" / "sample"
RATE = 22_050

RANKS = ("kingdom", "phylum", "class", "order", "family", "genus", "specific_epithet")
CATEGORIES: tuple[tuple[str, str, int], ...] = (
    ("Tawny Owl", "Animalia Chordata Aves Strigiformes Strigidae Strix aluco", 1),
    ("Mallard", "Animalia Chordata Aves Anseriformes Anatidae Anas platyrhynchos", 1),
    ("Greylag Goose", "Animalia Chordata Aves Anseriformes Anatidae Anser anser", 1),
    ("Gray Wolf", "Animalia Chordata Mammalia Carnivora Canidae Canis lupus", 1),
    ("Domestic Dog", "Animalia Chordata Mammalia Carnivora Canidae Canis familiaris", 1),
    ("Domestic Cat", "Animalia Chordata Mammalia Carnivora Felidae Felis catus", 1),
    ("House Cricket", "Animalia Arthropoda Insecta Orthoptera Gryllidae Acheta domesticus", 1),
    ("European Common Frog", "Animalia Chordata Amphibia Anura Ranidae Rana temporaria", 0),
)
"""Common name, ranks, and whether it is evaluated."""
SPLITS: dict[str, tuple[tuple[str, int], ...]] = {
    "train": (
        ("tawny-owl-1", 0),
        ("duck-1", 1),
        ("dog-2", 4),
        ("cat-4", 5),
        ("cricket-2", 6),
        ("frogs-1", 7),
    ),
    "val": (("cat-3", 5), ("cricket-1", 6)),
    "test": (
        ("owl-1", 0),
        ("ducks-1", 1),
        ("goose-1", 2),
        ("wolf-1", 3),
        ("dog-1", 4),
        ("dogs-barking-1", 4),
        ("cat-1", 5),
        ("cat-2", 5),
    ),
}
"""Which clips of the sample archive are of which category. No cricket is in the test split."""


@lru_cache(maxsize=64)
def clip(name: str, rate: int, most_s: float = 3.0) -> NDArray[np.float32]:
    """The beginning of a clip of the sample archive, mono."""
    path = SAMPLE / "audio" / f"{name}.ogg"
    with sf.SoundFile(path) as sound:
        samples = sound.read(int(most_s * sound.samplerate), dtype="float32", always_2d=True)
        mono = samples.mean(axis=1)
        return np.asarray(soxr.resample(mono, sound.samplerate, rate), np.float32)


def file_name(split: str, stem: str, category: int) -> str:
    """Where a recording is: ``test/00000_Animalia_…_Strix_aluco/<uuid>.wav``."""
    return f"{split}/{directory(category)}/{uuid.uuid5(uuid.NAMESPACE_OID, stem)}.wav"


def directory(category: int) -> str:
    """`audio_dir_name` of a category."""
    return f"{category:05}_" + CATEGORIES[category][1].replace(" ", "_")


def described(split: str) -> dict[str, Any]:
    """The annotations of a split."""
    first = 1000 * (1 + list(SPLITS).index(split))
    audio = [
        {
            "id": first + number,
            "duration": 1.0,
            "file_name": file_name(split, stem, category),
            "license": 1,
            "rights_holder": f"recordist {number}",
            "date": "2023-05-01",
            "latitude": 48.1,
            "longitude": 16.3,
            # the release has both of these where it is not known
            "location_uncertainty": (None, float("nan"), 12)[number % 3],
        }
        for number, (stem, category) in enumerate(SPLITS[split])
    ]
    annotations = [
        {"id": first + number, "audio_id": first + number, "category_id": category}
        for number, (_, category) in enumerate(SPLITS[split])
    ]
    return {
        "info": {"year": 2024, "version": "1.0", "description": "a miniature"},
        "audio": audio,
        "categories": [_category(number) for number in range(len(CATEGORIES))],
        "annotations": annotations,
        "licenses": [{"id": 1, "name": "CC BY-NC 4.0", "url": "https://example.org/by-nc/4.0/"}],
    }


def _category(number: int) -> dict[str, Any]:
    common, ranks, evaluated = CATEGORIES[number]
    taxon = dict(zip(RANKS, ranks.split(), strict=True))
    return {
        "id": number,
        "name": f"{taxon['genus']} {taxon['specific_epithet']}",
        "common_name": common,
        "supercategory": taxon["class"],
        **taxon,
        "audio_dir_name": directory(number),
        "evaluation": evaluated,
    }


def build(folder: Path) -> Path:
    """Write it, and return the folder."""
    for split, recordings in SPLITS.items():
        for stem, category in recordings:
            path = folder / file_name(split, stem, category)
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, clip(stem, RATE), RATE, subtype="PCM_16")
        (folder / f"{split}.json").write_text(json.dumps(described(split)), encoding="utf-8")
    return folder
