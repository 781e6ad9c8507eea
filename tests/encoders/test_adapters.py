"""Adapters: they act on every projection, can be trained, and leave the tower alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bittern.encoders.adapters import Adapters, LoraSettings, attach
from bittern.encoders.attention import SplitAttention
from bittern.encoders.base import Media, Modality
from bittern.encoders.checkpoints import load_parameters
from bittern.encoders.clap import ClapEncoder
from bittern.encoders.openclip import OpenClipEncoder
from bittern.encoders.towers import TrainableTower
from bittern.errors import InvalidInputError, ModelDamagedError, PreconditionError
from tests.encoders import tiny

SETTINGS = LoraSettings(rank=4, alpha=8, dropout=0.5)
TOWERS = [
    ("openclip", Modality.TEXT),
    ("openclip", Modality.IMAGE),
    ("custom", Modality.TEXT),
    ("clap", Modality.TEXT),
    ("clap", Modality.AUDIO),
]


def load(layout: str, folders: dict[str, Path], **options: Any) -> Any:
    kind = ClapEncoder if layout == "clap" else OpenClipEncoder
    return kind(folders[layout], name=f"tiny-{layout}", device="cpu", **options)


def media(modality: Modality, n: int = 6) -> list[Media]:
    rng = np.random.default_rng(3)
    if modality is Modality.TEXT:
        return list((tiny.CORPUS * 2)[:n])
    if modality is Modality.IMAGE:
        return list(rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))
    return list(rng.uniform(-0.5, 0.5, (n, 8000)).astype(np.float32))


@pytest.fixture(scope="session")
def folders(
    openclip_folder: Path, clap_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    custom = tiny.write_openclip_custom_text(tmp_path_factory.mktemp("custom"))
    return {"openclip": openclip_folder, "clap": clap_folder, "custom": custom}


@pytest.fixture(params=TOWERS, ids=lambda tower: f"{tower[0]}-{tower[1]}")
def tower(request: pytest.FixtureRequest, folders: dict[str, Path]) -> TrainableTower:
    layout, modality = request.param
    encoder = load(layout, folders)
    return TrainableTower(encoder, modality, lora=SETTINGS, seed=1)


def adapters_of(tower: TrainableTower) -> Adapters:
    assert tower.adapters is not None
    return tower.adapters


def set_values(adapters: Adapters, values: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in adapters.named.items():
            parameter.copy_(values[name])


def randomise(adapters: Adapters) -> None:
    generator = torch.Generator().manual_seed(5)
    values = {n: 0.3 * torch.randn(p.shape, generator=generator) for n, p in adapters.named.items()}
    set_values(adapters, values)


def train(tower: TrainableTower, steps: int = 8) -> list[float]:
    """Pull every embedding towards a target of its own."""
    batch = media(tower.modality)
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(len(batch), tower.dim, generator=generator)
    target = torch.nn.functional.normalize(target, dim=-1)
    inputs = tower.prepare(batch)
    optimiser = torch.optim.AdamW(tower.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (1 - (tower(inputs) * target).sum(dim=-1)).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_fresh_adapters_add_nothing(tower: TrainableTower, folders: dict[str, Path]) -> None:
    batch = media(tower.modality)
    bare = load(tower.encoder.name.removeprefix("tiny-"), folders)
    expected = bare.encode(tower.modality, batch)
    np.testing.assert_allclose(tower.encode(batch), expected, atol=2e-6)


def test_adapters_change_the_embeddings(tower: TrainableTower) -> None:
    batch = media(tower.modality)
    before = tower.encode(batch)
    randomise(adapters_of(tower))
    assert np.abs(tower.encode(batch) - before).max() > 1e-3


def test_every_projection_of_every_block_has_an_adapter_that_acts(tower: TrainableTower) -> None:
    adapters = adapters_of(tower)
    randomise(adapters)
    values = {name: p.detach().clone() for name, p in adapters.named.items()}
    batch = media(tower.modality, n=5)
    whole = tower.encode(batch)
    outputs = [name for name in values if name.endswith(".B")]
    assert len(outputs) == 8  # two blocks of query, key, value and output
    for name in outputs:
        set_values(adapters, {**values, name: torch.zeros_like(values[name])})
        assert np.abs(tower.encode(batch) - whole).max() > 1e-5, f"{name} does not act"


@pytest.mark.parametrize("projection", ["q_proj", "k_proj", "v_proj", "out_proj"])
def test_fused_attention_equals_adding_the_product_to_its_weights(
    folders: dict[str, Path], projection: str
) -> None:
    encoder, merged = load("openclip", folders), load("openclip", folders)
    adapters = attach(encoder, Modality.IMAGE, SETTINGS, seed=1)
    values = {n: torch.zeros(p.shape) for n, p in adapters.named.items()}
    generator = torch.Generator().manual_seed(0)
    name = f"transformer.resblocks.0.attn.{projection}"
    for letter in "AB":
        values[f"{name}.{letter}"].normal_(0, 0.3, generator=generator)
    set_values(adapters, values)
    product = values[f"{name}.B"] @ values[f"{name}.A"] * 8 / 4
    attention = merged.module.visual.transformer.resblocks[0].attn
    if projection == "out_proj":
        attention.out_proj.weight += product
    else:
        row = 64 * ["q_proj", "k_proj", "v_proj"].index(projection)
        attention.in_proj_weight[row : row + 64] += product
    pictures = media(Modality.IMAGE)
    np.testing.assert_allclose(
        encoder.encode(Modality.IMAGE, pictures),
        merged.encode(Modality.IMAGE, pictures),
        atol=2e-6,
    )


def test_training_lowers_the_loss_and_does_not_change_the_tower(tower: TrainableTower) -> None:
    encoder: Any = tower.encoder

    def frozen() -> dict[str, torch.Tensor]:
        state = encoder.module.state_dict()
        return {name: value.clone() for name, value in state.items() if ".lora_" not in name}

    before = frozen()
    tower.train()
    losses = train(tower)
    assert np.mean(losses[-2:]) < losses[0] - 0.02, losses
    assert all(torch.equal(value, before[name]) for name, value in frozen().items())


def test_the_other_tower_is_not_touched(folders: dict[str, Path]) -> None:
    encoder = load("openclip", folders)
    pictures = media(Modality.IMAGE)
    before = encoder.encode(Modality.IMAGE, pictures)
    randomise(attach(encoder, Modality.TEXT, SETTINGS, seed=1))
    np.testing.assert_array_equal(encoder.encode(Modality.IMAGE, pictures), before)


def test_training_and_use_differ_in_the_adapters_dropout_only(tower: TrainableTower) -> None:
    inputs = tower.prepare(media(tower.modality))
    encoder: Any = tower.encoder

    def in_training() -> set[str]:
        return {name for name, module in encoder.module.named_modules() if module.training}

    randomise(adapters_of(tower))
    tower.train()
    assert in_training()
    assert all(".lora_dropout" in name for name in in_training())
    with torch.no_grad():
        assert not torch.equal(tower(inputs), tower(inputs))
    tower.eval()
    assert not in_training()
    with torch.no_grad():
        assert torch.equal(tower(inputs), tower(inputs))


def test_encoding_while_training_uses_no_dropout(tower: TrainableTower) -> None:
    randomise(adapters_of(tower))
    expected = tower.encode(media(tower.modality))
    tower.train()
    np.testing.assert_array_equal(tower.encode(media(tower.modality)), expected)
    assert tower.training


def test_gradients_reach_the_adapters_only_while_they_are_wanted(tower: TrainableTower) -> None:
    adapters = adapters_of(tower)
    randomise(adapters)
    inputs = tower.prepare(media(tower.modality))
    adapters.set_gradients(False)
    assert not tower(inputs).requires_grad
    adapters.set_gradients(True)
    tower(inputs)[:, 0].sum().backward()
    for name, parameter in adapters.named.items():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    encoder: Any = tower.encoder
    named = set(map(id, adapters.named.values()))
    assert all(p.grad is None for p in encoder.module.parameters() if id(p) not in named)


def test_saved_adapters_give_the_same_embeddings_bit_for_bit(
    tower: TrainableTower, folders: dict[str, Path]
) -> None:
    train(tower, steps=2)
    saved = tower.tensors()
    encoder = load(tower.encoder.name.removeprefix("tiny-"), folders)
    other = TrainableTower(encoder, tower.modality, lora=SETTINGS, seed=9)
    load_parameters("tiny", other.named(), saved)
    batch = media(tower.modality)
    np.testing.assert_array_equal(other.encode(batch), tower.encode(batch))


def test_tensors_are_small_float32_and_named_after_the_projections(
    folders: dict[str, Path],
) -> None:
    adapters = attach(load("clap", folders), Modality.TEXT, SETTINGS, seed=1)
    tensors = adapters.named
    assert sorted(tensors)[:2] == [
        "encoder.layer.0.attention.output.dense.A",
        "encoder.layer.0.attention.output.dense.B",
    ]
    assert tensors["encoder.layer.0.attention.self.query.A"].shape == (4, 32)
    assert {value.dtype for value in tensors.values()} == {torch.float32}


def test_the_same_seed_draws_the_same_adapters(folders: dict[str, Path]) -> None:
    first, again, other = (
        attach(load("openclip", folders), Modality.TEXT, SETTINGS, seed=seed).named
        for seed in (1, 1, 2)
    )
    name = "resblocks.0.attn.q_proj.A"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert not first["resblocks.0.attn.q_proj.B"].any()


def test_drawing_adapters_leaves_the_callers_random_numbers_alone(
    folders: dict[str, Path],
) -> None:
    encoder = load("openclip", folders)
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    TrainableTower(encoder, Modality.TEXT, lora=SETTINGS, projection=8, seed=1)
    assert torch.equal(torch.rand(3), expected)


def test_half_precision_towers_train_float32_adapters(folders: dict[str, Path]) -> None:
    encoder = load("openclip", folders, precision="bf16")
    tower = TrainableTower(encoder, Modality.IMAGE, lora=SETTINGS, seed=1)
    assert {p.dtype for p in tower.parameters()} == {torch.float32}
    losses = train(tower)
    assert losses[-1] < losses[0] - 0.02, losses
    rows = tower.encode(media(Modality.IMAGE))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(lambda v: v.astype(np.float64), "must be float32"), (lambda v: v * np.nan, "NaN")],
)
def test_refused_tensors_change_nothing(folders: dict[str, Path], damage: Any, reason: str) -> None:
    tower = TrainableTower(load("openclip", folders), Modality.TEXT, lora=SETTINGS, seed=1)
    before = tower.tensors()
    changed = {name: value + 1 for name, value in before.items()}
    last = max(changed)
    with pytest.raises(ModelDamagedError, match=reason):
        load_parameters("tiny", tower.named(), {**changed, last: damage(changed[last])})
    for name, value in tower.tensors().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_tower_takes_adapters_once(folders: dict[str, Path]) -> None:
    encoder = load("openclip", folders)
    attach(encoder, Modality.TEXT, SETTINGS, seed=1)
    with pytest.raises(PreconditionError, match="has adapters already"):
        attach(encoder, Modality.TEXT, SETTINGS, seed=1)


def test_an_encoder_without_torch_towers_takes_no_adapters() -> None:
    from bittern.encoders.field.encoder import FieldEncoder

    with pytest.raises(InvalidInputError, match="field has no text tower that adapters"):
        attach(FieldEncoder(), Modality.TEXT, SETTINGS, seed=1)


def test_an_encoder_without_the_tower_takes_no_adapters(folders: dict[str, Path]) -> None:
    with pytest.raises(InvalidInputError, match="no audio tower"):
        attach(load("openclip", folders), Modality.AUDIO, SETTINGS, seed=1)


def test_split_attention_holds_no_second_copy_of_the_weights(folders: dict[str, Path]) -> None:
    encoder = load("openclip", folders)
    attach(encoder, Modality.TEXT, SETTINGS, seed=1)
    split = next(m for m in encoder.module.modules() if isinstance(m, SplitAttention))
    projections: tuple[Any, ...] = (split.q_proj, split.k_proj, split.v_proj)
    assert len({p.base_layer.weight.untyped_storage().data_ptr() for p in projections}) == 1


class Bare:
    """As much of an encoder as `attach` needs, around towers without memory."""

    name = "full size"

    def __init__(self, module: torch.nn.Module, modalities: set[Modality]) -> None:
        self.module = module.requires_grad_(False)
        self.modalities = modalities


def bioclip() -> Bare:
    import open_clip

    with torch.device("meta"):
        towers = open_clip.CLIP(**open_clip.get_model_config("ViT-B-16"))
    return Bare(towers, {Modality.TEXT, Modality.IMAGE})


def biolingual() -> Bare:
    from transformers import ClapConfig, ClapModel

    with torch.device("meta"):
        towers = ClapModel(ClapConfig())
    return Bare(towers, {Modality.TEXT, Modality.AUDIO})


@pytest.mark.parametrize("full_size", [bioclip, biolingual])
def test_adapters_of_both_towers_are_under_two_percent_of_a_full_size_encoder(
    full_size: Any,
) -> None:
    encoder = full_size()
    whole = sum(p.numel() for p in encoder.module.parameters())
    adapters = [attach(encoder, m, LoraSettings(16, 16, 0.1), seed=0) for m in encoder.modalities]
    trained = sum(p.numel() for a in adapters for p in a.named.values())
    assert 0.01 < trained / whole < 0.02
