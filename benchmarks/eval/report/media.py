"""Photographs and recordings of chosen queries, made small enough to travel inside a page.

Media are decoded by the same careful readers as everywhere (`bittern.encoders.images`,
`bittern.encoders.recordings`); what cannot be shown becomes a sentence that says why.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.report.wording import plain, small
from bittern.encoders.images import ImageLimits, decode_image
from bittern.encoders.recordings import AudioLimits, audio_format, open_recording
from bittern.errors import (
    BitternError,
    MediaTooLargeError,
    SourceNotFoundError,
    UnreadableMediaError,
    UnsupportedMediaError,
)

LONGEST_SIDE = 240
"""Pixels of a thumbnail's longer side."""
LONGEST_S, SHORTEST_S = 10.0, 0.05
"""Seconds of a recording that are drawn, at most and at least."""
_WIDTH, _HEIGHT = 240, 112
_RANGE_DB, _SILENCE_DB = 70.0, -40.0
_LOWEST_HZ, _HIGHEST_HZ = 50.0, 16_000.0
_IMAGES = ImageLimits(max_bytes=64 * 2**20)
_SOUNDS = AudioLimits(max_bytes=2 * 2**30, max_channels=16)


@dataclass(frozen=True)
class Shown:
    """What a card shows.

    Attributes:
        source: data URI; empty where there is nothing to show.
        width, height: pixels.
        alt: what is to be seen, in words.
        said: seconds and hertz of a spectrogram; empty for a photograph.
        why_not: a sentence where there is nothing to show.
    """

    source: str = ""
    width: int = 0
    height: int = 0
    alt: str = ""
    said: str = ""
    why_not: str = ""


def kind_of(media: str) -> str:
    """``audio`` or ``image`` by the first bytes of a file; ``image`` where that is unknown."""
    try:
        path = Path(media)
        if not path.is_file():
            return "image"
        with path.open("rb") as stream:
            return "audio" if audio_format(stream.read(4096)) else "image"
    except (OSError, ValueError):
        return "image"


def shown(
    media: str, modality: str, name: str, start_s: float | None, end_s: float | None
) -> Shown:
    """A thumbnail or spectrogram; never raises for what is wrong with the file.

    Args:
        media: path of the file.
        modality: ``image`` or ``audio``.
        name: what it is called on the page.
        start_s: where the window of a recording begins; None for the recording's beginning.
        end_s: where it ends; None for the recording's end.
    """
    name = plain(name, 120)
    if not media:
        return Shown(why_not="No file was named.")
    try:
        if modality == "image":
            return _photograph(Path(media), name)
        if modality == "audio":
            return _spectrogram(Path(media), name, start_s, end_s)
    except (BitternError, OSError, ValueError) as error:
        return Shown(why_not=_reason(error))
    return Shown(why_not="Media of this kind cannot be shown.")


def _reason(error: Exception) -> str:
    """Why not, without the machine's paths."""
    reasons = {
        SourceNotFoundError: "The file is not there.",
        UnsupportedMediaError: "The file is of a format that is not read.",
        MediaTooLargeError: "The file is larger than a page takes.",
        UnreadableMediaError: "The file is damaged.",
    }
    for kind, sentence in reasons.items():
        if isinstance(error, kind):
            return sentence
    return "The file cannot be read."


def _photograph(path: Path, name: str) -> Shown:
    from PIL import Image

    pixels = decode_image(path, name=name, limits=_IMAGES, min_side=2 * LONGEST_SIDE)
    picture = Image.fromarray(pixels)
    # A panorama keeps a side of one pixel at least.
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS, reducing_gap=None)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80, optimize=True, subsampling="4:2:0")
    return Shown(_uri("jpeg", data), *picture.size, alt=f"Photograph {name}")


def _spectrogram(path: Path, name: str, start_s: float | None, end_s: float | None) -> Shown:
    from PIL import Image

    samples, rate, start = _window(path, name, start_s, end_s)
    levels, highest = _bands(samples, rate)
    picture = Image.fromarray(_indexed(levels), "L")
    picture.putpalette(_palette())
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    end = start + len(samples) / rate
    said = f"{start:.1f}–{end:.1f} s, up to {small(highest / 1000)} kHz"
    return Shown(_uri("png", data), *picture.size, alt=f"Spectrogram of {name}, {said}", said=said)


def _window(
    path: Path, name: str, start_s: float | None, end_s: float | None
) -> tuple[NDArray[np.float32], int, float]:
    """Mono samples of the found window, their rate, and where it starts in seconds."""
    start = 0.0 if start_s is None else start_s
    end = math.inf if end_s is None else end_s
    with open_recording(path, name=name, limits=_SOUNDS) as sound:
        rate = sound.samplerate
        length = min(end - start, LONGEST_S)
        if not (0 <= start < sound.frames / rate and length >= SHORTEST_S):
            raise UnreadableMediaError(f"{name}: has no window from {start} to {end} s")
        import soundfile

        assert isinstance(sound, soundfile.SoundFile)
        try:
            sound.seek(int(start * rate))
            block = sound.read(round(length * rate), dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise UnreadableMediaError(f"{name}: damaged: {error}") from error
    samples: NDArray[np.float32] = np.asarray(block, np.float32).mean(axis=1)
    if len(samples) < SHORTEST_S * rate or not np.isfinite(samples).all():
        raise UnreadableMediaError(f"{name}: cut short, or samples are no numbers")
    return np.clip(samples, -1.0, 1.0), rate, start


def _bands(samples: NDArray[np.float32], rate: int) -> tuple[NDArray[np.float64], float]:
    """Levels in decibels, [_HEIGHT, _WIDTH], lowest band last, over mel bands (O'Shaughnessy
    1987); and the highest frequency.
    """
    size = 1 << max(6, math.ceil(math.log2(rate * 0.025)))
    padded = np.pad(samples.astype(np.float64), size // 2)
    starts = np.linspace(0, len(padded) - size, _WIDTH).astype(np.int64)
    frames = padded[starts[:, None] + np.arange(size)] * np.hanning(size)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    # Bats and other ultrasound keep their whole range.
    highest = rate / 2 if rate > 64_000 else min(_HIGHEST_HZ, rate / 2)
    mels = np.linspace(_mel(min(_LOWEST_HZ, highest / 4)), _mel(highest), _HEIGHT + 2)
    edges = 700.0 * (10 ** (mels / 2595.0) - 1.0)
    spectrum = np.fft.rfftfreq(size, 1 / rate)
    rising = (spectrum[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - spectrum[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    # Where bands are narrower than the transform's bins, the nearest bin stands for the band.
    empty = np.flatnonzero(filters.sum(axis=1) == 0)
    filters[empty, np.abs(spectrum[None] - edges[1:-1][empty, None]).argmin(axis=1)] = 1.0
    filters /= filters.sum(axis=1, keepdims=True)
    levels = 10 * np.log10(np.maximum(power @ filters.T, 1e-12)).T[::-1]
    return levels, float(highest)


def _mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def _indexed(levels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """64 steps below the loudest, silence dark: uint8 of the same shape."""
    loudest = max(float(levels.max()), _SILENCE_DB)
    below = np.clip((levels - loudest) / _RANGE_DB + 1.0, 0.0, 1.0)
    return np.rint(below * 63).astype(np.uint8)


def _palette() -> list[int]:
    import matplotlib

    steps = matplotlib.colormaps["magma"](np.linspace(0, 1, 64))[:, :3]
    return [int(v) for v in np.rint(steps * 255).astype(np.uint8).ravel()]


def _uri(kind: str, data: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
