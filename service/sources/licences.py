"""One spelling for licences: SPDX identifiers, as ``CC-BY-NC-4.0``.

Exports write the same licence as an address, as ``CC_BY_NC_4_0`` or as ``cc-by-nc``. A condition on
the column `license` should find them all. What is none of Creative Commons stays as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

ALL_RIGHTS_RESERVED = "all rights reserved"
_ADDRESS = re.compile(
    r"https?://(?:www\.)?creativecommons\.org/"
    r"(?:licenses/(?P<terms>by(?:-nc)?(?:-nd|-sa)?)|publicdomain/(?P<free>zero|mark))"
    r"(?:/(?P<version>\d\.\d))?(?:/[A-Za-z_./-]*)?",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"CC[-_ ](?P<terms>BY(?:[-_ ]NC)?(?:[-_ ](?:ND|SA))?)(?:[-_ ](?P<version>\d[._]\d))?",
    re.IGNORECASE,
)
_ZERO = re.compile(r"CC[-_ ]?0(?:[-_ ]1[._]0)?", re.IGNORECASE)


@lru_cache(maxsize=1024)
def licence_code(text: str, version: str = "") -> str:
    """The SPDX identifier of a Creative Commons licence, or the text as it is.

    Args:
        text: an address, a code or a name.
        version: what to add where the text has none and the site that wrote it means one.
    """
    text = text.strip()
    if _ZERO.fullmatch(text):
        return "CC0-1.0"
    if match := _ADDRESS.fullmatch(text):
        if match["free"]:
            return "CC0-1.0" if match["free"].lower() == "zero" else "PDM-1.0"
        return _joined(match["terms"], match["version"] or version)
    if match := _CODE.fullmatch(text):
        return _joined(match["terms"], match["version"] or version)
    return text


def _joined(terms: str, version: str) -> str:
    parts = ["CC", *re.split(r"[-_ ]", terms.upper())]
    return "-".join([*parts, version.replace("_", ".")] if version else parts)
