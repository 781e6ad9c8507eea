"""What of a task is asked, and how its classes are told apart: levels, seen and novel, leavings.

The way that a labelled class is held out decides what a figure for it says: a novel species whose
genus was seen is an easier one than a species of a family of its own. Leroy, Buisson and Joly
(arXiv 2208.08217) part classes at random, and so that both parts share as little meaning as can
be; `novel_classes` does both, with the taxonomy for the meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.levels import at_level, rank_above, taxa_of
from bittern.benchmarks.eval.protocol import Level, Novel, Protocol
from bittern.benchmarks.eval.tasks import (
    TEXT,
    Asked,
    Classes,
    Contents,
    Items,
    Task,
    TrainingPart,
)
from bittern.errors import InvalidInputError, QrelsError
from bittern.text import agreeing, counted, some_of
from bittern.types import MediaItem

SEEN, NOVEL = "seen", "novel"
OWN_SPLIT = (
    "Seen and novel are this run's own split: systems fitted on items see items of the seen "
    "classes only; what an encoder or a saved model was trained on is not known here"
)
"""What groups of classes say, and what they do not."""
_NAMED = 3


def by_protocol(task: Task, protocol: Protocol, default: Sequence[str] = ()) -> Task:
    """A task of classes as the protocol wants it: its level, its groups, nothing unanswerable.

    Args:
        task: with relevance by class, at the level of species.
        protocol: level, prompts, novel classes, seed.
        default: templates of queries in words; empty for those of the items' modality.

    Raises:
        InvalidInputError: the classes do not tell the level, or cannot be parted so.
        QrelsError: no query has a relevant item.
    """
    regrouped = at_level(task, protocol.level, protocol, default)
    if protocol.novel != "none":
        novel = novel_classes(
            regrouped.classes, protocol.novel, protocol.novel_share, protocol.seed, protocol.level
        )
        regrouped = with_groups(regrouped, novel)
    return leave_out_unanswerable(regrouped)


def novel_classes(
    classes: Classes, how: Novel, share: float, seed: int, level: Level = "species"
) -> NDArray[np.bool_]:
    """Which classes are novel, bool [classes]; the same for the same seed.

    Args:
        classes: what there are.
        how: ``random``, or ``taxonomy``: whole taxa of the next higher rank are novel, so that
            novel species share no genus with seen ones, novel genera no family, and so on. Of all
            choices of whole taxa one is drawn that comes nearest to the share. ``none`` for no
            class.
        share: of the classes, what part is novel; over 0, under 1.
        seed: of the draw.
        level: what rank the classes are of.

    Raises:
        InvalidInputError: the share is no share; classes lack the higher rank; there is only one
            class, or one higher taxon.
    """
    if how == "none":
        return np.zeros(len(classes), np.bool_)
    if not 0 < share < 1:
        raise InvalidInputError(
            f"the novel share is {share}; give a part of the classes, over 0 and under 1",
            field="novel_share",
        )
    taxa = np.arange(len(classes))
    if how == "taxonomy":
        rank = rank_above(level)
        taxa = taxa_of(classes, rank)
        lacking = np.flatnonzero(taxa < 0)
        if len(lacking):
            first = ", ".join(classes.names[int(i)] for i in lacking[:_NAMED])
            raise InvalidInputError(
                f"{some_of(len(lacking), len(classes), 'class', 'classes')} "
                f"{agreeing(len(lacking), 'has', 'have')} no {rank}, so nothing can be held out by "
                f"taxonomy (the first: {first}); hold classes out at random, or complete the "
                "data's taxonomy",
                field="novel",
            )
    sizes = np.bincount(taxa) if len(taxa) else np.zeros(0, np.int64)
    if len(sizes) < 2:
        raise InvalidInputError(
            f"{counted(len(classes), 'class', 'classes')} in {counted(len(sizes), 'group')} cannot "
            "be parted into seen and novel ones; there must be two groups at least",
            field="novel",
        )
    return _drawn(sizes, share * len(classes), np.random.default_rng(seed))[taxa]


def with_groups(task: Task, novel: NDArray[np.bool_]) -> Task:
    """The task with its queries told apart by whether their class is novel.

    What systems are fitted on, where the suite names it, loses the novel classes. Queries of no
    class are in neither group, and a group without queries is not made.

    Args:
        task: with queries of classes.
        novel: bool [classes].
    """
    known = task.asked.classes >= 0
    of_query = novel[np.maximum(task.asked.classes, 0)]
    groups = {SEEN: known & ~of_query, NOVEL: known & of_query}
    made = {name: members for name, members in groups.items() if members.any()}
    training = _seen_only(task.training, novel) if task.training else None
    number = int(novel.sum())
    share = (
        f"{some_of(number, len(novel), 'class', 'classes')} {agreeing(number, 'is', 'are')} novel"
    )
    return replace(
        task,
        groups={**task.groups, **made},
        training=training,
        notes=(*task.notes, share, OWN_SPLIT),
    )


def leave_out_unanswerable(task: Task) -> Task:
    """The task without queries that no item answers; they and empty classes are counted.

    Raises:
        QrelsError: no query is left.
    """
    answered = task.relevance.counts > 0
    if len(answered) and not answered.any():
        raise QrelsError(
            f"no query of {task.name} has a relevant item "
            f"({counted(len(answered), 'query', 'queries')}, {counted(len(task.items), 'item')} to "
            "be ranked); queries, judgements and items do not "
            "belong together, or too many items are missing"
        )
    told = [*task.left_out, *_empty_classes(task)]
    if answered.all() and len(answered):
        return replace(task, left_out=tuple(told))
    if not len(answered):
        raise QrelsError(f"{task.name} has no query to ask; give at least one")
    gone = np.flatnonzero(~answered)
    told.append(
        f"{some_of(len(gone), len(answered), 'query', 'queries')} "
        f"{agreeing(len(gone), 'has', 'have')} no relevant item and "
        f"{agreeing(len(gone), 'was', 'were')} not asked ({_first(_shown_names(task, gone))})"
    )
    kept = np.flatnonzero(answered)
    return replace(
        task,
        asked=some_asked(task.asked, kept),
        relevance=task.relevance.only(kept),
        candidates=task.candidates.only(kept) if task.candidates else None,
        groups={
            name: members[kept] for name, members in task.groups.items() if members[kept].any()
        },
        left_out=tuple(told),
    )


def _empty_classes(task: Task) -> list[str]:
    """Sentences on classes without an item; those asked for in words are told as queries."""
    labels = task.items.classes[task.items.classes >= 0]
    if not len(task.classes) or not len(labels):
        return []
    empty = np.ones(len(task.classes), np.bool_)
    empty[labels] = False
    asked = np.zeros(len(task.classes), np.bool_)
    asked[task.asked.classes[task.asked.classes >= 0]] = True
    kinds = [(empty & ~asked, "is not asked for", "are not asked for")]
    if task.asked.modality != TEXT:
        kinds.append((empty & asked, "cannot be found", "cannot be found"))
    return [
        f"{some_of(len(places), len(task.classes), 'class', 'classes')} "
        f"{agreeing(len(places), 'has', 'have')} no item and {agreeing(len(places), one, many)} "
        f"({_first([task.classes.names[i] for i in places.tolist()])})"
        for chosen, one, many in kinds
        if len(places := np.flatnonzero(chosen))
    ]


def _shown_names(task: Task, places: NDArray[np.integer]) -> list[str]:
    """Queries as people know them: classes by name, media by file, others by id."""
    names = []
    for place in places.tolist():
        number, content = int(task.asked.classes[place]), task.asked.contents[place]
        if isinstance(content, MediaItem):
            names.append(content.media or task.asked.ids[place])
        else:
            names.append(task.classes.names[number] if number >= 0 else task.asked.ids[place])
    return list(dict.fromkeys(names))


def some_asked(asked: Asked, places: NDArray[np.integer]) -> Asked:
    """Some of the queries, numbered anew."""
    return replace(
        asked,
        ids=[asked.ids[i] for i in places.tolist()],
        contents=[asked.contents[i] for i in places.tolist()],
        classes=asked.classes[places],
    )


def some_items(items: Items, places: NDArray[np.integer]) -> Items:
    """Some of the items, numbered anew; their media are still made when they are asked for."""
    return replace(
        items,
        ids=Chosen(items.ids, places),
        contents=Chosen(items.contents, places),
        classes=items.classes[places],
        splits=None if items.splits is None else Chosen(items.splits, places),
    )


class Chosen(Sequence[Any]):
    """Some elements of a sequence, looked up when they are asked for.

    Args:
        whole: the sequence.
        places: int [n], which of its elements, in order.
    """

    def __init__(self, whole: Sequence[Any] | Contents, places: NDArray[np.integer]) -> None:
        self._whole, self._places = whole, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: Any, /) -> Any:
        """One element, or a list of those in a slice."""
        if isinstance(place, slice):
            return [self._whole[i] for i in self._places[place].tolist()]
        return self._whole[int(self._places[place])]


def _seen_only(training: TrainingPart, novel: NDArray[np.bool_]) -> TrainingPart:
    def seen(classes: NDArray[np.int32]) -> NDArray[np.int64]:
        return np.flatnonzero((classes >= 0) & ~novel[np.maximum(classes, 0)])

    return TrainingPart(
        some_items(training.items, seen(training.items.classes)),
        some_asked(training.queries, seen(training.queries.classes)),
    )


def _drawn(sizes: NDArray[np.int64], wanted: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Groups whose sizes add up to what is nearest to `wanted`, some groups and not all.

    A bit of `reached[i]` stands for each sum that some of the first i groups have; from the
    nearest sum the groups are then drawn backwards, each as likely as the rest of the sum
    wants it, so that large groups and small ones both come up.
    """
    order = rng.permutation(len(sizes))
    reached = [1]
    for size in sizes[order].tolist():
        reached.append(reached[-1] | (reached[-1] << size))
    total = int(sizes.sum())
    sums = [s for s in range(1, total) if reached[-1] >> s & 1]
    rest = min(sums, key=lambda s: (abs(s - wanted), s))
    chosen = np.zeros(len(sizes), np.bool_)
    before = total
    for number in range(len(order) - 1, -1, -1):
        size = int(sizes[order[number]])
        can_take = rest >= size and reached[number] >> (rest - size) & 1
        can_pass = reached[number] >> rest & 1
        if can_take and (not can_pass or rng.random() * before < rest):
            chosen[order[number]] = True
            rest -= size
        before -= size
    return chosen


def _first(names: Sequence[str]) -> str:
    return ", ".join(str(name)[:60] for name in names[:_NAMED]) + (
        ", ..." if len(names) > _NAMED else ""
    )
