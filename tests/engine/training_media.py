"""Small sources to train on, and tiny encoders that replace large ones of the catalogue."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image as Pillow

from bittern.encoders.catalogue import CATALOGUE
from bittern.hashing.training.records import Progress
from bittern.service.training.request import TrainingRequest, gather
from tests.encoders.tiny import clap_entry, openclip_entry, write_clap, write_openclip

SPECIES = ("tawny owl", "red fox", "grey seal", "common frog", "brown hare", "blue tit")
"""Common names; the first letters do for scientific ones."""
RATE = 8_000


@contextmanager
def tiny_catalogue(weights: Path) -> Iterator[None]:
    """``bioclip-2`` and ``biolingual`` of a few thousand random weights, as files on disk."""
    write_openclip(weights / "bioclip-2")
    write_clap(weights / "biolingual")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITTERN_WEIGHTS", str(weights))
        patch.setitem(CATALOGUE, "bioclip-2", openclip_entry(name="bioclip-2"))
        patch.setitem(CATALOGUE, "biolingual", clap_entry(name="biolingual"))
        yield


def write_media(folder: Path, *, each: int = 4) -> Path:
    """A folder with a subfolder per species: photographs of one colour, sounds of one pitch."""
    random = np.random.default_rng(0)
    for number, name in enumerate(SPECIES):
        (folder / name).mkdir(parents=True)
        colour = random.integers(0, 255, 3)
        for copy in range(each):
            noise = random.integers(-20, 20, (40, 48, 3))
            pixels = (colour + noise).clip(0, 255).astype(np.uint8)
            Pillow.fromarray(pixels).save(folder / name / f"{copy}.png")
            time = np.arange(RATE) / RATE
            wave = 0.4 * np.sin(2 * np.pi * (200 + 150 * number) * time)
            wave += 0.05 * random.standard_normal(len(wave))
            soundfile.write(folder / name / f"{copy}.wav", wave, RATE)
    return folder


def write_manifest(path: Path, media: Path, suffix: str, **more: str) -> Path:
    """A manifest of the photographs (``.png``) or recordings (``.wav``) of `write_media`."""
    rows = [
        {
            "occurrenceID": f"{file.parent.name}-{file.name}",
            "media": str(file),
            "vernacularName": file.parent.name,
            "scientificName": file.parent.name.title().replace(" ", "us ") + "us",
            "label": file.parent.name,
            **more,
        }
        for file in sorted(media.glob(f"*/*{suffix}"))
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def training_request(
    source: Path, out: Path, settings: Mapping[str, Any], **changes: Any
) -> TrainingRequest:
    """A request for a training; `changes` are fields of it, or settings."""
    what, model = changes.pop("what", "pairs"), changes.pop("model", "bioclip-2")
    lora = changes.pop("lora", False)
    own = {n: changes.pop(n) for n in list(changes) if n in TrainingRequest.model_fields}
    config, must = gather(what, model, None, [], {**settings, **changes}, lora=lora)
    own.setdefault("must_validate", must)
    return TrainingRequest(what=what, source=source, out=out, model=model, config=config, **own)


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def stop_at(step: int) -> Progress:
    """Progress of a training that ends its process after a step."""

    def progress(stage: str, done: int, total: int, note: str) -> None:
        if stage == "training" and done == step:
            raise StoppedError

    return progress
