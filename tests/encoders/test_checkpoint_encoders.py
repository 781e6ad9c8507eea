"""What encoders of every checkpoint layout have in common: what they embed, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bittern.encoders.base import AudioWindowing, Encoder, Media, Modality
from bittern.encoders.clap import ClapEncoder
from bittern.encoders.openclip import OpenClipEncoder
from bittern.errors import ModelDamagedError, UnsupportedModalityError
from tests.encoders import tiny

TEXTS: list[Media] = [f"a photo of owl number {i}" for i in range(13)]


def pictures() -> list[Media]:
    return list(np.random.default_rng(0).integers(0, 256, (13, 40, 60, 3), dtype=np.uint8))


def sounds() -> list[Media]:
    rng = np.random.default_rng(0)
    return list(rng.uniform(-0.5, 0.5, (13, 8_000)).astype(np.float32))


@dataclass(frozen=True)
class Layout:
    kind: Any
    write: Callable[..., Path]
    modality: Modality
    media: Callable[[], list[Media]]
    dim: int
    windowing: AudioWindowing | None
    config: str
    tower: str

    def load(self, folder: Path, **options: Any) -> Any:
        return self.kind(folder, name="tiny", device="cpu", **options)

    def batches(self) -> list[tuple[Modality, list[Media]]]:
        return [(Modality.TEXT, TEXTS), (self.modality, self.media())]


OPENCLIP = Layout(
    OpenClipEncoder, tiny.write_openclip, Modality.IMAGE, pictures, tiny.OPENCLIP_DIM, None,
    "open_clip_config.json", "visual.",
)  # fmt: skip
CLAP = Layout(
    ClapEncoder, tiny.write_clap, Modality.AUDIO, sounds, tiny.CLAP_DIM,
    AudioWindowing(sample_rate=4_000, window_s=2.0, hop_s=2.0), "config.json", "audio_model.",
)  # fmt: skip


@pytest.fixture(params=[OPENCLIP, CLAP], ids=["openclip", "clap"])
def layout(request: pytest.FixtureRequest) -> Layout:
    chosen: Layout = request.param
    return chosen


@pytest.fixture
def encoder(layout: Layout, openclip: OpenClipEncoder, clap: ClapEncoder) -> Any:
    return openclip if layout is OPENCLIP else clap


def weights(folder: Path) -> Path:
    return next(p for p in folder.iterdir() if p.suffix in (".safetensors", ".bin"))


def test_it_is_an_encoder_of_texts_and_its_media(layout: Layout, encoder: Any) -> None:
    assert isinstance(encoder, Encoder)
    assert encoder.modalities == {Modality.TEXT, layout.modality}
    assert encoder.dim == layout.dim
    assert encoder.windowing == layout.windowing


def test_embeddings_are_unit_float32_rows(layout: Layout, encoder: Any) -> None:
    for modality, batch in layout.batches():
        rows = encoder.encode(modality, batch[:2])
        assert rows.dtype == np.float32
        assert rows.shape == (2, layout.dim)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        assert encoder.encode(modality, []).shape == (0, layout.dim)


def test_batch_size_hardly_changes_embeddings(layout: Layout, tmp_path: Path) -> None:
    folder = layout.write(tmp_path)
    encoders = [layout.load(folder, batch_size=size) for size in (1, 5, 64)]
    for modality, batch in layout.batches():
        alone, some, all_at_once = (e.encode(modality, batch) for e in encoders)
        assert np.abs(alone - some).max() < 1e-6
        assert np.abs(alone - all_at_once).max() < 1e-6


def test_media_without_a_tower_are_refused(layout: Layout, encoder: Any) -> None:
    (other,) = set(Modality) - encoder.modalities
    with pytest.raises(UnsupportedModalityError, match=f"text and {layout.modality}"):
        encoder.encode(other, layout.media())


def test_weights_saved_by_pytorch_are_read(layout: Layout, encoder: Any, tmp_path: Path) -> None:
    pickled = layout.load(layout.write(tmp_path, pickled=True))
    assert weights(tmp_path).suffix == ".bin"
    for modality, batch in layout.batches():
        np.testing.assert_array_equal(
            pickled.encode(modality, batch), encoder.encode(modality, batch)
        )


@pytest.mark.parametrize("pickled", [False, True])
def test_truncated_weights_are_refused(layout: Layout, tmp_path: Path, pickled: bool) -> None:
    path = weights(layout.write(tmp_path, pickled=pickled))
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(ModelDamagedError, match=rf"{path.name}.*download it again"):
        layout.load(tmp_path)


def test_a_missing_file_is_named(layout: Layout, tmp_path: Path) -> None:
    layout.write(tmp_path)
    for path in (weights(tmp_path), tmp_path / layout.config):
        path.unlink()
        with pytest.raises(ModelDamagedError, match=path.name.replace(".", r"\.")):
            layout.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '"text"', "[" * 100_000])
def test_configuration_that_is_no_object_is_refused(
    layout: Layout, tmp_path: Path, content: str
) -> None:
    (layout.write(tmp_path) / layout.config).write_text(content)
    with pytest.raises(ModelDamagedError, match=layout.config.replace(".", r"\.")):
        layout.load(tmp_path)


@pytest.mark.parametrize(
    ("layout", "change", "reason"),
    [
        (OPENCLIP, lambda c: c["model_cfg"]["vision_cfg"].update(layers=3), "missing"),
        (OPENCLIP, lambda c: c["model_cfg"]["vision_cfg"].update(layers=1), "unknown"),
        (OPENCLIP, lambda c: c["model_cfg"]["vision_cfg"].update(image_size=64), "another shape"),
        (OPENCLIP, lambda c: c["model_cfg"]["text_cfg"].update(vocab_size=100), "another shape"),
        (OPENCLIP, lambda c: c["model_cfg"]["vision_cfg"].update(width="wide"), "no towers"),
        (OPENCLIP, lambda c: c["model_cfg"]["vision_cfg"].update(colour="blue"), "no towers"),
        (OPENCLIP, lambda c: c["model_cfg"].pop("text_cfg"), "text_cfg"),
        (OPENCLIP, lambda c: c["model_cfg"].pop("embed_dim"), "embed_dim"),
        (OPENCLIP, lambda c: c.pop("model_cfg"), "model_cfg"),
        (OPENCLIP, lambda c: c["preprocess_cfg"].update(interpolation="magic"), "preprocessing"),
        (OPENCLIP, lambda c: c["model_cfg"]["text_cfg"].update(hf_model_name="x"), "hf_model_name"),
        (OPENCLIP, lambda c: c["model_cfg"]["vision_cfg"].update(timm_model_name="x"), "timm_mod"),
        (CLAP, lambda c: c["text_config"].update(num_hidden_layers=3), "missing"),
        (CLAP, lambda c: c["text_config"].update(num_hidden_layers=1), "unknown"),
        (CLAP, lambda c: c.update(projection_dim=8), "of another shape"),
        (CLAP, lambda c: c.update(model_type="clip"), "not 'clap'"),
        (CLAP, lambda c: c["audio_config"].update(depths="deep"), "no towers"),
    ],
)
def test_configuration_that_does_not_fit_is_refused(
    layout: Layout, tmp_path: Path, change: Any, reason: str
) -> None:
    path = layout.write(tmp_path) / layout.config
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))
    with pytest.raises(ModelDamagedError, match=reason):
        layout.load(tmp_path)


@pytest.mark.parametrize(
    ("layout", "write"),
    [(OPENCLIP, tiny.write_openclip_with_hub_tokenizer), (CLAP, tiny.write_clap)],
)
def test_a_missing_tokenizer_is_refused(
    layout: Layout, write: Callable[[Path], Path], tmp_path: Path
) -> None:
    for path in write(tmp_path).glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelDamagedError, match="no tokenizer"):
        layout.load(tmp_path)


def test_gradients_reach_the_towers(layout: Layout, tmp_path: Path) -> None:
    encoder = layout.load(layout.write(tmp_path))
    encoder.module.requires_grad_(True)
    inputs = encoder.prepare(layout.modality, layout.media()[:2])
    named = encoder.module.named_parameters()
    own = [parameter for name, parameter in named if name.startswith(layout.tower)]
    embedded = encoder.embed(layout.modality, inputs)
    grads = torch.autograd.grad(embedded.sum(), own, allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in grads)
