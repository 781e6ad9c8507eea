"""CLAP checkpoints in the hub's layout: what they embed, and that nothing is random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bittern.encoders.base import Modality
from bittern.encoders.clap import ClapEncoder
from bittern.errors import (
    InvalidInputError,
    ModelDamagedError,
    QueryError,
)
from tests.encoders import tiny

SAMPLES = 8_000


def clips(n: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return list(rng.uniform(-0.5, 0.5, (n, SAMPLES)).astype(np.float32))


def load(folder: Path, **options: Any) -> ClapEncoder:
    return ClapEncoder(folder, name="tiny-clap", device="cpu", **options)


def test_embeddings_are_those_of_transformers_itself(clap: ClapEncoder, clap_folder: Path) -> None:
    from transformers import ClapModel, ClapProcessor

    model = ClapModel.from_pretrained(clap_folder).eval()
    processor = ClapProcessor.from_pretrained(clap_folder)
    (clip,) = clips(1)
    with torch.inference_mode():
        sound = model.get_audio_features(
            **processor(audio=clip, sampling_rate=4_000, return_tensors="pt")
        ).pooler_output
        text = model.get_text_features(
            **processor(text=["a tawny owl"], return_tensors="pt")
        ).pooler_output
    np.testing.assert_allclose(clap.encode(Modality.AUDIO, [clip]), sound.numpy(), atol=1e-6)
    np.testing.assert_allclose(clap.encode(Modality.TEXT, ["a tawny owl"]), text.numpy(), atol=1e-6)


@pytest.mark.parametrize("fusion", [False, True])
def test_same_clips_twice_give_the_same_bits(tmp_path: Path, fusion: bool) -> None:
    encoder = load(tiny.write_clap(tmp_path, fusion=fusion))
    batch = clips(6)
    first = encoder.encode(Modality.AUDIO, batch)
    np.random.seed(1)
    for _ in range(4):
        assert encoder.encode(Modality.AUDIO, batch).tobytes() == first.tobytes()


@pytest.mark.parametrize(
    "item",
    [
        np.zeros(SAMPLES - 1, dtype=np.float32),
        np.zeros(SAMPLES + 1, dtype=np.float32),
        np.zeros(SAMPLES, dtype=np.float64),
        np.zeros((1, SAMPLES), dtype=np.float32),
        b"RIFF",
    ],
)
def test_anything_but_one_window_is_refused(clap: ClapEncoder, item: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"item 1 must be one window.*8000"):
        clap.encode(Modality.AUDIO, [*clips(1), item])


def test_window_that_holds_nan_is_refused(clap: ClapEncoder) -> None:
    broken = clips(1)[0]
    broken[7] = np.nan
    with pytest.raises(InvalidInputError, match="window 0 holds NaN"):
        clap.encode(Modality.AUDIO, [broken])


def test_silence_is_embedded(clap: ClapEncoder) -> None:
    (row,) = clap.encode(Modality.AUDIO, [np.zeros(SAMPLES, dtype=np.float32)])
    assert np.isfinite(row).all()


def test_text_longer_than_the_tower_takes_is_refused_with_both_counts(clap: ClapEncoder) -> None:
    assert clap.context_length == 40
    with pytest.raises(QueryError, match=r"tokens.*takes 40") as caught:
        clap.encode(Modality.TEXT, ["owl", "tawny owl " * 40])
    assert int(caught.value.details["tokens"]) > 40


def test_longest_text_that_fits_is_embedded(clap: ClapEncoder) -> None:
    clap.encode(Modality.TEXT, ["0" * 38])
    with pytest.raises(QueryError, match="41 tokens"):
        clap.encode(Modality.TEXT, ["0" * 39])


def test_digests_are_per_tower_and_of_the_content(tmp_path: Path, clap: ClapEncoder) -> None:
    assert load(tiny.write_clap(tmp_path / "same")).digests == clap.digests
    folder = tiny.write_clap(tmp_path / "other")
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "frequency_max": 1_500}))
    other = load(folder).digests
    assert other[Modality.TEXT] == clap.digests[Modality.TEXT]
    assert other[Modality.AUDIO] != clap.digests[Modality.AUDIO]


def test_missing_preprocessing_is_named(tmp_path: Path) -> None:
    (tiny.write_clap(tmp_path) / "preprocessor_config.json").unlink()
    with pytest.raises(ModelDamagedError, match=r"preprocessor_config\.json"):
        load(tmp_path)


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tiny.write_clap(tmp_path) / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["bittern"] = len(tokenizer["model"]["vocab"])
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelDamagedError, match="not of the same model"):
        load(tmp_path)
