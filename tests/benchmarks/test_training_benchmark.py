from __future__ import annotations

import itertools
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bittern.benchmarks.__main__ import main
from bittern.benchmarks.speed import training
from bittern.benchmarks.speed.harness import Report, show
from bittern.benchmarks.speed.inputs import CLAP_FEATURES, write_clap, write_openclip
from bittern.benchmarks.speed.process import MIB, own_memory, peak_memory
from bittern.benchmarks.speed.training import Heads, bare_work, measure_heads, write_set
from bittern.benchmarks.speed.training_adapters import (
    Subject,
    TowerPairs,
    measure_adapters,
    random_pairs,
)
from bittern.encoders.base import Modality
from bittern.encoders.clap import ClapEncoder
from bittern.encoders.openclip import OpenClipEncoder
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.heads import objective_for
from tests.encoders import tiny

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak of memory")
ROWS, DIM = 200, 12
SMALL = TrainingConfig(bits=16, batch_size=16, epochs=1, device="cpu")
CLIP = tiny.openclip_config()["model_cfg"]
CLAP = {
    "text_config": {
        "vocab_size": 512,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    },
    "audio_config": {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_embeds_hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "window_size": 4,
        "hidden_size": 32,
    },
    "projection_dim": 20,
}
TINY_FEATURES = {
    **CLAP_FEATURES,
    "feature_size": 16,
    "sampling_rate": 4000,
    "max_length_s": 2,
    "hop_length": 100,
    "fft_window_size": 256,
    "frequency_max": 2000,
}
SUBJECTS = (
    Subject(
        "a ViT of a tiny size",
        Modality.IMAGE,
        lambda folder: write_openclip(folder, CLIP),
        lambda folder: OpenClipEncoder(folder, name="bioclip", device="cpu"),
    ),
    Subject(
        "tiny CLAP",
        Modality.AUDIO,
        lambda folder: write_clap(folder, CLAP, TINY_FEATURES),
        lambda folder: ClapEncoder(folder, name="biolingual", device="cpu"),
    ),
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A plot takes longer than these trainings; threads would only wait for one another."""
    monkeypatch.setattr("bittern.hashing.training.loop.draw_plot", lambda *_: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_an_epoch_is_compared_with_as_many_steps_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "_MOST_BARE_STEPS", 3)
    report = Report("training", "")
    measure_heads(Heads(ROWS, DIM, rounds=2, config=SMALL), report)
    (heads,) = report.values["heads"]
    assert heads["steps"] == (ROWS - ROWS // 20) // 16
    seconds = heads["seconds"].seconds
    assert {len(times) for times in seconds.values()} == {2}
    assert all(time > 0 for times in seconds.values() for time in times)
    assert (seconds["training"] > seconds["epoch"] + seconds["scan"]).all()
    speed, memory = report.tables
    assert (len(speed.rows), len(memory.rows)) == (6, 4)
    assert memory.rows[2][1] == pytest.approx(3 * ROWS * DIM * 2 * 2 / MIB)


def test_the_views_of_the_set_are_alike_but_not_the_same(tmp_path: Path) -> None:
    source = write_set(tmp_path / "set", ROWS, 64)
    rows = np.arange(ROWS)
    words, image = (source.read(view, rows).astype(float) for view in ("text", "image"))
    unit = [view / np.linalg.norm(view, axis=1, keepdims=True) for view in (words, image)]
    assert (unit[0] * unit[1]).sum(axis=1).mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("loss", [True, False])
def test_steps_in_memory_train_the_heads(tmp_path: Path, loss: bool) -> None:
    objective = objective_for(write_set(tmp_path / "set", ROWS, DIM), SMALL)
    batches = list(itertools.islice(objective.batches(1), 2))
    weight = next(objective.module.head("text").parameters())
    before = weight.detach().clone()
    bare_work(objective, batches, loss=loss)(3)
    assert not torch.equal(weight, before)


def test_adapters_on_both_architectures_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    config = TrainingConfig(bits=16, lora_rank=4, device="cpu")
    report = Report("training", "")
    measure_adapters(report, SUBJECTS, pairs=4, rounds=2, config=config)
    shares, speeds = (table.to_json()["rows"] for table in report.tables)
    assert [row[""] for row in shares] == ["a ViT of a tiny size", "tiny CLAP"]
    for share, speed in zip(shares, speeds, strict=True):
        assert 0 < share["adapters"] < share["towers"]
        assert speed["ratio"].median > 0
        assert speed["media per second"] == pytest.approx(4 / speed["step"].median)
        assert speed["peak MiB"] > 50
    show(report, ())
    assert "…" not in capsys.readouterr().out


def test_a_step_changes_heads_and_adapters_and_passes_change_nothing(tmp_path: Path) -> None:
    subject = SUBJECTS[0]
    encoder = subject.load(subject.write(tmp_path / "checkpoint"))
    made = TowerPairs(encoder, subject.media, TrainingConfig(bits=16, lora_rank=4))
    inputs = made.prepare(random_pairs(encoder, subject.media, 4))
    trained = [*made.heads.parameters(), *made.adapter_parameters()]
    before = [p.detach().clone() for p in trained]
    made.passes(inputs)
    assert all(torch.equal(p, old) for p, old in zip(trained, before, strict=True))
    made.step(inputs)
    changed = [not torch.equal(p, old) for p, old in zip(trained, before, strict=True)]
    assert sum(changed) > len(changed) / 2


@linux
def test_peak_memory_sees_what_was_let_go_again() -> None:
    with peak_memory() as peak:
        np.ones(100 * MIB, dtype=np.uint8).sum()
    assert 90 * MIB < peak.growth < 200 * MIB


@linux
def test_own_memory_leaves_out_mapped_files(tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.ones(50 * MIB, dtype=np.uint8))
    before = own_memory()
    mapped = np.load(tmp_path / "large.npy", mmap_mode="r")
    mapped.sum()
    assert own_memory() - before < 25 * MIB
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # not what the allocator already holds
    with mmap.mmap(-1, 50 * MIB, flags=flags) as held:
        held.write(mapped.tobytes())
        assert own_memory() - before > 40 * MIB


def test_a_quick_command_leaves_the_towers_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(plan: Heads, report: Report) -> None:
        assert (plan.rows, plan.rounds) == (300, 2)
        measure_heads(Heads(ROWS, DIM, 1, SMALL), report)

    monkeypatch.setattr(training, "measure_heads", small)
    assert main(["training", "--quick", "--rows", "300", "--rounds", "2"]) == 0
    assert "epoch, from disk" in capsys.readouterr().out
