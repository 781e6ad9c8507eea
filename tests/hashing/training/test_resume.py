from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from bittern.errors import ModelDamagedError, TrainingError
from bittern.files import replace_file
from bittern.hashing.training import loop
from bittern.hashing.training.checkpoint import load_checkpoint, save_checkpoint
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.heads import objective_for
from bittern.hashing.training.loop import train
from bittern.hashing.training.records import CHECKPOINT_FILE, EpochRecord, TrainingResult
from tests.hashing.training.sets import DIM, SMALL, Toy, equal, make_set, weights

CONFIG = TrainingConfig(
    bits=8,
    batch_size=16,
    epochs=4,
    accumulate=2,
    checkpoint_every=3,
    log_every=2,
    clip_norm=1.0,
    device="cpu",
)
VALUES = [0.3, 0.1, 0.4, 0.2]
STEPS = 7


class Killed(BaseException):
    """Stands for the end of the process: nothing in the loop catches it."""


def toy(config: TrainingConfig = CONFIG, done: int = 0) -> Toy:
    made = Toy(config)
    made.values = VALUES[done:]
    return made


def history(result: TrainingResult) -> list[EpochRecord]:
    return [dataclasses.replace(record, seconds=0.0) for record in result.history]


def log(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def killing(epoch: int, step: int) -> Any:
    def progress(stage: str, done: int, total: int, note: str) -> None:
        if done == (epoch - 1) * STEPS + step:
            raise Killed

    return progress


@pytest.mark.parametrize(
    ("epoch", "step"), [(1, 1), (1, 5), (1, 7), (2, 3), (2, 4), (2, 6), (3, 2), (3, 6), (4, 7)]
)
def test_a_run_killed_anywhere_reaches_the_same_weights_log_and_history(
    tmp_path: Path, epoch: int, step: int
) -> None:
    whole = toy()
    undisturbed = train(whole, CONFIG, tmp_path / "whole")
    with pytest.raises(Killed):
        train(toy(), CONFIG, tmp_path / "killed", progress=killing(epoch, step))
    again = toy(done=epoch - 1)
    resumed = train(again, CONFIG, tmp_path / "killed")
    assert equal(weights(again.module), weights(whole.module))
    assert history(resumed) == history(undisturbed)
    assert resumed.best_epoch == undisturbed.best_epoch == 3
    assert log(tmp_path / "killed") == log(tmp_path / "whole")
    # The first checkpoint of an epoch is at step 4: 3 lies inside an accumulated step.
    assert resumed.resumed == ((epoch, step) != (1, 1))


@pytest.mark.parametrize("moment", ["log", "checkpoint", "plot"])
def test_a_run_killed_at_the_end_of_an_epoch_reaches_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    whole = toy()
    train(whole, CONFIG, tmp_path / "whole")

    def die(*_: Any) -> None:
        raise Killed

    def die_after(path: Path, content: bytes) -> None:
        replace_file(path, content)
        raise Killed

    with monkeypatch.context() as patched:
        if moment == "log":
            patched.setattr("bittern.hashing.training.records.replace_file", die)
        elif moment == "checkpoint":
            patched.setattr("bittern.hashing.training.checkpoint.replace_file", die_after)
        else:
            patched.setattr(loop, "draw_plot", die)
        with pytest.raises(Killed):
            train(toy(), CONFIG, tmp_path / "killed")
    facts = {"epoch": 1}
    if (tmp_path / "killed" / CHECKPOINT_FILE).exists():
        _, facts = load_checkpoint(tmp_path / "killed" / CHECKPOINT_FILE)
    again = toy(done=facts["epoch"] - 1)
    train(again, CONFIG, tmp_path / "killed")
    assert equal(weights(again.module), weights(whole.module))
    assert log(tmp_path / "killed") == log(tmp_path / "whole")
    assert (tmp_path / "killed" / "plot.png").exists()


def test_a_process_killed_inside_an_epoch_of_embeddings_is_resumed_bit_for_bit(
    tmp_path: Path,
) -> None:
    config = SMALL.with_overrides({"checkpoint_every": 3, "log_every": 1})
    source = make_set(tmp_path / "set", 200)
    (tmp_path / "settings.json").write_text(config.to_json())
    command = [sys.executable, "-m", "tests.hashing.training.killed_run", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    _, facts = load_checkpoint(tmp_path / "killed" / CHECKPOINT_FILE)
    assert (facts["epoch"], facts["step"]) == (2, 3)

    resumed, whole = objective_for(source, config), objective_for(source, config)
    # Two threads add in another order than one: the resumed run must take up the first one's.
    torch.set_num_threads(1)
    result = train(resumed, config, tmp_path / "killed")
    assert torch.get_num_threads() == 1
    torch.set_num_threads(2)
    undisturbed = train(whole, config, tmp_path / "whole")
    assert equal(weights(resumed.module), weights(whole.module))
    assert history(result) == history(undisturbed)
    assert log(tmp_path / "killed") == log(tmp_path / "whole")


def test_a_checkpoint_cut_off_while_it_was_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / CHECKPOINT_FILE
    save_checkpoint(path, {"a": torch.ones(2)}, {"number": 1})

    def die(_: int) -> None:
        raise Killed

    monkeypatch.setattr("bittern.files.os.fsync", die)
    with pytest.raises(Killed):
        save_checkpoint(path, {"a": torch.zeros(2)}, {"number": 2})
    tensors, state = load_checkpoint(path)
    assert tensors["a"].tolist() == [1, 1]
    assert state["number"] == 1


def test_a_finished_run_is_only_read_again(tmp_path: Path) -> None:
    first = toy()
    result = train(first, CONFIG, tmp_path / "run")
    again = toy(done=4)
    reread = train(again, CONFIG, tmp_path / "run", progress=killing(1, 1))
    assert equal(weights(again.module), weights(first.module))
    assert history(reread) == history(result)


def test_resuming_where_nothing_was_saved_begins(tmp_path: Path) -> None:
    result = train(toy(), CONFIG, tmp_path / "run")
    assert not result.resumed
    assert len(result.history) == 4


def test_other_settings_are_refused_by_name_with_both_values(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(toy(), CONFIG, tmp_path / "run", progress=killing(2, 1))
    other = CONFIG.with_overrides({"batch_size": 32, "rate_weight": 0.5, "log_every": 1})
    with pytest.raises(TrainingError, match="cannot be resumed") as caught:
        train(toy(other), other, tmp_path / "run")
    assert caught.value.details == {"batch_size": "16 -> 32", "rate_weight": "0.1 -> 0.5"}


def test_other_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(toy(), CONFIG, tmp_path / "run", progress=killing(2, 1))
    stranger = toy()
    stranger.data_digest = "other"
    with pytest.raises(TrainingError, match="data was toy, is other"):
        train(stranger, CONFIG, tmp_path / "run")


def test_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(toy(), CONFIG, tmp_path / "run", progress=killing(2, 1))
    with pytest.raises(TrainingError, match="of another model"):
        train(Toy(CONFIG, bits=16), CONFIG, tmp_path / "run")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(toy(), CONFIG, folder, plots=False)
    return folder


@pytest.fixture
def checkpoint(finished: Path, tmp_path: Path) -> Path:
    """The checkpoint of a copy of a finished run."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run" / CHECKPOINT_FILE


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64, None])
def test_a_damaged_checkpoint_is_named(checkpoint: Path, content: bytes | None) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50] if content is None else content)
    with pytest.raises(ModelDamagedError, match=CHECKPOINT_FILE):
        train(toy(), CONFIG, checkpoint.parent)


@pytest.mark.parametrize(
    "change",
    [
        {"threads": None},
        {"threads": math.inf},
        {"epoch": 9},
        {"step": -1},
        {"step": "x"},
        {"best_epoch": 0},
        {"best_epoch": 7},
        {"log_bytes": -1},
        {"log_bytes": 2**70},
        {"history": [{}]},
        {"history": [{"epoch": 1}] * 4},
        {"config": 3},
        {"origin": []},
        {"loss_names": ["loss"]},
        {"optimiser": {}},
    ],
)
def test_an_inconsistent_checkpoint_is_refused_with_the_remedy(
    checkpoint: Path, change: dict[str, Any]
) -> None:
    tensors, facts = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, tensors, {**facts, **change})
    with pytest.raises(ModelDamagedError, match=r"inconsistent.*Remove it.*another folder"):
        train(toy(), CONFIG, checkpoint.parent)


@pytest.mark.parametrize(
    "name", ["threads", "epoch", "history", "optimiser", "seconds", "config", "origin"]
)
def test_a_checkpoint_without_a_value_is_refused(checkpoint: Path, name: str) -> None:
    tensors, facts = load_checkpoint(checkpoint)
    del facts[name]
    save_checkpoint(checkpoint, tensors, facts)
    with pytest.raises(ModelDamagedError, match=f"inconsistent.*{name}"):
        train(toy(), CONFIG, checkpoint.parent)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("rng.cpu", torch.zeros(3, dtype=torch.uint8)),
        ("losses", torch.zeros(2, 2)),
        ("weights.1.layers.0.bias", torch.full((DIM,), math.nan)),
        ("best.1.layers.0.bias", torch.full((DIM,), math.nan)),
        ("best.1.layers.0.bias", torch.zeros(1)),
        ("best.ghost", torch.zeros(1)),
        ("optimiser.x.step", torch.zeros(1)),
        ("optimiser.99.step", torch.zeros(())),
        ("optimiser.0.exp_avg", torch.zeros(3)),
    ],
)
def test_a_checkpoint_with_inconsistent_tensors_is_refused(
    checkpoint: Path, name: str, tensor: torch.Tensor
) -> None:
    tensors, facts = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, {**tensors, name: tensor}, facts)
    with pytest.raises(ModelDamagedError, match=r"inconsistent.*Remove it"):
        train(toy(), CONFIG, checkpoint.parent)


def test_a_checkpoint_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT_FILE
    save_file({"a": torch.ones(1)}, path, metadata={"state": '{"a":' * 100_000})
    with pytest.raises(ModelDamagedError, match=CHECKPOINT_FILE):
        load_checkpoint(path)
