"""Ids made of file names: an archive keeps ``#t=`` for the windows of recordings."""

from __future__ import annotations

import re

_RESERVED = re.compile(r"[\x00-\x1f\x7f]|#(?=t=)")


def id_of_name(name: str) -> str:
    """A path as an id that an archive can keep: what it cannot is written as in addresses.

    ``call#t=3.wav`` is ``call%23t=3.wav``; control characters are ``%0A`` and the like.
    """
    return _RESERVED.sub(lambda found: f"%{ord(found[0]):02X}", name)
