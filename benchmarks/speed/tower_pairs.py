"""Towers with adapters and heads, and a training step on pairs that are in memory.

The loss and the optimiser are those of `bittern.service.training.raw`, less media and files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bittern.benchmarks.speed.bare_work import synchronise
from bittern.benchmarks.speed.random_weights import CAPTIONS
from bittern.encoders.adapters import LoraSettings
from bittern.encoders.assembly import AssembledEncoder, begin
from bittern.encoders.base import Encoder, Media, Modality
from bittern.encoders.plans import TowerPlan
from bittern.hashing.losses import cross_view_loss
from bittern.hashing.training.centred_heads import CentredHeads
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.device import Placement, placement
from bittern.hashing.training.optimiser import Optimiser

_LONGER_SIDE = 256
_STEPS_OF_THE_SCHEDULE = 1 << 20


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
        self._optimiser = Optimiser(groups, config, self.placed, _STEPS_OF_THE_SCHEDULE)

    def adapter_parameters(self) -> list[torch.nn.Parameter]:
        """All that is trained inside the towers."""
        return [p for tower in self.towers.towers.values() for p in tower.named().values()]

    def prepare(self, views: dict[Modality, list[Media]]) -> dict[Modality, Any]:
        """What the towers take."""
        return {m: self.towers.prepare(m, media) for m, media in views.items()}

    def passes(self, inputs: dict[Modality, Any]) -> None:
        """Both towers forward and backward, with ones for a gradient."""
        with self.placed.autocast:
            embedded = [self.towers.embed(m, x) for m, x in inputs.items()]
        torch.autograd.grad(
            embedded, self.adapter_parameters(), [torch.ones_like(e) for e in embedded]
        )
        synchronise(self.placed.device)

    def step(self, inputs: dict[Modality, Any]) -> None:
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
    """Captions, and noise that they are said to describe."""
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
