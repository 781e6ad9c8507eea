"""The wheel installs one package, which a user's own files and folders cannot shadow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("bittern", "encoders", "hashing", "index", "service", "benchmarks")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE")


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel; dependencies are those of the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, source)
    build = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(sys.executable, "-m", "pip", *build, "--wheel-dir", folder, source, cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    install = ("install", "--quiet", "--no-deps", "--no-index", *folder.glob("*.whl"))
    python = folder / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    # A path in a .pth file is searched, but the .pth files there are not read: neither is the
    # one of the editable installation.
    packages = next((folder / "env" / "lib").glob("python*/site-packages"))
    (packages / "dependencies.pth").write_text(
        "\n".join({p for p in sys.path if p.endswith("site-packages")})
    )
    return folder / "env"


def test_own_files_in_the_working_folder_do_not_shadow_the_package(
    environment: Path, tmp_path: Path
) -> None:
    for name in ("index.py", "service.py", "encoders.py", "benchmarks.py"):
        (tmp_path / name).write_text("raise RuntimeError('the file of the user was imported')")
    (tmp_path / "hashing").mkdir()
    (tmp_path / "hashing" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "photos").mkdir()
    for photo in sorted((ROOT / "bittern" / "sample" / "images").iterdir())[:2]:
        shutil.copy(photo, tmp_path / "photos")
    bittern = (environment / "bin" / "python", "-m", "bittern")
    run(*bittern, "index", "archive", "photos", cwd=tmp_path)
    found = json.loads(run(*bittern, "search", "archive", "an animal", "--json", cwd=tmp_path))
    assert len(found["hits"]) == 2
    where = "import bittern, bittern.index; print(bittern.__file__, bittern.index.__file__)"
    for path in run(environment / "bin" / "python", "-c", where, cwd=tmp_path).split():
        assert Path(path).is_relative_to(environment)


def test_the_wheel_holds_nothing_beside_the_package(environment: Path) -> None:
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
    names = {path.name for path in packages.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"bittern", "dependencies.pth"}
    data = {"sample/manifest.csv", "encoders/field/labels.safetensors", "py.typed"}
    assert all((packages / "bittern" / name).is_file() for name in data)
