"""Thumbnails and spectrograms, and the sentences that stand where there can be none."""

from __future__ import annotations

import base64
import dataclasses
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from bittern.benchmarks.eval.report import page as cards
from bittern.benchmarks.eval.report.media import LONGEST_SIDE, Shown, kind_of, shown
from bittern.benchmarks.eval.results import ShownHit, ShownQuery
from tests.eval.example_results import SAMPLE, example_results


def _picture(card: Shown) -> Image.Image:
    picture = Image.open(io.BytesIO(base64.b64decode(card.source.partition(",")[2])))
    assert picture.size == (card.width, card.height)
    return picture


def _recording(path: Path, samples: np.ndarray, rate: int = 16_000) -> str:
    soundfile.write(path, samples, rate, subtype="FLOAT", format="WAV")
    return str(path)


def test_a_photograph_becomes_a_small_jpeg() -> None:
    card = shown(str(SAMPLE / "images" / "alpaca-1.webp"), "image", "alpaca", None, None)

    assert card.source.startswith("data:image/jpeg;base64,")
    assert max(_picture(card).size) == LONGEST_SIDE
    assert len(card.source) < 40_000
    assert card.alt == "Photograph alpaca"


def test_the_spectrogram_is_of_the_window_that_was_found(tmp_path: Path) -> None:
    rate = 16_000
    time = np.arange(2 * rate) / rate
    low, high = (0.5 * np.sin(2 * np.pi * hertz * time) for hertz in (200, 6000))
    path = _recording(tmp_path / "a.wav", np.concatenate([low, high]))

    rows = []
    for start in (0.2, 2.2):
        card = shown(path, "audio", "a", start, start + 1.5)
        levels = np.asarray(_picture(card))
        rows.append(int(levels[:, levels.shape[1] // 2].argmax()))

    assert card.said == "2.2–3.7 s, up to 8.00 kHz"
    assert rows[0] > rows[1] + 40  # low sounds are drawn below high ones


def test_silence_is_dark(tmp_path: Path) -> None:
    card = shown(_recording(tmp_path / "a.wav", np.zeros(16_000)), "audio", "a", None, None)

    assert np.asarray(_picture(card)).max() == 0


def test_a_long_recording_is_drawn_for_ten_seconds(tmp_path: Path) -> None:
    path = _recording(tmp_path / "a.wav", np.zeros(30 * 2000), 2000)

    assert shown(path, "audio", "a", 5.0, None).said == "5.0–15.0 s, up to 1.00 kHz"


@pytest.mark.parametrize(
    ("start", "end"),
    [(5.0, 6.0), (-1.0, 1.0), (0.5, 0.2), (float("nan"), 1.0), (0.0, float("nan"))],
)
def test_a_window_that_is_not_there_is_said(tmp_path: Path, start: float, end: float) -> None:
    path = _recording(tmp_path / "a.wav", np.zeros(16_000))

    assert shown(path, "audio", "a", start, end).why_not == "The file is damaged."


def test_every_kind_of_unusable_file_has_its_sentence_without_a_path(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0" + b"\0" * 40)
    (tmp_path / "text.jpg").write_text("<script>")
    os.mkfifo(tmp_path / "pipe")
    said = {
        str(tmp_path / "none.jpg"): "The file is not there.",
        str(broken): "The file is damaged.",
        str(tmp_path / "text.jpg"): "The file is of a format that is not read.",
        str(tmp_path / "pipe"): "The file is damaged.",
        str(tmp_path): "The file is damaged.",
        "x" * 5000: "The file cannot be read.",
        "": "No file was named.",
    }
    for path, sentence in said.items():
        for modality in ("image", "audio"):
            card = shown(path, modality, "a", None, None)
            if path != str(broken):
                assert card.why_not == sentence, path
            assert card.source == ""
            assert str(tmp_path) not in card.why_not


def test_an_unknown_modality_is_said() -> None:
    assert "of this kind" in shown("x", "video", "a", None, None).why_not


def test_what_a_query_s_file_is_is_read_from_its_content(tmp_path: Path) -> None:
    path = _recording(tmp_path / "a.jpg", np.zeros(16_000))

    assert kind_of(path) == "audio"
    assert kind_of(str(SAMPLE / "images" / "alpaca-1.webp")) == "image"
    assert kind_of(str(tmp_path / "none")) == "image"


def test_a_page_shows_so_many_queries_hits_and_bytes_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query = example_results().shown[0]
    monkeypatch.setattr(cards, "MOST_QUERIES", 2)
    monkeypatch.setattr(cards, "MOST_HITS", 3)
    monkeypatch.setattr(cards, "MOST_MEDIA_BYTES", 30_000)

    text = cards.page(dataclasses.replace(example_results(), shown=[query] * 5), [])

    assert text.count('<details class="query"') == 2
    assert text.count('class="hit ') == 2 * 3
    assert "3 more queries are in results.json only" in text
    assert f"{len(query.hits) - 3} more hits are in results.json" in text
    assert sum(len(uri) for uri in re.findall(r"data:image/(?:jpeg|png)[^\"]+", text)) <= 30_000
    assert "room for pictures is used up" in text


def test_media_without_a_credit_say_that_it_is_missing() -> None:
    hit = dataclasses.replace(example_results().shown[0].hits[0], credit="  ")
    text = ShownHit(1, "t", True, 1.0, "text", "", text="words")
    query = ShownQuery("t", "q", "q", "", "s", 1.0, 1, [hit, text])

    shown = cards.page(dataclasses.replace(example_results(), shown=[query]), [])

    assert shown.count("Rights holder and licence are not in the metadata.") == 1
    assert shown.count('class="credit"') == 1
