"""Whether a damaged archive keeps its promises."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from bittern.errors import ArchiveDamagedError, BitternError
from bittern.index.archive import Archive
from bittern.index.backup import backup
from bittern.index.folder import ArchiveFolder
from bittern.index.repair import repair
from bittern.index.verify import verified_files
from tests.damage.harm import ATTACKS, make_outside
from tests.golden.make import HERON, RAIL, answers, change, fill, photo


def make(path: Path) -> dict[str, Any]:
    """Make a small archive with all kinds of files; returns its answers."""
    with Archive.create(path) as archive:
        fill(archive)
    with Archive.open(path, write=True) as archive:
        change(archive)
    with Archive.open(path) as archive:
        expected: dict[str, Any] = as_json(answers(archive))
    return expected


def contents(folder: Path) -> dict[str, tuple[bytes | str, int, int]]:
    """Content or target, time and mode of everything below a folder."""
    found = {}
    for one in sorted(folder.rglob("*")):
        stat = one.lstat()
        content = str(one.readlink()) if one.is_symlink() else b""
        if one.is_file() and not one.is_symlink():
            content = one.read_bytes()
        found[str(one.relative_to(folder))] = (content, stat.st_mtime_ns, stat.st_mode)
    return found


def use(path: Path) -> list[str]:
    """Read, change, verify, back up and repair an archive, however damaged.

    Returns:
        the names of the typed errors; another error is raised.
    """
    copy, other = path.with_name("copy"), path.with_name("other")

    def change() -> None:
        with Archive.open(path, write=True) as archive:
            archive.register_model(RAIL, {"card.json": b"{}"})
            archive.add([photo("used", RAIL)], model=RAIL.digest)
            archive.take_snapshot("used")
            archive.delete(["used"])
            archive.restore("used")
            archive.writer.drop_retired()
            archive._store.compact()

    def back_up_to_it() -> None:
        with Archive.create(other) as archive:
            archive.register_model(HERON, {"card.json": b"{}"})
        backup(other, path)

    def create() -> None:
        Archive.create(path).close()

    errors = []
    for step in (
        lambda: Archive.open(path).close(),
        lambda: verified_files(ArchiveFolder(path)),
        lambda: repair(path, dry_run=True),
        change,
        lambda: backup(path, copy),
        back_up_to_it,
        lambda: repair(path),
        change,
        create,
    ):
        try:
            step()
        except BitternError as error:
            errors.append(type(error).__name__)
    for made in (copy, other):
        shutil.rmtree(made, ignore_errors=True)
    return errors


def make_full(path: Path) -> None:
    """Make a small archive with every file and folder that an archive can have."""
    make(path)
    with Archive.open(path, write=True) as archive:
        archive.take_snapshot("spring")
        archive._store.make_lookup("id", "sorted")
        archive._follower.derived.write("rows", {"kinds": np.zeros(3, np.int8)})
    for name in ("jobs", "lost-found", "reports"):
        (path / name).mkdir()
        (path / name / "index.json").write_text("{}")


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def attack(path: Path, outside: Path, names: list[str], seed: str) -> str:
    """Change an archive in some hostile ways, and use it; fails if anything outside is changed.

    Args:
        path: of the archive.
        outside: a new folder, for precious files.
        names: of `ATTACKS`.
        seed: of the random source.

    Returns:
        ``sound``, or the typed errors of its use.
    """
    make_outside(outside)
    chance = random.Random(seed)
    for name in names:
        ATTACKS[name](path, outside, chance)
    before = contents(outside)
    errors = use(path)
    assert contents(outside) == before
    return " ".join(sorted(set(errors))) or "sound"


def judge(path: Path, expected: dict[str, Any]) -> str:
    """How damage shows; fails if it does not show and answers are wrong.

    Returns:
        ``open`` if opening fails, ``verify`` if verifying finds it, ``harmless`` if
        neither does and every result is correct.
    """
    try:
        archive = Archive.open(path)
    except BitternError:
        return "open"
    with archive:
        try:
            problems = archive.verify()
        except BitternError:
            return "verify"
        if problems:
            return "verify"
        assert as_json(answers(archive)) == expected
    return "harmless"


def judge_repair(path: Path, expected: dict[str, Any]) -> str:
    """Repair: the rest must be correct, and what is lost must be reported.

    Returns:
        ``whole`` if nothing was lost, ``rows lost``, or ``refused`` if only a backup helps.
    """
    dry = path.with_name("dry")
    shutil.copytree(path, dry)
    try:
        planned = repair(dry, dry_run=True)
        done = repair(path)
    except ArchiveDamagedError:
        return "refused"
    finally:
        shutil.rmtree(dry)
    assert planned.steps == done.steps, (planned.steps, done.steps)
    assert repair(path).steps == []
    with Archive.open(path, write=True) as archive:
        problems = [line for line in archive.verify() if "has lost its files" not in line]
        assert problems == []
        left = {row["id"]: row for row in as_json(answers(archive))["rows"]}
        wanted = {row["id"]: row for row in expected["rows"]}
        assert {name: wanted[name] for name in left} == left
        lost = set(wanted) - set(left)
        assert done.given_up or len(lost) == done.lost_rows
        # Ids of an older version may have been deleted since; they are listed too.
        assert not set(done.lost) & set(left)
        found = archive.add([photo("after", HERON)], model=HERON.digest)
        assert str(found[0].status) == "added"
    return "whole" if len(left) == len(wanted) else "rows lost"
