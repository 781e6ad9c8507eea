"""What an item of a training source is called: from Darwin Core columns, or from its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bittern.encoders.prompts import AUDIO_TEMPLATES, IMAGE_TEMPLATES, Names, captions
from bittern.errors import InvalidInputError, QueryError

NAME_COLUMNS = ("vernacularName", "scientificName", "species")
"""Columns that name a taxon."""
_HIGHER_RANKS = ("kingdom", "phylum", "class", "order", "family")
_TEMPLATES: Mapping[str, Sequence[str]] = {"image": IMAGE_TEMPLATES, "audio": AUDIO_TEMPLATES}
_KINGDOMS = "Animalia|Plantae|Fungi|Chromista|Protozoa|Bacteria|Archaea|Viruses"
_RANKED = re.compile(rf"(?:\d+_)?((?:{_KINGDOMS})(?:_[^_]+){{6}})")
"""``00017_Animalia_Chordata_Aves_Strigiformes_Strigidae_Strix_aluco``, as iNaturalist's sets."""
_LATIN_AND_COMMON = re.compile(r"([A-Z][a-z-]+(?: [a-z-]+)+)_([^_]+)")
"""``Strix aluco_Tawny Owl``, as BirdNET's training folders."""


def names_of_row(metadata: Mapping[str, object]) -> Names:
    """The names in a row's Darwin Core columns; empty where it has none.

    The scientific name is `scientificName` without its author, or else `species`; the taxonomy
    is the ranks from the kingdom down and then that name, if one of those ranks is there.
    """
    cells = {column: _tidy(str(value)) for column, value in metadata.items() if value is not None}
    scientific = cells.get("scientificName", "")
    author = cells.get("scientificNameAuthorship", "")
    if author and scientific.endswith(author):
        scientific = scientific.removesuffix(author).strip()
    scientific = scientific or cells.get("species", "")
    ranks = [cells[rank] for rank in _HIGHER_RANKS if cells.get(rank)]
    return Names(
        common=cells.get("vernacularName", ""),
        scientific=scientific,
        taxonomy=" ".join([*ranks, scientific or cells.get("genus", "")]).strip() if ranks else "",
    )


def names_of_folder(folder: str) -> Names:
    """The names in a folder's name.

    iNaturalist's ranks joined by underscores and BirdNET's ``Scientific name_Common name`` are
    taken apart. Any other name could be of either kind and counts as the common name; its
    underscores are spaces.
    """
    ranked = _RANKED.fullmatch(folder)
    if ranked:
        ranks = ranked[1].split("_")
        return Names(scientific=" ".join(ranks[-2:]), taxonomy=" ".join(ranks))
    both = _LATIN_AND_COMMON.fullmatch(folder)
    if both:
        return Names(scientific=_tidy(both[1]), common=_tidy(both[2]))
    return Names(common=_tidy(folder.replace("_", " ")))


def captions_of(names: Names, modality: str, templates: Sequence[str] | None) -> tuple[str, ...]:
    """All captions that the names fill.

    Where there is no common name the scientific one takes its place in the templates that have
    nothing else to say: ``a photo of Strix aluco``.

    Args:
        names: of one item.
        modality: ``image`` or ``audio``.
        templates: None means the published ones of the modality.

    Returns:
        one caption or more; none if there are no names for any template.

    Raises:
        InvalidInputError: a template is malformed.
    """
    chosen = _TEMPLATES[modality] if templates is None else templates
    found = _filled(names, chosen)
    if not names.common and names.scientific:
        found += _filled(Names(common=names.scientific), chosen)
    return tuple(dict.fromkeys(found))


def check_templates(templates: Sequence[str]) -> None:
    """Refuse templates before any row is read.

    Raises:
        InvalidInputError: there are none, or one is malformed.
    """
    if isinstance(templates, str) or not templates:
        raise InvalidInputError(
            f"templates must be a list of one or more, such as {list(IMAGE_TEMPLATES[:2])}, not "
            f"{templates!r}",
            field="templates",
        )
    captions(Names("common", "scientific", "taxonomy"), templates)


def group_of(names: Names, caption: str) -> str:
    """What items that say the same share: the scientific name, else the common, else `caption`."""
    return _tidy(names.scientific or names.common or caption).casefold()


def _filled(names: Names, templates: Sequence[str]) -> list[str]:
    try:
        return captions(names, templates)
    except QueryError:  # none of the templates has its names
        return []


def _tidy(text: str) -> str:
    return " ".join(text.split())
