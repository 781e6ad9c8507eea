"""Parts of a training step of the heads, on batches that are in memory: nothing but the work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch

from bittern.hashing.training.device import Placement, placement
from bittern.hashing.training.heads import PairsObjective
from bittern.hashing.training.optimiser import Optimiser
from bittern.hashing.training.streaming import EmbeddingBatch

Work = Callable[[int], None]
"""Does so many steps."""
_STEPS_OF_THE_SCHEDULE = 1 << 20


def step_work(objective: PairsObjective, batches: Sequence[EmbeddingBatch]) -> Work:
    """Whole steps on batches in memory."""
    placed, optimiser, ready = _in_memory(objective, batches)

    def work(steps: int) -> None:
        for batch in itertools.islice(itertools.cycle(ready), steps):
            with placed.autocast:
                out = objective.loss(batch)
            optimiser.backward(out.total)
            optimiser.step()
        synchronise(placed.device)

    return work


def head_work(objective: PairsObjective, batches: Sequence[EmbeddingBatch]) -> Work:
    """The same with a given gradient in place of the loss."""
    placed, optimiser, ready = _in_memory(objective, batches)
    modalities = [view.modality for view in objective.source.views.values()]
    shape = (objective.config.batch_size, objective.config.bits)
    gradient = torch.randn(shape, device=placed.device)

    def work(steps: int) -> None:
        for batch in itertools.islice(itertools.cycle(ready), steps):
            with placed.autocast:
                logits = [
                    objective.module(x, m) for x, m in zip(batch.views, modalities, strict=True)
                ]
                # As a loss, so that half precision is scaled as in training.
                given = torch.stack([(z * gradient).sum() for z in logits]).sum()
            optimiser.backward(given)
            optimiser.step()
        synchronise(placed.device)

    return work


def matrix_work(objective: PairsObjective, batches: Sequence[EmbeddingBatch]) -> Work:
    """The products of the heads' linear layers alone."""
    placed = placement(objective.config)
    chains = []
    for view in objective.source.views.values():
        layers = objective.module.head(view.modality).layers
        chains.append(
            [
                torch.randn_like(layer.weight, device=placed.device).requires_grad_()
                for layer in layers
                if isinstance(layer, torch.nn.Linear)
            ]
        )
    ready = [[view.to(placed.device) for view in batch.views] for batch in batches]
    gradient = torch.randn(objective.config.batch_size, objective.config.bits)
    gradient = gradient.to(placed.device)

    def work(steps: int) -> None:
        for views in itertools.islice(itertools.cycle(ready), steps):
            with placed.autocast:
                outputs = []
                for x, weights in zip(views, chains, strict=True):
                    for weight in weights:
                        x = x @ weight.T
                    outputs.append(x)
            everything = [weight for weights in chains for weight in weights]
            torch.autograd.grad(outputs, everything, [gradient.to(x.dtype)] * len(outputs))
        synchronise(placed.device)

    return work


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _in_memory(
    objective: PairsObjective, batches: Sequence[EmbeddingBatch]
) -> tuple[Placement, Optimiser, list[EmbeddingBatch]]:
    placed = placement(objective.config)
    objective.module.to(placed.device).train()
    optimiser = Optimiser(
        objective.parameter_groups(), objective.config, placed, _STEPS_OF_THE_SCHEDULE
    )
    ready = [
        EmbeddingBatch(batch.rows, [view.to(placed.device) for view in batch.views])
        for batch in batches
    ]
    return placed, optimiser, ready
