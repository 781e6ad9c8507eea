"""Relevance by genus, family and so on instead of species."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.prompts import AUDIO_PROMPTS, IMAGE_PROMPTS, RANKS, asked_in_words
from bittern.benchmarks.eval.protocol import Level, Protocol
from bittern.benchmarks.eval.tasks import (
    AUDIO,
    TEXT,
    Asked,
    Classes,
    Items,
    Relevance,
    Task,
    TrainingPart,
)
from bittern.errors import InvalidInputError
from bittern.text import agreeing, some_of


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
    for place, taxon in enumerate(taxa):
        if taxon.get(rank):
            key = (taxon.get("kingdom", ""), taxon[rank])
            found[place] = numbers.setdefault(key, len(numbers))
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
    if not len(task.asked) or (task.asked.classes < 0).all():
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
    asked, not_asked = _asked_at(task.asked, classes, taxa, protocol or Protocol(), templates)
    if not_asked:
        left_out.append(
            f"{some_of(not_asked, len(task.asked), 'query', 'queries')} "
            f"{agreeing(not_asked, 'has', 'have')} no {level} and "
            f"{agreeing(not_asked, 'was', 'were')} not asked"
        )
    training = task.training and TrainingPart(
        _items_at(task.training.items, taxa, level)[0],
        _asked_at(task.training.queries, classes, taxa, protocol or Protocol(), templates)[0],
    )
    return replace(
        task,
        asked=asked,
        items=items,
        relevance=Relevance.by_class(asked.classes, items.classes),
        classes=classes,
        training=training,
        groups={},
        left_out=(*task.left_out, *left_out),
    )


def _regrouped(classes: Classes, taxa: NDArray[np.int64], level: str) -> Classes:
    """The taxa as classes, with the ranks above them as far as all their members agree."""
    ranks = RANKS[: RANKS.index(level) + 1]
    names: list[str] = []
    told: list[dict[str, str]] = []
    for place, number in enumerate(taxa.tolist()):
        if number < 0:
            continue
        own = {rank: classes.taxa[place].get(rank, "") for rank in ranks}
        if number == len(names):
            names.append(own[level])
            told.append({**own, "scientificName": own[level]})
        else:
            for rank in ranks:
                if told[number][rank] != own[rank]:
                    told[number][rank] = ""
    return Classes(names, [{k: v for k, v in taxon.items() if v} for taxon in told])


def _items_at(items: Items, taxa: NDArray[np.int64], level: str) -> tuple[Items, list[str]]:
    higher = _mapped(items.classes, taxa)
    lost = int(np.count_nonzero((items.classes >= 0) & (higher < 0)))
    told = [
        f"{some_of(lost, len(items), 'item')} {agreeing(lost, 'has', 'have')} no {level} and "
        f"{agreeing(lost, 'is', 'are')} right for no query"
    ]
    return replace(items, classes=higher), told if lost else []


def _asked_at(
    asked: Asked,
    classes: Classes,
    taxa: NDArray[np.int64],
    protocol: Protocol,
    templates: Sequence[str],
) -> tuple[Asked, int]:
    """The queries at the new level, and how many have no class there."""
    higher = _mapped(asked.classes, taxa)
    kept = np.flatnonzero(higher >= 0)
    lost = int(np.count_nonzero((asked.classes >= 0) & (higher < 0)))
    if asked.modality == TEXT:
        return asked_in_words(
            classes, np.unique(higher[kept]), protocol, templates, asked.side
        ), lost
    chosen = kept.tolist()
    media = replace(
        asked,
        ids=[asked.ids[i] for i in chosen],
        contents=[asked.contents[i] for i in chosen],
        classes=higher[kept],
    )
    return media, lost


def _mapped(classes: NDArray[np.int32], taxa: NDArray[np.int64]) -> NDArray[np.int32]:
    return np.where(classes >= 0, taxa[np.maximum(classes, 0)], -1).astype(np.int32)
