"""Hybrid codes from an embedding set: aligned bits, and learned ones beside them.

The aligned bits (`hashing.aligned`) carry over to classes that were not trained on; the learned
ones (HashCoder heads, CroVCA) are better at those that were. `hashing.training.choosing` finds
out what share of the bits each should get.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np

from bittern.hashing.aligned import AlignedHasher, Moments, fit_aligned
from bittern.hashing.hashers import Hasher, HybridHasher
from bittern.hashing.training.alignment import WORDS, align, moments_of
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embeddings import EmbeddingSet
from bittern.hashing.training.heads import HeadObjective, LabelsObjective, PairsObjective
from bittern.hashing.training.loop import train
from bittern.hashing.training.plans import HybridPlan
from bittern.hashing.training.records import EpochRecord, Progress, TrainingResult


class TrainOptions(TypedDict, total=False):
    """What `bittern.hashing.training.loop.train` takes besides data, settings and folder."""

    resume: bool
    plots: bool
    progress: Callable[[Progress], None] | None
    on_epoch: Callable[[EpochRecord], None] | None


def objective_for(source: EmbeddingSet, config: TrainingConfig) -> HeadObjective:
    """Labels where the set has them, pairs otherwise."""
    labelled = source.labels is not None or source.multi_labels is not None
    return (LabelsObjective if labelled else PairsObjective)(source, config)


def fit_hybrid(
    source: EmbeddingSet,
    config: TrainingConfig,
    plan: HybridPlan,
    run_folder: Path,
    **options: Unpack[TrainOptions],
) -> tuple[Hasher, TrainingResult | None]:
    """Fit the aligned bits, train the learned ones, and put them side by side.

    What the configuration holds out for validation, no part of the code has seen.

    Args:
        source: with views of words and of media.
        config: of the training; its bits are those of the whole code.
        plan: how they are shared out.
        run_folder: where the training keeps its log and checkpoint.
        options: handed on to `bittern.hashing.training.loop.train`.

    Returns:
        The hasher, and how the training went; None if no bit was learned.

    Raises:
        InvalidInputError: the set cannot be used so.
        TrainingError: see `bittern.hashing.training.loop.train`.
    """
    count = plan.learned_bits(config.bits)
    objective = objective_for(source, replace(config, bits=count or config.bits))
    seen = np.setdiff1d(np.arange(source.rows), objective.held_out)
    moments = moments_of(source, rows=seen)
    if count == 0:
        return aligned_part(moments, config.bits, plan, config.seed), None
    learned, result = learned_part(objective, plan, moments, run_folder, **options)
    if count == config.bits:
        return learned, result
    aligned = aligned_part(moments, config.bits - count, plan, config.seed)
    return HybridHasher([aligned, learned], plan.weights, asdict(plan)), result


def aligned_part(
    moments: Mapping[str, Moments], bits: int, plan: HybridPlan, seed: int
) -> AlignedHasher:
    """The aligned bits of a plan; a hasher of its own."""
    return fit_aligned(moments, bits, ridge=plan.ridge, words=WORDS, seed=seed)


def learned_part(
    objective: HeadObjective,
    plan: HybridPlan,
    moments: dict[str, Moments],
    run_folder: Path,
    **options: Unpack[TrainOptions],
) -> tuple[Hasher, TrainingResult]:
    """The learned bits of a plan; as many as the objective's configuration says."""
    config = objective.config
    module = align(objective, moments, plan.learned_ridge)
    result = train(objective, config, run_folder, **options)
    return module.hasher({"learned_ridge": plan.learned_ridge, **config.to_dict()}), result
