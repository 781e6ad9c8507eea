"""CLAP checkpoints in the hub's layout: what they embed, and that nothing is random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bittern.encoders.base import AudioWindowing, Encoder, Modality
from bittern.encoders.clap import ClapEncoder
from bittern.errors import (
    InvalidInputError,
    ModelDamagedError,
    QueryError,
    UnsupportedModalityError,
)
from tests.encoders import tiny

SAMPLES = 8_000


def clips(n: int) -> list[NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    return list(rng.uniform(-0.5, 0.5, (n, SAMPLES)).astype(np.float32))


def load(folder: Path, **options: Any) -> ClapEncoder:
    return ClapEncoder(folder, name="tiny-clap", device="cpu", **options)


def test_it_is_an_encoder_of_texts_and_sounds(clap: ClapEncoder) -> None:
    assert isinstance(clap, Encoder)
    assert clap.modalities == {Modality.TEXT, Modality.AUDIO}
    assert clap.dim == tiny.CLAP_DIM
    assert clap.windowing == AudioWindowing(sample_rate=4_000, window_s=2.0, hop_s=2.0)


def test_embeddings_are_unit_float32_rows(clap: ClapEncoder) -> None:
    for modality, batch in ((Modality.TEXT, ["owl", "a frog"]), (Modality.AUDIO, clips(2))):
        rows = clap.encode(modality, batch)
        assert rows.dtype == np.float32
        assert rows.shape == (2, clap.dim)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_empty_batch_gives_no_rows(clap: ClapEncoder) -> None:
    assert clap.encode(Modality.TEXT, []).shape == (0, clap.dim)
    assert clap.encode(Modality.AUDIO, []).shape == (0, clap.dim)


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


def test_batch_size_hardly_changes_embeddings(clap_folder: Path) -> None:
    texts = ["owl", "a photo of a tawny owl", "the croak of a common frog at night"] * 5
    encoders = [load(clap_folder, batch_size=size) for size in (1, 4, 64)]
    for modality, items in ((Modality.AUDIO, clips(15)), (Modality.TEXT, texts)):
        alone, some, all_at_once = (e.encode(modality, items) for e in encoders)
        assert np.abs(alone - some).max() < 1e-6
        assert np.abs(alone - all_at_once).max() < 1e-6


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


def test_picture_is_refused(clap: ClapEncoder) -> None:
    with pytest.raises(UnsupportedModalityError, match="text and audio"):
        clap.encode(Modality.IMAGE, [np.zeros((4, 4, 3), dtype=np.uint8)])


def test_digests_are_per_tower_and_of_the_content(tmp_path: Path, clap: ClapEncoder) -> None:
    assert load(tiny.write_clap(tmp_path / "same")).digests == clap.digests
    folder = tiny.write_clap(tmp_path / "other")
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "frequency_max": 1_500}))
    other = load(folder).digests
    assert other[Modality.TEXT] == clap.digests[Modality.TEXT]
    assert other[Modality.AUDIO] != clap.digests[Modality.AUDIO]


def test_weights_saved_by_pytorch_are_read(tmp_path: Path, clap: ClapEncoder) -> None:
    pickled = load(tiny.write_clap(tmp_path, pickled=True))
    batch = clips(2)
    np.testing.assert_array_equal(
        pickled.encode(Modality.AUDIO, batch), clap.encode(Modality.AUDIO, batch)
    )


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    path = tiny.write_clap(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(ModelDamagedError, match=r"model\.safetensors.*download it again"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["text_config"].update(num_hidden_layers=3), "missing"),
        (lambda c: c["text_config"].update(num_hidden_layers=1), "unknown"),
        (lambda c: c.update(projection_dim=8), "of another shape"),
        (lambda c: c.update(model_type="clip"), "not 'clap'"),
        (lambda c: c["audio_config"].update(depths="deep"), "no towers"),
    ],
)
def test_configuration_that_does_not_fit_is_refused(
    tmp_path: Path, change: Any, reason: str
) -> None:
    path = tiny.write_clap(tmp_path) / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    with pytest.raises(ModelDamagedError, match=reason):
        load(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_missing_file_is_named(tmp_path: Path, file: str) -> None:
    (tiny.write_clap(tmp_path) / file).unlink()
    with pytest.raises(ModelDamagedError, match=file.replace(".", r"\.")):
        load(tmp_path)


def test_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    for path in tiny.write_clap(tmp_path).glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelDamagedError, match="no tokenizer"):
        load(tmp_path)


def test_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tiny.write_clap(tmp_path) / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["bittern"] = len(tokenizer["model"]["vocab"])
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelDamagedError, match="not of the same model"):
        load(tmp_path)


def test_gradients_reach_the_towers(clap_folder: Path) -> None:
    encoder = load(clap_folder)
    encoder.module.requires_grad_(True)
    inputs = encoder.prepare(Modality.AUDIO, clips(2))
    weights = [p for n, p in encoder.module.named_parameters() if n.startswith("audio_model.")]
    grads = torch.autograd.grad(
        encoder.embed(Modality.AUDIO, inputs).sum(), weights, allow_unused=True
    )
    assert any(g is not None and g.abs().sum() > 0 for g in grads)
