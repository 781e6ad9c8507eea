"""Classes of a task: taxonomic levels, seen and novel classes, queries without a relevant item.

How classes are held out decides what a figure says: a novel species of a seen genus is easier than
a species of a novel family. Leroy, Buisson and Joly (arXiv 2208.08217) split classes at random,
and so that both halves share as little meaning as possible; `novel_classes` does both, with the
taxonomy for the meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks.prompts import AUDIO_PROMPTS, IMAGE_PROMPTS, RANKS, text_queries
from bittern.benchmarks.eval.tasks.task import (
    AUDIO,
    TEXT,
    Classes,
    Level,
    Novel,
    Protocol,
    QuerySet,
    Relevance,
    Task,
    TrainingSplit,
)
from bittern.errors import InvalidInputError, QrelsError
from bittern.text import agreeing, counted, first_few, some_of
from bittern.types import MediaItem

SEEN, NOVEL = "seen", "novel"
OWN_SPLIT = (
    "Seen and novel are this run's own split: systems fitted on items see items of the seen "
    "classes only; what an encoder or a saved model was trained on is not known here"
)


def by_protocol(task: Task, protocol: Protocol, default: Sequence[str] = ()) -> Task:
    """A task of classes at the protocol's level, with its groups, without unanswerable queries.

    Args:
        task: with relevance by class, at the level of species.
        protocol: level, prompts, novel classes, seed.
        default: templates of queries in words; empty for those of the items' modality.

    Raises:
        InvalidInputError: the classes lack the level, or cannot be split.
        QrelsError: no query has a relevant item.
    """
    task = at_level(task, protocol.level, protocol, default)
    if protocol.novel != "none":
        share, seed = protocol.novel_share, protocol.seed
        task = with_groups(
            task, novel_classes(task.classes, protocol.novel, share, seed, protocol.level)
        )
    return leave_out_unanswerable(task)


# Taxonomic levels


def at_level(
    task: Task, level: Level, protocol: Protocol | None = None, default: Sequence[str] = ()
) -> Task:
    """The task with classes of a higher rank, and relevance by those.

    Queries in words become one per taxon (and prompt); queries by media stay. Items without that
    rank are relevant for no query, queries without it are left out; `left_out` counts both. Groups
    are dropped, since they belong to classes.

    Args:
        task: its relevance is by class.
        level: ``species`` for the task as it is.
        protocol: whose prompts name the taxa; None for one without prompts.
        default: templates where the protocol has none; empty for those of the items' modality.

    Raises:
        InvalidInputError: the queries have no classes, or no class has this rank.
    """
    if level == "species":
        return task
    if (task.queries.classes < 0).all():
        raise InvalidInputError(
            f"the queries of {task.name} are not of classes, so they have no {level}; leave "
            "--level at species",
            field="level",
        )
    taxa = taxa_of(task.classes, level)
    if (taxa < 0).all():
        raise InvalidInputError(
            f"no class of {task.name} has the rank {level} (classes: {len(taxa):,}); choose "
            "another --level, or data with that rank",
            field="level",
        )
    classes = _classes_of_rank(task.classes, taxa, level)
    templates = default or (AUDIO_PROMPTS if task.items.modality == AUDIO else IMAGE_PROMPTS)

    def raised(old: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.where(old >= 0, taxa[np.maximum(old, 0)], -1).astype(np.int32)

    def raised_queries(queries: QuerySet) -> QuerySet:
        kept = np.flatnonzero(raised(queries.classes) >= 0)
        higher = raised(queries.classes)[kept]
        if queries.modality != TEXT:
            return replace(queries.only(kept), classes=higher)
        named = protocol or Protocol()
        return text_queries(classes, np.unique(higher), named, templates, queries.side)

    items = replace(task.items, classes=raised(task.items.classes))
    queries = raised_queries(task.queries)
    training = task.training and TrainingSplit(
        replace(task.training.items, classes=raised(task.training.items.classes)),
        raised_queries(task.training.queries),
    )
    left_out = list(task.left_out)
    if lost := int(np.count_nonzero((task.items.classes >= 0) & (items.classes < 0))):
        left_out.append(
            f"{some_of(lost, len(items), 'item')} {agreeing(lost, 'has', 'have')} no {level} and "
            f"{agreeing(lost, 'is', 'are')} relevant for no query"
        )
    no_rank = (task.queries.classes >= 0) & (raised(task.queries.classes) < 0)
    if lost := int(np.count_nonzero(no_rank)):
        left_out.append(
            f"{some_of(lost, len(task.queries), 'query', 'queries')} "
            f"{agreeing(lost, 'has', 'have')} no {level} and {agreeing(lost, 'was', 'were')} left "
            "out"
        )
    return replace(
        task,
        queries=queries,
        items=items,
        relevance=Relevance.by_class(queries.classes, items.classes),
        classes=classes,
        training=training,
        groups={},
        left_out=tuple(left_out),
    )


def rank_above(level: Level) -> str:
    """The rank that whole taxa of are held out of: genus for species, family for genus, ..."""
    return RANKS[-1] if level == "species" else RANKS[RANKS.index(level) - 1]


def taxa_of(classes: Classes, rank: str) -> NDArray[np.int64]:
    """Each class' taxon of a rank as a number, from 0 in order of appearance; -1 for none.

    A name is a taxon of its own in each kingdom: *Oenanthe* is a genus of birds and one of plants.
    """
    numbers: dict[tuple[str, str], int] = {}
    found = np.full(len(classes), -1, np.int64)
    for position, taxon in enumerate(classes.taxa):
        if taxon.get(rank):
            key = (taxon.get("kingdom", ""), taxon[rank])
            found[position] = numbers.setdefault(key, len(numbers))
    return found


def _classes_of_rank(classes: Classes, taxa: NDArray[np.int64], level: str) -> Classes:
    """The taxa as classes, with the ranks above them as far as all their members agree."""
    ranks = RANKS[: RANKS.index(level) + 1]
    merged: dict[int, dict[str, str]] = {}
    for taxon, number in zip(classes.taxa, taxa.tolist(), strict=True):
        if number < 0:
            continue
        own = {rank: taxon.get(rank, "") for rank in ranks}
        known = merged.setdefault(number, own)
        merged[number] = {rank: known[rank] if known[rank] == own[rank] else "" for rank in ranks}
    names = [taxon[level] for taxon in merged.values()]
    return Classes(
        names,
        [
            {rank: value for rank, value in taxon.items() if value} | {"scientificName": name}
            for name, taxon in zip(names, merged.values(), strict=True)
        ],
    )


# Seen and novel classes


def novel_classes(
    classes: Classes, how: Novel, share: float, seed: int, level: Level = "species"
) -> NDArray[np.bool_]:
    """Which classes are novel, bool [classes]; the same for the same seed.

    Args:
        classes: all classes.
        how: ``random``, or ``taxonomy``: whole taxa of the next higher rank are novel, so that
            novel species share no genus with seen ones, novel genera no family, and so on. Of the
            sets of whole taxa that come nearest to the share one is drawn.
        share: of the classes that are novel; over 0, under 1.
        seed: of the draw.
        level: rank of the classes.

    Raises:
        InvalidInputError: the share is no share; classes lack the higher rank; there is only one
            class, or one higher taxon.
    """
    if not 0 < share < 1:
        raise InvalidInputError(
            f"the novel share is {share}; give a share over 0 and under 1", field="novel_share"
        )
    taxa = np.arange(len(classes))
    if how == "taxonomy":
        rank = rank_above(level)
        taxa = taxa_of(classes, rank)
        lacking = np.flatnonzero(taxa < 0)
        if len(lacking):
            raise InvalidInputError(
                f"{some_of(len(lacking), len(classes), 'class', 'classes')} "
                f"{agreeing(len(lacking), 'has', 'have')} no {rank}, so nothing can be held out by "
                f"taxonomy (the first: {first_few([classes.names[i] for i in lacking.tolist()])}); "
                "hold classes out at random, or complete the data's taxonomy",
                field="novel",
            )
    sizes = np.bincount(taxa) if len(taxa) else np.zeros(0, np.int64)
    if len(sizes) < 2:
        raise InvalidInputError(
            f"{counted(len(classes), 'class', 'classes')} in {counted(len(sizes), 'group')} cannot "
            "be split into seen and novel ones; at least two groups are needed",
            field="novel",
        )
    return _drawn(sizes, share * len(classes), np.random.default_rng(seed))[taxa]


def _drawn(sizes: NDArray[np.int64], wanted: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Groups whose sizes add up to the sum nearest to `wanted`, some groups and not all.

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


def with_groups(task: Task, novel: NDArray[np.bool_]) -> Task:
    """The task with groups of queries whose class is seen or novel.

    The training split loses the novel classes. Queries of no class are in neither group, and a
    group without queries is not made.

    Args:
        task: with queries of classes.
        novel: bool [classes].
    """
    known, of_query = task.queries.classes >= 0, novel[np.maximum(task.queries.classes, 0)]
    groups = {SEEN: known & ~of_query, NOVEL: known & of_query}

    def seen(classes: NDArray[np.int32]) -> NDArray[np.int64]:
        return np.flatnonzero((classes >= 0) & ~novel[np.maximum(classes, 0)])

    training = task.training and TrainingSplit(
        task.training.items.only(seen(task.training.items.classes)),
        task.training.queries.only(seen(task.training.queries.classes)),
    )
    number = int(novel.sum())
    share = (
        f"{some_of(number, len(novel), 'class', 'classes')} {agreeing(number, 'is', 'are')} novel"
    )
    return replace(
        task,
        groups={**task.groups, **{name: each for name, each in groups.items() if each.any()}},
        training=training,
        notes=(*task.notes, share, OWN_SPLIT),
    )


# Queries without a relevant item


def leave_out_unanswerable(task: Task) -> Task:
    """The task without queries that have no relevant item; they and empty classes are counted.

    Raises:
        QrelsError: no query is left.
    """
    if not len(task.queries):
        raise QrelsError(f"{task.name} has no query; give at least one")
    answered = task.relevance.counts > 0
    if not answered.any():
        raise QrelsError(
            f"no query of {task.name} has a relevant item "
            f"({counted(len(answered), 'query', 'queries')}, {counted(len(task.items), 'item')} to "
            "be ranked); queries, judgements and items do not "
            "belong together, or too many items are missing"
        )
    sentences = [*task.left_out, *_empty_classes(task)]
    if answered.all():
        return replace(task, left_out=tuple(sentences))
    gone, kept = np.flatnonzero(~answered), np.flatnonzero(answered)
    sentences.append(
        f"{some_of(len(gone), len(answered), 'query', 'queries')} "
        f"{agreeing(len(gone), 'has', 'have')} no relevant item and "
        f"{agreeing(len(gone), 'was', 'were')} left out ({first_few(_shown_names(task, gone))})"
    )
    return replace(
        task,
        queries=task.queries.only(kept),
        relevance=task.relevance.only(kept),
        candidates=task.candidates.only(kept) if task.candidates else None,
        groups={
            name: members[kept] for name, members in task.groups.items() if members[kept].any()
        },
        left_out=tuple(sentences),
    )


def _empty_classes(task: Task) -> list[str]:
    """Sentences on classes without an item; those of queries in words are counted as queries."""
    labels = task.items.classes[task.items.classes >= 0]
    if not len(task.classes) or not len(labels):
        return []
    empty = np.ones(len(task.classes), np.bool_)
    empty[labels] = False
    queries = np.zeros(len(task.classes), np.bool_)
    queries[task.queries.classes[task.queries.classes >= 0]] = True
    kinds = [(empty & ~queries, "is not searched", "are not searched")]
    if task.queries.modality != TEXT:
        kinds.append((empty & queries, "cannot be found", "cannot be found"))
    return [
        f"{some_of(len(positions), len(task.classes), 'class', 'classes')} "
        f"{agreeing(len(positions), 'has', 'have')} no item and "
        f"{agreeing(len(positions), one, many)} "
        f"({first_few([task.classes.names[i] for i in positions.tolist()])})"
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
