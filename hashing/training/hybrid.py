"""Hybrid codes from an embedding set: aligned bits, learned bits, and how to share them out.

The aligned bits (`hashing.aligned`) carry over to classes that were not trained on; the learned
ones (HashCoder heads, CroVCA) are better at those that were. What share of the bits each gets,
and how far media are moved, is chosen on classes that are held out of the training data for it.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError
from hashing.aligned import AlignedHasher, Moments, fit_aligned
from hashing.base import Hasher
from hashing.hybrid import LEAST_WEIGHT, HybridHasher
from hashing.training.alignment import WORDS, align, classes_of, moments_of
from hashing.training.config import TrainingConfig
from hashing.training.embedding_writer import EmbeddingWriter
from hashing.training.embeddings import EmbeddingSet
from hashing.training.heads import HeadObjective, LabelsObjective, PairsObjective
from hashing.training.loop import train
from hashing.training.records import EpochRecord, Progress, TrainingResult
from hashing.training.validation import mean_average_precision

NOVEL_SHARE = 0.2
"""Of the classes: held out as if nobody had known them."""
STORED_SHARE = 0.5
"""Of the items of the other classes: searched, not trained on."""
MOST_ROWS = 20_000
"""Items that a choice looks at."""
FEWEST_CLASSES = 10


class TrainOptions(TypedDict, total=False):
    """What `hashing.training.loop.train` takes besides data, settings and folder."""

    resume: bool
    plots: bool
    progress: Callable[[Progress], None] | None
    on_epoch: Callable[[EpochRecord], None] | None


@dataclass(frozen=True)
class HybridPlan:
    """How the bits are shared out.

    Attributes:
        ridge: of the aligned bits; see `hashing.aligned.alignment_map`.
        learned_share: of the bits, rounded to whole bytes; 0 for aligned bits alone, 1 for
            learned bits alone.
        learned_ridge: of the alignment that lies before the heads.
        weights: of an aligned and of a learned bit, in a query.
    """

    ridge: float = 1.0
    learned_share: float = 0.25
    learned_ridge: float = 0.5
    weights: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            InvalidInputError: a value out of its range.
        """
        ridges = 0 < self.ridge < math.inf and 0 < self.learned_ridge < math.inf
        weights = len(self.weights) == 2 and all(LEAST_WEIGHT <= w <= 1 for w in self.weights)
        if not (ridges and weights and 0 <= self.learned_share <= 1):
            raise InvalidInputError(
                f"a plan has ridges above 0, a share of 0 to 1 and two weights of "
                f"{LEAST_WEIGHT:g} to 1, not {self}"
            )

    def learned_bits(self, bits: int) -> int:
        """How many of `bits` are learned."""
        return round(bits * self.learned_share / 8) * 8


PLANS = tuple(
    HybridPlan(ridge, share, 0.5, weights)
    for ridge in (0.5, 1.0, 2.0, 4.0)
    for share, weights in (
        (0.0, (1.0, 1.0)),
        (0.25, (1.0, 0.5)),
        (0.25, (1.0, 1.0)),
        (0.5, (1.0, 1.0)),
    )
)
"""What `choose_plan` tries."""
ALIGNED_PLANS = tuple(HybridPlan(ridge, 0.0) for ridge in (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0))
"""The same for aligned bits alone."""


@dataclass(frozen=True)
class Trial:
    """What a plan came to on held-out classes: mAP, means over the splits.

    Attributes:
        plan: the plan.
        seen: of classes whose other items were trained on.
        novel: of classes that were held out altogether.
    """

    plan: HybridPlan
    seen: float
    novel: float

    @property
    def score(self) -> float:
        """Geometric mean: a tenth more of one is worth a tenth of the other."""
        return float(np.sqrt(self.seen * self.novel))


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
        options: handed on to `hashing.training.loop.train`.

    Returns:
        The hasher, and how the training went; None if no bit was learned.

    Raises:
        InvalidInputError: the set cannot be used so.
        TrainingError: see `hashing.training.loop.train`.
    """
    count = plan.learned_bits(config.bits)
    objective = objective_for(source, replace(config, bits=count or config.bits))
    seen = np.setdiff1d(np.arange(source.rows), objective.held_out)
    moments = moments_of(source, rows=seen)
    if count == 0:
        return aligned_part(moments, config.bits, plan, config.seed), None
    learned, result = _learned_part(objective, plan, moments, run_folder, **options)
    if count == config.bits:
        return learned, result
    aligned = aligned_part(moments, config.bits - count, plan, config.seed)
    return HybridHasher([aligned, learned], plan.weights, asdict(plan)), result


def aligned_part(
    moments: Mapping[str, Moments], bits: int, plan: HybridPlan, seed: int
) -> AlignedHasher:
    """The aligned bits of a plan; a hasher of its own."""
    return fit_aligned(moments, bits, ridge=plan.ridge, words=WORDS, seed=seed)


def _learned_part(
    objective: HeadObjective,
    plan: HybridPlan,
    moments: dict[str, Moments],
    run_folder: Path,
    **options: Unpack[TrainOptions],
) -> tuple[Hasher, TrainingResult]:
    config = objective.config
    module = align(objective, moments, plan.learned_ridge)
    result = train(objective, config, run_folder, **options)
    return module.hasher({"learned_ridge": plan.learned_ridge, **config.to_dict()}), result


def choose_plan(
    source: EmbeddingSet,
    config: TrainingConfig,
    folder: Path,
    *,
    plans: Sequence[HybridPlan] = PLANS,
    splits: int = 3,
    rows: NDArray[np.integer] | None = None,
    on_split: Callable[[int, int], None] = lambda done, of: None,
) -> list[Trial]:
    """Try plans on classes held out of `source`.

    Args:
        source: with labels or groups, one per item.
        config: of the training.
        folder: for temporary files; removed at the end.
        plans: what to try. Plans that differ in `ridge` and `weights` only share a training.
        splits: how often classes are held out, each time others.
        rows: those that may be looked at; all by default.
        on_split: called before each split and at the end, with how many are done, and of how many.

    Returns:
        A trial per plan, the best score first.

    Raises:
        InvalidInputError: no classes, or too few to hold some out.
    """
    found: dict[HybridPlan, list[tuple[float, float]]] = {plan: [] for plan in plans}
    shutil.rmtree(folder, ignore_errors=True)  # of a choice that was interrupted
    folder.mkdir(parents=True)
    try:
        for number in range(splits):
            on_split(number, splits)
            seed = config.seed + number
            held = _hold_out(source, folder / f"split-{number}", seed, rows)
            seeded = replace(config, seed=seed, validation_share=0.0, patience=0)
            seeded = replace(seeded, batch_size=_batch_of(held.training, config.batch_size))
            for plan, quality in _tried(held, seeded, plans, folder / f"runs-{number}"):
                found[plan].append(quality)
        on_split(splits, splits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    trials = [Trial(p, *np.mean(q, axis=0).tolist()) for p, q in found.items()]
    return sorted(trials, key=lambda trial: -trial.score)


@dataclass(frozen=True)
class _HeldOut:
    """Part of a set to train on, and queries over the rest of it.

    Attributes:
        training: the part.
        media: per medium, embeddings of what is searched, float32 [n, dim].
        labels: int [n], the class of each.
        queries: float32 [classes, dim], the mean of the words for each class, seen ones first.
        seen: how many classes are seen.
    """

    training: EmbeddingSet
    media: dict[str, NDArray[np.float32]]
    labels: NDArray[np.int64]
    queries: NDArray[np.float32]
    seen: int


def _hold_out(
    source: EmbeddingSet, folder: Path, seed: int, allowed: NDArray[np.integer] | None
) -> _HeldOut:
    classes = classes_of(source)
    if classes is None:
        raise InvalidInputError(
            f"{source.folder} has no classes to hold out, one label or group per item; give a "
            "plan instead of having one chosen",
            field="labels",
        )
    rng = np.random.default_rng([seed, source.rows])
    rows = np.arange(source.rows) if allowed is None else np.asarray(allowed)
    rows = np.sort(rows[classes[rows] >= 0])
    rows = np.sort(rng.permutation(rows)[:MOST_ROWS])
    names, number = np.unique(classes[rows], return_inverse=True)
    if len(names) < FEWEST_CLASSES:
        raise InvalidInputError(
            f"{len(names)} classes are too few to hold some out; it takes {FEWEST_CLASSES}. Give "
            "a plan instead of having one chosen",
            field="labels",
        )
    order = rng.permutation(len(names))
    seen = order[: round(len(names) * (1 - NOVEL_SHARE))]
    trained = np.isin(number, seen) & (rng.random(len(rows)) > STORED_SHARE)
    training = _subset(source, rows[trained], folder)
    stored = rows[~trained]
    worded = [n for n, view in source.views.items() if view.modality == WORDS]
    shown = {v.modality: n for n, v in source.views.items() if v.modality != WORDS}
    texts = np.mean([source.read(n, rows).astype(np.float32) for n in worded], axis=0)
    queries = np.stack([texts[number == one].mean(axis=0) for one in order])
    place = np.empty(len(names), dtype=np.int64)
    place[order] = np.arange(len(names))
    return _HeldOut(
        training=training,
        media={m: source.read(n, stored).astype(np.float32) for m, n in shown.items()},
        labels=place[number[~trained]],
        queries=queries.astype(np.float32),
        seen=len(seen),
    )


def _subset(source: EmbeddingSet, rows: NDArray[np.int64], folder: Path) -> EmbeddingSet:
    """A set of its own with these rows, ascending."""
    classes = classes_of(source)
    labelled = source.labels is not None
    assert classes is not None
    with EmbeddingWriter(
        folder, source.views, labels="single" if labelled else None, groups=not labelled
    ) as writer:
        views = {name: source.read(name, rows) for name in source.views}
        mine = classes[rows]
        writer.append(views, mine if labelled else None, None if labelled else mine)
    return EmbeddingSet.open(folder)


def _batch_of(training: EmbeddingSet, wanted: int) -> int:
    """The batch size that a part of the data still fills."""
    if training.groups is None:
        return min(wanted, training.rows)
    return min(wanted, len(np.unique(training.groups)))


def _tried(
    held: _HeldOut, config: TrainingConfig, plans: Sequence[HybridPlan], folder: Path
) -> list[tuple[HybridPlan, tuple[float, float]]]:
    """Every plan's mAP of seen and novel classes; what plans share is fitted once."""
    moments = moments_of(held.training)
    parts: dict[tuple[object, ...], Hasher] = {}
    out = []
    for plan in plans:
        count = plan.learned_bits(config.bits)
        keys: list[tuple[object, ...]] = []
        if count < config.bits:
            keys.append(("aligned", config.bits - count, plan.ridge))
            if keys[-1] not in parts:
                parts[keys[-1]] = aligned_part(moments, config.bits - count, plan, config.seed)
        if count:
            keys.append(("learned", count, plan.learned_ridge))
            if keys[-1] not in parts:
                run = folder / f"{count}-{plan.learned_ridge}"
                objective = objective_for(held.training, replace(config, bits=count))
                parts[keys[-1]], _ = _learned_part(objective, plan, moments, run, plots=False)
        chosen = [parts[key] for key in keys]
        hasher = chosen[0] if len(chosen) == 1 else HybridHasher(chosen, plan.weights)
        out.append((plan, _quality(hasher, held)))
    return out


def _quality(hasher: Hasher, held: _HeldOut) -> tuple[float, float]:
    """MAP of the seen and of the novel classes, means over the media."""
    queries = hasher.logits(held.queries, WORDS)
    relevant = np.equal(held.labels, np.arange(len(held.queries))[:, None])
    figures = []
    for medium, embeddings in held.media.items():
        database = hasher.logits(embeddings, medium)
        sides = (slice(None, held.seen), slice(held.seen, None))
        figures.append(
            [mean_average_precision(queries[side], database, relevant[side]) for side in sides]
        )
    seen, novel = np.mean(figures, axis=0).tolist()
    return seen, novel
