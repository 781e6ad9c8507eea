"""Queries in words for classes, from templates.

A template names the class by placeholders:

    {common}      its vernacular name
    {scientific}  its scientific name
    {taxonomy}    its ranks from kingdom to species in one line, as BioCLIP (arXiv 2311.18803)
                  writes them: ``Animalia Chordata Aves Strigiformes Strigidae Strix aluco``
    {name}        its name as the data have it

Not every class has a name of each kind. A class without a common name is asked for by its
scientific one, one without that by `{name}`; of the taxonomy, the ranks that are known are given.
`with_fallbacks` counts them.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks.task import TEXT, Classes, Protocol, QuerySet, Task
from bittern.errors import InvalidInputError
from bittern.text import agreeing, counted, some_of
from bittern.types import MAX_TEXT_CHARS, MediaItem

IMAGE_PROMPTS = ("a photo of {common}",)
"""What suites of photographs ask, unless told otherwise."""
AUDIO_PROMPTS = ("The sound of {common}",)
"""What suites of recordings ask."""
IMAGE_CAPTIONS = (
    "a photo of {common}",
    "{scientific}",
    "{taxonomy}",
    "{scientific} with common name {common}",
)
"""Captions that the field trains with (arXiv 2601.22783); all four at once as `--prompt`s."""
VERBATIM = ("{name}",)
"""The name, label or query without a prompt."""
PLACEHOLDERS = ("common", "scientific", "taxonomy", "name")
RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
MAX_PROMPTS = 100
"""Most templates of one run."""
_SHOWN = 5
_NONE = "No class that is asked for"


def fill(template: str, taxon: Mapping[str, str], name: str) -> str:
    """A template with a class put into it.

    Args:
        template: with placeholders; at least one.
        taxon: Darwin Core ranks, ``scientificName`` and ``vernacularName`` as far as known.
        name: of the class, as the data have it.

    Raises:
        InvalidInputError: the template has an unknown placeholder, none, or stray braces; what
            comes of it is longer than 2,000 characters.
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
        InvalidInputError: as `fill`; there are none, more than 100, or one stands twice.
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
    prompt, or their embeddings are averaged, one per class, with the class' name as its id. Ids
    have underscores for white space; of classes of one name the later ones get their place in
    brackets.

    Args:
        classes: what classes there are.
        positions: int [c], those that are asked for.
        protocol: its prompts, if it has any, and whether they are averaged.
        default: templates where it has none.
        side: what a hasher calls this side.

    Raises:
        InvalidInputError: a template cannot be filled.
    """
    templates = tuple(protocol.prompts or default)
    check_templates(templates)
    names = class_ids(classes)
    ids: list[str] = []
    contents: list[tuple[str, ...]] = []
    owners: list[int] = []
    together = protocol.average_prompts or len(templates) == 1
    for each in positions.tolist():
        taxon = classes.taxa[each] if classes.taxa else {}
        prompts = [fill(template, taxon, classes.names[each]) for template in templates]
        if together:
            # Fallbacks make some templates the same: each text weighs once.
            contents.append(tuple(dict.fromkeys(prompts)))
            ids.append(names[each])
        else:
            contents.extend((prompt,) for prompt in prompts)
            ids.extend(f"{names[each]}#{number}" for number in range(len(prompts)))
        owners.extend([each] * (len(ids) - len(owners)))
    return QuerySet(ids, TEXT, contents, np.array(owners, np.int32), side)


def free_queries(
    ids: Sequence[str], contents: Sequence[str | MediaItem], modality: str, protocol: Protocol
) -> tuple[QuerySet, NDArray[np.int64]]:
    """Queries that name no class: words, which several prompts turn into several queries, or media.

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
    templates = tuple(protocol.prompts or VERBATIM)
    names: list[str] = []
    made: list[tuple[str, ...] | MediaItem] = []
    owners: list[int] = []
    for number, content in enumerate(contents):
        each: list[tuple[str, ...] | MediaItem]
        if isinstance(content, MediaItem):
            each = [content]
        else:
            texts = tuple(fill(template, {}, content) for template in templates)
            together = protocol.average_prompts
            each = [tuple(dict.fromkeys(texts))] if together else [(text,) for text in texts]
        several = len(each) > 1
        names += [f"{ids[number]}#{n}" if several else ids[number] for n in range(len(each))]
        made += each
        owners += [number] * len(each)
    none = np.full(len(names), -1, np.int32)
    return QuerySet(names, modality, made, none, modality), np.array(owners, np.int64)


def class_ids(classes: Classes) -> list[str]:
    """An id for each class: its name without white space, unique."""
    met: set[str] = set()
    ids = []
    for number, name in enumerate(classes.names):
        own = "_".join(name.split()) or f"[{number}]"
        while own in met:
            own = f"{own}[{number}]"
        met.add(own)
        ids.append(own)
    return ids


def prompts_note(protocol: Protocol, default: Sequence[str], what: str = "label") -> str:
    """The sentence for `Task.notes` on how queries in words are put.

    Args:
        protocol: its prompts, and whether they are averaged.
        default: templates where it has none.
        what: is put into the templates, in a word.
    """
    templates = tuple(protocol.prompts or default)
    if templates == ("{name}",):
        return f"Asked with the {what} as it stands, without a prompt"
    shown = ", ".join(f"'{template[:200]}'" for template in templates[:_SHOWN])
    more = f" and {len(templates) - _SHOWN} more" if len(templates) > _SHOWN else ""
    if len(templates) == 1:
        return f"Asked with the prompt {shown}"
    if protocol.average_prompts:
        return f"Asked with the mean of {len(templates)} prompts' embeddings: {shown}{more}"
    return f"Asked once with each of {len(templates)} prompts: {shown}{more}"


def with_fallbacks(task: Task, protocol: Protocol, default: Sequence[str]) -> Task:
    """The task, saying for how many of the classes that are asked for a name is not known.

    Where that is all of them, another question is asked than the template says: `left_out` begins
    with it then, and not only `notes` have it.

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
    """Sentences: how many of the classes have no name of the kind asked for."""
    templates = protocol.prompts or default
    wanted = {key for template in templates for _, key in _parsed(template)}
    taxa = [classes.taxa[i] if classes.taxa else {} for i in positions.tolist()]
    sentences = []
    for key, kind, lacks, instead in (
        ("common", "common name", _no_common, "scientific name"),
        ("scientific", "scientific name", _no_scientific, "label"),
        ("taxonomy", "taxonomy", _no_taxonomy, "label"),
    ):
        lacking = sum(map(lacks, taxa))
        if key not in wanted or not lacking:
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
                f"{agreeing(lacking, 'is asked for by its', 'are asked for by their')} {instead}"
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
        ranks.pop()  # the genus stands in the species' name
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
                f"'{{{written[:60]}}}'; there are {known}",
                field="prompts",
            )
    if all(key is None for _, key, _, _ in parsed):
        known = ", ".join(f"{{{each}}}" for each in PLACEHOLDERS)
        raise InvalidInputError(
            f"the prompt '{template[:200]}' names no class, so all of them would be asked for in "
            f"the same words; put one of {known} into it",
            field="prompts",
        )
    return [(text, key or "") for text, key, _, _ in parsed]
