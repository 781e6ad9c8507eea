"""SSW60 with 7 species, in the layout of the release (without its videos)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import soundfile as sf
from PIL import Image, ImageOps

from tests.eval.miniatures.inatsounds import RATE, SAMPLE, clip

WATERFOWL = "Anatidae (Ducks, Geese, and Waterfowl)"
TAXA: tuple[tuple[str, str, str, str, str], ...] = (
    ("gragoo", "Graylag Goose", "Anser anser", WATERFOWL, "Anseriformes"),
    ("mallar3", "Mallard", "Anas platyrhynchos", WATERFOWL, "Anseriformes"),
    ("tawowl1", "Tawny Owl", "Strix aluco", "Strigidae (Owls)", "Strigiformes"),
    ("redjun", "Red Junglefowl", "Gallus gallus", "Phasianidae (Pheasants)", "Galliformes"),
    ("norhar2", "Northern Harrier", "Circus hudsonius", "Accipitridae (Hawks)", "Accipitriformes"),
    ("purher1", "Purple Heron", "Ardea purpurea", "Ardeidae (Herons)", "Pelecaniformes"),
    ("mutswa", "Mute Swan", "Cygnus olor", WATERFOWL, "Anseriformes"),
)
AUDIO: tuple[tuple[str, int, str], ...] = (
    ("goose-1", 0, "test"),
    ("duck-1", 1, "train"),
    ("ducks-1", 1, "test"),
    ("owl-1", 2, "train"),
    ("tawny-owl-1", 2, "test"),
    ("rooster-1", 3, "train"),
    ("chicken-1", 3, "test"),
)
IMAGES_INAT: tuple[tuple[str, int, str], ...] = (
    ("greylag-gosling-1", 0, "test"),
    ("white-duck-1", 1, "test"),
    ("owl-1", 2, "test"),
    ("chickens-1", 3, "train"),
    ("northern-harrier-1", 4, "test"),
    ("purple-heron-1", 5, "val"),
)
IMAGES_NABIRDS: tuple[tuple[str, int, str], ...] = (
    ("white-duck-1", 1, "test"),
    ("chickens-1", 3, "test"),
    ("mute-swans-1", 6, "train"),
)
"""The same photographs, mirrored."""
UNPACKED_WITHOUT = "13e5d90700000000000000000000ssw6"
"""Listed among the NABirds photographs, and in no release."""


def build(folder: Path) -> Path:
    """Write it, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    taxa = [
        (label, code, 7000 + label, 3000 + label, f"{label + 50} {label + 450}", *rest)
        for label, (code, *rest) in enumerate(TAXA)
    ]
    write(
        folder / "taxa.csv",
        "label,species_code,inat_taxon_id,inat2021_label,nabirds_labels,common_name,"
        "scientific_name,family,order",
        taxa,
    )
    _audio(folder)
    _images(folder, "images_inat", IMAGES_INAT, mirrored=False)
    _images(folder, "images_nabirds", IMAGES_NABIRDS, mirrored=True)
    return folder


def write(path: Path, headings: str, rows: Sequence[Sequence[object]]) -> None:
    """A table of the release."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(headings.split(","))
        writer.writerows(rows)


def _audio(folder: Path) -> None:
    (folder / "audio_ml").mkdir(exist_ok=True)
    rows = []
    for number, (stem, label, split) in enumerate(AUDIO):
        samples = clip(stem, RATE)
        asset = 45_516_191 + number
        sf.write(folder / "audio_ml" / f"{asset}.wav", samples, RATE, subtype="PCM_16")
        rows.append((asset, label, split, RATE, 1, len(samples), len(samples) / RATE))
    headings = "asset_id,label,split,samplerate,channels,samples,duration_seconds"
    write(folder / "audio_ml.csv", headings, rows)


def _images(
    folder: Path, name: str, listed: Sequence[tuple[str, int, str]], *, mirrored: bool
) -> None:
    (folder / name).mkdir(exist_ok=True)
    rows: list[tuple[object, ...]] = []
    for number, (stem, label, split) in enumerate(listed):
        asset = f"{number:032x}" if mirrored else str(73_542 + number)
        with Image.open(SAMPLE / "images" / f"{stem}.webp") as picture:
            small = picture.convert("RGB").resize((240, 240))
        small = ImageOps.mirror(small) if mirrored else small
        small.save(folder / name / f"{asset}.jpg", quality=85)
        holder = ("Kim Gull",) if mirrored else ("Kim Gull", 5)
        rows.append((asset, label, split, 240, 240, 3, *holder))
    if mirrored:
        rows.append((UNPACKED_WITHOUT, 4, "test", 683, 1024, 3, "Kim Gull"))
    holders = "photographer" if mirrored else "rights_holder,license_id"
    write(folder / f"{name}.csv", f"asset_id,label,split,height,width,channels,{holders}", rows)
