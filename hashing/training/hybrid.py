"""Hybrid codes: aligned and learned bits, and the choice of their shares.

Aligned bits (`bittern.hashing.aligned`) generalise to new classes; learned ones (HashCoder heads,
CroVCA) are better for training classes. `choose_plan` finds the best shares on held-out classes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError
from bittern.hashing.aligned import AlignedHasher, Moments, fit_aligned
from bittern.hashing.hashers import LEAST_WEIGHT, Hasher, HybridHasher
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import EmbeddingSet, EmbeddingWriter
from bittern.hashing.training.heads import WORDS, HeadsObjective, Means, objective_for
from bittern.hashing.training.loop import train
from bittern.hashing.training.records import EpochRecord, Progress, TrainingResult
from bittern.hashing.training.validation import SplitSet, mean_average_precision

NOVEL_SHARE = 0.2
"""Share of the classes that are held out as novel."""
STORED_SHARE = 0.5
"""Share of the other classes' items that are searched, not trained on."""
MOST_ROWS = 20_000
"""Most items for a choice."""
FEWEST_CLASSES = 10
_READ_ROWS = 8192


@dataclass(frozen=True)
class HybridPlan:
    """The shares of aligned and learned bits, and how they are fitted.

    Attributes:
        ridge: of the aligned bits; see `bittern.hashing.aligned.alignment_map`.
        learned_share: of the bits, rounded to whole bytes; 0 for aligned bits alone, 1 for
            learned bits alone.
        learned_ridge: of the alignment before the heads.
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
"""Plans that `choose_plan` tries."""
ALIGNED_PLANS = tuple(HybridPlan(ridge, 0.0) for ridge in (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0))
"""The same for aligned bits alone."""


class TrainOptions(TypedDict, total=False):
    """Further options of `bittern.hashing.training.loop.train`."""

    resume: bool
    plots: bool
    progress: Callable[[Progress], None] | None
    on_epoch: Callable[[EpochRecord], None] | None


def fit_hybrid(
    sets: Sequence[SplitSet],
    config: TrainingConfig,
    plan: HybridPlan,
    run_folder: Path,
    *,
    labels: bool,
    means: Means | None = None,
    settings: Mapping[str, object] | None = None,
    **options: Unpack[TrainOptions],
) -> tuple[Hasher, TrainingResult | None]:
    """Fit the aligned bits, train the learned ones, and concatenate them.

    Only training rows are used.

    Args:
        sets: with views of words and of media, one set per medium.
        config: of the training; its bits are those of the whole code.
        plan: how many of them are learned.
        run_folder: for log and checkpoint.
        labels: see `HeadsObjective`.
        means: see `HeadsObjective`.
        settings: of the training, for the record.
        options: of `bittern.hashing.training.loop.train`.

    Returns:
        The hasher, and the result of the training; None if no bit was learned.

    Raises:
        InvalidInputError: an unusable set.
        TrainingError: see `bittern.hashing.training.loop.train`.
    """
    moments = {
        medium: of_medium
        for one in sets
        for medium, of_medium in moments_of(one.source, rows=one.training).items()
    }
    count = plan.learned_bits(config.bits)
    aligned: Hasher | None = None
    learned: Hasher | None = None
    result: TrainingResult | None = None
    if count:
        fewer = config.with_overrides({"bits": count})
        objective = HeadsObjective(sets, fewer, labels=labels, means=means)
        module = objective.align(moments, plan.learned_ridge)
        result = train(objective, fewer, run_folder, **options)
        learned = module.hasher(settings)
    if count < config.bits:
        aligned = _aligned(moments, config.bits - count, plan, config.seed)
    return _joined(aligned, learned, plan), result


def _aligned(
    moments: Mapping[str, Moments], bits: int, plan: HybridPlan, seed: int
) -> AlignedHasher:
    return fit_aligned(moments, bits, ridge=plan.ridge, words=WORDS, seed=seed)


def _joined(aligned: Hasher | None, learned: Hasher | None, plan: HybridPlan) -> Hasher:
    """One hasher, or a hybrid of both."""
    if aligned is None or learned is None:
        only = aligned or learned
        assert only is not None
        return only
    return HybridHasher([aligned, learned], plan.weights, asdict(plan))


def class_of_row(source: EmbeddingSet) -> NDArray[np.int32] | None:
    """int32 [rows]: the class of each item, or its group where there are no labels; None if
    there are neither, or several labels per item.
    """
    if source.multi_labels is not None:
        return None
    return source.groups if source.labels is None else source.labels


def moments_of(
    source: EmbeddingSet, *, words: str = WORDS, rows: NDArray[np.integer] | None = None
) -> dict[str, Moments]:
    """Moments of every medium of a set with its words, in one pass over the files.

    Classes have equal weights, so a large one does not dominate. Without classes, items have.

    Args:
        source: with one or more views of `words`, and one or more of other modalities.
        words: the modality that media are moved towards.
        rows: those to use; all by default.

    Raises:
        InvalidInputError: no view of words, or only such views.
    """
    text_views = [name for name, view in source.views.items() if view.modality == words]
    media = {name: view for name, view in source.views.items() if view.modality != words}
    if not text_views or not media:
        raise InvalidInputError(
            f"an alignment needs views of {words} and of media; {source.folder} has "
            f"{', '.join(f'{n} ({v.modality})' for n, v in source.views.items())}",
            field="views",
        )
    chosen = np.arange(source.rows) if rows is None else np.sort(np.asarray(rows))
    weights = _weights(class_of_row(source), chosen)
    moments = {view.modality: Moments(view.dim) for view in media.values()}
    for start in range(0, len(chosen), _READ_ROWS):
        some = slice(start, start + _READ_ROWS)
        texts = [source.read(name, chosen[some]) for name in text_views]
        for name, view in media.items():
            shown = source.read(name, chosen[some])
            for text in texts:
                moments[view.modality].add(shown, text, weights[some])
    return moments


def _weights(classes: NDArray[np.int32] | None, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """float64 [len(rows)], with a mean of 1; an item without a class is its own class."""
    if classes is None:
        return np.ones(len(rows))
    mine = classes[rows]
    _, number, sizes = np.unique(mine, return_inverse=True, return_counts=True)
    weights = np.where(mine < 0, 1.0, 1.0 / sizes[number])
    scaled: NDArray[np.float64] = weights * (len(rows) / weights.sum())
    return scaled


@dataclass(frozen=True)
class Trial:
    """The quality of a plan on held-out items: mAP, means over the splits.

    Attributes:
        plan: the plan.
        seen: for classes that were trained on.
        novel: for classes that were not.
    """

    plan: HybridPlan
    seen: float
    novel: float

    @property
    def score(self) -> float:
        """Geometric mean of both."""
        return float(np.sqrt(self.seen * self.novel))


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
        plans: to try. Plans that differ in `ridge` and `weights` only share a training.
        splits: number of random splits.
        rows: those to use; all by default.
        on_split: called before each split and at the end, with the splits done, and in all.

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
            groups = held.training.groups
            fitting = held.training.rows if groups is None else len(np.unique(groups))
            changes = {"seed": seed, "validation_share": 0.0, "patience": 0}
            changes["batch_size"] = min(config.batch_size, fitting)
            seeded = config.with_overrides(changes)
            for plan, quality in _tried(held, seeded, plans, folder / f"runs-{number}"):
                found[plan].append(quality)
        on_split(splits, splits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    trials = [Trial(p, *np.mean(q, axis=0).tolist()) for p, q in found.items()]
    return sorted(trials, key=lambda trial: -trial.score)


@dataclass(frozen=True)
class _HeldOut:
    """A training subset, and queries over the remaining items.

    Attributes:
        training: the subset.
        media: per medium, embeddings of the remaining items, float32 [n, dim].
        labels: int [n], their classes.
        queries: float32 [classes, dim], the mean of the words for each class, seen ones first.
        seen: number of classes in `training`.
    """

    training: EmbeddingSet
    media: dict[str, NDArray[np.float32]]
    labels: NDArray[np.int64]
    queries: NDArray[np.float32]
    seen: int


def _hold_out(
    source: EmbeddingSet, folder: Path, seed: int, allowed: NDArray[np.integer] | None
) -> _HeldOut:
    classes = class_of_row(source)
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
    text_views = [n for n, view in source.views.items() if view.modality == WORDS]
    shown = {v.modality: n for n, v in source.views.items() if v.modality != WORDS}
    texts = np.mean([source.read(n, rows).astype(np.float32) for n in text_views], axis=0)
    queries = np.stack([texts[number == one].mean(axis=0) for one in order])
    query_of_class = np.argsort(order)
    return _HeldOut(
        training=training,
        media={m: source.read(n, stored).astype(np.float32) for m, n in shown.items()},
        labels=query_of_class[number[~trained]],
        queries=queries.astype(np.float32),
        seen=len(seen),
    )


def _subset(source: EmbeddingSet, rows: NDArray[np.int64], folder: Path) -> EmbeddingSet:
    """A new set with these rows, ascending."""
    classes = class_of_row(source)
    labelled = source.labels is not None
    assert classes is not None
    with EmbeddingWriter(
        folder, source.views, labels="single" if labelled else None, groups=not labelled
    ) as writer:
        views = {name: source.read(name, rows) for name in source.views}
        mine = classes[rows]
        writer.append(views, mine if labelled else None, None if labelled else mine)
    return EmbeddingSet.open(folder)


def _tried(
    held: _HeldOut, config: TrainingConfig, plans: Sequence[HybridPlan], folder: Path
) -> list[tuple[HybridPlan, tuple[float, float]]]:
    """The mAP of every plan for seen and novel classes; equal hashers are fitted once."""
    moments = moments_of(held.training)
    fitted: dict[tuple[object, ...], Hasher] = {}
    out = []
    for plan in plans:
        count = plan.learned_bits(config.bits)
        aligned, learned = ("aligned", count, plan.ridge), ("learned", count, plan.learned_ridge)
        if count < config.bits and aligned not in fitted:
            fitted[aligned] = _aligned(moments, config.bits - count, plan, config.seed)
        if count and learned not in fitted:
            objective = objective_for(held.training, config.with_overrides({"bits": count}))
            module = objective.align(moments, plan.learned_ridge)
            run = folder / f"{count}-{plan.learned_ridge}"
            train(objective, objective.config, run, plots=False)
            fitted[learned] = module.hasher()
        hasher = _joined(fitted.get(aligned), fitted.get(learned), plan)
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
