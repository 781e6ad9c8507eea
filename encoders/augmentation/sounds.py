"""Views of windows of sound: `Audio` in, `Audio` of the same length out.

Masking stretches of time and bands of frequency is SpecAugment's idea (arXiv 1904.08779). There
the log-mel spectrogram is masked; here the waveform is, because every tower computes its own
spectrogram: a stretch is silenced, a band is removed from the window's spectrum. This, the values,
circular shifts and gain are ours; no publication covers them for wildlife.

A view that would exceed full scale is made quieter, not clipped: clipping would put sound back into
the removed bands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Audio
from bittern.encoders.batching import check_windows
from bittern.errors import InvalidInputError

_EDGE_S = 0.005
"""Silences fade out and in over 5 ms: a hard edge would be a click, on all frequencies."""
_EDGE_SHARE = 0.1
"""A band's edges fall off over a tenth of its width on either side, so that it hardly rings."""


@dataclass(frozen=True, slots=True)
class SoundPlan:
    """The operations of one view, in this order.

    Attributes:
        shift: samples by which the window is turned, its end coming first.
        noise_db: level of white noise below the window's own, in dB; None for no noise.
        noise_seed: of that noise.
        bands: lower and upper limit in Hz of each removed band.
        silences: first sample and number of samples of each silenced stretch.
        gain_db: change of level; limited by full scale.
    """

    shift: int = 0
    noise_db: float | None = None
    noise_seed: int = 0
    bands: tuple[tuple[float, float], ...] = ()
    silences: tuple[tuple[int, int], ...] = ()
    gain_db: float = 0.0


@dataclass(frozen=True, slots=True)
class SoundAugmentation:
    """A set of operations.

    Attributes:
        sample_rate: Hz, of the encoder's windows.
        gain_db: level changes by up to this much either way.
        bands: how many bands are removed.
        band_share: width of the widest band, as a share of the mel scale up to half the
            sample rate; widths are drawn from 0 to this.
        silences: how many stretches are silenced.
        silence_share: length of the longest stretch, as a share of the window.
        noise_p: probability of noise.
        noise_db: least and most dB by which noise lies below the sound.
    """

    sample_rate: int = 48_000
    gain_db: float = 6.0
    bands: int = 2
    band_share: float = 0.15
    silences: int = 2
    silence_share: float = 0.1
    noise_p: float = 0.0
    noise_db: tuple[float, float] = (20.0, 40.0)

    def __call__(self, audio: Audio, generator: np.random.Generator) -> Audio:
        """One view.

        Args:
            audio: float32 [samples], within [-1, 1], never changed.
            generator: the only source of randomness.

        Returns:
            float32 [samples], finite, within [-1, 1]; silence stays silence.

        Raises:
            InvalidInputError: not a window.
        """
        _check(audio)
        return self.apply(audio, self.draw(len(audio), generator))

    def draw(self, samples: int, generator: np.random.Generator) -> SoundPlan:
        """Draw the operations of a view of a window of this many samples."""
        shift = int(generator.integers(samples))
        gain_db = float(generator.uniform(-self.gain_db, self.gain_db))
        noise_db = float(generator.uniform(*self.noise_db))
        noisy = bool(generator.random() < self.noise_p)
        noise_seed = int(generator.integers(1 << 32))
        bands = tuple(self._band(generator) for _ in range(self.bands))
        silences = []
        for _ in range(self.silences):
            length = round(generator.uniform(0.0, self.silence_share) * samples)
            silences.append((int(generator.integers(samples - length + 1)), length))
        return SoundPlan(
            shift=shift,
            noise_db=noise_db if noisy else None,
            noise_seed=noise_seed if noisy else 0,
            bands=bands,
            silences=tuple(silences),
            gain_db=gain_db,
        )

    def apply(self, audio: Audio, plan: SoundPlan) -> Audio:
        """The view that a plan describes: float32 [samples] to float32 [samples]."""
        view = np.roll(audio, plan.shift)  # a copy
        if plan.noise_db is not None:
            view += _noise(view, plan.noise_db, plan.noise_seed)
        if plan.bands:
            view = _without_bands(view, plan.bands, self.sample_rate)
        edge = max(1, round(_EDGE_S * self.sample_rate))
        for start, length in plan.silences:
            view *= _silence(len(view), start, length, edge)
        return _with_gain(view, plan.gain_db)

    def _band(self, generator: np.random.Generator) -> tuple[float, float]:
        """Limits in Hz of a band whose width and position are uniform on the mel scale."""
        highest = _mel(self.sample_rate / 2)
        width = generator.uniform(0.0, self.band_share) * highest
        low = generator.uniform(0.0, highest - width)
        return _hertz(low), _hertz(low + width)


def _check(audio: Audio) -> None:
    if not isinstance(audio, np.ndarray) or audio.ndim != 1 or not len(audio):
        raise InvalidInputError(
            "a window of sound must be float32 [samples] with at least one sample", field="audio"
        )
    check_windows([audio], len(audio))


def _mel(hertz: float) -> float:
    return 2595.0 * math.log10(1.0 + hertz / 700.0)


def _hertz(mel: float) -> float:
    return float(700.0 * (10.0 ** (mel / 2595.0) - 1.0))


def _noise(audio: Audio, below_db: float, seed: int) -> NDArray[np.float32]:
    """White noise at `below_db` below the level of the sound: float32 [samples]."""
    level = math.sqrt(float(np.mean(np.square(audio, dtype=np.float64))))
    noise: NDArray[np.float32]
    noise = np.random.default_rng(seed).standard_normal(len(audio), dtype=np.float32)
    noise *= level * 10.0 ** (-below_db / 20.0)
    return noise


def _without_bands(
    audio: Audio, bands: tuple[tuple[float, float], ...], sample_rate: int
) -> NDArray[np.float32]:
    """The sound without these bands of its spectrum, over the whole window."""
    spectrum = np.fft.rfft(audio)
    hertz = np.fft.rfftfreq(len(audio), 1.0 / sample_rate)
    for low, high in bands:
        edge = max(_EDGE_SHARE * (high - low), 1e-9)
        outside = np.maximum(low - hertz, hertz - high).clip(0.0, edge) / edge
        spectrum *= (0.5 - 0.5 * np.cos(np.pi * outside)).astype(np.float32)
    filtered: NDArray[np.float32] = np.fft.irfft(spectrum, len(audio)).astype(np.float32)
    return filtered


def _silence(samples: int, start: int, length: int, edge: int) -> NDArray[np.float32]:
    """Factors: 0 in a stretch, 1 outside, with soft edges."""
    if length == 0:
        return np.ones(samples, dtype=np.float32)
    position = np.arange(samples)
    outside = np.maximum(start - position, position - (start + length - 1)).clip(0, edge) / edge
    factors: NDArray[np.float64] = 0.5 - 0.5 * np.cos(np.pi * outside)
    return factors.astype(np.float32)


def _with_gain(audio: NDArray[np.float32], gain_db: float) -> Audio:
    peak = float(np.abs(audio).max())
    factor = 10.0 ** (gain_db / 20.0)
    if peak * factor > 1.0:
        factor = 1.0 / peak
    louder: Audio = audio * np.float32(factor)
    return louder.clip(-1.0, 1.0)  # rounding may pass 1 by a hair


SOUND_SETS: Mapping[str, SoundAugmentation | None] = {
    "masking": SoundAugmentation(),
    "masking-noise": SoundAugmentation(noise_p=0.5),
    "none": None,
}
"""The named sets; None changes nothing."""


def sound_augmentation(
    name: str, sample_rate: int = 48_000
) -> Callable[[Audio, np.random.Generator], Audio]:
    """A named set.

    Args:
        name: ``masking`` (shift, gain, silenced stretches, removed bands), ``masking-noise``
            (with quiet noise in half of the views), or ``none``.
        sample_rate: Hz, of the encoder's windows.

    Returns:
        window and generator to window, float32 [samples].

    Raises:
        InvalidInputError: no such set, or a sample rate below 1 Hz.
    """
    if name not in SOUND_SETS:
        raise InvalidInputError(
            f"there are no sound augmentations {name!r}; choose one of {', '.join(SOUND_SETS)}",
            field="augmentation",
        )
    if sample_rate < 1:
        raise InvalidInputError(
            f"a sample rate is at least 1 Hz, not {sample_rate}", field="sample_rate"
        )
    chosen = SOUND_SETS[name]
    return _unchanged if chosen is None else replace(chosen, sample_rate=sample_rate)


def _unchanged(audio: Audio, generator: np.random.Generator) -> Audio:
    _check(audio)
    return audio
