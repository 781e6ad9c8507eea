"""Damage of files, and hostile changes of an archive, at positions chosen by a seed."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xxhash

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


# Hostile changes: of an archive, with a folder outside of it that has precious files

Attack = Callable[[Path, Path, random.Random], None]
"""Changes an archive; takes its folder, the folder outside, and a random source."""
_NEW = (
    *("derived", "reports", "jobs", "lost-found", "snapshots.lock", "backup.json"),
    *(
        ".archive-x",
        ".sums-x",
        "models/.new-x",
        f"models/{'f' * 64}",
        "store/x",
        "snapshots/x.json",
    ),
    *(f"store/observations.lance/{name}" for name in ("_indices", "_indices/x", "data/x.lance")),
)
"""Names that an archive may have, in addition to those that exist."""
_HOSTILE: tuple[Any, ...] = (
    None,
    -1,
    2**70,
    1e300,
    "",
    "..",
    "../../outside/precious",
    "/",
    "x" * 70_000,
    [],
    {},
)


def _some(archive: Path, chance: random.Random) -> Path:
    """A random path in an archive, of a file, a folder or neither, that is no link."""
    existing = [one for one in sorted(archive.rglob("*")) if not one.is_symlink()]
    return chance.choice([*existing, *(archive / name for name in _NEW)])


def _cleared(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return path


def link_moved(archive: Path, outside: Path, chance: random.Random) -> None:
    """A file or folder lies outside, and a link leads to it."""
    path, target = _some(archive, chance), outside / f"moved-{chance.random()}"
    if path.exists():
        path.rename(target)
    else:
        shutil.copytree(outside / "precious", target)
    _cleared(path).symlink_to(target)


def link_precious(archive: Path, outside: Path, chance: random.Random) -> None:
    """A link leads to files outside that are named like an archive's."""
    targets = [outside / "precious", *sorted((outside / "precious").iterdir())]
    _cleared(_some(archive, chance)).symlink_to(chance.choice(targets))


def link_odd(archive: Path, outside: Path, chance: random.Random) -> None:
    """A link leads nowhere, to itself, above, or to another file of the archive; or a pipe."""
    path, other = _some(archive, chance), _some(archive, chance)
    targets = [str(path), "..", "/", "/dev/zero", str(outside / "nothing"), str(other)]
    if target := chance.choice([*targets, ""]):
        _cleared(path).symlink_to(target)
    else:
        os.mkfifo(_cleared(path))


def other_kind(archive: Path, _outside: Path, chance: random.Random) -> None:
    """A file is where a folder should be, or a folder where a file should be."""
    path = _some(archive, chance)
    was_folder = path.is_dir()
    _cleared(path)
    path.write_bytes(b"x") if was_folder else path.mkdir()


def forge_checksums(archive: Path, _outside: Path, chance: random.Random) -> None:
    """Lines of the log are valid and wrong."""
    if (archive / "sums").is_symlink() or not (archive / "sums").is_file():
        return
    existing = [one for one in archive.rglob("*") if one.is_file() and not one.is_symlink()]
    names = [one.relative_to(archive).as_posix() for one in sorted(existing)]
    version = chance.choice([1, 5, 900, 10**6, 2**63, 2**64 - 1])
    names += [
        *("../outside/precious/thesis.tmp", "store/observations.lance/data/../../../../outside"),
        *("/dev/zero", "models/x/y", "", "\0", "store/x"),
        *(f"store/observations.lance/_versions/{2**64 - 1 - version:020}.manifest",) * 4,
    ]
    with (archive / "sums").open("ab") as log:
        for _ in range(chance.randrange(1, 6)):
            xxh3 = chance.choice(["0" * 32, "-", "x", f"{chance.getrandbits(128):032x}"])
            size = chance.choice([0, 1, 4096, 10**17, 10**30, -1])
            rest = f"{xxh3} {size} {json.dumps(chance.choice(names))}".encode()
            log.write(f"{xxhash.xxh3_64_hexdigest(rest)} ".encode() + rest + b"\n")


def forge_json(archive: Path, _outside: Path, chance: random.Random) -> None:
    """A value of a JSON file is hostile, and its checksum is right."""
    files = [one for one in sorted(archive.rglob("*.json")) if one.is_file()]
    path = chance.choice([one for one in files if not one.is_symlink()])
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return
    holder: Any = value
    while holder:
        key = chance.choice([*(holder if isinstance(holder, dict) else range(len(holder)))])
        if not isinstance(holder[key], (dict, list)) or chance.random() < 0.3:
            holder[key] = chance.choice(_HOSTILE)
            break
        holder = holder[key]
    body = value["set"] if isinstance(value.get("set"), dict) else value
    content = {name: item for name, item in body.items() if name != "xxh3"}
    value["xxh3"] = xxhash.xxh3_128_hexdigest(json.dumps(content, sort_keys=True).encode())
    path.write_text(json.dumps(value))


ATTACKS: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        link_moved,
        link_precious,
        link_odd,
        other_kind,
        forge_checksums,
        forge_json,
    )
}


def make_outside(folder: Path) -> None:
    """Make a folder with precious files that are named like an archive's temporary ones."""
    (folder / "precious").mkdir(parents=True)
    for name in ("thesis.tmp", "archive.json", "code_1.npy", "1.manifest", "x.lance"):
        (folder / "precious" / name).write_text("precious")


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
