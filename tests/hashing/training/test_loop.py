from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from bittern.errors import InvalidInputError, TrainingError
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.loop import train
from bittern.hashing.training.objective import Step
from tests.hashing.training.sets import DIM, Toy, equal, weights

CONFIG = TrainingConfig(bits=8, batch_size=64, epochs=3, device="cpu")


class Weird(Toy):
    """A toy whose loss can be made what it should not be."""

    def __init__(self, config: TrainingConfig, bad_step: int = -1, bias: float = 0.0) -> None:
        super().__init__(config)
        self.bad_step, self.bias, self.seen = bad_step, bias, 0

    def loss(self, batch: torch.Tensor) -> Step:
        step = super().loss(batch)
        self.seen += self.module.training
        total = step.total * math.nan if self.seen == self.bad_step else step.total
        logits = [torch.cat((z[:, :2], z[:, 2:] + self.bias), dim=1) for z in step.logits]
        return Step(total, step.terms, logits)


def test_the_same_settings_give_the_same_weights_and_other_seeds_others(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        config = CONFIG.with_overrides({"seed": seed})
        toy = Toy(config)
        torch.rand(number)  # whatever happened before must not matter
        train(toy, config, tmp_path / str(number))
        found.append(weights(toy.module))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


def test_the_callers_generator_is_left_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    train(Toy(CONFIG), CONFIG, tmp_path / "run")
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("values", "best"), [([0.3, 0.5, 0.4], 2), ([1.0, 1.0, 1.0], 3), ([0.1, math.nan, 0.05], 1)]
)
def test_the_best_weights_are_kept_and_of_equally_good_epochs_the_last(
    tmp_path: Path, values: list[float], best: int
) -> None:
    toy = Toy(CONFIG)
    toy.values = [*values]
    result = train(toy, CONFIG, tmp_path / "run")
    assert result.best_epoch == best
    assert result.best.validation == {"value": values[best - 1]}
    for epoch, kept in enumerate(toy.after_epochs, start=1):
        assert equal(weights(toy.module), kept) == (epoch == best)


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path) -> None:
    config = CONFIG.with_overrides({"epochs": 10, "patience": 2})
    toy = Toy(config)
    toy.values = [0.1, 0.4, 0.4, 0.2, 0.9]
    result = train(toy, config, tmp_path / "run")
    assert result.stopped_early
    assert [record.epoch for record in result.history] == [1, 2, 3, 4]
    assert result.best_epoch == 3


def test_patience_ends_a_run_on_a_plateau(tmp_path: Path) -> None:
    config = CONFIG.with_overrides({"epochs": 10, "patience": 3})
    toy = Toy(config)
    toy.values = [0.2, *[0.4] * 9]
    result = train(toy, config, tmp_path / "run")
    assert len(result.history) == 5
    assert result.best_epoch == 5


def test_patience_with_nothing_held_out_is_refused(tmp_path: Path) -> None:
    config = CONFIG.with_overrides({"patience": 2})
    with pytest.raises(TrainingError, match="raise validation_share"):
        train(Toy(config), config, tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_with_epoch_step_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"nan at epoch 2, step 3.*learning_rate") as caught:
        train(Weird(CONFIG, bad_step=10), CONFIG, tmp_path / "run")
    assert caught.value.details == {"epoch": "2", "step": "3"}
    resumed = train(Weird(CONFIG), CONFIG, tmp_path / "run")
    assert len(resumed.history) == 3
    assert all(math.isfinite(record.loss) for record in resumed.history)


def test_constant_bits_are_warned_of_and_counted(tmp_path: Path) -> None:
    result = train(Weird(CONFIG, bias=1e6), CONFIG, tmp_path / "run")
    assert result.history[0].dead_bits == 6
    assert result.bits[0].dead == (2, 3, 4, 5, 6, 7)
    (warning,) = result.warnings
    assert "6 of 8 bits are dead" in warning


class Constant(Toy):
    """A toy whose bits are constant in some epochs."""

    def __init__(self, config: TrainingConfig, constant: set[int], views: int = 2) -> None:
        super().__init__(config)
        self.constant, self.views = constant, views

    def loss(self, batch: torch.Tensor) -> Step:
        step = super().loss(batch)
        if self.begun[-1] not in self.constant:
            return step
        shifted = [z + 1e6 * (n < self.views) for n, z in enumerate(step.logits)]
        return Step(step.total, step.terms, shifted)


@pytest.mark.parametrize(("constant", "epochs", "after"), [({2, 3, 4}, 9, 4), ({2}, 2, 2)])
def test_a_collapse_that_lasts_is_an_error_that_says_what_to_change(
    tmp_path: Path, constant: set[int], epochs: int, after: int
) -> None:
    config = CONFIG.with_overrides({"epochs": epochs})
    message = rf"all 8 bits are constant after epoch {after}.*rate_weight"
    with pytest.raises(TrainingError, match=message):
        train(Constant(config, constant), config, tmp_path / "run")


def test_constant_bits_of_some_epochs_or_of_one_view_stop_nothing(tmp_path: Path) -> None:
    config = CONFIG.with_overrides({"epochs": 6})
    result = train(Constant(config, {1, 2, 4, 5}), config, tmp_path / "some")
    assert [record.dead_bits for record in result.history] == [8, 8, 0, 8, 8, 0]
    assert not result.warnings
    result = train(Constant(config, {*range(1, 7)}, views=1), config, tmp_path / "one")
    assert "8 of 8 bits are dead" in result.warnings[0]


def test_the_learning_rate_is_a_cosine_from_first_to_final(tmp_path: Path) -> None:
    config = CONFIG.with_overrides({"log_every": 1})
    train(Toy(config), config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").open()]
    rates = [line["learning_rate"] for line in lines if line["kind"] == "step"]
    assert rates[0] == config.learning_rate
    assert rates[-1] == pytest.approx(config.final_learning_rate)
    assert rates[10] == pytest.approx((rates[0] + rates[-1]) / 2)
    assert rates == sorted(rates, reverse=True)


def test_accumulated_batches_make_one_step_and_a_short_last_window_counts_too(
    tmp_path: Path,
) -> None:
    config = CONFIG.with_overrides({"accumulate": 3, "epochs": 1})
    toy = Toy(config)  # 7 batches: windows of 3, 3 and 1
    expected = Toy(config)
    optimiser = torch.optim.AdamW(expected.module.parameters(), weight_decay=0.01, fused=True)
    rates = [1e-3, (1e-3 + 1e-6) / 2, 1e-6]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        batches = list(expected.batches(1))
        for rate, window in zip(rates, (batches[:3], batches[3:6], batches[6:]), strict=True):
            for batch in window:
                (expected.loss(batch).total / len(window)).backward()  # type: ignore[no-untyped-call]
            optimiser.param_groups[0]["lr"] = rate
            optimiser.step()
            optimiser.zero_grad()
    train(toy, config, tmp_path / "run")
    for name, tensor in weights(toy.module).items():
        assert torch.allclose(tensor, weights(expected.module)[name], atol=1e-7), name


def test_clipping_changes_the_weights_only_where_gradients_are_larger(tmp_path: Path) -> None:
    found = []
    for norm in (0.0, 1e5, 1e-3):
        config = CONFIG.with_overrides({"clip_norm": norm})
        toy = Toy(config)
        train(toy, config, tmp_path / str(norm))
        found.append(weights(toy.module))
    assert equal(found[0], found[1])
    assert not equal(found[0], found[2])


def test_only_parameters_in_a_group_are_trained_each_at_its_own_rate(tmp_path: Path) -> None:
    class Half(Toy):
        def parameter_groups(self) -> list[dict[str, Any]]:
            return [{"params": [self.coder.layers[0].weight], "lr": 1e-6, "weight_decay": 0.0}]

    toy = Half(CONFIG)
    before = weights(toy.module)
    train(toy, CONFIG, tmp_path / "run")
    moved = {
        name: float((tensor - before[name]).abs().max())
        for name, tensor in weights(toy.module).items()
        if "running" not in name and "num_" not in name
    }
    assert {name for name, change in moved.items() if change} == {"1.layers.0.weight"}
    assert max(moved.values()) < 3 * 7 * 1e-6


def test_progress_is_reported_after_each_batch_and_epochs_are_logged_before_the_next(
    tmp_path: Path,
) -> None:
    seen, logged = [], []

    def progress(stage: str, done: int, total: int, note: str) -> None:
        seen.append((stage, done, total, note[:13]))
        lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
        logged.append(sum(json.loads(line)["kind"] == "epoch" for line in lines))

    train(Toy(CONFIG), CONFIG, tmp_path / "run", progress=progress)
    steps = [(epoch, step) for epoch in range(3) for step in range(1, 8)]
    assert seen == [("training", 7 * e + s, 21, f"epoch {e + 1}, loss") for e, s in steps]
    assert logged == [epoch for epoch, _ in steps]


def test_the_folder_records_the_run(tmp_path: Path) -> None:
    toy = Toy(CONFIG)
    toy.values = [0.1, 0.2, 0.3]
    train(toy, CONFIG, tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "log.csv").open()))
    assert [row["validation_value"] for row in rows] == ["0.1", "0.2", "0.3"]
    assert float(rows[2]["loss"]) > 0
    assert float(rows[2]["alignment"]) > 0
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == CONFIG.to_dict()


def test_two_runs_in_one_folder_at_once_are_refused(tmp_path: Path) -> None:
    def again(*_: object) -> None:
        train(Toy(CONFIG), CONFIG, tmp_path / "run")

    with pytest.raises(TrainingError, match="another process is training"):
        train(Toy(CONFIG), CONFIG, tmp_path / "run", progress=again)


def test_bf16_trains_on_a_cpu_and_fp16_is_refused_there(tmp_path: Path) -> None:
    config = CONFIG.with_overrides({"precision": "bf16", "epochs": 1})
    assert len(train(Toy(config), config, tmp_path / "run").history) == 1
    config = CONFIG.with_overrides({"precision": "fp16"})
    with pytest.raises(InvalidInputError, match="fp16 needs a GPU"):
        train(Toy(config), config, tmp_path / "other")


@pytest.mark.parametrize("steps", [5, 9])
def test_an_objective_that_miscounts_its_batches_is_refused(tmp_path: Path, steps: int) -> None:
    class Miscounting(Toy):
        def batches(self, epoch: int, start: int = 0) -> Any:
            return iter([torch.randn(64, DIM)] * steps)

    with pytest.raises(TrainingError, match="batches"):
        train(Miscounting(CONFIG), CONFIG, tmp_path / "run")
