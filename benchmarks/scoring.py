"""The measures of one task under one model, by metric; chance and ceiling beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks import measures
from bittern.benchmarks.ranking import items_in_order, orders_within_ties
from bittern.benchmarks.tasks import Task
from bittern.hashing.codes import asymmetric_distance, hamming_distance, pack
from bittern.hashing.saved import SavedModel

TOP = 5
Score = dict[str, Any]
"""Mean measures of a task over its queries, as JSON values."""
Measures = tuple[float, float, float]
"""Average precision, precision at 5, hit at 5."""


def float_score(task: Task) -> Score:
    """The float embeddings by cosine."""
    distances = 1.0 - task.queries @ task.items.embeddings.T
    return {"hasher": "float", "bits": 0, "metric": "cosine", **_measured(task, distances)}


def code_scores(task: Task, model: SavedModel) -> list[Score]:
    """One model's codes by both metrics."""
    hasher = {"hasher": model.card.hasher["kind"], "bits": model.card.bits}
    return [
        {**hasher, "metric": "asymmetric", **_measured(task, asymmetric_distances(task, model))},
        {**hasher, "metric": "hamming", **_measured(task, hamming_distances(task, model))},
    ]


def asymmetric_distances(task: Task, model: SavedModel) -> NDArray[np.float64]:
    """From each query's logits to each observation's code: float64 [q, rows]."""
    stored = pack(model.hasher.logits(task.items.embeddings, str(task.target)))
    logits = model.hasher.logits(task.queries, str(task.asked))
    return np.stack([asymmetric_distance(z, stored) for z in logits])


def hamming_distances(task: Task, model: SavedModel) -> NDArray[np.int32]:
    """From each query's code to each observation's code: int32 [q, rows]."""
    stored = pack(model.hasher.logits(task.items.embeddings, str(task.target)))
    return hamming_distance(pack(model.hasher.logits(task.queries, str(task.asked))), stored)


def chance(task: Task) -> Score:
    """What a random order gets on average."""
    n = len(task.items)
    expected = [
        (
            measures.chance_of_average_precision(r, n),
            measures.chance_of_precision_at(r, n, TOP),
            measures.chance_of_hit_at(r, n, TOP),
        )
        for r in (int(count) for count in task.relevant.sum(axis=1))
    ]
    return {"hasher": "chance", "bits": 0, "metric": "", **_means(task, expected)}


def ceiling(task: Task) -> Score:
    """What a perfect ranking gets."""
    perfect = [_measures(np.sort(relevant)[::-1]) for relevant in task.relevant]
    return {"hasher": "ceiling", "bits": 0, "metric": "", **_means(task, perfect)}


def _measured(task: Task, distances: NDArray[Any]) -> Score:
    owners = task.items.owners
    found, worst, best = [], [], []
    for row, relevant in zip(distances, task.relevant, strict=True):
        found.append(_measures(relevant[items_in_order(row, owners)]))
        unlucky, lucky = orders_within_ties(row, owners, relevant)
        worst.append(measures.average_precision(unlucky))
        best.append(measures.average_precision(lucky))
    spread = np.std([f[0] for f in found], ddof=1) if len(found) > 1 else 0.0
    return {
        **_means(task, found),
        "map_standard_error": float(spread / np.sqrt(len(found))),
        "map_worst_ties": float(np.mean(worst)),
        "map_best_ties": float(np.mean(best)),
    }


def _measures(ranking: NDArray[np.bool_]) -> Measures:
    return (
        measures.average_precision(ranking),
        measures.precision_at(ranking, TOP),
        measures.hit_at(ranking, TOP),
    )


def _means(task: Task, per_query: Sequence[Measures]) -> Score:
    values = np.array(per_query)
    several = task.relevant.sum(axis=1) > 1
    mean_ap, precision, hit = values.mean(axis=0)
    return {
        "map": float(mean_ap),
        "map_several": float(values[several, 0].mean()) if several.any() else None,
        f"p@{TOP}": float(precision),
        f"hit@{TOP}": float(hit),
    }
