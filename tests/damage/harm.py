"""Damage of files, at positions chosen by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

Harm = Callable[[bytes, random.Random, bytes], bytes | None]
"""From a file's content, a random source and another file's content to the damaged content; None to
delete the file."""
_BLOCK = 512


def flip_bit(data: bytes, chance: random.Random, _: bytes) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]


def flip_byte(data: bytes, chance: random.Random, _: bytes) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :]


def zero_block(data: bytes, chance: random.Random, _: bytes) -> bytes:
    block = min(_BLOCK, len(data))
    at = chance.randrange(len(data) - block + 1)
    return data[:at] + bytes(block) + data[at + block :]


def truncate(data: bytes, chance: random.Random, _: bytes) -> bytes:
    return data[: chance.randrange(1, len(data))] if len(data) > 1 else b""


def empty(_data: bytes, _chance: random.Random, _: bytes) -> bytes:
    return b""


def remove(_data: bytes, _chance: random.Random, _: bytes) -> None:
    return None


def replace(_data: bytes, _chance: random.Random, other: bytes) -> bytes:
    return other


HARMS: Mapping[str, Harm] = {
    harm.__name__: harm
    for harm in (flip_bit, flip_byte, zero_block, truncate, empty, remove, replace)
}


def kind_of(path: Path, archive: Path) -> str:
    """The kind of a file: the name of its folder, or of the file, or which manifest it is."""
    names = path.relative_to(archive).parts
    if names[0] != "store":
        return names[0]
    if len(names) > 2 and names[2] == "_versions":
        newest = min(path.parent.glob("*.manifest"))
        if path.suffix == ".json":
            return "version hint"
        return "newest manifest" if path == newest else "older manifest"
    return names[2] if len(names) > 2 else names[-1]


def harmed(path: Path, harm: str, seed: str) -> bool:
    """Damage one file; returns whether that changed anything."""
    chance = random.Random(seed)
    before = path.read_bytes()
    others = [one for one in sorted(path.parent.iterdir()) if one.is_file() and one != path]
    other = chance.choice(others).read_bytes() if others else b"other"
    if not before and harm in ("flip_bit", "flip_byte", "zero_block"):
        return False
    after = HARMS[harm](before, chance, other)
    if after is None:
        path.unlink()
    else:
        path.write_bytes(after)
    return after != before
