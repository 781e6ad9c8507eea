"""The main job, as a newcomer meets it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def run_demo(archive: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bittern", "demo", "--archive", str(archive)],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_finds_the_right_animals_over_grpc_and_again_in_seconds(tmp_path: Path) -> None:
    out = run_demo(tmp_path / "demo")
    first_hits = re.findall(r"^1 +(.*)$", out, re.MULTILINE)
    assert len(first_hits) == 3
    for hit, kind in zip(first_hits, ("bee", "tawny owl", "chicken"), strict=True):
        assert kind in hit.lower()
    for word in ("distance", "licence", "CC0-1.0", "bittern serve", "bittern search"):
        assert word in out
    again = run_demo(tmp_path / "demo")
    assert re.findall(r"^1 +(.*)$", again, re.MULTILINE) == first_hits
