"""Encoders put together from towers: whole, exact, and refused when anything does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bittern.encoders import towers
from bittern.encoders.adapters import LoraSettings
from bittern.encoders.assembly import (
    AssembledEncoder,
    TowerPlan,
    assemble,
    begin,
    plans_from_json,
    plans_to_json,
)
from bittern.encoders.base import Encoder, Media, Modality
from bittern.encoders.clap import ClapEncoder
from bittern.encoders.openclip import OpenClipEncoder
from bittern.errors import (
    InvalidInputError,
    ModelDamagedError,
    QueryError,
    UnsupportedModalityError,
)
from tests.encoders import tiny

LORA = LoraSettings(rank=4, alpha=4, dropout=0.5)
PLANS = {
    Modality.TEXT: TowerPlan("tiny-clip"),
    Modality.IMAGE: TowerPlan("tiny-clip", lora=LORA),
    Modality.AUDIO: TowerPlan("tiny-clap", lora=LORA, projection=True),
}
Load = Callable[[str], Encoder]
Tensors = dict[str, NDArray[np.float32]]


@pytest.fixture(scope="session")
def load(openclip_folder: Path, clap_folder: Path) -> Load:
    def fresh(name: str) -> Encoder:
        if name == "tiny-clip":
            return OpenClipEncoder(openclip_folder, name=name, device="cpu")
        return ClapEncoder(clap_folder, name=name, device="cpu")

    return fresh


@pytest.fixture(scope="session")
def trained(load: Load) -> Tensors:
    """What some training might have made of it."""
    rng = np.random.default_rng(2)
    fresh = begin("fresh", PLANS, load, seed=0).tensors()
    return {n: rng.normal(0, 0.3, v.shape).astype(np.float32) for n, v in fresh.items()}


@pytest.fixture(scope="session")
def assembled(load: Load, trained: Tensors) -> AssembledEncoder:
    return assemble("heron", PLANS, trained, load)


def media(modality: Modality, n: int = 3) -> list[Media]:
    rng = np.random.default_rng(3)
    if modality is Modality.TEXT:
        return list(tiny.CORPUS[:n])
    if modality is Modality.IMAGE:
        return list(rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))
    return list(rng.uniform(-0.5, 0.5, (n, 8000)).astype(np.float32))


def test_it_is_an_encoder_of_all_its_towers(assembled: AssembledEncoder) -> None:
    assert isinstance(assembled, Encoder)
    assert assembled.name == "heron"
    assert assembled.dim == tiny.OPENCLIP_DIM
    assert assembled.modalities == set(Modality)
    assert assembled.windowing is not None
    assert assembled.windowing.sample_rate == 4000


@pytest.mark.parametrize("modality", list(Modality))
def test_embeddings_are_unit_float32_rows_of_the_shared_space(
    assembled: AssembledEncoder, modality: Modality
) -> None:
    rows = assembled.encode(modality, media(modality))
    assert rows.dtype == np.float32
    assert rows.shape == (3, assembled.dim)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert assembled.encode(modality, []).shape == (0, assembled.dim)


@pytest.mark.parametrize("modality", list(Modality))
def test_batch_size_and_order_do_not_matter(
    assembled: AssembledEncoder, modality: Modality
) -> None:
    batch = media(modality, 5) * 8  # more than one portion
    together = assembled.encode(modality, batch)
    backwards = assembled.encode(modality, batch[::-1])[::-1]
    alone = np.concatenate([assembled.encode(modality, [item]) for item in batch[:5]])
    np.testing.assert_allclose(together, backwards, atol=1e-5)
    np.testing.assert_allclose(together[:5], alone, atol=1e-5)


@pytest.mark.parametrize("modality", list(Modality))
def test_training_and_use_embed_alike(assembled: AssembledEncoder, modality: Modality) -> None:
    batch = media(modality)
    embedded = assembled.embed(modality, assembled.prepare(modality, batch))
    np.testing.assert_allclose(
        embedded.detach().numpy(), assembled.encode(modality, batch), atol=2e-6
    )


def test_a_tower_with_nothing_added_is_that_of_its_encoder(
    assembled: AssembledEncoder, load: Load
) -> None:
    base = load("tiny-clip")
    texts = media(Modality.TEXT)
    np.testing.assert_array_equal(
        assembled.encode(Modality.TEXT, texts), base.encode(Modality.TEXT, texts)
    )
    assert assembled.digests[Modality.TEXT] == base.digests[Modality.TEXT]


def test_a_linear_map_is_applied_to_the_unit_embedding(load: Load) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(7, tiny.CLAP_DIM)).astype(np.float32)
    bias = rng.normal(size=7).astype(np.float32)
    mapped = assemble(
        "mapped",
        {Modality.TEXT: TowerPlan("tiny-clap", projection=True)},
        {"text.projection.weight": weight, "text.projection.bias": bias},
        load,
    )
    texts = media(Modality.TEXT)
    expected = load("tiny-clap").encode(Modality.TEXT, texts) @ weight.T + bias
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(mapped.encode(Modality.TEXT, texts), expected, atol=1e-6)


def test_trained_towers_are_saved_and_loaded_bit_for_bit(load: Load) -> None:
    training = begin("heron", PLANS, load, seed=3)
    audio = training.towers[Modality.AUDIO].train()
    inputs = training.prepare(Modality.AUDIO, media(Modality.AUDIO))
    target = torch.nn.functional.normalize(torch.randn(3, training.dim), dim=-1)
    optimiser = torch.optim.AdamW(audio.parameters(), lr=1e-2)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = (1 - (training.embed(Modality.AUDIO, inputs) * target).sum(dim=-1)).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.05
    again = assemble("heron", PLANS, training.tensors(), load)
    for modality in Modality:
        batch = media(modality)
        np.testing.assert_array_equal(
            again.encode(modality, batch), training.encode(modality, batch)
        )
    assert again.digests == training.digests


def test_a_finished_encoder_wants_no_gradients(assembled: AssembledEncoder) -> None:
    parameters = [p for tower in assembled.towers.values() for p in tower.parameters()]
    assert parameters
    assert not any(p.requires_grad for p in parameters)


def test_each_encoder_is_loaded_once(load: Load, trained: Tensors) -> None:
    loaded = []

    def counting(name: str) -> Encoder:
        loaded.append(name)
        return load(name)

    assemble("heron", PLANS, trained, counting)
    begin("heron", PLANS, counting, seed=0)
    assert sorted(loaded) == ["tiny-clap", "tiny-clap", "tiny-clip", "tiny-clip"]


def test_digests_change_with_trained_tensors(load: Load, trained: Tensors) -> None:
    first = assemble("heron", PLANS, trained, load).digests
    assert assemble("other name", PLANS, trained, load).digests == first
    name = "audio.projection.bias"
    changed = assemble("heron", PLANS, {**trained, name: trained[name] + 1}, load).digests
    assert changed[Modality.AUDIO] != first[Modality.AUDIO]
    assert changed[Modality.IMAGE] == first[Modality.IMAGE]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in first.values())


def test_digests_change_with_the_scale_not_with_the_dropout(load: Load, trained: Tensors) -> None:
    def digest(lora: LoraSettings) -> str:
        plans = {**PLANS, Modality.IMAGE: TowerPlan("tiny-clip", lora=lora)}
        return assemble("heron", plans, trained, load).digests[Modality.IMAGE]

    usual = digest(LORA)
    assert digest(LoraSettings(rank=4, alpha=4, dropout=0)) == usual
    assert digest(LoraSettings(rank=4, alpha=8, dropout=0.5)) != usual


def test_digests_follow_the_training(load: Load) -> None:
    training = begin("heron", PLANS, load, seed=0)
    before = dict(training.digests)
    projection = training.towers[Modality.AUDIO].projection
    assert projection is not None
    with torch.no_grad():
        projection.bias.add_(1)
    assert training.digests[Modality.AUDIO] != before[Modality.AUDIO]
    assert training.digests[Modality.IMAGE] == before[Modality.IMAGE]


def test_the_embedded_encoder_takes_a_linear_map_behind_a_tower() -> None:
    from bittern.encoders.field.encoder import FieldEncoder

    plans = {Modality.TEXT: TowerPlan("field", projection=True)}
    training = begin("pond", plans, lambda _: FieldEncoder(), dim=16, seed=0)
    texts = media(Modality.TEXT)
    rows = training.encode(Modality.TEXT, texts)
    assert rows.shape == (3, 16)
    embedded = training.embed(Modality.TEXT, training.prepare(Modality.TEXT, texts))
    assert embedded.requires_grad
    np.testing.assert_allclose(embedded.detach().numpy(), rows, atol=1e-6)


def test_the_embedded_encoder_takes_no_adapters() -> None:
    from bittern.encoders.field.encoder import FieldEncoder

    plans = {Modality.TEXT: TowerPlan("field", lora=LORA)}
    with pytest.raises(InvalidInputError, match="field has no text tower that adapters"):
        begin("pond", plans, lambda _: FieldEncoder(), seed=0)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("audio.projection.bias", None, "missing .audio.projection.bias"),
        ("audio.projection.weight", None, "audio.projection.weight is missing"),
        ("audio.projection.weight", np.zeros(5), "must be .dimensions of the space"),
        ("audio.projection.weight", np.zeros((24, 3)), "24, 3. for .24, 20"),
        ("audio.projection.weight", np.zeros((2**16, 0)), "must be .dimensions of the space"),
        ("audio.projection.weight", np.zeros((2**16, 1)), "65536, 1. for .65536, 20"),
        ("audio.projection.weight", np.zeros((9, 20)), "do not share a space"),
        ("audio.projection.weight", np.full((24, 20), np.inf), "holds NaN or infinity"),
        ("text.projection.weight", np.zeros((24, 24)), "unknown .text.projection"),
        ("touch.lora.A", np.zeros((2, 2)), "unknown .touch.lora.A"),
        ("image.lora.transformer.resblocks.0.attn.q_proj.A", np.zeros((5, 64)), "another shape"),
        ("image.lora.transformer.resblocks.1.attn.out_proj.B", None, "missing"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    load: Load, trained: Tensors, name: str, value: Any, reason: str
) -> None:
    tensors = {key: array for key, array in trained.items() if key != name}
    if value is not None:
        tensors[name] = value.astype(np.float32)
    with pytest.raises(ModelDamagedError, match=reason):
        assemble("heron", PLANS, tensors, load)


@pytest.mark.parametrize("columns", [0, 1])
def test_a_map_of_a_wrong_shape_is_refused_before_one_is_made(
    load: Load, trained: Tensors, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: object) -> None:
        raise AssertionError("a map was made")

    monkeypatch.setattr(towers, "_orthogonal", made)
    wrong = {"audio.projection.weight": np.zeros((2**16, columns), np.float32)}
    with pytest.raises(ModelDamagedError, match="65536"):
        assemble("heron", PLANS, {**trained, **wrong}, load)


def test_a_map_that_gives_zero_is_refused_when_it_is_used(load: Load, trained: Tensors) -> None:
    zero = {n: np.zeros_like(v) if "projection" in n else v for n, v in trained.items()}
    encoder = assemble("heron", PLANS, zero, load)
    with pytest.raises(ModelDamagedError, match="zero or not finite"):
        encoder.encode(Modality.AUDIO, media(Modality.AUDIO))


def test_a_tower_that_the_encoder_lacks_is_refused(load: Load) -> None:
    with pytest.raises(UnsupportedModalityError, match="tiny-clip has no audio tower"):
        begin("heron", {Modality.AUDIO: TowerPlan("tiny-clip")}, load, seed=0)


def test_a_modality_without_a_tower_is_refused(load: Load) -> None:
    encoder = begin("heron", {Modality.TEXT: TowerPlan("tiny-clip")}, load, seed=0)
    with pytest.raises(UnsupportedModalityError, match="towers for text, not for image"):
        encoder.encode(Modality.IMAGE, media(Modality.IMAGE))


def test_bad_media_are_refused_as_by_the_encoder_itself(assembled: AssembledEncoder) -> None:
    with pytest.raises(QueryError, match="text 1 is empty"):
        assembled.encode(Modality.TEXT, ["owl", " "])
    with pytest.raises(InvalidInputError, match="one window of sound"):
        assembled.encode(Modality.AUDIO, [np.zeros(5, np.float32)])


def test_towers_of_different_spaces_are_refused(load: Load) -> None:
    plans = {Modality.IMAGE: TowerPlan("tiny-clip"), Modality.AUDIO: TowerPlan("tiny-clap")}
    with pytest.raises(ModelDamagedError, match="audio 20, image 24"):
        begin("heron", plans, load, seed=0)


def test_dimensions_must_be_given_if_every_tower_has_a_map(load: Load) -> None:
    plans = {Modality.TEXT: TowerPlan("tiny-clap", projection=True)}
    with pytest.raises(InvalidInputError, match="must be given"):
        begin("heron", plans, load, seed=0)
    assert begin("heron", plans, load, dim=9, seed=0).dim == 9


def test_an_encoder_needs_a_tower(load: Load) -> None:
    with pytest.raises(InvalidInputError, match="at least one tower"):
        assemble("heron", {}, {}, load)


def test_plans_survive_json() -> None:
    assert plans_from_json(json.loads(json.dumps(plans_to_json(PLANS)))) == PLANS


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"encoder": 3}, "image.encoder"),
        ({"encoder": ""}, "image.encoder"),
        ({"encoder": "x" * 101}, "image.encoder"),
        ({"projection": 1}, "image.projection"),
        ({"surprise": 1}, "image.surprise"),
        ({"lora": {"rank": 4}}, "image.lora.alpha"),
        ({"lora": {"rank": 0, "alpha": 4, "dropout": 0.1}}, "image.lora.rank"),
        ({"lora": {"rank": 2000, "alpha": 4, "dropout": 0.1}}, "image.lora.rank"),
        ({"lora": {"rank": True, "alpha": 4, "dropout": 0.1}}, "image.lora.rank"),
        ({"lora": {"rank": 4, "alpha": 4.5, "dropout": 0.1}}, "image.lora.alpha"),
        ({"lora": {"rank": 4, "alpha": 4, "dropout": float("nan")}}, "image.lora.dropout"),
        ({"lora": {"rank": 4, "alpha": 4, "dropout": 1.0}}, "image.lora.dropout"),
        ({"lora": {"rank": 4, "alpha": 4, "dropout": -1}}, "image.lora.dropout"),
        ({"lora": [1]}, "image.lora"),
    ],
)
def test_plans_with_anything_unknown_or_of_a_wrong_type_are_refused(
    change: dict[str, Any], where: str
) -> None:
    value = plans_to_json(PLANS)
    value["image"] |= change
    with pytest.raises(ModelDamagedError, match=rf"towers makes no sense: {where}:"):
        plans_from_json(value)


@pytest.mark.parametrize("value", [None, [], {}, {"smell": {}}, {"text": None}])
def test_content_that_is_no_assembly_is_refused(value: object) -> None:
    with pytest.raises(ModelDamagedError, match="makes no sense"):
        plans_from_json(value)
