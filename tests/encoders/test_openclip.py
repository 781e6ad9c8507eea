"""open_clip checkpoints in the hub's layout: what they embed, and which are refused."""

from __future__ import annotations

import contextlib
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bittern.encoders.base import Modality
from bittern.encoders.openclip import OpenClipEncoder, without_extremes
from bittern.errors import (
    InvalidInputError,
    ModelDamagedError,
    PreconditionError,
    QueryError,
)
from tests.encoders import tiny


def pictures(n: int, height: int = 40, width: int = 60) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8))


def load(folder: Path, **options: Any) -> OpenClipEncoder:
    return OpenClipEncoder(folder, name="tiny-clip", device="cpu", **options)


def edit(folder: Path, change: Any) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_embeddings_are_those_of_open_clip_itself(openclip_folder: Path) -> None:
    import open_clip
    from PIL import Image

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{openclip_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{openclip_folder}")(["a tawny owl"])
    (picture,) = pictures(1)
    with torch.inference_mode():
        text = model.eval().encode_text(tokens, normalize=True).numpy()
        image = model.encode_image(
            transform(Image.fromarray(picture))[None], normalize=True
        ).numpy()
    ours = load(openclip_folder)
    np.testing.assert_allclose(ours.encode(Modality.TEXT, ["a tawny owl"]), text, atol=1e-6)
    np.testing.assert_allclose(ours.encode(Modality.IMAGE, [picture]), image, atol=1e-6)


@pytest.mark.parametrize("resize_mode", ["squash", "longest"])
def test_preprocessing_is_the_checkpoints(tmp_path: Path, resize_mode: str) -> None:
    plain = load(tiny.write_openclip(tmp_path / "plain"))
    folder = tiny.write_openclip(tmp_path / "other")
    edit(folder, lambda c: c["preprocess_cfg"].update(resize_mode=resize_mode, mean=[0.5] * 3))
    other = load(folder)
    assert plain.digests[Modality.IMAGE] != other.digests[Modality.IMAGE]
    assert plain.digests[Modality.TEXT] == other.digests[Modality.TEXT]
    batch = pictures(1, 20, 90)
    assert not np.allclose(
        plain.encode(Modality.IMAGE, batch), other.encode(Modality.IMAGE, batch), atol=1e-4
    )


def test_threads_share_an_encoder(openclip: OpenClipEncoder) -> None:
    texts = [f"owl {i}" for i in range(16)]
    expected = openclip.encode(Modality.TEXT, texts)
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda t: openclip.encode(Modality.TEXT, [t])[0], texts))
    np.testing.assert_allclose(rows, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5_000), (5_000, 1), (300, 7)])
def test_pictures_of_any_shape_are_embedded(
    openclip: OpenClipEncoder, shape: tuple[int, int]
) -> None:
    (row,) = openclip.encode(Modality.IMAGE, pictures(1, *shape))
    assert np.isfinite(row).all()


def test_very_long_picture_is_cropped_to_its_middle_before_it_is_scaled() -> None:
    image = np.zeros((2, 1_000, 3), dtype=np.uint8)
    image[:, 495:505] = 255
    cropped = without_extremes(image)
    assert cropped.shape == (2, 16, 3)
    assert (cropped == 255).all(axis=(0, 2)).tolist() == [False] * 3 + [True] * 10 + [False] * 3
    assert without_extremes(np.zeros((80, 10, 3), dtype=np.uint8)).shape == (80, 10, 3)


def test_no_extreme_shape_reaches_the_preprocessing(
    openclip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, seen = load(openclip_folder), []
    original = encoder._preprocess

    def spy(picture: Any) -> torch.Tensor:
        seen.append(picture.size)
        result: torch.Tensor = original(picture)
        return result

    monkeypatch.setattr(encoder, "_preprocess", spy)
    encoder.prepare(Modality.IMAGE, pictures(1, 1, 50_000))
    assert seen == [(8, 1)]


def test_text_longer_than_the_tower_takes_is_refused_with_both_counts(
    openclip: OpenClipEncoder,
) -> None:
    openclip.encode(Modality.TEXT, ["owl " * 75])
    with pytest.raises(QueryError, match=r"78 tokens.*takes 77") as caught:
        openclip.encode(Modality.TEXT, ["owl", "owl " * 76])
    assert caught.value.details == {"tokens": "78", "limit": "77"}


def test_control_token_inside_a_text_is_refused(openclip: OpenClipEncoder) -> None:
    with pytest.raises(QueryError, match="control token"):
        openclip.encode(Modality.TEXT, ["an owl<end_of_text>and a frog"])


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text_is_refused(openclip: OpenClipEncoder, text: str) -> None:
    with pytest.raises(QueryError, match="text 1 is empty"):
        openclip.encode(Modality.TEXT, ["owl", text])


@pytest.mark.parametrize(
    "item",
    [
        np.zeros((4, 4, 3), dtype=np.float32),
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((0, 4, 3), dtype=np.uint8),
        "a path.jpg",
        None,
    ],
)
def test_item_that_is_no_picture_is_refused(openclip: OpenClipEncoder, item: Any) -> None:
    with pytest.raises(InvalidInputError, match="item 1 must be a picture"):
        openclip.encode(Modality.IMAGE, [*pictures(1), item])


def test_hub_tokenizer_beside_the_weights_is_used(tmp_path: Path) -> None:
    folder = tiny.write_openclip_with_hub_tokenizer(tmp_path)
    encoder = load(folder)
    assert encoder.context_length == 16
    one, other = encoder.encode(Modality.TEXT, ["tawny owl", "common frog"])
    assert not np.allclose(one, other, atol=1e-4)
    with pytest.raises(QueryError, match="takes 16"):
        encoder.encode(Modality.TEXT, ["tawny owl " * 20])


def test_digest_of_a_tower_changes_with_its_tokenizer(tmp_path: Path) -> None:
    folder = tiny.write_openclip_with_hub_tokenizer(tmp_path)
    before = load(folder).digests
    path = folder / "tokenizer_config.json"
    path.write_text(path.read_text() + " ")
    after = load(folder).digests
    assert before[Modality.TEXT] != after[Modality.TEXT]
    assert before[Modality.IMAGE] == after[Modality.IMAGE]


def test_digests_depend_on_the_content_not_on_the_folder(tmp_path: Path) -> None:
    one, same, other = (
        load(tiny.write_openclip(tmp_path / str(i), seed=seed)).digests
        for i, seed in enumerate((0, 0, 1))
    )
    assert one == same
    assert one[Modality.TEXT] != one[Modality.IMAGE]
    assert all(one[m] != other[m] for m in one)


def test_weights_that_would_run_code_are_refused_and_do_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    folder = tiny.write_openclip(tmp_path / "model")
    (folder / "open_clip_model.safetensors").unlink()
    (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ModelDamagedError, match=r"open_clip_pytorch_model\.bin"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_missing_tensor_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tiny.write_openclip(tmp_path) / "open_clip_model.safetensors"
    tensors = load_file(path)
    del tensors["visual.proj"]
    save_file(tensors, path)
    with pytest.raises(ModelDamagedError, match=r"1 missing \(visual\.proj\)"):
        load(tmp_path)


def test_configuration_cannot_run_code_or_add_randomness(tmp_path: Path) -> None:
    folder = tiny.write_openclip(tmp_path / "a", tokenizer_kwargs={"reduction_mask": "syntax"})
    encoder = load(folder)
    np.testing.assert_array_equal(
        encoder.encode(Modality.TEXT, ["owl"]), encoder.encode(Modality.TEXT, ["owl"])
    )
    folder = tiny.write_openclip_with_hub_tokenizer(tmp_path / "b")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass T: pass\n")
    edit(
        folder,
        lambda c: c["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"trust_remote_code": True}),
    )
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["evil.T", "evil.T"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with contextlib.suppress(ModelDamagedError):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_weights_with_nan_are_noticed(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tiny.write_openclip(tmp_path) / "open_clip_model.safetensors"
    tensors = load_file(path)
    tensors["visual.proj"][:] = float("nan")
    save_file(tensors, path)
    with pytest.raises(ModelDamagedError, match="NaN"):
        load(tmp_path).encode(Modality.IMAGE, pictures(1))


def test_an_unknown_device_is_refused(openclip_folder: Path) -> None:
    with pytest.raises(PreconditionError, match="cuda:97"):
        OpenClipEncoder(openclip_folder, name="tiny-clip", device="cuda:97")
    with pytest.raises(PreconditionError, match="abacus"):
        OpenClipEncoder(openclip_folder, name="tiny-clip", device="abacus")


def test_half_precision_stays_close_to_full(openclip_folder: Path) -> None:
    batch = pictures(4)
    full = load(openclip_folder).encode(Modality.IMAGE, batch)
    half = load(openclip_folder, precision="bf16").encode(Modality.IMAGE, batch)
    assert half.dtype == np.float32
    assert (full * half).sum(axis=1).min() > 0.99
