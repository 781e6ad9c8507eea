"""From distances to observations, to a ranking of items.

An item is a photograph or a whole recording. A recording counts once, by its best window. The
order is the product's: (distance, row), with rows in the order of the source.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def items_in_order(
    distances: NDArray[np.floating] | NDArray[np.integer], owners: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Items, best first.

    Args:
        distances: [rows], of each observation, in row order.
        owners: int64 [rows], the item that the observation belongs to.

    Returns:
        int64 [items]: each owner once, at its best observation's place.
    """
    by_rank = owners[np.lexsort((np.arange(len(distances)), distances))]
    _, first = np.unique(by_rank, return_index=True)
    return by_rank[np.sort(first)]


def orders_within_ties(
    distances: NDArray[np.floating] | NDArray[np.integer],
    owners: NDArray[np.int64],
    relevant: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The worst and the best ranking that equal distances allow.

    Args:
        distances: [rows].
        owners: int64 [rows], items 0 to m - 1, each of which owns a row.
        relevant: bool [m], of each item.

    Returns:
        Two rankings (see `benchmarks.measures`): relevant items last, and first, among items
        at the same distance.
    """
    nearest = np.full(len(relevant), np.inf)
    np.minimum.at(nearest, owners, distances)
    worst = relevant[np.lexsort((relevant, nearest))]
    best = relevant[np.lexsort((~relevant, nearest))]
    return worst, best
