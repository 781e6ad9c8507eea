"""A toy encoder whose embeddings are known in advance, and media to feed it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image as Pillow

from bittern.encoders.base import AudioWindowing, Media, Modality
from bittern.errors import InvalidInputError, UnsupportedModalityError

COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}
PITCHES = {"red": 400.0, "green": 1600.0, "blue": 6400.0}
RATE = 16_000
DIM = 12


class ToyEncoder:
    """Knows three things, red, green and blue, as words, colours and pitches."""

    dim = DIM
    windowing: AudioWindowing | None = AudioWindowing(RATE, 1.0, 1.0)

    def __init__(
        self,
        modalities: Sequence[Modality] = tuple(Modality),
        *,
        name: str = "toy",
        salt: str = "",
    ) -> None:
        self.name = name
        self.modalities = frozenset(modalities)
        self.batches: list[tuple[Modality, int]] = []
        self._salt = salt

    @property
    def digests(self) -> Mapping[Modality, str]:
        return {m: f"toy-{m}{self._salt}" for m in self.modalities}

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        if modality not in self.modalities:
            raise UnsupportedModalityError(f"no {modality}")
        self.batches.append((modality, len(batch)))
        rows = [self._embed(modality, item) for item in batch]
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, DIM), np.float32)

    def _embed(self, modality: Modality, item: Media) -> NDArray[np.float64]:
        if modality == Modality.TEXT:
            weights = np.array([float(name in str(item)) for name in COLOURS])
            weights[0] += 1e-3
        elif modality == Modality.IMAGE:
            if np.asarray(item).shape[0] == 13:
                raise InvalidInputError("thirteen rows are bad luck")
            weights = np.asarray(item).reshape(-1, 3).mean(axis=0) / 255.0
        else:
            spectrum = np.abs(np.fft.rfft(np.asarray(item)))
            peak = float(np.argmax(spectrum)) * RATE / len(np.asarray(item))
            gaps = [abs(np.log2(max(peak, 1.0) / pitch)) for pitch in PITCHES.values()]
            weights = np.exp(-np.array(gaps))
        x = np.concatenate([weights, 0.05 * np.cos(np.arange(DIM - 3) * weights[0])])
        unit: NDArray[np.float64] = x / np.linalg.norm(x)
        return unit


def picture(colour: str, size: tuple[int, int] = (40, 30), jitter: int = 0) -> bytes:
    """A PNG file of one colour."""
    red, green, blue = (max(0, c - jitter) for c in COLOURS[colour])
    buffer = io.BytesIO()
    Pillow.new("RGB", size, (red, green, blue)).save(buffer, "PNG")
    return buffer.getvalue()


def sound(*colours: str) -> bytes:
    """A WAV file: one second of each colour's pitch."""
    t = np.arange(RATE) / RATE
    samples = np.concatenate([0.5 * np.sin(2 * np.pi * PITCHES[c] * t) for c in colours])
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV")
    return buffer.getvalue()


def fill_folder(folder: Path) -> Path:
    """A folder with three pictures and three recordings, the last one of two seconds."""
    (folder / "sounds").mkdir(parents=True)
    for number, colour in enumerate(COLOURS):
        (folder / f"{colour}.png").write_bytes(picture(colour, jitter=number))
        (folder / "sounds" / f"{colour}.wav").write_bytes(sound(colour))
    (folder / "sounds" / "two.wav").write_bytes(sound("green", "blue"))
    (folder / "notes.txt").write_text("not media")
    return folder
