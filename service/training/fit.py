"""Fits hashers to embeddings (heads, aligned codes or both), and compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.errors import TrainingError
from bittern.hashing.hashers import Hasher
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.heads import HeadsObjective
from bittern.hashing.training.hybrid import fit_hybrid
from bittern.hashing.training.loop import train
from bittern.hashing.training.plan_choice import PLANS_OF, plan_for
from bittern.hashing.training.records import Progress, TrainingResult, bit_statistics
from bittern.hashing.training.validation import Task, TrainingData, tasks_of
from bittern.hashing.training_free import fit


@dataclass(frozen=True)
class Comparison:
    """One kind of search among held-out items, with floats and with two kinds of codes.

    Attributes:
        task: ``words to images``.
        modality: of the items.
        queries: number of queries.
        items: number of held-out items.
        floats: mean average precision by cosine of the encoder's embeddings; for ``distill``, of
            the trained student's.
        training_free: mean average precision of PCA codes with as many bits, fitted on the same
            training items; None for ``distill``.
        learned: mean average precision of the trained codes.
    """

    task: str
    modality: str
    queries: int
    items: int
    floats: float
    training_free: float | None
    learned: float


@dataclass(frozen=True)
class Fitted:
    """A hasher, and facts about its training.

    Attributes:
        hasher: ready for use.
        metrics: losses and statistics of the bits, for the card, as JSON values.
        comparison: with floats and training-free codes, on held-out items.
        warnings: for its users.
        seconds: time in epochs.
        resumed: whether it continued from a checkpoint.
        was_finished: whether it was finished before.
    """

    hasher: Hasher
    metrics: Mapping[str, Any]
    comparison: Sequence[Comparison]
    warnings: Sequence[str] = ()
    seconds: float = 0.0
    resumed: bool = False
    was_finished: bool = False

    @classmethod
    def of(
        cls,
        hasher: Hasher,
        result: TrainingResult,
        comparison: Sequence[Comparison],
        bits: Mapping[str, float] | None = None,
    ) -> Fitted:
        """The outcome of a run.

        Args:
            hasher: with the best weights.
            result: of the loop.
            comparison: on held-out items.
            bits: statistics of the whole hasher, if it has more bits than were trained.
        """
        best = result.best
        metrics = {
            "epoch": result.best_epoch,
            "loss": best.loss,
            **best.parts,
            "validation": dict(best.validation),
            "held_out": _as_json(comparison),
            "bit_balance": best.balance,
            "bit_correlation": best.correlation,
            "dead_bits": best.dead_bits,
            "stopped_early": result.stopped_early,
            **(bits or {}),
        }
        return cls(
            hasher,
            metrics,
            comparison,
            result.warnings,
            result.seconds,
            result.resumed,
            result.was_finished,
        )


def fit_hasher(
    kind: str, data: TrainingData, config: TrainingConfig, run_folder: Path, progress: Progress
) -> Fitted:
    """Fit a hasher to embeddings.

    Args:
        kind: one of `bittern.service.training.request.HASHERS`.
        data: the embeddings.
        config: the settings.
        run_folder: for checkpoints and logs; an existing run is resumed.
        progress: called with ``training``.

    Raises:
        InvalidInputError: unusable data.
        TrainingError: as `bittern.hashing.training.loop.train`.
    """
    if kind in PLANS_OF:
        return _fit_hybrid(kind, data, config, run_folder, progress)
    objective = HeadsObjective(data, config)
    result = train(objective, config, run_folder, progress=progress)
    hasher = objective.module.hasher(data.settings(config))
    tasks = tasks_of(data.sets)
    return Fitted.of(hasher, result, compare(tasks, tasks, hasher, data.sample(), config))


def _fit_hybrid(
    kind: str, data: TrainingData, config: TrainingConfig, run_folder: Path, progress: Progress
) -> Fitted:
    begun = perf_counter()
    choice = plan_for(kind, data.sets, config, run_folder, progress)
    hasher, result = fit_hybrid(
        data,
        config,
        choice.plan,
        run_folder,
        settings=data.settings(config),
        progress=progress,
    )
    count = choice.plan.learned_bits(config.bits)
    plan = {**choice.found, "aligned_bits": config.bits - count, "learned_bits": count}
    tasks, sample = tasks_of(data.sets), data.sample()
    comparison = compare(tasks, tasks, hasher, sample, config)
    bits = bits_of(hasher, sample)
    warnings = _dead_bits(bits["dead_bits"], config)
    if result is None:
        metrics = {"held_out": _as_json(comparison), **bits}
        fitted = Fitted(hasher, metrics, comparison, was_finished=choice.reused)
    else:
        fitted = Fitted.of(hasher, result, comparison, bits)
    return replace(
        fitted,
        metrics={**fitted.metrics, "plan": plan},
        warnings=(*fitted.warnings, *warnings),
        seconds=perf_counter() - begun,
    )


def _dead_bits(dead: float, config: TrainingConfig) -> list[str]:
    if dead >= config.bits:
        raise TrainingError(
            f"all {config.bits} bits are constant: the items, or the words for them, are all "
            "alike. Bring items of several kinds."
        )
    return [f"{dead:.0f} of {config.bits} bits are dead (the same for all items)"] if dead else []


def bits_of(hasher: Hasher, sample: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """Statistics of the bits of training rows, for the card: means over the modalities."""
    found = [bit_statistics(hasher.logits(rows, modality)) for modality, rows in sample.items()]
    return {
        "bit_balance": float(np.mean([one.balance for one in found])),
        "bit_correlation": float(np.mean([one.mean_correlation for one in found])),
        "dead_bits": max(len(one.dead) for one in found),
    }


@torch.inference_mode()
def compare(
    before: Sequence[Task],
    after: Sequence[Task],
    learned: Hasher,
    sample: Mapping[str, NDArray[np.floating]],
    config: TrainingConfig,
) -> list[Comparison]:
    """Learned codes beside floats and training-free codes, on the same held-out items.

    Args:
        before: tasks with embeddings of the untrained towers.
        after: the same tasks with embeddings of the trained towers.
        learned: the hasher of embeddings `after`.
        sample: per modality training embeddings, for the training-free codes.
        config: of the training; its bits and seed are those of the training-free codes.
    """
    basis = [m for m in sorted(sample) if m != "text"] or sorted(sample)
    free = fit("pca", dict(sample), config.bits, seed=config.seed, basis=basis)
    return [
        Comparison(
            task=old.name,
            modality=old.items[0],
            queries=len(old.relevant),
            items=len(old.items[1]),
            floats=old.of_floats(),
            training_free=old.of_codes(free.logits),
            learned=new.of_codes(learned.logits),
        )
        for old, new in zip(before, after, strict=True)
    ]


_ON_THE_CARD = {
    "floats": "mAP_floats",
    "training_free": "mAP_training_free",
    "learned": "mAP_learned",
}


def _as_json(comparison: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A comparison as JSON values, for the card."""
    return [
        {_ON_THE_CARD.get(n, n): v for n, v in asdict(row).items() if n != "modality"}
        for row in comparison
    ]
