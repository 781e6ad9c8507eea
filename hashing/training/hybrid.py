"""Hybrid codes: aligned and learned bits.

Aligned bits (`bittern.hashing.aligned`) generalise to new classes; learned ones (HashCoder heads,
CroVCA) are better for training classes. `bittern.hashing.training.plan_choice` finds the shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.errors import InvalidInputError
from bittern.hashing.aligned import Moments, fit_aligned
from bittern.hashing.hashers import LEAST_WEIGHT, Hasher, HybridHasher
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import EmbeddingSet
from bittern.hashing.training.heads import WORDS, HeadsObjective
from bittern.hashing.training.loop import train
from bittern.hashing.training.records import Progress, TrainingResult
from bittern.hashing.training.validation import TrainingData

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


def fit_hybrid(
    data: TrainingData,
    config: TrainingConfig,
    plan: HybridPlan,
    run_folder: Path,
    *,
    settings: Mapping[str, object] | None = None,
    plots: bool = True,
    progress: Progress = lambda *_: None,
) -> tuple[Hasher, TrainingResult | None]:
    """Fit the aligned bits, train the learned ones, and concatenate them.

    Only training rows are used.

    Args:
        data: with views of words and of media, one set per medium.
        config: of the training; its bits are those of the whole code.
        plan: how many of them are learned.
        run_folder: for log and checkpoint.
        settings: of the training, for the record.
        plots: see `bittern.hashing.training.loop.train`, as for `progress`.
        progress: called after each batch.

    Returns:
        The hasher, and the result of the training; None if no bit was learned.

    Raises:
        InvalidInputError: an unusable set.
        TrainingError: see `bittern.hashing.training.loop.train`.
    """
    moments = {
        medium: of_medium
        for one in data.sets
        for medium, of_medium in moments_of(one.source, rows=one.training).items()
    }
    count = plan.learned_bits(config.bits)
    aligned: Hasher | None = None
    learned: Hasher | None = None
    result: TrainingResult | None = None
    if count:
        fewer = config.with_overrides({"bits": count})
        objective = HeadsObjective(data, fewer)
        module = objective.align(moments, plan.learned_ridge)
        result = train(objective, fewer, run_folder, plots=plots, progress=progress)
        learned = module.hasher(settings)
    if count < config.bits:
        bits = config.bits - count
        aligned = fit_aligned(moments, bits, ridge=plan.ridge, seed=config.seed)
    return join_hashers(aligned, learned, plan), result


def join_hashers(aligned: Hasher | None, learned: Hasher | None, plan: HybridPlan) -> Hasher:
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
    source: EmbeddingSet, *, rows: NDArray[np.integer] | None = None
) -> dict[str, Moments]:
    """Moments of every medium of a set with its words, in one pass over the files.

    Classes have equal weights, so a large one does not dominate. Without classes, items have.

    Args:
        source: with one or more views of text, and one or more of other modalities.
        rows: those to use; all by default.

    Raises:
        InvalidInputError: no view of words, or only such views.
    """
    text_views = [name for name, view in source.views.items() if view.modality == WORDS]
    media = {name: view for name, view in source.views.items() if view.modality != WORDS}
    if not text_views or not media:
        raise InvalidInputError(
            f"an alignment needs views of {WORDS} and of media; {source.folder} has "
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
