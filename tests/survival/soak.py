"""Kills a writer again and again, and compares what is left with what was acknowledged.

    python -m tests.survival.soak --rounds 200 --seed 7        (make soak ROUNDS=200 SEED=7)

Each round a process does some operations on the archive that the round before has left,
and dies at a moment that the seed decides: after so many lines of its journal and so many
microseconds, or at a step between two changes of the disk. The archive must then hold what
was acknowledged, or that and the operation in flight, as a whole. How far a process gets in
so many microseconds is up to the machine; what it does is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bittern.index.archive import Archive
from tests.survival import journal
from tests.survival.comparing import check_answers, disk_bytes, is_held, problems
from tests.survival.content import Content, Operation

OPERATIONS = 14
"""Operations of a round that nobody ends before."""
MOST_STEPS = 60
LONGEST_S = 0.02


class Killer:
    """Starts processes that change an archive, and ends them."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.survival.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def round(self, order: dict[str, object], lines: int | None, seconds: float) -> int:
        """One process, killed so long after so many lines; its exit status."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        seen = 0
        while (line := self._process.stdout.readline()) == ".\n":
            seen += 1
            if seen == lines:
                begun = Path(str(order["journal"])).read_text().split("\n")[0]
                time.sleep(seconds)
                with suppress(ProcessLookupError):
                    os.kill(json.loads(begun)["pid"], signal.SIGKILL)
        return int(line)


class Soak:
    """One archive, and what it should hold.

    Args:
        folder: an empty folder.
        seed: decides what is done, and when it is cut short.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.path = folder / "marsh"
        self.seed = seed
        self.content = Content()
        self.killed = self.acknowledged = self.came_through = 0
        self._folder = folder
        Archive.create(self.path).close()

    def round(self, number: int, killer: Killer) -> None:
        """Kill one process and look at what it has left."""
        chance = random.Random(f"{self.seed}/{number}")
        by_steps = chance.random() < 0.4
        # The first line says which process it is, every other one that a call begins.
        lines = None if by_steps else 2 * chance.randint(1, OPERATIONS) + (chance.random() < 0.2)
        order: dict[str, object] = {
            "archive": str(self.path),
            "journal": str(self._folder / f"journal-{number}"),
            "content": journal.content_to_json(self.content),
            "seed": chance.randrange(1 << 60),
            "steps": chance.randint(1, MOST_STEPS) if by_steps else 0,
            "operations": OPERATIONS,
        }
        status = killer.round(order, lines, chance.uniform(0, LONGEST_S))
        assert status in (0, -signal.SIGKILL), f"round {number}: the process failed by itself"
        self.killed += status != 0
        done, begun = journal.read(Path(str(order["journal"])))
        for operation, answer in done:
            self.content, wanted = self.content.after(operation)
            assert answer == wanted, f"round {number}: {operation} returned {answer}, not {wanted}"
        self.acknowledged += len(done)
        with Archive.open(self.path) as archive:
            self._resolve(number, archive, begun)
            check_answers(archive, self.content)
            registering = begun is not None and begun["do"] == "register"
            assert problems(archive, registering=registering) == [], f"round {number}: {begun}"

    def _resolve(self, number: int, archive: Archive, begun: Operation | None) -> None:
        """Find out whether the operation in flight has come through; it has as a whole or not."""
        without = is_held(archive, self.content)
        if not without:
            return
        assert begun is not None, f"round {number}: {without[:9]}"
        after, _ = self.content.after(begun)
        wrong = is_held(archive, after)
        assert not wrong, f"round {number}: {begun} was cut short: {without[:9]}, {wrong[:9]}"
        self.content = after
        self.came_through += 1

    def end(self) -> None:
        """Open the archive for writing once more: nothing that was cut short is left."""
        with Archive.open(self.path, write=True) as archive:
            assert is_held(archive, self.content) == []
            assert archive.verify() == []
        assert not [*self.path.glob(".archive-*"), *self.path.glob("models/.*")]


def soak(folder: Path, seed: int, rounds: int, *, verbose: bool = False) -> Soak:
    """Kill a writer so many times; raises AssertionError where anything is lost."""
    started = time.monotonic()
    state = Soak(folder, seed)
    with Killer() as killer:
        for number in range(rounds):
            state.round(number, killer)
            if verbose and (number % 20 == 19 or number == rounds - 1):
                print(
                    f"round {number + 1} of {rounds}, seed {seed}: {state.killed} killed, "
                    f"{state.acknowledged} operations acknowledged, {state.came_through} in flight "
                    f"came through, {len(state.content.rows())} observations, "
                    f"{disk_bytes(state.path) / 1e6:.1f} MB, {time.monotonic() - started:.0f} s",
                    flush=True,
                )
    state.end()
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", action="store_true", help="leave the archive and the journals")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bittern-soak-"))
    print(f"seed {options.seed}, {options.rounds} rounds, in {folder}", flush=True)
    try:
        soak(folder, options.seed, options.rounds, verbose=True)
    except BaseException:
        print(f"seed {options.seed}: the archive and the journals are in {folder}", flush=True)
        raise
    if not options.keep:
        shutil.rmtree(folder)
    print("nothing was lost, nothing was half done")


if __name__ == "__main__":
    main()
