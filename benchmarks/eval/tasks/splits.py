"""Classes of a task: taxonomic levels, seen and novel classes, queries without an answer.

The way that a labelled class is held out decides what a figure for it says: a novel species whose
genus was seen is an easier one than a species of a family of its own. Leroy, Buisson and Joly
(arXiv 2208.08217) split classes at random, and so that both halves share as little meaning as
possible; `novel_classes` does both, with the taxonomy for the meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks.prompts import AUDIO_PROMPTS, IMAGE_PROMPTS, RANKS, text_queries
from bittern.benchmarks.eval.tasks.task import (
    AUDIO,
    TEXT,
    Classes,
    Contents,
    Items,
    Level,
    Novel,
    Protocol,
    QuerySet,
    Relevance,
    Task,
    TrainingSplit,
)
from bittern.errors import InvalidInputError, QrelsError
from bittern.text import agreeing, counted, some_of
from bittern.types import MediaItem


def rank_above(level: Level) -> str:
    """The rank that whole taxa of are held out of: genus for species, family for genus, ..."""
    return RANKS[-1] if level == "species" else RANKS[RANKS.index(level) - 1]


def taxa_of(classes: Classes, rank: str) -> NDArray[np.int64]:
    """Each class' taxon of a rank as a number, from 0 in order of appearance; -1 for none.

    A name is a taxon of its own in each kingdom: *Oenanthe* is a genus of birds and one of plants.
    """
    numbers: dict[tuple[str, str], int] = {}
    taxa = classes.taxa or [{}] * len(classes)
    found = np.full(len(classes), -1, np.int64)
    for position, taxon in enumerate(taxa):
        if taxon.get(rank):
            key = (taxon.get("kingdom", ""), taxon[rank])
            found[position] = numbers.setdefault(key, len(numbers))
    return found


def at_level(
    task: Task, level: Level, protocol: Protocol | None = None, default: Sequence[str] = ()
) -> Task:
    """The task with classes of a higher rank, and what is relevant by those.

    Queries in words become one per taxon (and prompt); queries by media stay, and more is right
    for them. Items without that rank are right for no query, queries without it are not asked;
    both are counted in `left_out`. Groups are not carried over, since they belong to classes.

    Args:
        task: its relevance is by class.
        level: ``species`` for the task as it is.
        protocol: whose prompts name the taxa; None for one without prompts.
        default: templates where the protocol has none; empty for those of the items' modality.

    Raises:
        InvalidInputError: the queries are not of classes, or no class has this rank.
    """
    if level == "species":
        return task
    if not len(task.queries) or (task.queries.classes < 0).all():
        raise InvalidInputError(
            f"the queries of {task.name} do not ask for classes, so they cannot be asked at the "
            f"level of {level}; leave --level at species",
            field="level",
        )
    taxa = taxa_of(task.classes, level)
    if (taxa < 0).all():
        raise InvalidInputError(
            f"no class of {task.name} tells its {level} (there are {len(taxa):,}); choose another "
            "--level, or data with that rank",
            field="level",
        )
    classes = _regrouped(task.classes, taxa, level)
    templates = default or (AUDIO_PROMPTS if task.items.modality == AUDIO else IMAGE_PROMPTS)
    items, left_out = _items_at(task.items, taxa, level)
    queries, lost = _queries_at(task.queries, classes, taxa, protocol or Protocol(), templates)
    if lost:
        left_out.append(
            f"{some_of(lost, len(task.queries), 'query', 'queries')} "
            f"{agreeing(lost, 'has', 'have')} no {level} and "
            f"{agreeing(lost, 'was', 'were')} not asked"
        )
    training = task.training and TrainingSplit(
        _items_at(task.training.items, taxa, level)[0],
        _queries_at(task.training.queries, classes, taxa, protocol or Protocol(), templates)[0],
    )
    return replace(
        task,
        queries=queries,
        items=items,
        relevance=Relevance.by_class(queries.classes, items.classes),
        classes=classes,
        training=training,
        groups={},
        left_out=(*task.left_out, *left_out),
    )


def _regrouped(classes: Classes, taxa: NDArray[np.int64], level: str) -> Classes:
    """The taxa as classes, with the ranks above them as far as all their members agree."""
    ranks = RANKS[: RANKS.index(level) + 1]
    names: list[str] = []
    taxa_found: list[dict[str, str]] = []
    for position, number in enumerate(taxa.tolist()):
        if number < 0:
            continue
        own = {rank: classes.taxa[position].get(rank, "") for rank in ranks}
        if number == len(names):
            names.append(own[level])
            taxa_found.append({**own, "scientificName": own[level]})
        else:
            for rank in ranks:
                if taxa_found[number][rank] != own[rank]:
                    taxa_found[number][rank] = ""
    return Classes(names, [{k: v for k, v in taxon.items() if v} for taxon in taxa_found])


def _items_at(items: Items, taxa: NDArray[np.int64], level: str) -> tuple[Items, list[str]]:
    higher = _mapped(items.classes, taxa)
    lost = int(np.count_nonzero((items.classes >= 0) & (higher < 0)))
    sentences = [
        f"{some_of(lost, len(items), 'item')} {agreeing(lost, 'has', 'have')} no {level} and "
        f"{agreeing(lost, 'is', 'are')} right for no query"
    ]
    return replace(items, classes=higher), sentences if lost else []


def _queries_at(
    queries: QuerySet,
    classes: Classes,
    taxa: NDArray[np.int64],
    protocol: Protocol,
    templates: Sequence[str],
) -> tuple[QuerySet, int]:
    """The queries at the new level, and how many have no class there."""
    higher = _mapped(queries.classes, taxa)
    kept = np.flatnonzero(higher >= 0)
    lost = int(np.count_nonzero((queries.classes >= 0) & (higher < 0)))
    if queries.modality == TEXT:
        return text_queries(
            classes, np.unique(higher[kept]), protocol, templates, queries.side
        ), lost
    return replace(some_queries(queries, kept), classes=higher[kept]), lost


def _mapped(classes: NDArray[np.int32], taxa: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.where(classes >= 0, taxa[np.maximum(classes, 0)], -1).astype(np.int32)


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
    """The task with groups of queries whose class is seen or novel.

    What systems are fitted on, where the suite names it, loses the novel classes. Queries of no
    class are in neither group, and a group without queries is not made.

    Args:
        task: with queries of classes.
        novel: bool [classes].
    """
    known = task.queries.classes >= 0
    of_query = novel[np.maximum(task.queries.classes, 0)]
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
    sentences = [*task.left_out, *_empty_classes(task)]
    if answered.all() and len(answered):
        return replace(task, left_out=tuple(sentences))
    if not len(answered):
        raise QrelsError(f"{task.name} has no query to ask; give at least one")
    gone = np.flatnonzero(~answered)
    sentences.append(
        f"{some_of(len(gone), len(answered), 'query', 'queries')} "
        f"{agreeing(len(gone), 'has', 'have')} no relevant item and "
        f"{agreeing(len(gone), 'was', 'were')} not asked ({_first(_shown_names(task, gone))})"
    )
    kept = np.flatnonzero(answered)
    return replace(
        task,
        queries=some_queries(task.queries, kept),
        relevance=task.relevance.only(kept),
        candidates=task.candidates.only(kept) if task.candidates else None,
        groups={
            name: members[kept] for name, members in task.groups.items() if members[kept].any()
        },
        left_out=tuple(sentences),
    )


def _empty_classes(task: Task) -> list[str]:
    """Sentences on classes without an item; those asked for in words are told as queries."""
    labels = task.items.classes[task.items.classes >= 0]
    if not len(task.classes) or not len(labels):
        return []
    empty = np.ones(len(task.classes), np.bool_)
    empty[labels] = False
    queries = np.zeros(len(task.classes), np.bool_)
    queries[task.queries.classes[task.queries.classes >= 0]] = True
    kinds = [(empty & ~queries, "is not asked for", "are not asked for")]
    if task.queries.modality != TEXT:
        kinds.append((empty & queries, "cannot be found", "cannot be found"))
    return [
        f"{some_of(len(positions), len(task.classes), 'class', 'classes')} "
        f"{agreeing(len(positions), 'has', 'have')} no item and "
        f"{agreeing(len(positions), one, many)} "
        f"({_first([task.classes.names[i] for i in positions.tolist()])})"
        for chosen, one, many in kinds
        if len(positions := np.flatnonzero(chosen))
    ]


def _shown_names(task: Task, positions: NDArray[np.integer]) -> list[str]:
    """Queries as people know them: classes by name, media by file, others by id."""
    names = []
    for position in positions.tolist():
        number, content = int(task.queries.classes[position]), task.queries.contents[position]
        if isinstance(content, MediaItem):
            names.append(content.media or task.queries.ids[position])
        else:
            names.append(task.classes.names[number] if number >= 0 else task.queries.ids[position])
    return list(dict.fromkeys(names))


def some_queries(queries: QuerySet, positions: NDArray[np.integer]) -> QuerySet:
    """Some of the queries, numbered anew."""
    return replace(
        queries,
        ids=[queries.ids[i] for i in positions.tolist()],
        contents=[queries.contents[i] for i in positions.tolist()],
        classes=queries.classes[positions],
    )


def some_items(items: Items, positions: NDArray[np.integer]) -> Items:
    """Some of the items, numbered anew; their media are still made when they are needed."""
    return replace(
        items,
        ids=Chosen(items.ids, positions),
        contents=Chosen(items.contents, positions),
        classes=items.classes[positions],
        splits=None if items.splits is None else Chosen(items.splits, positions),
    )


class Chosen(Sequence[Any]):
    """Some elements of a sequence, looked up when they are needed.

    Args:
        whole: the sequence.
        positions: int [n], which of its elements, in order.
    """

    def __init__(self, whole: Sequence[Any] | Contents, positions: NDArray[np.integer]) -> None:
        self._whole, self._positions = whole, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, position: Any, /) -> Any:
        """One element, or a list of those in a slice."""
        if isinstance(position, slice):
            return [self._whole[i] for i in self._positions[position].tolist()]
        return self._whole[int(self._positions[position])]


def _seen_only(training: TrainingSplit, novel: NDArray[np.bool_]) -> TrainingSplit:
    def seen(classes: NDArray[np.int32]) -> NDArray[np.int64]:
        return np.flatnonzero((classes >= 0) & ~novel[np.maximum(classes, 0)])

    return TrainingSplit(
        some_items(training.items, seen(training.items.classes)),
        some_queries(training.queries, seen(training.queries.classes)),
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
