"""Fits hashers to embeddings (heads, aligned codes or both), and compares them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from bittern.errors import InvalidInputError, TrainingError
from bittern.files import replace_file
from bittern.hashing.hashers import Hasher
from bittern.hashing.training.config import FREE_ON_RESUME, TrainingConfig
from bittern.hashing.training.heads import HeadsObjective, digest_of
from bittern.hashing.training.hybrid import (
    ALIGNED_PLANS,
    PLANS,
    HybridPlan,
    choose_plan,
    fit_hybrid,
)
from bittern.hashing.training.loop import train
from bittern.hashing.training.objective import Objective
from bittern.hashing.training.records import Progress, TrainingResult, bit_statistics
from bittern.hashing.training.validation import Logits, SplitSet, Task, tasks_of
from bittern.hashing.training_free import fit
from bittern.service.training.request import Comparison, OnProgress

FIT_ROWS = 8192
"""Most training rows for the training-free codes."""
PLAN_FILE = "plan.json"
CHOICES = {"aligned": ALIGNED_PLANS, "hybrid": PLANS}
"""Plans to try, by kind of hasher."""
_LARGEST_PLAN = 1 << 16


@dataclass(frozen=True)
class TrainingData:
    """Training data of a hasher.

    Attributes:
        sets: a set of embeddings per modality of media.
        labels: whether items have classes; else captions, or other views.
        means: float64 [dim] of further modalities to code, which no set has.
    """

    sets: Sequence[SplitSet]
    labels: bool
    means: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def sample(self) -> dict[str, NDArray[np.float32]]:
        """Per modality float32 [n, dim] of training rows."""
        rows: dict[str, list[NDArray[np.float32]]] = {}
        for one in self.sets:
            for modality, some in one.sample(FIT_ROWS).items():
                rows.setdefault(modality, []).append(some)
        return {modality: np.concatenate(some) for modality, some in rows.items()}

    def settings(self, config: TrainingConfig) -> dict[str, Any]:
        """Training facts that the hasher records."""
        trained_on = "labels" if self.labels else "pairs"
        return {"trained_on": trained_on, "epochs": config.epochs, "seed": config.seed}


@dataclass(frozen=True)
class Fitted:
    """A hasher, and facts about its training.

    Attributes:
        hasher: ready for use.
        metrics: for the card, as JSON values.
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
        """The result of a training.

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
            "held_out": as_json(comparison),
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
    kind: str,
    data: TrainingData,
    config: TrainingConfig,
    run_folder: Path,
    progress: OnProgress = lambda *_: None,
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
    if kind in CHOICES:
        return _fit_hybrid(kind, data, config, run_folder, progress)
    objective = HeadsObjective(data.sets, config, labels=data.labels, means=data.means)
    result = run_training(objective, config, run_folder, progress)
    hasher = objective.module.hasher(data.settings(config))
    tasks = tasks_of(data.sets)
    return Fitted.of(hasher, result, compare(tasks, tasks, hasher, data.sample(), config))


def run_training(
    objective: Objective[Any], config: TrainingConfig, run_folder: Path, progress: OnProgress
) -> TrainingResult:
    """Train, or resume the run in `run_folder`."""
    return train(objective, config, run_folder, resume=True, progress=_steps(progress))


def _steps(progress: OnProgress) -> Any:
    def on_step(at: Progress) -> None:
        done = (at.epoch - 1) * at.steps + at.step
        progress("training", done, at.epochs * at.steps, f"epoch {at.epoch}, loss {at.loss:.3f}")

    return on_step


def _fit_hybrid(
    kind: str, data: TrainingData, config: TrainingConfig, run_folder: Path, progress: OnProgress
) -> Fitted:
    begun = perf_counter()
    choice = plan_for(kind, data.sets, config, run_folder, progress)
    hasher, result = fit_hybrid(
        data.sets,
        config,
        choice.plan,
        run_folder,
        labels=data.labels,
        means=data.means,
        settings=data.settings(config),
        resume=True,
        progress=_steps(progress),
    )
    count = choice.plan.learned_bits(config.bits)
    plan = {**choice.found, "aligned_bits": config.bits - count, "learned_bits": count}
    tasks, sample = tasks_of(data.sets), data.sample()
    comparison = compare(tasks, tasks, hasher, sample, config)
    bits = bits_of(hasher, sample)
    warnings = _dead_bits(bits["dead_bits"], config)
    if result is None:
        metrics = {"held_out": as_json(comparison), **bits}
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


@dataclass(frozen=True)
class Choice:
    """The plan of a run, as in ``plan.json``.

    Attributes:
        key: digest of the training.
        plan: the plan.
        found: for the model's card: its quality on held-out classes, or why it is a default.
        reused: whether it was read from ``plan.json``.
    """

    key: str
    plan: HybridPlan
    found: Mapping[str, Any]
    reused: bool = False


def plan_for(
    kind: str,
    sets: Sequence[SplitSet],
    config: TrainingConfig,
    run_folder: Path,
    progress: OnProgress,
) -> Choice:
    """The recorded plan of the run, or one that is chosen on training classes.

    If there are too few classes or species to hold out, a default plan is used, and the card
    records that.

    Raises:
        TrainingError: ``plan.json`` is damaged.
    """
    path = run_folder / PLAN_FILE
    settings = {n: value for n, value in config.to_dict().items() if n not in FREE_ON_RESUME}
    rows = (one.source.digest + one.training.tobytes().hex() for one in sets)
    key = digest_of(kind, json.dumps(settings), *rows)
    if path.is_file() and (before := _read_choice(path)).key == key:
        return replace(before, reused=True)
    largest = max(sets, key=lambda one: len(one.training))
    try:
        best, *others = choose_plan(
            largest.source,
            config,
            run_folder / "choice",
            plans=distinct(CHOICES[kind], config.bits),
            rows=largest.training,
            on_split=lambda done, of: progress("choosing", done, of, "the shares of the bits"),
        )
        found = {
            "held_out_seen": best.seen,
            "held_out_novel": best.novel,
            "plans": 1 + len(others),
        }
        choice = Choice(key, best.plan, found)
    except InvalidInputError as error:
        plan = HybridPlan(learned_share=0.0) if kind == "aligned" else HybridPlan()
        choice = Choice(key, plan, {"not_chosen": error.message})
    run_folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, TypeAdapter(Choice).dump_json(choice, indent=1) + b"\n")
    return choice


def _read_choice(path: Path) -> Choice:
    try:
        if path.stat().st_size > _LARGEST_PLAN:
            raise TrainingError("it is too large")
        return TypeAdapter(Choice).validate_json(path.read_bytes())
    except (OSError, ValidationError, InvalidInputError, TrainingError) as error:
        raise TrainingError(f"{path} is damaged ({error!r}): train into another folder") from error


def distinct(plans: Sequence[HybridPlan], bits: int) -> list[HybridPlan]:
    """Plans that give different codes at this length; the first of equal ones.

    Shares are rounded to bytes. Without learned or aligned bits, weights and the ridge of the
    missing bits have no effect.
    """
    first: dict[HybridPlan, HybridPlan] = {}
    for plan in plans:
        learned = plan.learned_bits(bits)
        effective = replace(plan, learned_share=learned / bits)
        if learned == 0:
            effective = replace(effective, learned_ridge=1.0, weights=(1.0, 1.0))
        elif learned == bits:
            effective = replace(effective, ridge=1.0, weights=(1.0, 1.0))
        first.setdefault(effective, plan)
    return list(first.values())


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
    free: Logits = fit("pca", dict(sample), config.bits, seed=config.seed, basis=basis).logits
    return [
        Comparison(
            task=old.name,
            modality=old.items[0],
            queries=len(old.relevant),
            items=len(old.items[1]),
            floats=old.of_floats(),
            training_free=old.of_codes(free),
            learned=new.of_codes(learned.logits),
        )
        for old, new in zip(before, after, strict=True)
    ]


def as_json(comparison: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A comparison as JSON values, for the card."""
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
