"""Windows of recordings as items of their own: which of them hold what was annotated.

Where windows begin and end is only known once recordings are cut for an encoder. So a task has
recordings as its items, and becomes one over windows with their owners and spans.

A window answers a query for a species if one annotation of it shares with the window at least half
a second, or at least half of the annotation where that is less. So a call that is cut in two by
the edge of a window is found in one of the two at least, and no window is right for the last
milliseconds of a call. (The rule is ours; published ones range from any overlap at all to whole
seconds, with windows of fixed length.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.splits import Chosen, leave_out_unanswerable
from bittern.benchmarks.eval.tasks import Items, Relevance, Task
from bittern.benchmarks.eval.windows import window_ids
from bittern.errors import InvalidInputError

MIN_OVERLAP_S = 0.5
"""So many seconds of an annotation make a window right."""
_TOLERANCE_S = 1e-3  # spans are float32: 0.2 ms at the end of an hour


@dataclass(frozen=True)
class Annotations:
    """What was annotated, when, in which recording.

    Attributes:
        recordings: int64 [a], places of items.
        starts: float64 [a], seconds from the recording's beginning.
        ends: float64 [a], seconds, later than `starts`.
        classes: int32 [a], among `Task.classes`.
    """

    recordings: NDArray[np.int64]
    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    classes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.recordings)


def windows_as_items(
    task: Task,
    annotations: Annotations,
    owners: NDArray[np.int64],
    spans: NDArray[np.float32],
    *,
    min_overlap_s: float = MIN_OVERLAP_S,
) -> Task:
    """A task over windows, of one over recordings.

    Args:
        task: its items are recordings.
        annotations: of those recordings.
        owners: int64 [rows], the recording of each window, not falling.
        spans: float32 [rows, 2], start and end in seconds, rising within a recording.
        min_overlap_s: seconds of an annotation, or half of it, that a window needs.

    Returns:
        a task whose items are the windows, one per row, with ids such as ``dawn.flac#t=3,6``.
        Queries that no window answers are left out, and counted in `left_out`.

    Raises:
        InvalidInputError: the owners are no recordings of the task.
        QrelsError: nothing is left to ask.
    """
    if len(owners) and not (owners[0] >= 0 and owners[-1] < len(task.items)):
        raise InvalidInputError(
            f"windows belong to recordings {owners[0]} to {owners[-1]}, and {task.name} has "
            f"{len(task.items)}: they are of other data; embed these recordings again"
        )
    items = Items(
        ids=window_ids(task.items.ids, owners, spans),
        modality=task.items.modality,
        contents=Chosen(task.items.contents, owners),
        classes=np.full(len(owners), -1, np.int32),
        side=task.items.side,
    )
    classes, rows = _heard(annotations, owners, spans, min_overlap_s)
    rule = (
        f"Every window is an item, right for a species if it shares {min_overlap_s:g} s with one "
        "of its annotations, or half of it where that is less."
    )
    whole = replace(
        task,
        items=items,
        relevance=gathered(task.asked.classes, *unique_pairs(classes, rows)),
        notes=(*task.notes, rule),
        by_window=None,
    )
    return leave_out_unanswerable(whole)


def _heard(
    annotations: Annotations,
    owners: NDArray[np.int64],
    spans: NDArray[np.float32],
    min_overlap_s: float,
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Pairs of a class and a window in which it is heard; a pair may come more than once."""
    starts, ends = spans.astype(np.float64).T
    # All recordings on one axis of time, each with its own stretch of it: windows of a recording
    # rise in both starts and ends, so those that an annotation touches stand together.
    latest = max([1.0, *(float(times.max()) for times in (ends, annotations.ends) if len(times))])
    stretch = 2.0 * latest
    mine = annotations.recordings * stretch
    first = np.searchsorted(owners * stretch + ends, mine + annotations.starts, "right")
    last = np.searchsorted(owners * stretch + starts, mine + annotations.ends, "left")
    touched = np.maximum(last - first, 0)
    which = np.repeat(np.arange(len(annotations)), touched)
    before = np.cumsum(touched) - touched
    rows = (np.arange(len(which)) - before[which] + first[which]).astype(np.int64)
    begin, end = annotations.starts[which], annotations.ends[which]
    shared = np.minimum(ends[rows], end) - np.maximum(starts[rows], begin)
    needed = np.minimum(min_overlap_s, (end - begin) / 2)
    enough = (shared >= needed - np.minimum(_TOLERANCE_S, needed / 2)) & (shared > 0)
    return annotations.classes[which][enough], rows[enough]


def unique_pairs(
    classes: NDArray[np.int32], items: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Pairs in order of class and item, none twice."""
    order = np.lexsort((items, classes))
    classes, items = classes[order], items[order]
    fresh = np.ones(len(items), np.bool_)
    fresh[1:] = (classes[1:] != classes[:-1]) | (items[1:] != items[:-1])
    return classes[fresh], items[fresh]


def gathered(
    asked: NDArray[np.int32], classes: NDArray[np.int32], items: NDArray[np.int64]
) -> Relevance:
    """Relevance where an item may have several classes.

    Args:
        asked: int32 [q], the class that each query asks for, -1 for none.
        classes: int32 [pairs], ascending.
        items: int64 [pairs], ascending within a class, none twice.
    """
    starts = np.searchsorted(classes, asked, "left")
    ends = np.where(asked < 0, starts, np.searchsorted(classes, asked, "right"))
    parts = [items[a:b] for a, b in zip(starts, ends, strict=True)]
    offsets = np.concatenate([[0], np.cumsum(ends - starts)]).astype(np.int64)
    found = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return Relevance(offsets, found, np.ones(len(found), np.int32))
