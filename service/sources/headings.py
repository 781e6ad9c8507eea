"""Headings of a table as column names of an archive, and the aliases of known columns."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from bittern.errors import ManifestError
from bittern.index.columns import DARWIN_CORE, IDENTITY, INTERNAL, is_code_or_embedding

OWN = ("media", "occurrenceID", "type")
"""Columns that identify a row."""
_LONGEST = 60
_SHOWN = 20
_KNOWN = {name.lower(): name for name in (*DARWIN_CORE, *OWN)}
_RESERVED = {name.lower() for name in (*IDENTITY, *INTERNAL)} - {name.lower() for name in OWN}


_ALIASES = {
    **{name.lower(): name for name in (*DARWIN_CORE, "occurrenceID")},
    **dict.fromkeys(("latitude", "lat"), "decimalLatitude"),
    **dict.fromkeys(("longitude", "lon", "lng", "long"), "decimalLongitude"),
    "associatedmedia": "media",  # the name in Bittern's exports
}
_ALIASES_OF_TERMS = {"associatedmedia": "media"}
"""Unlike other aliases, known with a prefix as well (``dwc:associatedMedia``)."""
_MEDIA_HEADINGS = (
    "associatedmedia", "file", "filename", "filepath", "path", "image", "imagepath", "photo",
    "picture", "audio", "recording", "sound", "relativepath", "sourcefile", "mediapath",
    "mediafile", "url", "imageurl", "photourl", "audiourl", "mediaurl", "accessuri", "identifier",
    "uri", "href", "link",
)  # fmt: skip
"""Usual headings of the column with the files, most likely first; without underscores."""
_MEDIA_WORDS = ("file", "path", "image", "photo", "picture", "audio", "sound", "record", "url")


def kept_names(headings: Sequence[str]) -> list[str]:
    """Unique column names, one per heading.

    Darwin Core terms get their standard spelling, whatever their case or prefix (``dwc:``, a
    term's address). Other headings keep their letters and digits; other characters become
    underscores. Reserved and repeated names get an underscore and a number at the end.
    """
    names: list[str] = []
    taken: set[str] = set()
    for index, heading in enumerate(headings, 1):
        wanted = _kept(heading) or f"column_{index}"
        name, count = wanted, 2
        while name.lower() in taken:
            name, count = f"{wanted}_{count}", count + 1
        taken.add(name.lower())
        names.append(name)
    return names


def column_names(headings: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """Names of a manifest's columns, one per heading, all different; see `kept_names`.

    Renamed columns have priority, then exact Darwin Core terms, then aliases: Darwin Core terms
    with spaces, underscores or hyphens (``scientific_name``, ``Event Date``), and `latitude`,
    `lat`, `longitude`, `lon`, `lng` and `long`; `associatedMedia` is `media`. Nothing else is
    guessed: a column `date` may be that of an upload.

    Args:
        headings: of the table.
        columns: new names by heading: ``{"File Path": "media"}``. A heading mapped to its own name
            is not treated as an alias.

    Raises:
        ManifestError: no such heading, or two with the same new name.
    """
    renamed = _renamed(headings, columns)
    plain = kept_names(headings)
    wanted = [renamed.get(i, heading) for i, heading in enumerate(headings)]
    used = {*renamed.values(), *(n for i, n in enumerate(plain) if i not in renamed)}
    terms: set[int] = set()
    for index, heading in enumerate(headings):
        alias = _ALIASES.get(_bare(heading)) or _ALIASES_OF_TERMS.get(plain[index].lower())
        if index in renamed:
            continue
        if plain[index] in _KNOWN.values():
            terms.add(index)
        elif alias is not None and alias not in used:
            wanted[index] = alias
            used.add(alias)
            terms.add(index)
    wanted = [each if _kept(each) else f"column_{i}" for i, each in enumerate(wanted, 1)]
    order = sorted(range(len(wanted)), key=lambda i: (i not in renamed, i not in terms, i))
    named = dict(zip(order, kept_names([wanted[i] for i in order]), strict=True))
    return [named[i] for i in range(len(wanted))]


def _renamed(headings: Sequence[str], columns: Mapping[str, str]) -> dict[int, str]:
    """The operator's names, by the index of their heading."""
    renamed: dict[int, str] = {}
    for heading, column in columns.items():
        index = _index_of(heading, headings)
        if not column.strip():
            raise ManifestError(f"the column '{heading}' needs a new name", field="columns")
        name = kept_names([column])[0]
        if name in renamed.values() or index in renamed:
            raise ManifestError(
                f"two columns cannot have one name: '{heading}' cannot be '{name}' too",
                field="columns",
            )
        renamed[index] = name
    return renamed


def shown(headings: Sequence[str]) -> str:
    """The headings for a message: the first 20."""
    return ", ".join([*headings[:_SHOWN], *(["..."] if headings[_SHOWN:] else [])]) or "none"


def likely_media(headings: Sequence[str]) -> list[str]:
    """Headings that may name the column with the files, most likely first; 3 at most."""
    by_bare = {_bare(heading): heading for heading in reversed(headings)}
    likely = [by_bare[bare] for bare in _MEDIA_HEADINGS if bare in by_bare]
    likely += [h for h in headings if any(word in _bare(h) for word in _MEDIA_WORDS)]
    return list(dict.fromkeys(likely))[:3]


def _index_of(heading: str, headings: Sequence[str]) -> int:
    for same in (str.strip, lambda text: text.strip().casefold()):
        found = [i for i, each in enumerate(headings) if same(each) == same(heading)]
        if len(found) == 1:
            return found[0]
    raise ManifestError(
        f"there is {'no' if not found else 'more than one'} column '{heading}'; the columns are "
        f"{shown(headings)}",
        field="columns",
    )


def _bare(heading: str) -> str:
    return re.sub(r"[\s_-]+", "", heading).lower()


def _kept(heading: str) -> str:
    bare = heading.strip().rstrip("/")
    if "://" in bare:
        bare = bare.rpartition("/")[2].rpartition("#")[2]
    bare = bare.rpartition(":")[2].strip()
    if bare.lower() in _KNOWN:
        return _KNOWN[bare.lower()]
    letters = unicodedata.normalize("NFKD", bare).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9]+", "_", letters).strip("_")[:_LONGEST]
    if not name:
        return ""
    if name[0].isdigit():
        name = f"column_{name}"
    if is_code_or_embedding(name):
        return f"column_{name}"
    return f"{name}_" if name.lower() in _RESERVED else name
