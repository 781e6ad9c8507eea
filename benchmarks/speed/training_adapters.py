"""A step of training adapters (LoRA) on towers of full size, compared with the bare passes.

Two contestants take turns on the same towers, the same adapters and the same inputs in memory:

- ``passes``: both towers forward and backward, up to the adapters. No head, loss or optimiser.
- ``step``: a whole training step: towers, heads, loss, backward, AdamW on heads and adapters.

``inputs`` is the work before a step, in parallel with it in training: scaling of pictures,
spectrograms, tokens. Decoding is not measured. The loss and the optimiser are those of
`bittern train`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bittern.benchmarks.speed.harness import Rounds, Table, interleaved, say
from bittern.benchmarks.speed.models import CAPTIONS, write_clap, write_openclip
from bittern.benchmarks.speed.process import MIB, peak_memory
from bittern.benchmarks.speed.training_heads import SCHEDULE_STEPS, synchronise
from bittern.encoders.adapters import LoraSettings
from bittern.encoders.assembly import AssembledEncoder, TowerPlan, begin
from bittern.encoders.base import Encoder, Media, Modality
from bittern.encoders.clap import ClapEncoder
from bittern.encoders.openclip import OpenClipEncoder
from bittern.hashing.losses import cross_view_loss
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.heads import CentredHeads
from bittern.hashing.training.optimiser import Optimiser, Placement, placement

ROUNDS = 3
PAIRS_CPU = 8
PAIRS_GPU = 64
CONFIG = TrainingConfig(lora_rank=16)
MOST_SHARE = 0.02
_LONGER_SIDE = 256


@dataclass(frozen=True)
class Subject:
    """An encoder whose towers are trained.

    Attributes:
        name: of the architecture.
        media: its modality beside text.
        write: writes a folder with random weights.
        load: loads the folder.
        unit: word for its media in a rate.
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
    """Measurements of one encoder.

    Attributes:
        subject: the encoder.
        pairs: items in a batch.
        towers: frozen parameters of all towers.
        adapters: parameters of the adapters.
        heads: parameters of the heads.
        times: seconds of ``passes``, ``step`` and ``inputs``.
        peak_bytes: peak memory of a step: on the GPU, or resident on a CPU.
        device: the device.
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
            "seconds_per_round": self.times.to_json(),
            "step / passes": self.times.ratio("step", "passes").to_json(),
            f"{self.subject.unit}_per_second": self.per_second,
            "peak_bytes": self.peak_bytes,
        }


class TowerPairs:
    """Towers with adapters, heads behind them, and one optimiser for both.

    Attributes:
        towers: the encoder in training.
        heads: one per modality.
    """

    def __init__(self, encoder: Encoder, media: Modality, config: TrainingConfig) -> None:
        lora = LoraSettings(config.lora_rank, int(config.lora_alpha), config.lora_dropout)
        plans = {m: TowerPlan(encoder.name, lora) for m in (Modality.TEXT, media)}
        self.towers: AssembledEncoder = begin(
            encoder.name, plans, lambda _: encoder, seed=config.seed
        )
        means = {str(m): np.zeros(encoder.dim) for m in plans}
        self.heads = CentredHeads(means, config)
        self.placed: Placement = placement(config)
        self.heads.to(self.placed.device).train()
        for tower in self.towers.towers.values():
            tower.train()
        self._weight = config.rate_weight
        groups = [
            {"params": list(self.heads.parameters())},
            {"params": self.adapter_parameters()},
        ]
        self._optimiser = Optimiser(groups, config, self.placed, SCHEDULE_STEPS)

    def adapter_parameters(self) -> list[torch.nn.Parameter]:
        """The trained parameters of the towers."""
        return [p for tower in self.towers.towers.values() for p in tower.named().values()]

    def prepare(self, views: Mapping[Modality, Sequence[Media]]) -> dict[Modality, Any]:
        """Inputs of the towers."""
        return {m: self.towers.prepare(m, media) for m, media in views.items()}

    def passes(self, inputs: Mapping[Modality, Any]) -> None:
        """Both towers forward and backward, with ones for a gradient."""
        with self.placed.autocast:
            embedded = [self.towers.embed(m, x) for m, x in inputs.items()]
        torch.autograd.grad(
            embedded, self.adapter_parameters(), [torch.ones_like(e) for e in embedded]
        )
        synchronise(self.placed.device)

    def step(self, inputs: Mapping[Modality, Any]) -> None:
        """A training step."""
        with self.placed.autocast:
            logits = [
                self.heads(self.towers.embed(m, x).float(), str(m)) for m, x in inputs.items()
            ]
            loss = cross_view_loss(logits, self._weight)
        self._optimiser.backward(loss.total)
        self._optimiser.step()
        synchronise(self.placed.device)


def random_pairs(encoder: Encoder, media: Modality, pairs: int) -> dict[Modality, list[Media]]:
    """Captions, and noise as media."""
    rng = np.random.default_rng(0)
    shown: list[Media]
    if media is Modality.IMAGE:
        shape = (pairs, _LONGER_SIDE, _LONGER_SIDE, 3)
        shown = list(rng.integers(0, 256, shape, dtype=np.uint8))
    else:
        windowing = encoder.windowing
        assert windowing is not None
        samples = round(windowing.window_s * windowing.sample_rate)
        shown = list(rng.uniform(-0.5, 0.5, (pairs, samples)).astype(np.float32))
    words: list[Media] = [CAPTIONS[number % len(CAPTIONS)] for number in range(pairs)]
    return {Modality.TEXT: words, media: shown}


def measure_adapters(
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
    device = training.placed.device
    peak = _peak_of(lambda: training.step(inputs), device)
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
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
    )


def _peak_of(work: Callable[[], None], device: torch.device) -> int:
    """Peak memory in bytes, the towers included; on a GPU that of its memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    with peak_memory() as peak:
        work()
    return peak.most


def _tables(results: Sequence[Result]) -> list[Table]:
    shares = [
        [
            one.subject.name,
            *(f"{count / 1e6:.2f}" for count in (one.towers, one.adapters, one.heads)),
            f"{one.adapters / one.towers:.2%}",
            f"{(one.adapters + one.heads) / one.towers:.2%}",
        ]
        for one in results
    ]
    speeds = [
        [
            one.subject.name,
            f"{one.times.time('passes').median:.2f}",
            one.times.time("step").text(),
            one.times.ratio("step", "passes").text(),
            f"{one.times.time('inputs').median:.2f}",
            f"{one.per_second:.1f} {one.subject.unit}",
            f"{one.peak_bytes / MIB:,.0f}",
        ]
        for one in results
    ]
    batches = sorted({(one.pairs, one.device) for one in results})
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
