"""Checkpoints: all that a run needs to go on as if nothing had happened, in one file.

The file is safetensors (no pickle): tensors, and JSON in its header. It is written under
another name, flushed to disk and renamed, so that the last complete one is always there,
whenever the process dies.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bittern.errors import BitternError, ModelDamagedError

CHECKPOINT_FILE = "checkpoint.safetensors"
FORMAT = 1
REMEDY = "Remove it to start the run anew, or train into another folder."
_STATE = "state"


def save_checkpoint(
    path: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]
) -> None:
    """Replace the checkpoint at `path`.

    Args:
        path: of the file; its folder exists.
        tensors: by name, on any device.
        state: JSON values.
    """
    header = {_STATE: json.dumps({**state, "format": FORMAT}), "format": "pt"}
    stored = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    temporary = path.with_name(path.name + ".partial")
    save_file(stored, temporary, metadata=header)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    _flush_folder(path.parent)


def load_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and state.

    Raises:
        ModelDamagedError: not a checkpoint of this version.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = json.loads(header[_STATE])
        version = state["format"]
    except (
        SafetensorError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ModelDamagedError(
            f"the checkpoint {path} cannot be read: {error}. {REMEDY}"
        ) from error
    if version != FORMAT:
        raise ModelDamagedError(
            f"the checkpoint {path} has format {version}, this version reads {FORMAT}. {REMEDY}"
        )
    return tensors, state


@contextlib.contextmanager
def refusing_nonsense(path: Path) -> Iterator[None]:
    """Tell what fails inside, on values from the checkpoint at `path`, as damage to it.

    Raises:
        ModelDamagedError: something failed that Bittern has no error for.
    """
    try:
        yield
    except (BitternError, torch.OutOfMemoryError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError) as e:
        reason = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
        raise ModelDamagedError(f"the checkpoint {path} makes no sense: {reason}. {REMEDY}") from e


def under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors called ``<prefix>.<name>``, by name."""
    start = prefix + "."
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}


def shapes(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    """Shapes by name."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a small file as a whole."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _flush_folder(folder: Path) -> None:
    # Windows opens no folders.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
