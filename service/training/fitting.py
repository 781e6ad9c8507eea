"""From embeddings to a hasher: the seam behind which kinds of hashers are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.errors import InvalidInputError, TrainingError
from bittern.hashing.hashcoder import LearnedHasher
from bittern.hashing.hashers import Hasher
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.loop import train
from bittern.hashing.training.records import EpochRecord, Progress, TrainingResult
from bittern.service.training import hybrids
from bittern.service.training.probing import Part, ProbingObjective, tasks_of
from bittern.service.training.request import Comparison, OnProgress
from bittern.service.training.validating import FIT_ROWS, MOST_ITEMS, Task, compare

HASHERS = ("hashcoder", *hybrids.CHOICES)
"""Learned bits; aligned ones; both. See docs/background/learned-codes.md."""


@dataclass(frozen=True)
class TrainingData:
    """What a hasher is fitted to.

    Attributes:
        parts: a set of embeddings per modality of media.
        labels: whether items have classes; else captions, or other views.
        means: float64 [dim] of modalities that no set has and that are to be coded all the same.
    """

    parts: Sequence[Part]
    labels: bool
    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def sample(self, most: int = FIT_ROWS) -> dict[str, NDArray[np.float32]]:
        """Per modality float32 [n, dim] of training rows."""
        rows: dict[str, list[NDArray[np.float32]]] = {}
        for part in self.parts:
            for modality, some in part.sample(most).items():
                rows.setdefault(modality, []).append(some)
        return {modality: np.concatenate(some) for modality, some in rows.items()}

    def tasks(self, most: int = MOST_ITEMS) -> list[Task]:
        """The ways of asking for what is held out, `most` rows of each part at most."""
        return tasks_of(self.parts, most)


@dataclass(frozen=True)
class Fitted:
    """A hasher, and what there is to say of its training.

    Attributes:
        hasher: ready for use.
        metrics: for the card, as JSON values.
        comparison: with floats and training-free codes, on held-out items.
        warnings: what whoever trusts it should know.
        seconds: time in epochs.
        resumed: whether it went on from a checkpoint.
        was_finished: whether there was nothing left to do.
    """

    hasher: Hasher
    metrics: Mapping[str, Any]
    comparison: Sequence[Comparison]
    warnings: Sequence[str] = ()
    seconds: float = 0.0
    resumed: bool = False
    was_finished: bool = False


def fit_hasher(
    kind: str,
    data: TrainingData,
    config: TrainingConfig,
    run_folder: Path,
    progress: OnProgress = lambda *_: None,
) -> Fitted:
    """Fit a hasher to embeddings.

    Args:
        kind: one of `HASHERS`.
        data: the embeddings.
        config: the settings.
        run_folder: for checkpoints and logs; a run that it holds is gone on with.
        progress: called with ``training``.

    Raises:
        InvalidInputError: no such kind, or data that cannot be trained on.
        TrainingError: as `bittern.hashing.training.loop.train`.
    """
    check_hasher(kind)
    if kind in hybrids.CHOICES:
        return _fit_hybrid(kind, data, config, run_folder, progress)
    return _fit_hashcoder(data, config, run_folder, progress)


def check_hasher(kind: str) -> None:
    """Refuse a kind that cannot be trained.

    Raises:
        InvalidInputError: no such kind.
    """
    if kind not in HASHERS:
        raise InvalidInputError(
            f"there is no hasher '{kind}' to be trained; there are {', '.join(HASHERS)} (pca, itq "
            "and lsh need no training: give them to `bittern index --hasher`)",
            field="hasher",
        )


def _fit_hashcoder(
    data: TrainingData, config: TrainingConfig, run_folder: Path, progress: OnProgress
) -> Fitted:
    objective = ProbingObjective(data.parts, config, labels=data.labels, means=data.means)
    result, was_finished = run_training(objective, config, run_folder, progress)
    hasher = LearnedHasher.from_modules(
        objective.heads(), objective.means(), settings_of(config, data.labels)
    )
    tasks = data.tasks()
    with torch.inference_mode():
        comparison = compare(tasks, tasks, hasher.logits, data.sample(), config.bits, config.seed)
    return Fitted(
        hasher=hasher,
        metrics=metrics_of(result, comparison),
        comparison=comparison,
        warnings=result.warnings,
        seconds=result.seconds,
        resumed=result.resumed,
        was_finished=was_finished,
    )


def _fit_hybrid(
    kind: str, data: TrainingData, config: TrainingConfig, run_folder: Path, progress: OnProgress
) -> Fitted:
    begun = perf_counter()
    moments = hybrids.moments_of_parts(data.parts)
    settled = hybrids.settled_plan(kind, data.parts, config, run_folder, progress)
    plan, learned, result, was_finished = settled.plan, None, None, settled.reused
    if count := plan.learned_bits(config.bits):
        fewer = replace(config, bits=count)
        objective = ProbingObjective(data.parts, fewer, labels=data.labels, means=data.means)
        module = objective.align(moments, plan.learned_ridge)
        result, was_finished = run_training(objective, fewer, run_folder, progress)
        learned = module.hasher(settings_of(config, data.labels))
    hasher = hybrids.joined(plan, moments, config, learned)
    count = learned.bits if learned else 0
    shared_out = {**settled.found, "aligned_bits": config.bits - count, "learned_bits": count}
    tasks, sample = data.tasks(), data.sample()
    with torch.inference_mode():
        comparison = compare(tasks, tasks, hasher.logits, sample, config.bits, config.seed)
    bits = hybrids.bits_told(hasher, sample)
    losses = metrics_of(result, comparison) if result else {"held_out": told(comparison)}
    return Fitted(
        hasher=hasher,
        metrics={**losses, **bits, "plan": shared_out},
        comparison=comparison,
        warnings=(*(result.warnings if result else ()), *_warnings(bits["dead_bits"], config)),
        seconds=perf_counter() - begun,
        resumed=bool(result and result.resumed),
        was_finished=was_finished,
    )


def _warnings(dead: float, config: TrainingConfig) -> list[str]:
    """What to say of bits that are the same for all items.

    Raises:
        TrainingError: all of them are.
    """
    if dead >= config.bits:
        raise TrainingError(
            f"all {config.bits} bits are constant: the items, or the words for them, are all "
            "alike. Bring items of several kinds."
        )
    return [f"{dead:.0f} of {config.bits} bits are dead (the same for all items)"] if dead else []


def run_training(
    objective: Any, config: TrainingConfig, run_folder: Path, progress: OnProgress
) -> tuple[TrainingResult, bool]:
    """Train, or go on with what `run_folder` holds; and whether there was nothing left to do."""
    trained: list[EpochRecord] = []
    steps = objective.steps_per_epoch

    def on_step(at: Progress) -> None:
        done = (at.epoch - 1) * steps + at.step
        progress("training", done, at.epochs * steps, f"epoch {at.epoch}, loss {at.loss:.3f}")

    try:
        result = train(
            objective, config, run_folder, resume=True, progress=on_step, on_epoch=trained.append
        )
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"batches of {config.batch_size} do not fit into the GPU's memory: train with a "
            "smaller --batch-size into another folder (gradients of several batches can be added "
            "up with --set accumulate=N; the coding rate then sees one batch at a time)",
            field="batch_size",
        ) from error
    return result, not trained


def settings_of(config: TrainingConfig, labels: bool) -> dict[str, Any]:
    """What a hasher records of its training."""
    return {
        "trained_on": "labels" if labels else "pairs",
        "epochs": config.epochs,
        "seed": config.seed,
    }


def metrics_of(result: TrainingResult, comparison: Sequence[Comparison]) -> dict[str, Any]:
    """What a card says of a training."""
    best = result.best
    return {
        "epoch": result.best_epoch,
        "loss": best.loss,
        **best.parts,
        "validation": dict(best.validation),
        "held_out": told(comparison),
        "bit_balance": best.balance,
        "bit_correlation": best.correlation,
        "dead_bits": best.dead_bits,
        "stopped_early": result.stopped_early,
    }


def told(comparison: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A comparison as JSON values."""
    return [
        {
            "task": c.task,
            "queries": c.queries,
            "items": c.items,
            "mAP_floats": c.floats,
            "mAP_training_free": c.training_free,
            "mAP_learned": c.learned,
        }
        for c in comparison
    ]
