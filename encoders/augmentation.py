"""Augmentations: other views of the same picture or sound, for training.

All randomness comes from the generator argument: `view_generator` makes one per (seed, epoch, item,
view), so a training that is resumed, or that reads its media with other threads, sees the same
views. A view goes through the tower's own `prepare` like any other picture or window.

Pictures: ``published`` is the set of CroVCA (arXiv 2510.27584), with that paper's probabilities.
``plants`` follows what the same group reports for plants: blur, greyscale and solarize hurt there
(leaf texture and flower colour distinguish species), affine maps and posterizing help. The paper
does not give the blur's width (taken from BYOL, arXiv 2006.07733), the threshold of solarize, and
the strength and probability of the plants' affine maps and posterizing: these values are ours.

Sounds: masking stretches of time and bands of frequency is SpecAugment's idea (arXiv 1904.08779).
There the log-mel spectrogram is masked; here the waveform is, because every tower computes its own
spectrogram. This, the values, circular shifts and gain are ours; no publication covers them for
wildlife.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Audio, Image

if TYPE_CHECKING:
    import torch

Generator = np.random.Generator
SIDE = 224
"""Pixels of a side of a view."""
_CROP_AREA = (0.4, 1.0)
_ASPECT = (3 / 4, 4 / 3)
_CROP_TRIES = 10
_BRIGHTNESS = _CONTRAST = _SATURATION = 0.4
_HUE = 0.2
_BLUR_SIGMA = (0.1, 2.0)
_SOLARIZE_FROM = 128
_POSTERIZE_BITS = 4
_DEGREES, _SHIFT, _ZOOM, _SHEAR = 15.0, 0.1, (0.9, 1.1), 5.0

GAIN_DB = 6.0
"""The level of a sound changes by up to this much either way."""
BANDS, BAND_SHARE = 2, 0.15
"""Removed bands, and the width of the widest, as a share of the mel scale."""
SILENCES, SILENCE_SHARE = 2, 0.1
"""Silenced stretches, and the length of the longest, as a share of the window."""
_EDGE_S = 0.005
"""Silences fade out and in over 5 ms: a hard edge would be a click, on all frequencies."""
_EDGE_SHARE = 0.1
"""A band's edges fall off over a tenth of its width on either side, so that it hardly rings."""


def view_generator(seed: int, epoch: int, item: int, view: int) -> Generator:
    """The generator of one view, unique to these four numbers.

    Args:
        seed: of the training.
        epoch: counted from 1.
        item: the item's position in the list of examples.
        view: the view's number among the views of the item.
    """
    return Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, item, view])))


@dataclass(frozen=True, slots=True)
class PictureSet:
    """The probability of each operation, in the order in which they are applied after the crop."""

    flip: float = 0.5
    jitter: float = 0.8
    affine: float = 0.0
    posterize: float = 0.0
    greyscale: float = 0.0
    blur: float = 0.0
    solarize: float = 0.0


PICTURE_SETS: Mapping[str, PictureSet] = {
    "published": PictureSet(greyscale=0.2, blur=0.1, solarize=0.1),
    "plants": PictureSet(affine=0.5, posterize=0.2),
}


def picture_view(
    image: Image, chosen: PictureSet, generator: Generator, *, side: int = SIDE
) -> Image:
    """A random view of a photograph.

    The probabilities do not change which numbers are drawn. Those of the crop come last, since
    their count depends on the picture.

    Args:
        image: uint8 [h, w, 3], never changed.
        chosen: the probabilities.
        generator: the only source of randomness.
        side: pixels of a side of the view.

    Returns:
        uint8 [side, side, 3].
    """
    import torch
    from torchvision.transforms.v2 import functional

    chances = generator.random(7)
    jitter, affine = _jitter(generator), _affine(generator)
    sigma = float(generator.uniform(*_BLUR_SIGMA))
    kernel = max(3, side // 10 // 2 * 2 + 1)
    operations: list[tuple[float, Callable[[Any], Any]]] = [
        (chosen.flip, functional.horizontal_flip),
        (chosen.jitter, jitter),
        (chosen.affine, affine),
        (chosen.posterize, partial(functional.posterize, bits=_POSTERIZE_BITS)),
        (chosen.greyscale, partial(functional.rgb_to_grayscale, num_output_channels=3)),
        (
            chosen.blur,
            partial(functional.gaussian_blur, kernel_size=[kernel] * 2, sigma=[sigma] * 2),
        ),
        (chosen.solarize, partial(functional.solarize, threshold=_SOLARIZE_FROM)),
    ]
    rows, columns = crop(image.shape[0], image.shape[1], generator)
    cropped = np.array(image[rows, columns])  # a copy
    with torch.inference_mode():
        pixels = torch.from_numpy(cropped).permute(2, 0, 1)
        pixels = functional.resize(pixels, [side, side], antialias=True)
        for chance, (probability, apply) in zip(chances, operations, strict=True):
            if chance < probability:
                pixels = apply(pixels)
        view: Image = pixels.permute(1, 2, 0).contiguous().numpy()
    return view


def crop(height: int, width: int, generator: Generator) -> tuple[slice, slice]:
    """Rows and columns of a random crop, as torchvision's `RandomResizedCrop` draws them."""
    for _ in range(_CROP_TRIES):
        area = height * width * generator.uniform(*_CROP_AREA)
        aspect = math.exp(generator.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(generator.integers(height - h + 1))
            left = int(generator.integers(width - w + 1))
            return slice(top, top + h), slice(left, left + w)
    w = min(width, max(1, round(height * _ASPECT[1])))
    h = min(height, max(1, round(width / _ASPECT[0])))
    top, left = (height - h) // 2, (width - w) // 2
    return slice(top, top + h), slice(left, left + w)


def _jitter(generator: Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """Change brightness, contrast, saturation and hue, in a random order."""
    from torchvision.transforms.v2 import functional

    around_one = {"brightness": _BRIGHTNESS, "contrast": _CONTRAST, "saturation": _SATURATION}
    amounts = [
        (name, float(generator.uniform(1 - most, 1 + most))) for name, most in around_one.items()
    ]
    amounts.append(("hue", float(generator.uniform(-_HUE, _HUE))))
    order = generator.permutation(4)

    def apply(pixels: torch.Tensor) -> torch.Tensor:
        for number in order:
            name, amount = amounts[number]
            pixels = getattr(functional, f"adjust_{name}")(pixels, amount)
        return pixels

    return apply


def _affine(generator: Generator) -> Callable[[torch.Tensor], torch.Tensor]:
    """Turn, shift, zoom and shear.

    Empty corners get the picture's mean colour, since black ones would be a cue. The mean is
    subtracted and added again: torchvision's own `fill` leaves a dark seam.
    """
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    shift = generator.uniform(-_SHIFT, _SHIFT, 2)
    shear = generator.uniform(-_SHEAR, _SHEAR, 2)
    angle = float(generator.uniform(-_DEGREES, _DEGREES))
    zoom = float(generator.uniform(*_ZOOM))

    def apply(pixels: torch.Tensor) -> torch.Tensor:
        mean = pixels.float().mean(dim=(1, 2), keepdim=True)
        mapped: torch.Tensor = functional.affine(
            pixels.float() - mean,
            angle=angle,
            translate=[float(share) * pixels.shape[-1] for share in shift],
            scale=zoom,
            shear=[float(degrees) for degrees in shear],
            interpolation=InterpolationMode.BILINEAR,
        )
        return (mapped + mean).round().clamp(0, 255).to(pixels.dtype)

    return apply


def sound_view(audio: Audio, sample_rate: int, generator: Generator) -> Audio:
    """A random view of a window of sound: shifted, without some bands and stretches, louder or not.

    A view that would exceed full scale is made quieter, not clipped: clipping would put sound back
    into the removed bands.

    Args:
        audio: float32 [samples], within [-1, 1], never changed.
        sample_rate: Hz.
        generator: the only source of randomness.

    Returns:
        float32 [samples], finite, within [-1, 1]; silence stays silence.
    """
    samples = len(audio)
    view: Audio = np.roll(audio, int(generator.integers(samples)))  # a copy
    gain_db = float(generator.uniform(-GAIN_DB, GAIN_DB))
    # Earlier releases drew noise here, which no set used. Without these draws views would differ.
    generator.uniform(), generator.random(), generator.integers(1 << 32)
    bands = [_band(sample_rate, generator) for _ in range(BANDS)]
    view = without_bands(view, bands, sample_rate)
    edge = max(1, round(_EDGE_S * sample_rate))
    for _ in range(SILENCES):
        length = round(generator.uniform(0.0, SILENCE_SHARE) * samples)
        start = int(generator.integers(samples - length + 1))
        view = silenced(view, start, length, edge)
    return with_gain(view, gain_db)


def _band(sample_rate: int, generator: Generator) -> tuple[float, float]:
    """Limits in Hz of a band whose width and position are uniform on the mel scale."""
    highest = 2595.0 * math.log10(1.0 + sample_rate / 2 / 700.0)
    width = generator.uniform(0.0, BAND_SHARE) * highest
    low = generator.uniform(0.0, highest - width)
    return _hertz(low), _hertz(low + width)


def _hertz(mel: float) -> float:
    return float(700.0 * (10.0 ** (mel / 2595.0) - 1.0))


def without_bands(
    audio: Audio, bands: list[tuple[float, float]], sample_rate: int
) -> NDArray[np.float32]:
    """The sound without these bands of its spectrum (limits in Hz), over the whole window."""
    spectrum = np.fft.rfft(audio)
    hertz = np.fft.rfftfreq(len(audio), 1.0 / sample_rate)
    for low, high in bands:
        edge = max(_EDGE_SHARE * (high - low), 1e-9)
        outside = np.maximum(low - hertz, hertz - high).clip(0.0, edge) / edge
        spectrum *= (0.5 - 0.5 * np.cos(np.pi * outside)).astype(np.float32)
    filtered: NDArray[np.float32] = np.fft.irfft(spectrum, len(audio)).astype(np.float32)
    return filtered


def silenced(audio: Audio, start: int, length: int, edge: int) -> NDArray[np.float32]:
    """The sound with a silent stretch, whose edges fade over `edge` samples."""
    if length == 0:
        return audio
    position = np.arange(len(audio))
    outside = np.maximum(start - position, position - (start + length - 1)).clip(0, edge) / edge
    faded: NDArray[np.float32] = audio * (0.5 - 0.5 * np.cos(np.pi * outside)).astype(np.float32)
    return faded


def with_gain(audio: NDArray[np.float32], gain_db: float) -> Audio:
    """The sound made louder, as far as full scale allows, or quieter."""
    peak = float(np.abs(audio).max())
    factor = 10.0 ** (gain_db / 20.0)
    if peak * factor > 1.0:
        factor = 1.0 / peak
    louder: Audio = audio * np.float32(factor)
    return louder.clip(-1.0, 1.0)  # rounding may pass 1 by a hair
