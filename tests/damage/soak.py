"""Much damage, at positions chosen by a seed, each case in its own process.

    python -m tests.damage.soak [CASES] [SEED]

Prints one line per kind of file and outcome; fails if an answer was wrong, if repair broke a
promise, or if a process died of it.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.damage.harm import HARMS, harmed, kind_of
from tests.damage.judging import judge, judge_repair, make

CASES = 500


def case(path: Path, expected: Path) -> None:
    """Judge one damaged archive and say what came of it."""
    answers = json.loads(expected.read_text("utf-8"))
    print(judge(path, answers), judge_repair(path, answers))


def soak(cases: int, seed: str) -> int:
    """Run so many cases; returns how many failed."""
    outcomes: Counter[tuple[str, str]] = Counter()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="bittern-damage-") as scratch:
        source, path = Path(scratch) / "template", Path(scratch) / "case" / "marsh"
        expected = Path(scratch) / "expected.json"
        expected.write_text(json.dumps(make(source)), "utf-8")
        files = sorted(one.relative_to(source) for one in source.rglob("*") if one.is_file())
        for number in range(cases):
            chance = random.Random(f"{seed} {number}")
            shutil.rmtree(path.parent, ignore_errors=True)
            shutil.copytree(source, path)
            harms = [(chance.choice(files), chance.choice(list(HARMS)))]
            changed = [harmed(path / file, harm, f"{seed} {number}") for file, harm in harms]
            if not any(changed):
                continue
            done = subprocess.run(
                [sys.executable, "-m", "tests.damage.soak", "--case", path, expected],
                capture_output=True,
                text=True,
                check=False,
            )
            kind = kind_of(path / harms[0][0], path)
            if done.returncode:
                failed += 1
                print(f"case {number} of seed {seed}: {harms} ended with {done.returncode}")
                print(done.stderr[-2000:], flush=True)
            outcomes[kind, done.stdout.strip() or "failed"] += 1
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind:20} {outcome:20} {count}")
    return failed


def main(arguments: list[str]) -> int:
    """See the module."""
    if arguments[:1] == ["--case"]:
        case(Path(arguments[1]), Path(arguments[2]))
        return 0
    cases = int(arguments[0]) if arguments else CASES
    return 1 if soak(cases, arguments[1] if len(arguments) > 1 else "bittern") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
