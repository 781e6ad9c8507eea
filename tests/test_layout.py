"""Everything is one package, imports point one way, and starting up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("encoders", "hashing", "index", "service", "benchmarks")
LEAVES = (
    "bittern.api",
    "bittern.checks",
    "bittern.errors",
    "bittern.files",
    "bittern.query",
    "bittern.result_table",
    "bittern.text",
    "bittern.types",
    "bittern.v1",
)
"""Modules that every room may import."""
DOORS = ("bittern/cli/evaluating.py",)
"""The only file of the product that may import the benchmarks."""
MAY_IMPORT = {
    "encoders": ("bittern.encoders",),
    "hashing": ("bittern.hashing",),
    "index": ("bittern.index", "bittern.hashing.codes"),
    "service": ("bittern.service", "bittern.index", "bittern.hashing", "bittern.encoders"),
    "bittern": ("bittern",),
}


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports, wherever in the file; `from a import b` counts as a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def within(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_knows_only_the_rooms_below_it(room: str) -> None:
    files = [path for path in sorted((ROOT / room).rglob("*.py")) if "v1" not in path.parts]
    assert files
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imports_of(path)
        if within(name, ("bittern",)) and not within(name, (*MAY_IMPORT[room], *LEAVES))
    }
    assert not wrong


def test_the_product_knows_the_benchmarks_by_one_door_only() -> None:
    wrong = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "bittern").rglob("*.py")
        for name in imports_of(path)
        if within(name, ("bittern.benchmarks", "bittern.encoders", "bittern.hashing"))
    }
    assert wrong <= set(DOORS)


def module_of(path: Path) -> str:
    """The dotted name under which a source file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "bittern" else ("bittern", *parts))
    return name.removesuffix(".__init__")


def test_no_two_folders_import_each_other() -> None:
    files = [
        path
        for folder in ("bittern", *ROOMS)
        for path in (ROOT / folder).rglob("*.py")
        if "v1" not in path.parts and path.name != "__main__.py"
    ]
    folder_of = {module_of(path): str(path.parent.relative_to(ROOT)) for path in files}
    edges: dict[tuple[str, str], str] = {}
    for path in files:
        for name in imports_of(path):
            module = name if name in folder_of else name.rpartition(".")[0]
            if module in folder_of and not within(module, LEAVES):
                edge = (str(path.parent.relative_to(ROOT)), folder_of[module])
                edges[edge] = f"{path.relative_to(ROOT)} imports {module}"
    assert len(edges) > len(ROOMS)
    assert not {(edges[a, b], edges[b, a]) for a, b in edges if a < b and (b, a) in edges}


def test_nothing_is_imported_by_the_name_of_a_source_folder() -> None:
    folders = ("bittern", "tests", *ROOMS)
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for name in imports_of(path)
        if within(name, ROOMS)
    }
    assert not wrong


@pytest.mark.parametrize(
    ("modules", "light"), [("bittern, bittern.cli.app", True), ("bittern.client", False)]
)
def test_the_command_line_and_the_client_start_without_heavy_libraries(
    modules: str, light: bool
) -> None:
    heavy = ["torch", "transformers", "open_clip", "lancedb", "faiss", "pyarrow", "pydantic"]
    heavy += ["grpc"] if light else []
    code = (
        f"import sys, {modules};sys.exit(', '.join(m for m in {heavy!r} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_leaves_import_no_room() -> None:
    for leaf in set(LEAVES) - {"bittern.v1"}:
        names = imports_of(ROOT / f"{leaf.replace('.', '/')}.py")
        assert not {n for n in names if within(n, ("bittern",)) and not within(n, LEAVES)}
