"""Column names of a manifest, as an archive can keep them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from index.columns import DARWIN_CORE, IDENTITY, INTERNAL, is_code_or_embedding

OWN = ("media", "occurrenceID", "type")
"""Columns that say what a row is."""
_LONGEST = 60
_KNOWN = {name.lower(): name for name in (*DARWIN_CORE, *OWN)}
_RESERVED = {name.lower() for name in (*IDENTITY, *INTERNAL)} - {name.lower() for name in OWN}


def kept_names(headings: Sequence[str]) -> list[str]:
    """Names under which a manifest's columns are kept, one per heading, all different.

    Darwin Core terms keep their spelling, whatever the manifest's upper and lower case or
    prefix (``dwc:``, a term's address). Other headings keep their letters and digits;
    everything else becomes an underscore. Names that an archive keeps for itself, and names
    that would come twice, get an underscore and a number at the end.
    """
    names: list[str] = []
    taken: set[str] = set()
    for place, heading in enumerate(headings, 1):
        wanted = _kept(heading) or f"column_{place}"
        name, count = wanted, 2
        while name.lower() in taken:
            name, count = f"{wanted}_{count}", count + 1
        taken.add(name.lower())
        names.append(name)
    return names


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
