"""Chooses the shares of aligned and learned bits, on classes held out of the training data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from bittern.errors import InvalidInputError, TrainingError
from bittern.files import replace_file
from bittern.hashing.aligned import fit_aligned
from bittern.hashing.hashers import Hasher
from bittern.hashing.training.config import FREE_ON_RESUME, TrainingConfig
from bittern.hashing.training.embedding_sets import EmbeddingSet, EmbeddingWriter, digest_of
from bittern.hashing.training.heads import WORDS, objective_for
from bittern.hashing.training.hybrid import (
    HybridPlan,
    class_of_row,
    join_hashers,
    moments_of,
)
from bittern.hashing.training.loop import train
from bittern.hashing.training.records import Progress
from bittern.hashing.training.validation import SplitSet, mean_average_precision

NOVEL_SHARE = 0.2
"""Share of the classes that are held out as novel."""
STORED_SHARE = 0.5
"""Share of the other classes' items that are searched, not trained on."""
MOST_ROWS = 20_000
"""Most items for a choice."""
FEWEST_CLASSES = 10
PLAN_FILE = "plan.json"
_LARGEST_PLAN = 1 << 16

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
PLANS_OF = {"aligned": ALIGNED_PLANS, "hybrid": PLANS}
"""Plans to try, by kind of hasher."""


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
    progress: Progress,
) -> Choice:
    """The recorded plan of the run, or one that is chosen on training classes.

    If there are too few classes or species to hold out, a default plan is used, and the card
    records that.

    Args:
        kind: one of `PLANS_OF`.
        sets: the training data; plans are tried on the largest set.
        config: of the training.
        run_folder: for ``plan.json``.
        progress: called with ``choosing``.

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
            plans=distinct(PLANS_OF[kind], config.bits),
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
            bits = config.bits - count
            fitted[aligned] = fit_aligned(moments, bits, ridge=plan.ridge, seed=config.seed)
        if count and learned not in fitted:
            objective = objective_for(held.training, config.with_overrides({"bits": count}))
            module = objective.align(moments, plan.learned_ridge)
            run = folder / f"{count}-{plan.learned_ridge}"
            train(objective, objective.config, run, plots=False)
            fitted[learned] = module.hasher()
        hasher = join_hashers(fitted.get(aligned), fitted.get(learned), plan)
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
