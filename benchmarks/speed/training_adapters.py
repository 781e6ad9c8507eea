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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bittern.benchmarks.speed.harness import Cell, Report, Table, interleaved, say
from bittern.benchmarks.speed.inputs import CAPTIONS, write_clap, write_openclip
from bittern.benchmarks.speed.process import MIB, peak_memory
from bittern.benchmarks.speed.training import SCHEDULE_STEPS, synchronise
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
    """

    name: str
    media: Modality
    write: Callable[[Path], Path]
    load: Callable[[Path], Encoder]


SUBJECTS = (
    Subject(
        "BioCLIP's ViT-B/16",
        Modality.IMAGE,
        write_openclip,
        lambda folder: OpenClipEncoder(folder, name="bioclip"),
    ),
    Subject(
        "BioLingual's CLAP",
        Modality.AUDIO,
        write_clap,
        lambda folder: ClapEncoder(folder, name="biolingual"),
    ),
)


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
    report: Report,
    subjects: Sequence[Subject] = SUBJECTS,
    *,
    pairs: int | None = None,
    rounds: int = ROUNDS,
    config: TrainingConfig = CONFIG,
) -> None:
    """Train on random media, one encoder after the other.

    Args:
        report: collects the results.
        subjects: the encoders.
        pairs: items in a batch; 64 on a GPU and 8 on a CPU by default.
        rounds: timed turns of each contestant.
        config: the settings of the training.
    """
    device = placement(config).device
    is_gpu = device.type == "cuda"
    number = pairs or (PAIRS_GPU if is_gpu else PAIRS_CPU)
    shares: list[list[Cell]] = []
    speeds: list[list[Cell]] = []
    seconds = {}
    for subject in subjects:
        with tempfile.TemporaryDirectory() as folder:
            say(f"{subject.name}: drawing weights")
            encoder: Any = subject.load(subject.write(Path(folder) / "checkpoint"))
        towers = sum(p.numel() for p in encoder.module.parameters())
        training = TowerPairs(encoder, subject.media, config)
        views = random_pairs(encoder, subject.media, number)
        inputs = training.prepare(views)
        say(f"{subject.name}: timing steps of {number} pairs in {rounds} rounds")
        peak = _peak_of(partial(training.step, inputs), training.placed.device)
        contestants: dict[str, Callable[[], object]] = {
            "step": partial(training.step, inputs),
            "passes": partial(training.passes, inputs),
            "inputs": partial(training.prepare, views),
        }
        seconds[subject.name] = times = interleaved(contestants, rounds=rounds)
        adapters = sum(p.numel() for p in training.adapter_parameters())
        heads = sum(p.numel() for p in training.heads.parameters())
        millions = [count / 1e6 for count in (towers, adapters, heads)]
        shares.append([subject.name, *millions, adapters / towers, (adapters + heads) / towers])
        step = times.time("step")
        speeds.append(
            [
                subject.name,
                times.time("passes").median,
                step,
                times.ratio("step", "passes"),
                times.time("inputs").median,
                number / step.median,
                peak / MIB,
            ]
        )
    on = torch.cuda.get_device_name(device) if is_gpu else "CPU"
    report.add("adapters", _share_table(shares), _speed_table(speeds, number, on), seconds=seconds)


def _peak_of(work: Callable[[], None], device: torch.device) -> int:
    """Peak memory in bytes, the towers included; on a GPU that of its memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    with peak_memory() as peak:
        work()
    return peak.most


def _share_table(rows: Sequence[Sequence[Cell]]) -> Table:
    millions = dict.fromkeys(("towers", "adapters", "heads"), ".2f")
    return Table(
        f"Millions of parameters, and the share that is trained (below {MOST_SHARE:.0%})",
        {"": "", **millions, "adapters' share": ".2%", "with heads": ".2%"},
        rows,
        [
            "open_clip's ViT-B/16; transformers' CLAP with HTSAT and RoBERTa: architectures",
            "whole, weights random. Shares are of the towers' parameters.",
        ],
    )


def _speed_table(rows: Sequence[Sequence[Cell]], pairs: int, device: str) -> Table:
    formats = {"passes": ".2f", "step": ".2f", "ratio": ".2f", "inputs": ".2f"}
    return Table(
        f"Training adapters: seconds per step of {pairs} pairs on {device}",
        {"": "", **formats, "media per second": ".1f", "peak MiB": ",.0f"},
        rows,
        [
            "passes: both towers forward and backward. step: with heads, loss and AdamW.",
            "inputs: from pixels or samples to what the towers take; runs beside the steps.",
            "peak: resident, the process whole; on a GPU, its memory.",
        ],
    )
