"""Imports point one way, and starting up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("encoders", "hashing", "index", "service", "bittern", "benchmarks")
LEAVES = ("bittern.errors", "bittern.v1")
EVALUATING = ("bittern/cli/evaluating.py", "bittern/cli/eval_screen.py")
"""The one door from the command line to the benchmarks."""
MAY_IMPORT = {
    "encoders": ("encoders",),
    "hashing": ("hashing",),
    "index": ("index", "hashing.codes"),
    "service": ("service", "index", "hashing", "encoders"),
    "bittern": ("bittern", "service", "index"),
}


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports, wherever in the file; `from a import b` counts as a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] in ROOMS}


def within(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_knows_only_the_rooms_below_it(room: str) -> None:
    allowed = (*MAY_IMPORT[room], *LEAVES)
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        if "v1" not in path.parts
        for name in imports_of(path)
        if not within(name, (*allowed, *doors(path)))
    }
    assert not wrong


def doors(path: Path) -> tuple[str, ...]:
    return ("benchmarks.retrieval",) if str(path.relative_to(ROOT)) in EVALUATING else ()


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    heavy = "torch", "transformers", "open_clip", "lancedb", "faiss", "grpc", "pyarrow"
    code = (
        "import sys, bittern, bittern.cli.app;"
        f"sys.exit(', '.join(m for m in {heavy!r} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_errors_are_leaves_that_import_no_room() -> None:
    assert imports_of(ROOT / "bittern" / "errors.py") == set()
