"""Which plan suits the data, found out on classes that are held out of the training for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError
from bittern.hashing.hashers import Hasher, HybridHasher
from bittern.hashing.training.alignment import WORDS, classes_of, moments_of
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_writer import EmbeddingWriter
from bittern.hashing.training.embeddings import EmbeddingSet
from bittern.hashing.training.hybrid import aligned_part, learned_part, objective_for
from bittern.hashing.training.plans import PLANS, HybridPlan
from bittern.hashing.training.validation import mean_average_precision

NOVEL_SHARE = 0.2
"""Of the classes: held out as if nobody had known them."""
STORED_SHARE = 0.5
"""Of the items of the other classes: searched, not trained on."""
MOST_ROWS = 20_000
"""Items that a choice looks at."""
FEWEST_CLASSES = 10


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
                parts[keys[-1]], _ = learned_part(objective, plan, moments, run, plots=False)
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
