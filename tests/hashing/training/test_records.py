from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bittern.errors import CodeError
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.loop import train
from bittern.hashing.training.records import EpochRecord, bit_statistics, draw_plot
from tests.hashing.training.sets import Toy


def test_balance_correlation_and_dead_bits_of_a_case_worked_by_hand() -> None:
    signs = np.array([[1, 1, -1, 1], [1, 1, 1, 1], [-1, -1, 1, 1], [-1, -1, -1, 1]])
    found = bit_statistics(signs.astype(np.float32))
    assert found.share.tolist() == [0.5, 0.5, 0.5, 1.0]
    assert found.dead == (3,)
    assert found.balance == pytest.approx(0.75)
    # Bits 0 and 1 are equal, bit 2 is independent of both, bit 3 has no correlation.
    assert found.correlation[0, 1] == pytest.approx(1.0)
    assert found.correlation[0, 2] == pytest.approx(0.0)
    assert found.correlation[3].tolist() == [0, 0, 0, 0]
    assert found.mean_correlation == pytest.approx(1 / 3)
    assert not found.collapsed


def test_constant_codes_are_collapsed() -> None:
    found = bit_statistics(np.full((300, 8), -1.0))
    assert found.collapsed
    assert found.balance == 0
    assert found.mean_correlation == 0


def test_a_bit_that_one_item_in_two_hundred_has_is_dead() -> None:
    logits = np.random.default_rng(0).standard_normal((200, 8))
    logits[:, 2] = -1
    logits[7, 2] = 1
    assert bit_statistics(logits).dead == (2,)


@pytest.mark.parametrize("logits", [np.zeros((0, 8)), np.zeros(8), np.full((2, 8), np.nan)])
def test_anything_but_a_matrix_of_numbers_is_refused(logits: np.ndarray) -> None:
    with pytest.raises(CodeError):
        bit_statistics(logits)


@pytest.mark.usefixtures("real_plot")
def test_a_run_ends_with_a_plot(tmp_path: Path) -> None:
    config = TrainingConfig(bits=8, batch_size=16, epochs=1, device="cpu")
    train(Toy(config), config, tmp_path / "run")
    with Image.open(tmp_path / "run" / "plot.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 500


def test_a_plot_shows_what_it_is_given(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).standard_normal((300, 16))
    record = EpochRecord(1, 0.5, {"rate": -1.0}, {}, 1e-3, 0, 0.9, 0.1, 1.0)
    one = bit_statistics(logits)
    draw_plot([record], [one], tmp_path / "a.png")
    draw_plot([record], [bit_statistics(logits + 1.0)], tmp_path / "b.png")
    first, second = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert not np.array_equal(first, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
