from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.loop import train
from bittern.hashing.training.records import EpochRecord, bit_statistics, draw
from tests.hashing.training.sets import Toy


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
    draw([record], [one], tmp_path / "a.png")
    draw([record], [bit_statistics(logits + 1.0)], tmp_path / "b.png")
    first, second = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert not np.array_equal(first, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
