"""Recordings: sound files in, equal windows of mono sound out, whatever their length.

A recording is decoded block by block, mixed to mono, resampled (soxr, high quality) and cut: three
hours need no more memory than ten seconds. Window *i* always begins at *i* hops.

A short last window is filled as the encoder's windowing says, by repeating it or with silence;
`end_s` stays the true end. It is left out if the window before it already covers the end, as with
overlapping windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Audio, AudioWindowing, Padding
from bittern.encoders.recordings import AudioLimits, Sound, open_recording
from bittern.errors import InvalidInputError, MediaTooLargeError, UnreadableMediaError

__all__ = ["AudioLimits", "AudioWindow", "windows"]

_BLOCK_SAMPLES = 1 << 17
"""Samples decoded at a time, over all channels. It affects the resampled values."""
_UNKNOWN_FRAMES = 1 << 62


@dataclass(frozen=True, slots=True)
class AudioWindow:
    """One window of a recording.

    Attributes:
        start_s: start in seconds.
        end_s: end in seconds; the end of the recording where the window reaches past it.
        samples: float32 [window_s * sample_rate], mono, within [-1, 1].
    """

    start_s: float
    end_s: float
    samples: Audio


def windows(
    source: bytes | Path,
    windowing: AudioWindowing,
    *,
    name: str,
    limits: AudioLimits | None = None,
) -> Iterator[AudioWindow]:
    """Cut a recording into windows, in order of time.

    A generator: errors are raised as it advances, those about damage in the middle of a file after
    the windows before the damage. Collect all windows of a recording before storing any.

    Args:
        source: bytes of the file, or its path.
        windowing: sample rate, window and hop of the encoder.
        name: of the recording, in errors.
        limits: None means the defaults of `AudioLimits`.

    Yields:
        at least one window.

    Raises:
        SourceNotFoundError: no such file.
        UnsupportedMediaError: not WAV, FLAC, OGG or MP3, or channels or sample rate out of range.
        MediaTooLargeError: more bytes or seconds than the limit.
        UnreadableMediaError: empty, damaged, cut short, or with samples that are not numbers.
        InvalidInputError: an invalid windowing.
    """
    window, hop = _samples(windowing)
    limits = limits or AudioLimits()
    with open_recording(source, name=name, limits=limits) as sound:
        cutter = _Cutter(window, hop, windowing.padding)
        decoded = _Decoded(sound, name, limits)
        rate = windowing.sample_rate
        for chunk in _resampled(decoded, sound.samplerate, rate):
            for index, samples in cutter.push(chunk):
                yield AudioWindow(index * hop / rate, (index * hop + window) / rate, samples)
        total = max(1, round(decoded.frames * rate / sound.samplerate))
        tail = cutter.finish(total)
        if tail is not None:
            index, samples = tail
            yield AudioWindow(index * hop / rate, decoded.frames / sound.samplerate, samples)


def _samples(windowing: AudioWindowing) -> tuple[int, int]:
    """Window and hop in samples."""
    rate = windowing.sample_rate
    if rate < 1 or not all(
        math.isfinite(s) and s * rate >= 1 for s in (windowing.window_s, windowing.hop_s)
    ):
        raise InvalidInputError(
            "a windowing needs a sample rate, and a window and a hop of at least one sample, "
            f"not {windowing}",
            field="windowing",
        )
    return round(windowing.window_s * rate), round(windowing.hop_s * rate)


class _Decoded:
    """Mono blocks of a recording, checked: float32 [at most a block], within [-1, 1].

    Attributes:
        frames: samples per channel read so far.
    """

    def __init__(self, sound: Sound, name: str, limits: AudioLimits) -> None:
        self.frames = 0
        self._sound = sound
        self._name = name
        self._most = limits.max_duration_s * sound.samplerate

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        size = max(1, _BLOCK_SAMPLES // self._sound.channels)
        while True:
            block = self._read(size)
            if len(block) == 0:
                break
            self._check_finite(block)
            self.frames += len(block)
            if self.frames > self._most:
                raise MediaTooLargeError(
                    f"{self._name}: longer than {self._most / self._sound.samplerate:.0f} seconds; "
                    "cut it into shorter files"
                )
            yield np.clip(block, -1.0, 1.0).mean(axis=1, dtype=np.float32)
        claimed = self._sound.frames
        if self.frames == 0:
            raise UnreadableMediaError(f"{self._name}: the recording holds no samples")
        if self.frames < claimed < _UNKNOWN_FRAMES:
            raise UnreadableMediaError(
                f"{self._name}: cut short or damaged: its header claims {claimed} samples, "
                f"{self.frames} could be decoded"
            )

    def _read(self, size: int) -> NDArray[np.float32]:
        import soundfile

        try:
            return self._sound.read(size, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise UnreadableMediaError(
                f"{self._name}: damaged at {self.frames / self._sound.samplerate:.3f} s: {error}"
            ) from error

    def _check_finite(self, block: NDArray[np.float32]) -> None:
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            at = (self.frames + int(np.argmin(finite))) / self._sound.samplerate
            raise UnreadableMediaError(
                f"{self._name}: a sample at {at:.3f} s is NaN or infinite",
                details={"at_s": f"{at}"},
            )


def _resampled(
    blocks: _Decoded, source_rate: int, target_rate: int
) -> Iterator[NDArray[np.float32]]:
    """The same sound at another rate, chunk by chunk, within [-1, 1]."""
    if source_rate == target_rate:
        yield from blocks
        return
    import soxr

    stream = soxr.ResampleStream(source_rate, target_rate, 1, dtype="float32", quality="HQ")
    given = 0
    block = rest = np.zeros(0, dtype=np.float32)
    for block in blocks:
        chunk = stream.resample_chunk(block)
        given += len(chunk)
        yield np.clip(chunk, -1.0, 1.0)
    rest = stream.resample_chunk(rest, last=True)
    # Less than half a sample of the target rate becomes one sample, not none.
    yield np.clip(rest, -1.0, 1.0) if given + len(rest) else block[:1]


class _Cutter:
    """Cuts a stream of samples into windows, holding little more than one window."""

    def __init__(self, window: int, hop: int, padding: Padding) -> None:
        self._window = window
        self._hop = hop
        self._padding = padding
        self._held: NDArray[np.float32] = np.zeros(0, dtype=np.float32)
        self._origin = 0  # position of the first held sample
        self._next = 0  # index of the next window

    def push(self, chunk: NDArray[np.float32]) -> Iterator[tuple[int, Audio]]:
        """Add samples; yield the windows that are now full, with their indices."""
        self._held = np.concatenate([self._held, chunk])
        while (start := self._next * self._hop - self._origin) + self._window <= len(self._held):
            yield self._next, self._held[start : start + self._window].copy()
            self._next += 1
        drop = min(max(0, start), len(self._held))
        self._held = self._held[drop:]
        self._origin += drop

    def finish(self, total: int) -> tuple[int, Audio] | None:
        """The last window, filled up, if it holds sound that no other window holds.

        Args:
            total: samples of the whole recording; further ones of the resampler are dropped.
        """
        start = self._next * self._hop
        covered = (self._next - 1) * self._hop + self._window if self._next else 0
        end = min(total, self._origin + len(self._held))
        if start >= end or covered >= end:
            return None
        tail = self._held[start - self._origin : end - self._origin]
        if self._padding == "repeat":
            return self._next, np.resize(tail, self._window)
        return self._next, np.pad(tail, (0, self._window - len(tail)))
