"""Opening recordings: formats, limits, and headers that are wrong.

WAV (also WAVEX and RF64), FLAC, OGG (Vorbis, Opus) and MP3 are read. The first bytes decide the
format; no other bytes reach a decoder.

A recording that contradicts its header is refused: a WAV file whose data chunk claims more bytes
than the file has, or fewer (bytes follow that belong to no chunk, as when a recorder died before it
finished the header), an OGG file that ends inside a page, and any file that yields fewer samples
than its header claims. A WAV data chunk of 0xFFFFFFFF bytes means "until the end of the file", as
programs that write to a pipe use it. OGG and MP3 files need not state their length, so a clean cut
between two pages or frames goes unnoticed: such a recording is simply shorter.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from bittern.errors import (
    MediaTooLargeError,
    SourceNotFoundError,
    UnreadableMediaError,
    UnsupportedMediaError,
)

FORMATS = ("WAV", "FLAC", "OGG", "MP3")
"""Readable formats."""

_UNTIL_THE_END = 0xFFFFFFFF
_MOST_CHUNKS = 10_000
_LARGEST_OGG_PAGE = 65_307
_DECODED_AS = {
    "WAV": frozenset({"WAV", "WAVEX", "RF64"}),
    "FLAC": frozenset({"FLAC"}),
    "OGG": frozenset({"OGG"}),
    "MP3": frozenset({"MP3"}),
}


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """Limits of a recording.

    Attributes:
        max_bytes: bytes of the file.
        max_duration_s: seconds.
        max_channels: channels.
        min_sample_rate: Hz.
        max_sample_rate: Hz.
    """

    max_bytes: int = 16 * 2**30
    max_duration_s: float = 24 * 3600.0
    max_channels: int = 64
    min_sample_rate: int = 1_000
    max_sample_rate: int = 1_000_000


class Sound(Protocol):
    """An open `soundfile.SoundFile`, as far as it is used here."""

    format: str
    frames: int
    samplerate: int
    channels: int

    def read(self, frames: int, dtype: str, always_2d: bool) -> NDArray[np.float32]:
        """The next samples: float32 [at most frames, channels]."""
        ...


@contextmanager
def open_recording(source: bytes | Path, *, name: str, limits: AudioLimits) -> Iterator[Sound]:
    """A `soundfile.SoundFile` over a recording that passed every check of its header.

    Args:
        source: bytes of the file, or its path.
        name: of the recording, in errors.
        limits: of bytes, seconds, channels and sample rate.

    Raises:
        SourceNotFoundError: no such file.
        UnsupportedMediaError: the content is in none of `FORMATS`, or has too many channels or a
            sample rate out of range.
        MediaTooLargeError: more bytes or seconds than the limit.
        UnreadableMediaError: empty, damaged, or the header contradicts the file.
    """
    import soundfile

    with _open_bytes(source, name, limits) as stream:
        kind = audio_format(stream.read(4096))
        if kind is None:
            stream.seek(0)
            raise UnsupportedMediaError(
                f"{name}: the content is not a readable recording (it begins with "
                f"{stream.read(8)!r}); convert it to one of {', '.join(FORMATS)}"
            )
        if kind == "WAV":
            stream.seek(0)
            _check_wav(stream, name)
        elif kind == "OGG":
            _check_ogg(stream, name)
        stream.seek(0)
        try:
            sound = soundfile.SoundFile(stream)
        except (soundfile.SoundFileError, TypeError, ValueError, OverflowError) as error:
            raise UnreadableMediaError(f"{name}: damaged {kind}: {error}") from error
        with sound:
            _check_header(sound, kind, name, limits)
            yield sound


def audio_format(head: bytes) -> str | None:
    """Which of `FORMATS` the first bytes of a file (4096 will do) belong to, or None."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"fLaC":
        return "FLAC"
    if head[:4] == b"OggS":
        return "OGG"
    if head[:3] == b"ID3" or _is_mpeg_frame(head):
        return "MP3"
    return None


def _is_mpeg_frame(head: bytes) -> bool:
    """Eleven set bits, then a version, layer III, bit rate and sample rate that exist."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, sample_rate = head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer == 1 and bit_rate not in (0, 15) and sample_rate != 3


@contextmanager
def _open_bytes(source: bytes | Path, name: str, limits: AudioLimits) -> Iterator[BinaryIO]:
    if isinstance(source, bytes):
        _check_bytes(len(source), name, limits)
        yield io.BytesIO(source)
        return
    if not source.exists():
        raise SourceNotFoundError(f"{name}: there is no file {source}", field="source")
    if not source.is_file():
        raise UnreadableMediaError(f"{name}: {source} is not a regular file")
    try:
        stream = source.open("rb")
    except OSError as error:
        raise UnreadableMediaError(f"{name}: {source} cannot be opened: {error}") from error
    with stream:
        _check_bytes(source.stat().st_size, name, limits)
        yield stream


def _check_bytes(size: int, name: str, limits: AudioLimits) -> None:
    if size == 0:
        raise UnreadableMediaError(f"{name}: the file is empty (0 bytes)")
    if size > limits.max_bytes:
        raise MediaTooLargeError(
            f"{name}: {size} bytes, the limit for a recording is {limits.max_bytes}",
            details={"bytes": str(size), "limit": str(limits.max_bytes)},
        )


def _check_header(sound: Sound, kind: str, name: str, limits: AudioLimits) -> None:
    if sound.format not in _DECODED_AS[kind]:
        raise UnsupportedMediaError(f"{name}: looks like {kind} but decodes as {sound.format}")
    rate, channels = sound.samplerate, sound.channels
    if not 1 <= channels <= limits.max_channels:
        raise UnsupportedMediaError(
            f"{name}: {channels} channels, at most {limits.max_channels} are read"
        )
    if not limits.min_sample_rate <= rate <= limits.max_sample_rate:
        raise UnsupportedMediaError(
            f"{name}: a sample rate of {rate} Hz, rates from {limits.min_sample_rate} to "
            f"{limits.max_sample_rate} Hz are read"
        )
    if sound.frames < 1:
        raise UnreadableMediaError(f"{name}: the recording holds no samples")
    if sound.frames / rate > limits.max_duration_s:
        raise MediaTooLargeError(
            f"{name}: {sound.frames / rate:.0f} seconds, the limit is "
            f"{limits.max_duration_s:.0f}; cut it into shorter files",
            details={"limit_s": f"{limits.max_duration_s:g}"},
        )


def _check_wav(stream: BinaryIO, name: str) -> None:
    """Refuse a RIFF file whose data chunk claims more, or less, than the file holds."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(12)
    long_size: int | None = None
    for _ in range(_MOST_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            break
        label, size = struct.unpack("<4sI", head)
        start = stream.tell()
        if label == b"ds64" and size >= 24:
            long_size = struct.unpack("<8xQ", stream.read(16))[0]
        if label == b"data":
            if size == _UNTIL_THE_END and long_size is None:
                return
            claimed = long_size if size == _UNTIL_THE_END and long_size is not None else size
            if claimed > end - start:
                raise UnreadableMediaError(
                    f"{name}: cut short: its header claims {claimed} bytes of samples, "
                    f"the file has {end - start}"
                )
            stream.seek(start + claimed + claimed % 2)
            _check_after_data(stream, claimed, end, name)
            return
        stream.seek(start + size + size % 2)
    raise UnreadableMediaError(f"{name}: a WAV file without samples (no data chunk)")


def _check_after_data(stream: BinaryIO, claimed: int, end: int, name: str) -> None:
    """Accept further chunks, zeros, or nothing after the samples."""
    here = stream.tell()
    rest = stream.read(8)
    for _ in range(_MOST_CHUNKS):
        if len(rest) < 8:
            return
        label, size = struct.unpack("<4sI", rest)
        if not all(32 <= byte < 127 for byte in label) or stream.tell() + size > end:
            break
        here = stream.seek(size + size % 2, io.SEEK_CUR)
        rest = stream.read(8)
    if not rest.strip(b"\0"):
        return
    raise UnreadableMediaError(
        f"{name}: its header claims {claimed} bytes of samples, but {end - here} more bytes "
        "follow that belong to no chunk; the recorder may not have finished the header"
    )


def _check_ogg(stream: BinaryIO, name: str) -> None:
    """Refuse a file that ends inside a page (RFC 3533: header, segment table, segments)."""
    end = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, end - _LARGEST_OGG_PAGE))
    tail = stream.read()
    last = tail.rfind(b"OggS\0")
    page = tail[last:] if last >= 0 else b""
    lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
    if not lengths or len(lengths) < page[26] or len(page) < 27 + len(lengths) + sum(lengths):
        raise UnreadableMediaError(f"{name}: cut short: the file ends inside an OGG page")
