"""`kill -9` at any moment loses nothing acknowledged and shows nothing half done."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import suppress
from itertools import islice
from pathlib import Path

from index.archive import Archive
from tests.index.committing import BATCH, WINDOWS
from tests.index.samples import OWL

ROUNDS = 5
STEPS = ("none", "added", "overwritten", "deleted")
"""What the process does with each batch, one commit each."""
CONTENT = {
    "none": {},
    "added": {0: BATCH * WINDOWS},
    "overwritten": {1: BATCH * (WINDOWS - 1)},
    "deleted": {},
}
"""After each step: rows of the batch by how often they were written."""


def killed(path: Path, first: int, lines: int, seconds: float) -> list[tuple[str, int]]:
    """Start the committing process; kill it `seconds` after it has acknowledged `lines` calls."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.index.committing", str(path), str(first)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    printed = list(islice(process.stdout, lines))
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=seconds)
    process.kill()
    printed += [line for line in process.communicate()[0].splitlines(True) if line.endswith("\n")]
    assert printed[0] == "ready\n"
    return [(action, int(batch)) for action, batch in (line.split() for line in printed[1:])]


def content(archive: Archive) -> dict[int, dict[int, int]]:
    """Rows of each batch by how often they were written."""
    found: dict[int, dict[int, int]] = {}
    for observation in archive.list(page_size=10_000).observations:
        batch, turn = (int(observation.metadata[name] or 0) for name in ("batch", "turn"))
        turns = found.setdefault(batch, {})
        turns[turn] = turns.get(turn, 0) + 1
    return found


def test_killing_the_writer_loses_nothing_acknowledged_and_leaves_no_part(tmp_path: Path) -> None:
    path, moments = tmp_path / "marsh", random.Random(20)
    with Archive.create(path) as archive:
        archive.register_model(OWL, {})
    settled: dict[int, dict[int, int]] = {}
    for number in range(ROUNDS):
        lines = killed(path, 1000 * number, moments.randint(2, 12), moments.uniform(0, 0.03))
        acknowledged = {batch: action for action, batch in lines}
        with Archive.open(path, write=True) as archive:
            assert archive.verify() == []
            found = content(archive)
        last = max(acknowledged)
        for batch, action in acknowledged.items():
            allowed = [CONTENT[action]]
            if batch == last and (
                action == "added" or (action == "overwritten" and batch % 3 == 0)
            ):
                allowed.append(CONTENT[STEPS[STEPS.index(action) + 1]])
            assert found.get(batch, {}) in allowed, (number, batch, action)
        assert found.get(last + 1, {}) in (CONTENT["none"], CONTENT["added"])
        known = {*settled, *acknowledged, last + 1}
        assert {*found} <= known
        assert all(found.get(batch, {}) == rows for batch, rows in settled.items())
        settled = {batch: found.get(batch, {}) for batch in known}
