"""Whether a damaged archive keeps its promises."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from bittern.errors import ArchiveDamagedError, BitternError
from bittern.index.archive import Archive
from bittern.index.repair import repair
from tests.golden.make import HERON, answers, change, fill, photo


def make(path: Path) -> dict[str, Any]:
    """Make a small archive with all kinds of files; returns its answers."""
    with Archive.create(path) as archive:
        fill(archive)
    with Archive.open(path, write=True) as archive:
        change(archive)
    with Archive.open(path) as archive:
        expected: dict[str, Any] = as_json(answers(archive))
    return expected


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


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
