"""Whole runs over a labelled manifest of coloured pictures and tones, with the toy encoder."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bittern.benchmarks.eval.request import EvalRequest
from bittern.benchmarks.eval.spaces import Space
from bittern.benchmarks.eval.tasks import Protocol
from bittern.encoders.base import Modality
from bittern.service.models.model import Embedder
from tests.engine.toy import COLOURS, ToyEncoder, picture, sound


class Quiet:
    """A screen that only remembers what began."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, what: str, total: int | None) -> None:
        self.stages.append(what)

    def advance(self, done: int | None = None) -> None:
        pass


def manifest(folder: Path, each: int = 3) -> Path:
    """Pictures and recordings of each colour, labelled with its name."""
    folder.mkdir()
    rows = []
    for colour in COLOURS:
        for number in range(each):
            image, audio = f"{colour}-{number}.png", f"{colour}-{number}.wav"
            (folder / image).write_bytes(picture(colour, jitter=7 * number))
            (folder / audio).write_bytes(sound(*[colour] * (number + 1)))
            rows += [(image, colour), (audio, colour)]
    path = folder / "manifest.csv"
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["occurrenceID", "media", "label", "rightsHolder", "license"])
        table.writerows((Path(m).stem + m[-3:], m, label, "me", "CC0") for m, label in rows)
    return path


def towers(monkeypatch: pytest.MonkeyPatch, *modalities: Modality) -> ToyEncoder:
    """The toy encoder instead of whatever model is named."""
    encoder = ToyEncoder(modalities or tuple(Modality))

    def toy(suite: str, names: object, bits: object) -> list[Space]:
        return [Space("toy", Embedder("toy", lambda name: encoder), "CC0")]

    monkeypatch.setattr("bittern.benchmarks.eval.jobs.spaces_for", toy)
    return encoder


def request(tmp_path: Path, **changed: object) -> EvalRequest:
    """A quick run of `field` on a manifest of nine pictures and nine recordings."""
    data = tmp_path / "data" / "manifest.csv"
    if not data.exists():
        manifest(data.parent)
    given: dict[str, object] = {
        "suite": "field",
        "data": data,
        "out": tmp_path / "run",
        "cache": tmp_path / "cache",
        "bits": (8, 16),
        "systems": ("float32", "hb", "itq"),
        "rerank": 4,
        "protocol": Protocol(),
    }
    return EvalRequest(**{**given, **changed})  # type: ignore[arg-type]
