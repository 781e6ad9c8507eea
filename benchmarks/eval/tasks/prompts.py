"""Queries in words for classes, from templates.

A template names the class by placeholders:

    {common}      its vernacular name
    {scientific}  its scientific name
    {taxonomy}    its ranks from kingdom to species in one line, as BioCLIP (arXiv 2311.18803)
                  writes them: ``Animalia Chordata Aves Strigiformes Strigidae Strix aluco``
    {name}        its name as the data have it

A class without a common name is searched by its scientific one, a class without that by `{name}`;
of the taxonomy, the ranks that are known are given. `with_fallbacks` counts such classes.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks.task import TEXT, Classes, Protocol, QuerySet, Task
from bittern.errors import InvalidInputError
from bittern.query import MAX_TEXT_CHARS
from bittern.text import agreeing, counted, some_of
from bittern.types import MediaItem

IMAGE_PROMPTS = ("a photo of {common}",)
"""Default of suites of photographs."""
AUDIO_PROMPTS = ("The sound of {common}",)
"""Default of suites of recordings."""
VERBATIM = ("{name}",)
"""The name, label or query without a prompt."""
PLACEHOLDERS = ("common", "scientific", "taxonomy", "name")
RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
MAX_PROMPTS = 100
"""Most templates of one run."""
_SHOWN = 5
_NONE = "No class of the queries"


def fill(template: str, taxon: Mapping[str, str], name: str) -> str:
    """A template with a class put into it.

    Args:
        template: with placeholders; at least one.
        taxon: Darwin Core ranks, ``scientificName`` and ``vernacularName`` as far as known.
        name: of the class, as the data have it.

    Raises:
        InvalidInputError: the template has an unknown placeholder, none, or stray braces; the
            filled template is longer than 2,000 characters.
    """
    scientific = taxon.get("scientificName") or name
    values = {
        "common": taxon.get("vernacularName") or scientific,
        "scientific": scientific,
        "taxonomy": _taxonomy(taxon, name),
        "name": name,
    }
    parsed = [text + (values[key] if key else "") for text, key in _parsed(template)]
    filled = "".join(parsed)
    if len(filled) > MAX_TEXT_CHARS:
        raise InvalidInputError(
            f"the prompt for '{name[:60]}' is {len(filled):,} characters long; at most "
            f"{MAX_TEXT_CHARS:,} can be embedded: shorten the template or the name",
            field="prompts",
        )
    return filled


def check_templates(templates: Sequence[str]) -> None:
    """Refuse templates that cannot be filled, before anything is read.

    Raises:
        InvalidInputError: as `fill`; none, more than 100, or a repeated one.
    """
    if not 1 <= len(templates) <= MAX_PROMPTS:
        raise InvalidInputError(
            f"{counted(len(templates), 'prompt')}; give 1 to {MAX_PROMPTS}", field="prompts"
        )
    for number, template in enumerate(templates):
        _parsed(template)
        if template in templates[:number]:
            raise InvalidInputError(
                f"the prompt '{template[:200]}' is given twice; leave one out", field="prompts"
            )


def text_queries(
    classes: Classes,
    positions: NDArray[np.integer],
    protocol: Protocol,
    default: Sequence[str],
    side: str = TEXT,
) -> QuerySet:
    """Queries in words for some classes.

    One per class and prompt, whose ids are ``class#0``, ``class#1`` ...; where there is one
    prompt, or their embeddings are averaged, one per class, with the class' name as its id (with
    underscores for white space; further classes of one name get their position in brackets).

    Args:
        classes: all classes.
        positions: int [c], the classes that are searched.
        protocol: its prompts, if it has any, and whether they are averaged.
        default: templates where it has none.
        side: what a hasher calls this side.

    Raises:
        InvalidInputError: a template cannot be filled.
    """
    templates = tuple(protocol.prompts or default)
    check_templates(templates)
    names = class_ids(classes)
    filled = [
        [
            fill(template, classes.taxa[i] if classes.taxa else {}, classes.names[i])
            for template in templates
        ]
        for i in positions.tolist()
    ]
    ids, contents, owners = _by_prompt([names[i] for i in positions.tolist()], filled, protocol)
    return QuerySet(ids, TEXT, contents, positions[owners].astype(np.int32), side)


def free_queries(
    ids: Sequence[str], contents: Sequence[str | MediaItem], modality: str, protocol: Protocol
) -> tuple[QuerySet, NDArray[np.int64]]:
    """Queries without classes: words, which several prompts turn into several queries, or media.

    Args:
        ids: one per query.
        contents: words, or media.
        modality: of all of them.
        protocol: its prompts, if it has any, and whether they are averaged.

    Returns:
        the queries, and the position in `contents` of each, int64.

    Raises:
        InvalidInputError: a template cannot be filled.
    """
    names: Sequence[str] = ids
    made: Sequence[tuple[str, ...] | MediaItem]
    if modality == TEXT:
        templates = tuple(protocol.prompts or VERBATIM)
        filled = [[fill(each, {}, str(words)) for each in templates] for words in contents]
        names, made, owners = _by_prompt(ids, filled, protocol)
    else:
        made = [content for content in contents if isinstance(content, MediaItem)]
        owners = np.arange(len(made))
    return QuerySet(names, modality, made, np.full(len(names), -1, np.int32), modality), owners


def _by_prompt(
    ids: Sequence[str], filled: Sequence[Sequence[str]], protocol: Protocol
) -> tuple[list[str], list[tuple[str, ...]], NDArray[np.int64]]:
    """Ids and prompts of the queries, and which of `ids` each belongs to, int64."""
    if protocol.average_prompts or all(len(prompts) == 1 for prompts in filled):
        # Fallbacks make some templates the same: each text weighs once.
        unique = [tuple(dict.fromkeys(prompts)) for prompts in filled]
        return list(ids), unique, np.arange(len(ids))
    names = [
        f"{own}#{n}" for own, texts in zip(ids, filled, strict=True) for n in range(len(texts))
    ]
    owners = np.repeat(np.arange(len(ids)), [len(prompts) for prompts in filled])
    return names, [(text,) for prompts in filled for text in prompts], owners


def class_ids(classes: Classes) -> list[str]:
    """An id for each class: its name without white space, unique."""
    used: set[str] = set()
    ids = []
    for number, name in enumerate(classes.names):
        own = "_".join(name.split()) or f"[{number}]"
        while own in used:
            own = f"{own}[{number}]"
        used.add(own)
        ids.append(own)
    return ids


def prompts_note(protocol: Protocol, default: Sequence[str], what: str = "label") -> str:
    """The sentence for `Task.notes` on the prompts.

    Args:
        protocol: its prompts, and whether they are averaged.
        default: templates where it has none.
        what: is put into the templates, in a word.
    """
    templates = tuple(protocol.prompts or default)
    if templates == VERBATIM:
        return f"The {what} is embedded as it stands, without a prompt"
    shown = ", ".join(f"'{template[:200]}'" for template in templates[:_SHOWN])
    more = f" and {len(templates) - _SHOWN} more" if len(templates) > _SHOWN else ""
    if len(templates) == 1:
        return f"A query is the prompt {shown}"
    if protocol.average_prompts:
        return f"A query is the mean of {len(templates)} prompts' embeddings: {shown}{more}"
    return f"Each of {len(templates)} prompts is a query: {shown}{more}"


def with_fallbacks(task: Task, protocol: Protocol, default: Sequence[str]) -> Task:
    """The task with notes on the classes of the queries that lack a name of the prompts.

    Where all of them lack it, other queries are put than the template says: `left_out` begins
    with that sentence too.

    Args:
        task: with queries in words.
        protocol: its prompts, if it has any.
        default: templates where it has none.
    """
    queries = np.unique(task.queries.classes)
    sentences = fallbacks(task.classes, queries[queries >= 0], protocol, default)
    of_all = [sentence for sentence in sentences if sentence.startswith(_NONE)]
    return replace(task, notes=(*task.notes, *sentences), left_out=(*of_all, *task.left_out))


def fallbacks(
    classes: Classes, positions: NDArray[np.integer], protocol: Protocol, default: Sequence[str]
) -> list[str]:
    """Sentences: how many of the classes lack a name that the prompts use."""
    templates = protocol.prompts or default
    used = {key for template in templates for _, key in _parsed(template)}
    taxa = [classes.taxa[i] if classes.taxa else {} for i in positions.tolist()]
    sentences = []
    for key, kind, lacks, instead in (
        ("common", "common name", _no_common, "scientific name"),
        ("scientific", "scientific name", _no_scientific, "label"),
        ("taxonomy", "taxonomy", _no_taxonomy, "label"),
    ):
        lacking = sum(map(lacks, taxa))
        if key not in used or not lacking:
            continue
        if key == "common" and all(_no_scientific(taxon) for taxon in taxa if lacks(taxon)):
            instead = "label"
        if lacking == len(positions):
            sentences.append(
                f"{_NONE} has a {kind}: {{{key}}} stands for the {instead} in all queries"
            )
        else:
            sentences.append(
                f"{some_of(lacking, len(positions), 'class', 'classes')} "
                f"{agreeing(lacking, 'has', 'have')} no {kind} and "
                f"{agreeing(lacking, 'is searched by its', 'are searched by their')} {instead}"
            )
    return sentences


def _no_common(taxon: Mapping[str, str]) -> bool:
    return not taxon.get("vernacularName")


def _no_scientific(taxon: Mapping[str, str]) -> bool:
    return not taxon.get("scientificName")


def _no_taxonomy(taxon: Mapping[str, str]) -> bool:
    return not _taxonomy(taxon, "")


def _taxonomy(taxon: Mapping[str, str], name: str) -> str:
    own = taxon.get("scientificName", "")
    ranks = [taxon[rank] for rank in RANKS if taxon.get(rank)]
    if ranks and own.split()[:1] == [ranks[-1]]:
        ranks.pop()  # the species' name has the genus
    return " ".join([*ranks, own] if own else ranks) or name


def _parsed(template: str) -> list[tuple[str, str]]:
    """Text and the placeholder after it (empty for none), in order."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InvalidInputError(
            f"the prompt '{template[:200]}' has stray braces ({error}); write {{{{ and }}}} for "
            "braces that are meant",
            field="prompts",
        ) from error
    for _, key, form, conversion in parsed:
        if key is not None and (key not in PLACEHOLDERS or form or conversion):
            written = key + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
            known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
            raise InvalidInputError(
                f"the prompt '{template[:200]}' has the unknown placeholder "
                f"'{{{written[:60]}}}'; known are {known}",
                field="prompts",
            )
    if all(key is None for _, key, _, _ in parsed):
        known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
        raise InvalidInputError(
            f"the prompt '{template[:200]}' names no class, so all classes would get the same "
            f"query; put one of {known} into it",
            field="prompts",
        )
    return [(text, key or "") for text, key, _, _ in parsed]
