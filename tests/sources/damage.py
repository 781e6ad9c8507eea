"""Files of exports, damaged at random: truncated, overwritten, with pieces doubled or dropped."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from bittern.errors import BitternError
from bittern.service.sources import Listed, SourceOptions

PIECES = (
    b"[" * 50, b"{", b"}", b"null", b"NaN", b"-1e999", b"9" * 400, b'"', b"\\ud800", b"\x00",
    b"\xff", b",", b"\n", b"../../etc/passwd", b"true", b'"' + b"x" * 3000 + b'"', b"http://[",
)  # fmt: skip
"""What is put into the middle of files."""


def damaged(content: bytes, seed: int) -> bytes:
    """The content with one to four wounds."""
    dice = random.Random(seed)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(content) + 1)
        upto = min(len(content), at + dice.randint(0, 40))
        wound = dice.randrange(4)
        if wound == 0:
            content = content[:at]
        elif wound == 1:
            content = content[:at] + content[upto:]
        elif wound == 2:
            content = content[:at] + dice.choice(PIECES) + content[upto:]
        else:
            content = content[:at] + content[at:upto] * 2 + content[upto:]
    return content


def raises_only_ours(
    entries: Callable[[Path, SourceOptions], Iterator[Listed]], path: Path, seed: int
) -> int:
    """How many entries a damaged source lists; whatever it raises but a `BitternError` escapes."""
    listed: list[Listed] = []
    with contextlib.suppress(BitternError):
        listed.extend(entries(path, SourceOptions()))
    assert all(each.position for each in listed), f"seed {seed}: an entry without its position"
    return len(listed)
