"""Windows of recordings as items of their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks.splits import Chosen
from bittern.benchmarks.eval.tasks.task import Items


def windows_of(items: Items, owners: NDArray[np.int64], spans: NDArray[np.float32]) -> Items:
    """The windows of recordings as items, with the classes of their recordings.

    Args:
        items: recordings.
        owners: int64 [rows], the recording of each window.
        spans: float32 [rows, 2], start and end in seconds.
    """
    return Items(
        ids=window_ids(items.ids, owners, spans),
        modality=items.modality,
        contents=Chosen(items.contents, owners),
        classes=items.classes[owners],
        side=items.side,
    )


def window_ids(
    ids: Sequence[str], owners: NDArray[np.int64], spans: NDArray[np.float32]
) -> list[str]:
    """Each window's id: the recording's with a W3C media fragment, ``crow-1#t=0,3``.

    Where nobody knows when a window begins (embeddings made elsewhere), the row's number.
    """
    return [
        f"{ids[int(owner)]}#" + (f"window={row}" if start != start else _span(start, end))
        for row, (owner, (start, end)) in enumerate(zip(owners, spans.tolist(), strict=True))
    ]


def _span(start: float, end: float) -> str:
    return f"t={_seconds(start)},{_seconds(end)}"


def _seconds(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")
