"""Media to measure with: of a manifest, or generated in realistic sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from bittern.benchmarks.speed.harness import SAMPLE
from bittern.service.sources import read_source
from bittern.types import MediaItem

WIDTH, HEIGHT = 4000, 3000
RATE = 48_000
_GRAIN = 6.0
_QUALITY = 90


def media_of(source: Path) -> list[MediaItem]:
    """The usable items of a manifest or a folder.

    Raises:
        SourceNotFoundError, ManifestError: it cannot be read.
    """
    return [entry for entry in read_source(source) if isinstance(entry, MediaItem)]


def write_photographs(folder: Path, count: int) -> list[Path]:
    """JPEG files of 12 megapixels: the sample's photographs, enlarged, with a sensor's grain.

    Grain makes such files large and slow to decode.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [item for item in media_of(SAMPLE) if item.modality == "image"]
    rng = np.random.default_rng(0)
    grain = rng.normal(0.0, _GRAIN, (HEIGHT, WIDTH, 1)).astype(np.float32)
    written = []
    for number in range(count):
        path = pictures[number % len(pictures)].path
        assert path is not None
        with Image.open(path) as picture:
            large = picture.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        values = np.asarray(large, np.float32) + np.roll(grain, 17 * number, axis=1)
        target = folder / f"{number:04d}.jpg"
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(target, quality=_QUALITY)
        written.append(target)
    return written


def write_recordings(folder: Path, count: int, seconds: float) -> list[Path]:
    """WAV files, 48 kHz, 16 bits: the sample's recordings in a loop."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number in range(count):
        target = folder / f"{number:04d}.wav"
        with soundfile.SoundFile(target, "w", RATE, 1, "PCM_16") as file:
            left = int(seconds * RATE)
            for clip in _clips(number):
                file.write(clip[:left])
                left -= len(clip)
                if left <= 0:
                    break
        written.append(target)
    return written


def _clips(first: int) -> Iterator[np.ndarray]:
    import soxr

    sounds = [item for item in media_of(SAMPLE) if item.modality == "audio"]
    clips = []
    for item in sounds:
        samples, rate = soundfile.read(str(item.path), dtype="float32", always_2d=True)
        clips.append(soxr.resample(samples.mean(axis=1), rate, RATE))
    for number in itertools.count(first):
        yield clips[number % len(clips)]
