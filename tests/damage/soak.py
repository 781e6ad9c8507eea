"""Damaged and hostile archives, at positions chosen by a seed, in processes of their own.

    python -m tests.damage.soak [CASES] [SEED]

Prints one line per change and outcome; fails if an answer was wrong, if repair broke a promise, if
a file outside the archive was changed, or if an error had no type.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from tests.damage.harm import ATTACKS, HARMS, harmed, kind_of
from tests.damage.judging import attack, judge, judge_repair, make, make_full

CASES = 500
_AT_ONCE = 50
"""Cases of one process, which loads LanceDB once; if it dies, the next one goes on."""


def case(scratch: Path, number: int, seed: str) -> tuple[str, str]:
    """Judge one archive; returns what was done to it and what came of it."""
    chance = random.Random(f"{seed} {number}")
    hostile, path = number % 2, scratch / f"case-{number}" / "marsh"
    shutil.copytree(scratch / ("full" if hostile else "template"), path)
    try:
        if hostile:
            attacks = chance.choices(list(ATTACKS), k=chance.randrange(1, 4))
            outside = path.with_name("outside")
            return "hostile", attack(path, outside, attacks, f"{seed} {number}")
        answers = json.loads((scratch / "answers.json").read_text("utf-8"))
        file = chance.choice(sorted(one for one in path.rglob("*") if one.is_file()))
        kind = kind_of(file, path)
        if not harmed(file, chance.choice(list(HARMS)), f"{seed} {number}"):
            return kind, "unchanged"
        return kind, f"{judge(path, answers)} {judge_repair(path, answers)}"
    finally:
        shutil.rmtree(path.parent)


def run_cases(scratch: Path, first: int, last: int, seed: str) -> None:
    """Run some cases, with one line of JSON for each."""
    for number in range(first, last):
        try:
            line = [number, *case(scratch, number, seed), ""]
        except Exception:
            line = [number, "", "failed", traceback.format_exc()]
        print(json.dumps(line), flush=True)


def soak(cases: int, seed: str) -> int:
    """Run so many cases; returns how many failed."""
    outcomes: Counter[tuple[str, str]] = Counter()
    failed = next_case = 0
    with tempfile.TemporaryDirectory(prefix="bittern-damage-") as scratch:
        answers = make(Path(scratch) / "template")
        make_full(Path(scratch) / "full")
        (Path(scratch) / "answers.json").write_text(json.dumps(answers), "utf-8")
        while next_case < cases:
            last = min(cases, next_case + _AT_ONCE)
            numbers = [str(next_case), str(last)]
            done = subprocess.run(
                [sys.executable, "-m", "tests.damage.soak", "--cases", scratch, *numbers, seed],
                capture_output=True,
                text=True,
                check=False,
            )
            lines = [json.loads(line) for line in done.stdout.splitlines()]
            next_case += len(lines)
            if next_case < last:
                lines.append([next_case, "", "failed", f"{done.returncode}: {done.stderr[-2000:]}"])
                next_case += 1
            for number, kind, outcome, error in lines:
                outcomes[kind, outcome] += 1
                if outcome == "failed":
                    failed += 1
                    print(f"case {number} of seed {seed}: {error}", flush=True)
    for (kind, outcome), count in sorted(outcomes.items()):
        print(f"{kind:20} {outcome:20} {count}")
    print(f"{failed} of {cases} cases failed")
    return failed


def main(arguments: list[str]) -> int:
    """See the module."""
    if arguments[:1] == ["--cases"]:
        run_cases(Path(arguments[1]), int(arguments[2]), int(arguments[3]), arguments[4])
        return 0
    cases = int(arguments[0]) if arguments else CASES
    return 1 if soak(cases, arguments[1] if len(arguments) > 1 else "bittern") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
