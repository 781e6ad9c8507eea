"""A step of training adapters (LoRA) on towers of full size, against the towers' own passes.

Two contestants take turns on the same towers, the same adapters and the same inputs in memory:

- ``passes``: both towers forward and backward, up to the adapters. No head, loss or optimiser.
- ``step``: a whole training step: towers, heads, loss, backward, AdamW on heads and adapters.

``inputs`` is what comes before a step and runs beside it in training: scaling of pictures,
spectrograms, tokens. Decoding is left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bittern.benchmarks.speed.memory import MIB, peak_memory
from bittern.benchmarks.speed.random_weights import write_clap, write_openclip
from bittern.benchmarks.speed.report import Table, say
from bittern.benchmarks.speed.timing import Rounds, interleaved
from bittern.benchmarks.speed.tower_pairs import TowerPairs, random_pairs
from bittern.encoders.base import Encoder, Modality
from bittern.encoders.clap import ClapEncoder
from bittern.encoders.openclip import OpenClipEncoder
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.device import placement

ROUNDS = 3
PAIRS_CPU = 8
PAIRS_GPU = 64
CONFIG = TrainingConfig(lora_rank=16)
MOST_SHARE = 0.02


@dataclass(frozen=True)
class Subject:
    """An encoder whose towers are trained.

    Attributes:
        name: of the architecture.
        media: what it takes, next to text.
        write: makes a folder with random weights.
        load: loads the folder.
        unit: what a medium is called in a rate.
    """

    name: str
    media: Modality
    write: Callable[[Path], Path]
    load: Callable[[Path], Encoder]
    unit: str


SUBJECTS = (
    Subject(
        "BioCLIP's ViT-B/16",
        Modality.IMAGE,
        write_openclip,
        lambda folder: OpenClipEncoder(folder, name="bioclip"),
        "images",
    ),
    Subject(
        "BioLingual's CLAP",
        Modality.AUDIO,
        write_clap,
        lambda folder: ClapEncoder(folder, name="biolingual"),
        "clips",
    ),
)


@dataclass(frozen=True)
class Result:
    """What was measured of one encoder.

    Attributes:
        subject: which.
        pairs: items in a batch.
        towers: parameters of all towers, which are not trained.
        adapters: parameters of the adapters.
        heads: parameters of the heads.
        times: seconds of ``passes``, ``step`` and ``inputs``.
        peak_bytes: most memory that a step held: on the GPU, or resident on a CPU.
        device: where it ran.
    """

    subject: Subject
    pairs: int
    towers: int
    adapters: int
    heads: int
    times: Rounds
    peak_bytes: int
    device: str

    @property
    def per_second(self) -> float:
        """Media per second of training steps."""
        return self.pairs / self.times.time("step").median

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "media": self.subject.unit,
            "pairs": self.pairs,
            "device": self.device,
            "tower_parameters": self.towers,
            "adapter_parameters": self.adapters,
            "head_parameters": self.heads,
            "adapter_share": self.adapters / self.towers,
            "trained_share": (self.adapters + self.heads) / self.towers,
            "seconds_per_round": self.times.to_json(),
            "step / passes": self.times.ratio("step", "passes").to_json(),
            f"{self.subject.unit}_per_second": self.per_second,
            "peak_bytes": self.peak_bytes,
        }


def measure(
    subjects: Sequence[Subject] = SUBJECTS,
    *,
    pairs: int | None = None,
    rounds: int = ROUNDS,
    config: TrainingConfig = CONFIG,
) -> tuple[list[Table], dict[str, Any]]:
    """Train on random media, one encoder after the other.

    Args:
        subjects: the encoders.
        pairs: items in a batch; 64 on a GPU and 8 on a CPU by default.
        rounds: timed turns of each contestant.
        config: the settings of the training.
    """
    gpu = placement(config).device.type == "cuda"
    number = pairs or (PAIRS_GPU if gpu else PAIRS_CPU)
    results = [_measured(subject, number, rounds, config) for subject in subjects]
    return _tables(results), {result.subject.name: result.to_json() for result in results}


def _measured(subject: Subject, pairs: int, rounds: int, config: TrainingConfig) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        say(f"{subject.name}: drawing weights")
        encoder = subject.load(subject.write(Path(folder) / "checkpoint"))
    module: Any = encoder
    towers = sum(p.numel() for p in module.module.parameters())
    training = TowerPairs(encoder, subject.media, config)
    views = random_pairs(encoder, subject.media, pairs)
    inputs = training.prepare(views)
    say(f"{subject.name}: timing steps of {pairs} pairs in {rounds} rounds")
    peak = _peak_of(lambda: training.step(inputs), training.placed.device)
    times = interleaved(
        {
            "step": lambda: training.step(inputs),
            "passes": lambda: training.passes(inputs),
            "inputs": lambda: training.prepare(views),
        },
        rounds=rounds,
    )
    return Result(
        subject=subject,
        pairs=pairs,
        towers=towers,
        adapters=sum(p.numel() for p in training.adapter_parameters()),
        heads=sum(p.numel() for p in training.heads.parameters()),
        times=times,
        peak_bytes=peak,
        device=_device_name(training.placed.device),
    )


def _peak_of(work: Callable[[], None], device: torch.device) -> int:
    """Bytes held at most, the towers included; on a GPU those of its memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    with peak_memory() as peak:
        work()
    return peak.most


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _tables(results: Sequence[Result]) -> list[Table]:
    shares = [
        [
            result.subject.name,
            *(f"{count / 1e6:.2f}" for count in (result.towers, result.adapters, result.heads)),
            f"{result.adapters / result.towers:.2%}",
            f"{(result.adapters + result.heads) / result.towers:.2%}",
        ]
        for result in results
    ]
    speeds = [
        [
            result.subject.name,
            f"{result.times.time('passes').median:.2f}",
            result.times.time("step").text(),
            result.times.ratio("step", "passes").text(),
            f"{result.times.time('inputs').median:.2f}",
            f"{result.per_second:.1f} {result.subject.unit}",
            f"{result.peak_bytes / MIB:,.0f}",
        ]
        for result in results
    ]
    batches = sorted({(result.pairs, result.device) for result in results})
    described = ", ".join(f"{pairs} pairs on {device}" for pairs, device in batches)
    return [
        Table(
            f"Millions of parameters, and the share that is trained (below {MOST_SHARE:.0%})",
            ["", "towers", "adapters", "heads", "adapters", "with heads"],
            shares,
            [
                "open_clip's ViT-B/16; transformers' CLAP with HTSAT and RoBERTa: architectures",
                "whole, weights random. Shares are of the towers' parameters.",
            ],
        ),
        Table(
            f"Training adapters: seconds per step of {described}",
            ["", "passes", "step", "ratio", "inputs", "per second", "peak MiB"],
            speeds,
            [
                "passes: both towers forward and backward. step: with heads, loss and AdamW.",
                "inputs: from pixels or samples to what the towers take; runs beside the steps.",
                "peak: resident, the process whole; on a GPU, its memory.",
            ],
        ),
    ]
