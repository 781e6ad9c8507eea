"""Captions for names: those of compact hypercube embeddings (arXiv 2601.22783)."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass

from bittern.errors import InvalidInputError, QueryError

IMAGE_TEMPLATES = (
    "a photo of {common}",
    "{scientific}",
    "{taxonomy}",
    "{scientific} with common name {common}",
)
"""Captions of a photograph."""
AUDIO_TEMPLATES = ("The sound of {common}",)
"""Captions of a recording."""


@dataclass(frozen=True, slots=True)
class Names:
    """Names of a taxon; empty where unknown.

    Attributes:
        common: vernacular name, ``tawny owl``.
        scientific: binomial, ``Strix aluco``.
        taxonomy: ranks from the kingdom down, ``Animalia Chordata Aves Strigiformes ...``.
    """

    common: str = ""
    scientific: str = ""
    taxonomy: str = ""


def captions(names: Names, templates: Sequence[str]) -> list[str]:
    """Fill every template whose names are known; in order, without repeats.

    Args:
        names: of one taxon; templates that need an empty name are left out.
        templates: with the fields `{common}`, `{scientific}` and `{taxonomy}`.

    Raises:
        InvalidInputError: a template has another field, or none.
        QueryError: no template can be filled.
    """
    known = {
        "common": names.common.strip(),
        "scientific": names.scientific.strip(),
        "taxonomy": names.taxonomy.strip(),
    }
    filled: dict[str, None] = {}
    for template in templates:
        fields = _fields(template)
        if not fields or not fields <= known.keys():
            raise InvalidInputError(
                f"the template {template!r} must have the fields "
                f"{', '.join('{' + name + '}' for name in known)}, one of them or more, and no "
                "others",
                field="templates",
            )
        if all(known[name] for name in fields):
            filled[template.format(**known)] = None
    if not filled:
        raise QueryError(
            f"none of the templates {list(templates)} can be filled from {names}", field="names"
        )
    return list(filled)


def _fields(template: str) -> set[str]:
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InvalidInputError(
            f"the template {template!r} is malformed: {error}", field="templates"
        ) from error
    return {name for _, name, _, _ in parsed if name is not None}
