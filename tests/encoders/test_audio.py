"""How recordings become windows, and which are refused."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bittern.encoders.audio import AudioLimits, windows
from bittern.encoders.base import AudioWindowing
from bittern.errors import (
    InvalidInputError,
    MediaError,
    MediaTooLargeError,
    SourceNotFoundError,
    UnreadableMediaError,
    UnsupportedMediaError,
)

TEN_SECONDS = AudioWindowing(sample_rate=8_000, window_s=10.0, hop_s=10.0)


def noise(seconds: float, rate: int = 8_000, channels: int = 1) -> NDArray[np.float32]:
    shape = (round(seconds * rate), channels)
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


def file_of(
    samples: NDArray[Any], rate: int = 8_000, kind: str = "WAV", subtype: str | None = None
) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    return stream.getvalue()


def spans(data: bytes, windowing: AudioWindowing = TEN_SECONDS) -> list[tuple[float, float]]:
    return [(w.start_s, round(w.end_s, 6)) for w in windows(data, windowing, name="recording")]


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "PCM_U8"),
        ("WAV", "FLOAT"),
        ("WAVEX", "PCM_16"),
        ("RF64", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", None),
    ],
)
def test_every_format_on_the_list_is_read(kind: str, subtype: str | None) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8_000 * 12) / 8_000)
    data = file_of(tone, kind=kind, subtype=subtype)
    cut = list(windows(data, TEN_SECONDS, name="tone"))
    assert [w.start_s for w in cut] == [0.0, 10.0]
    assert cut[-1].end_s == pytest.approx(12.0, abs=0.1)
    for window in cut:
        assert window.samples.shape == (80_000,)
        assert window.samples.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(cut[0].samples))
    assert np.argmax(spectrum) / 10 == pytest.approx(440, abs=1)


def test_file_on_disk_and_its_bytes_give_the_same_windows(tmp_path: Path) -> None:
    data = file_of(noise(13))
    (tmp_path / "a.wav").write_bytes(data)
    for one, other in zip(
        windows(data, TEN_SECONDS, name="bytes"),
        windows(tmp_path / "a.wav", TEN_SECONDS, name="file"),
        strict=True,
    ):
        np.testing.assert_array_equal(one.samples, other.samples)


def test_windows_without_resampling_are_the_samples_themselves() -> None:
    samples = noise(20)
    cut = list(windows(file_of(samples, subtype="FLOAT"), TEN_SECONDS, name="recording"))
    np.testing.assert_array_equal(np.concatenate([w.samples for w in cut]), samples[:, 0])


def test_last_window_repeats_itself_and_keeps_its_true_end() -> None:
    samples = noise(13)
    last = list(windows(file_of(samples, subtype="FLOAT"), TEN_SECONDS, name="recording"))[-1]
    assert (last.start_s, last.end_s) == (10.0, 13.0)
    tail = samples[80_000:, 0]
    np.testing.assert_array_equal(last.samples, np.tile(tail, 4)[:80_000])


def test_last_window_ends_in_silence_if_the_windowing_says_so() -> None:
    samples = noise(2.5)
    silence = AudioWindowing(8_000, 2.0, 2.0, padding="silence")
    *_, last = windows(file_of(samples), silence, name="a.wav")
    assert (last.start_s, last.end_s) == (2.0, 2.5)
    np.testing.assert_allclose(last.samples[:4_000], samples[16_000:, 0], atol=1e-4)
    assert not last.samples[4_000:].any()


def test_recording_of_a_tenth_of_a_second_is_one_window() -> None:
    assert spans(file_of(noise(0.1))) == [(0.0, 0.1)]


def test_recording_of_one_sample_is_one_window() -> None:
    assert len(spans(file_of(noise(1 / 8_000)))) == 1


def test_overlapping_windows_leave_out_a_tail_that_is_already_covered() -> None:
    half = AudioWindowing(sample_rate=8_000, window_s=10.0, hop_s=5.0)
    assert spans(file_of(noise(20)), half) == [(0.0, 10.0), (5.0, 15.0), (10.0, 20.0)]
    assert spans(file_of(noise(21)), half)[-1] == (15.0, 21.0)
    assert spans(file_of(noise(7)), half) == [(0.0, 7.0)]


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 3_000), window=st.integers(1, 500), hop=st.integers(1, 500))
def test_windows_cover_the_recording_exactly(length: int, window: int, hop: int) -> None:
    hop = min(hop, window)
    rate = 1_000
    samples = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
    cutting = AudioWindowing(rate, window / rate, hop / rate)
    covered = np.zeros(length, dtype=int)
    previous_end = 0
    for i, got in enumerate(windows(file_of(samples, rate, subtype="FLOAT"), cutting, name="r")):
        start, end = round(got.start_s * rate), round(got.end_s * rate)
        assert start == i * hop
        assert previous_end < end <= min(length, start + window)
        covered[start:end] += 1
        np.testing.assert_array_equal(got.samples, np.resize(samples[start:end], window))
        previous_end = end
    assert covered.all()


@settings(max_examples=25, deadline=None)
@example(length=1, rate=44_100)  # less than half a sample of the target rate
@example(length=1, rate=4_000)
@given(length=st.integers(1, 40_000), rate=st.sampled_from([4_000, 11_025, 44_100, 250_000]))
def test_resampling_keeps_time(length: int, rate: int) -> None:
    samples = np.random.default_rng(length).uniform(-1, 1, length).astype(np.float32)
    cut = list(windows(file_of(samples, rate), AudioWindowing(8_000, 0.5, 0.5), name="r"))
    assert cut[-1].end_s == pytest.approx(length / rate, abs=1 / 8_000)
    assert len(cut) == max(1, int(np.ceil(round(length * 8_000 / rate) / 4_000)))


def test_resampled_tone_stays_where_it_is_in_frequency_and_time() -> None:
    at = np.arange(44_100 * 20) / 44_100
    tone = np.where(at < 10, np.sin(2 * np.pi * 1_000 * at), 0).astype(np.float32) * 0.5
    loud, quiet = windows(file_of(tone, 44_100), TEN_SECONDS, name="tone")
    assert np.argmax(np.abs(np.fft.rfft(loud.samples))) / 10 == pytest.approx(1_000, abs=0.2)
    assert np.abs(quiet.samples[200:]).max() < 1e-3
    expected = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(80_000) / 8_000)
    assert np.abs(loud.samples[500:-500] - expected[500:-500]).max() < 2e-3


def test_same_recording_twice_gives_the_same_bits() -> None:
    data = file_of(noise(31, 44_100, 2), 44_100)
    for one, other in zip(
        windows(data, TEN_SECONDS, name="r"), windows(data, TEN_SECONDS, name="r"), strict=True
    ):
        assert one.samples.tobytes() == other.samples.tobytes()


def test_eight_channels_are_mixed() -> None:
    samples = noise(1, channels=8)
    (window,) = windows(file_of(samples, subtype="FLOAT"), TEN_SECONDS, name="array")
    np.testing.assert_allclose(window.samples[:8_000], samples.mean(axis=1), atol=1e-6)


def test_values_beyond_full_scale_are_clipped() -> None:
    samples = np.array([[3.0], [-7.0], [0.25]], dtype=np.float32)
    (window,) = windows(file_of(samples, subtype="FLOAT"), TEN_SECONDS, name="loud")
    assert window.samples[:3].tolist() == [1.0, -1.0, 0.25]


def test_silent_recording_is_fine() -> None:
    (window,) = windows(file_of(np.zeros(8_000)), TEN_SECONDS, name="silence")
    assert not window.samples.any()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_recording_without_samples_is_refused(kind: str) -> None:
    data = file_of(np.zeros(0), kind=kind)
    with pytest.raises(UnreadableMediaError, match=r"empty\.wav"):
        list(windows(data, TEN_SECONDS, name="empty.wav"))


def test_empty_file_is_refused() -> None:
    with pytest.raises(UnreadableMediaError, match="0 bytes"):
        list(windows(b"", TEN_SECONDS, name="nothing.wav"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_sample_that_is_no_number_is_refused_with_its_time(bad: float) -> None:
    samples = noise(13)
    samples[100_000] = bad
    with pytest.raises(UnreadableMediaError, match=r"float\.wav.*12\.500 s"):
        list(windows(file_of(samples, subtype="FLOAT"), TEN_SECONDS, name="float.wav"))


def test_text_file_named_wav_is_refused_with_the_list() -> None:
    with pytest.raises(UnsupportedMediaError, match=r"notes\.wav.*WAV, FLAC, OGG, MP3"):
        list(windows(b"Dear diary, today I heard a bittern.", TEN_SECONDS, name="notes.wav"))


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF", "W64"])
def test_format_not_on_the_list_never_reaches_a_decoder(kind: str) -> None:
    with pytest.raises(UnsupportedMediaError):
        list(windows(file_of(noise(1), kind=kind), TEN_SECONDS, name="recording"))


@pytest.mark.parametrize("kind", ["WAV", "RF64", "FLAC", "OGG", "MP3"])
def test_recording_that_was_cut_short_is_refused(kind: str) -> None:
    data = file_of(noise(30), kind=kind)
    with pytest.raises(UnreadableMediaError, match=r"cut\.wav"):
        list(windows(data[: len(data) // 2], TEN_SECONDS, name="cut.wav"))


def with_data_size(data: bytes, size: int) -> bytes:
    at = data.index(b"data") + 4
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


def test_header_that_claims_too_many_samples_is_refused_with_both_numbers() -> None:
    data = with_data_size(file_of(noise(1)), 999_999)
    with pytest.raises(UnreadableMediaError, match=r"claims 999999 bytes.*has 16000"):
        list(windows(data, TEN_SECONDS, name="lie.wav"))


@pytest.mark.parametrize("claimed", [0, 4_000])
def test_header_that_claims_too_few_samples_is_refused(claimed: int) -> None:
    data = with_data_size(file_of(noise(1)), claimed)
    with pytest.raises(UnreadableMediaError, match=rf"claims {claimed} bytes.*belong to no chunk"):
        list(windows(data, TEN_SECONDS, name="lie.wav"))


def test_header_of_a_stream_means_until_the_end_of_the_file() -> None:
    assert spans(with_data_size(file_of(noise(1)), 0xFFFFFFFF)) == [(0.0, 1.0)]


def test_chunks_and_zeros_after_the_samples_are_fine() -> None:
    data = file_of(noise(1))
    assert spans(data + b"LIST" + struct.pack("<I", 4) + b"INFO") == [(0.0, 1.0)]
    assert spans(data + bytes(100)) == [(0.0, 1.0)]


@pytest.mark.parametrize("field", ["channels", "rate", "both"])
def test_header_with_impossible_numbers_is_refused(field: str) -> None:
    data = bytearray(file_of(noise(1)))
    at = data.index(b"fmt ") + 8
    if field in ("channels", "both"):
        data[at + 2 : at + 4] = struct.pack("<H", 0)
    if field in ("rate", "both"):
        data[at + 4 : at + 8] = struct.pack("<I", 0)
    with pytest.raises(MediaError, match=r"lie\.wav"):
        list(windows(bytes(data), TEN_SECONDS, name="lie.wav"))


def test_too_many_channels_are_refused() -> None:
    with pytest.raises(UnsupportedMediaError, match="8 channels, at most 4"):
        list(
            windows(
                file_of(noise(1, channels=8)),
                TEN_SECONDS,
                name="array",
                limits=AudioLimits(max_channels=4),
            )
        )


@pytest.mark.parametrize("rate", [999, 1_000_001])
def test_sample_rate_out_of_range_is_refused(rate: int) -> None:
    with pytest.raises(UnsupportedMediaError, match=f"{rate} Hz"):
        list(windows(file_of(noise(0.01), rate), TEN_SECONDS, name="odd"))


def test_too_long_a_recording_is_refused() -> None:
    limits = AudioLimits(max_duration_s=5)
    with pytest.raises(MediaTooLargeError, match=r"long\.wav: 6 seconds.*limit is 5"):
        list(windows(file_of(noise(6)), TEN_SECONDS, name="long.wav", limits=limits))


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(MediaTooLargeError, match="limit for a recording is 100"):
        list(windows(file_of(noise(1)), TEN_SECONDS, name="big", limits=AudioLimits(max_bytes=100)))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"gone\.wav"):
        list(windows(tmp_path / "gone.wav", TEN_SECONDS, name="gone.wav"))


def test_folder_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(UnreadableMediaError, match="not a regular file"):
        list(windows(tmp_path, TEN_SECONDS, name="folder"))


@pytest.mark.parametrize(
    "windowing",
    [
        AudioWindowing(0, 1.0, 1.0),
        AudioWindowing(8_000, 0.0, 1.0),
        AudioWindowing(8_000, 1.0, -1.0),
        AudioWindowing(8_000, float("inf"), 1.0),
        AudioWindowing(8_000, 1.0, float("nan")),
    ],
)
def test_windowing_that_cannot_be_is_refused(windowing: AudioWindowing) -> None:
    with pytest.raises(InvalidInputError, match="windowing"):
        list(windows(file_of(noise(1)), windowing, name="recording"))


def test_an_hour_is_never_whole_in_memory(tmp_path: Path) -> None:
    rate, seconds = 8_000, 3_600
    path = tmp_path / "night.flac"
    minute = (noise(60, rate)[:, 0] * 1_000).astype(np.int16)
    with soundfile.SoundFile(path, "w", rate, 1, format="FLAC") as sound:
        for _ in range(seconds // 60):
            sound.write(minute)
    tracemalloc.start()
    count = sum(1 for _ in windows(path, TEN_SECONDS, name="night.flac"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == seconds // 10
    assert peak < 20e6  # the whole recording is 115 MB as float32


def test_first_windows_do_not_wait_for_the_last() -> None:
    samples = noise(600)
    samples[599 * 8_000] = np.nan
    late = windows(file_of(samples, subtype="FLOAT"), TEN_SECONDS, name="r")
    assert len(list(islice(late, 50))) == 50
    with pytest.raises(UnreadableMediaError, match=r"599\.000 s"):
        list(late)


@settings(deadline=None)
@given(
    junk=st.binary(max_size=40),
    kind=st.sampled_from(["WAV", "FLAC", "OGG", "RF64"]),
    at=st.integers(0, 300),
)
def test_damaged_bytes_raise_nothing_but_our_errors(junk: bytes, kind: str, at: int) -> None:
    whole = file_of(noise(0.05), kind=kind)
    at = min(at, len(whole))
    data = whole[:at] + junk + whole[at + len(junk) :]
    with contextlib.suppress(MediaError):
        for window in windows(data, AudioWindowing(8_000, 0.5, 0.5), name="fuzz"):
            assert np.isfinite(window.samples).all()
