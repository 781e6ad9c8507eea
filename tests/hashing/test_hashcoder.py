"""HashCoder heads, and the hasher that keeps them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bittern.errors import CodeError, InvalidInputError, ModelDamagedError, UnsupportedModalityError
from bittern.hashing.codes import pack
from bittern.hashing.hashcoder import HashCoder
from bittern.hashing.hashers import Hasher, HybridHasher, weigh
from bittern.hashing.learned import LearnedHasher, Size
from bittern.hashing.saved_model import ADAPTER_FILE, TENSOR_FILE, SavedModel, Story, restore
from bittern.hashing.training_free import fit

DIM, BITS = 12, 16
RNG = np.random.default_rng(7)
ROWS = RNG.standard_normal((50, DIM)).astype(np.float32)


def trained_head(size: Size = "small", seed: int = 0) -> HashCoder:
    """A head whose batch norm has seen something."""
    torch.manual_seed(seed)
    head = HashCoder(DIM, BITS, size)
    with torch.no_grad():
        for layer in head.layers:
            if isinstance(layer, torch.nn.Linear):
                layer.weight.mul_(10)
    for _ in range(5):
        head(torch.randn(40, DIM) + 0.5)
    return head


def learned(size: Size = "small") -> LearnedHasher:
    return LearnedHasher.from_modules(
        {"text": trained_head(size), "image": trained_head(size, 1)},
        means={"text": ROWS.mean(axis=0), "image": ROWS.mean(axis=0)},
    )


def hybrid() -> HybridHasher:
    free = fit("pca", {"text": ROWS, "image": ROWS}, 8)
    return HybridHasher([free, learned()], [0.5, 1.0], {"split": "8+16"})


def test_the_two_sizes_have_the_layers_of_the_paper() -> None:
    def shapes(head: HashCoder) -> list[tuple[int, ...]]:
        return [tuple(p.weight.shape) for p in head.layers if isinstance(p, torch.nn.Linear)]

    assert shapes(HashCoder(96, 32, "small")) == [(96, 96), (32, 96)]
    assert shapes(HashCoder(96, 32, "large")) == [(2048, 96), (2048, 2048), (32, 2048)]
    assert shapes(HashCoder(1536, 32, "large"))[0] == (3072, 1536)


def test_weights_start_as_truncated_normal_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    linear = HashCoder(256, 64).layers[0]
    assert isinstance(linear, torch.nn.Linear)
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not linear.bias.any()


@pytest.mark.parametrize(("bits", "error"), [(12, CodeError), (0, CodeError)])
def test_bits_that_make_no_whole_bytes_are_refused(bits: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="8"):
        HashCoder(DIM, bits)


def test_an_unknown_size_is_refused_with_the_choices() -> None:
    with pytest.raises(InvalidInputError, match="small and large"):
        HashCoder(DIM, BITS, "huge")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_hasher_gives_the_logits_of_the_head_it_was_made_from(size: Size) -> None:
    head = trained_head(size)
    hasher = LearnedHasher.from_modules({"text": head})
    with torch.inference_mode():
        expected = head.eval()(torch.from_numpy(ROWS)).numpy()
    assert np.allclose(hasher.logits(ROWS, "text"), expected, atol=1e-4)
    head.train()(torch.randn(40, DIM) * 100)  # training on does not reach the copy
    assert np.allclose(hasher.logits(ROWS, "text"), expected, atol=1e-4)


def test_codes_do_not_depend_on_the_batch() -> None:
    hasher = learned("large")
    together = hasher.logits(ROWS, "image")
    one_by_one = np.concatenate([hasher.logits(row[None], "image") for row in ROWS])
    assert np.array_equal(pack(together), pack(one_by_one))


def test_a_shared_head_is_stored_once_and_shared_again() -> None:
    head = trained_head()
    hasher = LearnedHasher.from_modules(
        {"text": head, "image": head, "audio": trained_head("small", 3)}
    )
    owners = hasher.config()["heads"]
    assert owners == {"audio": "audio", "image": "image", "text": "image"}
    again = restore(hasher.tensors(), hasher.config())
    assert isinstance(again, LearnedHasher)
    assert again.heads["text"] is again.heads["image"]
    for modality in owners:
        assert np.array_equal(again.logits(ROWS, modality), hasher.logits(ROWS, modality))


def test_a_modality_without_a_head_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedModalityError, match="image, text, not audio"):
        learned().logits(ROWS, "audio")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused(bad: float) -> None:
    rows = ROWS.copy()
    rows[3, 2] = bad
    for hasher in (learned(), hybrid()):
        with pytest.raises(CodeError, match="NaN or infinity"):
            hasher.logits(rows, "text")


def test_a_weight_changes_what_a_bit_counts_but_never_the_code() -> None:
    z = np.concatenate([RNG.standard_normal((4, 40)) * 6, np.full((4, 1), 1e-45)], axis=1)
    z = z.astype(np.float32)
    weighed = weigh(z, 0.3)
    assert np.array_equal(weighed > 0, z > 0)
    assert np.allclose(np.tanh(weighed / 2), 0.3 * np.tanh(z / 2), atol=1e-6)


def test_the_bits_of_a_hybrid_lie_side_by_side() -> None:
    hasher = hybrid()
    z = hasher.logits(ROWS, "text")
    assert z.shape == (50, hasher.bits) == (50, 24)
    assert np.array_equal(z[:, 8:], hasher.hashers[1].logits(ROWS, "text"))
    assert np.array_equal(z[:, :8] > 0, hasher.hashers[0].logits(ROWS, "text") > 0)


@pytest.mark.parametrize("weights", [[0.0, 1.0], [1.5, 1.0], [1.0], [float("nan"), 1.0]])
def test_a_hybrid_refuses_weights_that_cannot_be(weights: list[float]) -> None:
    with pytest.raises(CodeError):
        HybridHasher(hybrid().hashers, weights)


def test_saved_models_of_every_kind_come_back_with_the_same_codes(tmp_path: Path) -> None:
    hashers: list[Hasher] = [learned("small"), learned("large"), hybrid()]
    for number, hasher in enumerate(hashers):
        story = Story(data={"pairs": 50}, metrics={"mAP": 0.5}, training={"epochs": 5})
        saved = SavedModel.describe(
            "m", hasher, encoder="field", towers={"text": "a"}, licence="", story=story
        )
        folder = tmp_path / str(number)
        saved.save(folder)
        loaded = SavedModel.load(folder)
        assert loaded.card == saved.card
        assert loaded.card.metrics == {"mAP": 0.5}
        for modality in ("text", "image"):
            again = loaded.hasher.logits(ROWS, modality)
            assert np.array_equal(again, hasher.logits(ROWS, modality))


def test_the_story_of_a_model_is_no_part_of_its_digest() -> None:
    def digest(**kwargs: object) -> str:
        return SavedModel.describe(
            "m",
            HASHER,
            encoder="e",
            towers={},
            licence="",
            **kwargs,  # type: ignore[arg-type]
        ).card.digest

    HASHER = learned()  # noqa: N806
    assert digest() == digest(story=Story(metrics={"mAP": 1.0}))
    plan = {"text": {"encoder": "e"}}
    with_adapters = digest(assembly=plan, adapters={"text.x": ROWS})
    assert len({digest(), digest(assembly=plan), with_adapters}) == 3


def test_a_model_whose_adapters_were_changed_is_refused(tmp_path: Path) -> None:
    saved = SavedModel.describe(
        "m",
        learned(),
        encoder="e",
        towers={},
        licence="",
        assembly={"text": {"encoder": "e"}},
        adapters={"text.x": ROWS},
    )
    saved.save(tmp_path / "m")
    assert np.array_equal(SavedModel.load(tmp_path / "m").adapters["text.x"], ROWS)
    path = tmp_path / "m" / ADAPTER_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelDamagedError, match="digest"):
        SavedModel.load(tmp_path / "m")
    path.unlink()
    with pytest.raises(ModelDamagedError, match="missing"):
        SavedModel.load(tmp_path / "m")


def test_heads_that_lack_a_parameter_are_refused_by_its_name() -> None:
    hasher = learned()
    tensors = hasher.tensors()
    del tensors["head.text.layers.0.bias"]
    with pytest.raises(CodeError, match=r"layers\.0\.bias"):
        restore(tensors, hasher.config())


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("head.text.layers.0.weight", np.full((DIM, DIM), np.nan, np.float32), "NaN"),
        ("head.text.layers.3.running_var", np.full(BITS, -1, np.float32), "negative"),
        ("head.text.layers.2.bias", np.zeros(BITS + 8, np.float32), "shape"),
        ("head.ghost.layers.0.bias", np.zeros(3, np.float32), "unexpected"),
    ],
)
def test_heads_with_senseless_numbers_are_refused(name: str, value: np.ndarray, says: str) -> None:
    hasher = learned()
    with pytest.raises(CodeError, match=says):
        restore({**hasher.tensors(), name: value}, hasher.config())


@pytest.mark.parametrize("size", ["small", "large"])
def test_heads_with_empty_tensors_are_refused_before_anything_is_made(
    size: Size, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasher = learned(size)
    empty = {"head.image.layers.0.weight": np.zeros((0, 20_000), np.float32)}

    def made(*_: object) -> None:
        raise AssertionError("a head was made")

    monkeypatch.setattr(HashCoder, "__init__", made)
    with pytest.raises(CodeError, match=r"nothing in layers\.0\.weight"):
        restore({**hasher.tensors(), **empty}, hasher.config())


def test_a_head_of_a_wrong_shape_is_refused_without_taking_its_memory() -> None:
    hasher = learned()
    # One row that speaks of a head of 400 terabytes.
    wide = {"head.text.layers.0.weight": np.zeros((1, 10_000_000), np.float32)}
    with pytest.raises(CodeError, match="shape"):
        restore({**hasher.tensors(), **wide}, hasher.config())


def test_copying_and_restoring_heads_leaves_the_callers_generator_alone() -> None:
    heads = {"text": trained_head()}
    before = torch.get_rng_state()
    hasher = LearnedHasher.from_modules(heads)
    restore(hasher.tensors(), hasher.config())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "oracle"},
        {"weights": [1.0]},
        {"weights": None},
        {"parts": [{"kind": "hybrid"}] * 2},
        {"parts": 3},
        {"settings": 3},
    ],
)
def test_configurations_that_make_no_sense_are_refused(change: dict[str, object]) -> None:
    hasher = hybrid()
    with pytest.raises(CodeError):
        restore(hasher.tensors(), {**hasher.config(), **change})


def test_a_hybrid_model_file_with_another_weight_is_refused(tmp_path: Path) -> None:
    saved = SavedModel.describe("m", hybrid(), encoder="e", towers={}, licence="")
    saved.save(tmp_path / "m")
    card = tmp_path / "m" / "model.json"
    card.write_text(card.read_text().replace("0.5,", "0.6,"))
    with pytest.raises(ModelDamagedError, match="digest"):
        SavedModel.load(tmp_path / "m")
    assert (tmp_path / "m" / TENSOR_FILE).exists()
