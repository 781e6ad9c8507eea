"""Checkpoint files: safe reading, and digests of their content.

Weights are read as safetensors, or as a PyTorch file with `weights_only=True`: nothing in a
checkpoint is ever executed. Tensors that do not fit the configuration are refused by name: none
is filled in at random, resized or dropped silently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bittern.errors import ModelDamagedError, PreconditionError

if TYPE_CHECKING:
    import torch

DIGEST_FORMAT = 1
"""Raise it whenever the same files give other embeddings than before."""

_MAX_JSON_BYTES = 16 * 2**20
_HASH_BLOCK = 4 * 2**20
_SHOWN_NAMES = 4
_VOCABULARIES = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
    ("spiece.model",),
    ("tokenizer.model",),
)


def read_json(path: Path, model: str) -> dict[str, Any]:
    """A configuration file: a JSON object.

    Raises:
        ModelDamagedError: missing, unreadable, too large or not a JSON object.
    """
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelDamagedError(
                f"{model}: {path} is larger than {_MAX_JSON_BYTES} bytes, no configuration is"
            )
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelDamagedError(f"{model}: {path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelDamagedError(f"{model}: {path} must hold a JSON object")
    return value


@contextmanager
def as_damage(problem: str) -> Iterator[None]:
    """Turn any error into a `ModelDamagedError`: libraries have their own for damaged files."""
    try:
        yield
    except (MemoryError, ModelDamagedError):
        raise
    except Exception as error:
        raise ModelDamagedError(f"{problem}: {error}") from error


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_weights(path: Path, model: str, expected: str = "") -> str:
    """Hex SHA-256 of a weights file.

    Raises:
        ModelDamagedError: it differs from `expected`.
    """
    found = sha256_of_file(path)
    if expected and found != expected:
        raise ModelDamagedError(
            f"{model}: {path} is damaged, or not the file of the recorded revision: its SHA-256 "
            f"is {found}, not {expected}; remove it and download it again, or name the folder "
            "with the weights if you mean other weights"
        )
    return found


def sha256_of_files(paths: Iterable[Path]) -> str:
    """Hex SHA-256 over the names and contents of several files, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        digest.update(f"{path.name}\0{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def tower_digest(facts: Mapping[str, Any]) -> str:
    """Hex SHA-256 of everything that decides a tower's embeddings.

    Args:
        facts: JSON values: the hash of the weights, the tower's configuration, its
            preprocessing. `DIGEST_FORMAT` is added.
    """
    text = json.dumps({**facts, "format": DIGEST_FORMAT}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def weights_file(folder: Path, names: Iterable[str], model: str) -> Path:
    """The first of `names` that is in the folder.

    Raises:
        ModelDamagedError: none is.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ModelDamagedError(f"{model}: {folder} has none of {', '.join(names)}")


def check_tokenizer(folder: Path, model: str) -> None:
    """Refuse a folder without a vocabulary: transformers would use an empty one.

    Raises:
        ModelDamagedError: there is none.
    """
    for files in _VOCABULARIES:
        if all((folder / name).is_file() for name in files):
            return
    raise ModelDamagedError(
        f"{model}: {folder} has no tokenizer: it needs "
        f"{', or '.join(' with '.join(files) for files in _VOCABULARIES)}"
    )


def check_vocabulary(size: int, rows: int, model: str) -> None:
    """Refuse a tokenizer with more tokens than the text tower has vectors.

    Raises:
        ModelDamagedError: it has more.
    """
    if size > rows:
        raise ModelDamagedError(
            f"{model}: the tokenizer has {size} tokens, the text tower {rows}: they are not of "
            "the same model"
        )


def read_tensors(path: Path, model: str) -> dict[str, torch.Tensor]:
    """The tensors of a weights file, by name, on the CPU.

    Raises:
        ModelDamagedError: truncated, not a weights file, or one that would run code.
    """
    import torch

    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # each reader has its own errors for damaged bytes
        reason = str(error).strip().splitlines()
        raise ModelDamagedError(
            f"{model}: {path} is damaged or no weights file: "
            f"{reason[0] if reason else type(error).__name__}; download it again"
        ) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in loaded.items()
    ):
        raise ModelDamagedError(f"{model}: {path} does not hold named tensors")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def check_fit(
    model: str,
    *,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    mismatched: Iterable[str] = (),
) -> None:
    """Refuse weights that do not fit their configuration.

    Args:
        model: its name in the error.
        missing: tensors that the configuration needs and the file lacks.
        unexpected: tensors of the file that the configuration does not know.
        mismatched: tensors of another shape, described.

    Raises:
        ModelDamagedError: any tensor does not fit.
    """
    faults = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN_NAMES])}"
        f"{', ...' if len(names) > _SHOWN_NAMES else ''})"
        for what, names in (
            ("missing", sorted(missing)),
            ("of another shape", sorted(mismatched)),
            ("unknown", sorted(unexpected)),
        )
        if names
    ]
    if faults:
        raise ModelDamagedError(
            f"{model}: the weights do not fit the configuration beside them: tensors "
            f"{'; '.join(faults)}. Bring both files from the same revision"
        )


def load_into(
    module: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    model: str,
    *,
    ignorable: tuple[str, ...] = (),
) -> None:
    """Load tensors into a module; names and shapes must match exactly.

    Args:
        module: built from the configuration.
        tensors: from the weights file.
        model: its name in errors.
        ignorable: name endings of constants that some versions store and others compute.

    Raises:
        ModelDamagedError: names or shapes differ.
    """
    own = module.state_dict()
    given = dict(tensors)
    for name in own.keys() & given.keys():
        if own[name].numel() == given[name].numel() == 1:
            given[name] = given[name].reshape(own[name].shape)
    check_fit(
        model,
        missing=[n for n in own.keys() - given.keys() if not n.endswith(ignorable)],
        unexpected=[n for n in given.keys() - own.keys() if not n.endswith(ignorable)],
        mismatched=[
            f"{n}: {list(given[n].shape)} for {list(own[n].shape)}"
            for n in own.keys() & given.keys()
            if own[n].shape != given[n].shape
        ],
    )
    module.load_state_dict({n: v for n, v in given.items() if n in own}, strict=False)


def pick_device(device: str | None) -> torch.device:
    """The given device; for None the GPU if there is one, else the CPU.

    Raises:
        PreconditionError: no such device.
    """
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise PreconditionError(
            f"there is no device {device!r}: use cpu, cuda or cuda:N"
        ) from error
    if chosen.type == "cuda" and not (chosen.index or 0) < torch.cuda.device_count():
        raise PreconditionError(
            f"there is no device {device!r}: this machine has {torch.cuda.device_count()} "
            "CUDA devices; use cpu"
        )
    return chosen


def load_parameters(
    label: str,
    own: Mapping[str, torch.nn.Parameter],
    given: Mapping[str, NDArray[np.float32]],
) -> None:
    """Copy arrays into parameters. Nothing changes if any of them does not fit.

    Args:
        label: the model's name in errors.
        own: the parameters, by name.
        given: float32 arrays, by the same names.

    Raises:
        ModelDamagedError: arrays are missing, unknown, of another shape or dtype, or hold NaN or
            infinity.
    """
    import torch

    common = own.keys() & given.keys()
    check_fit(
        label,
        missing=own.keys() - given.keys(),
        unexpected=given.keys() - own.keys(),
        mismatched=[
            f"{name}: {list(given[name].shape)} for {list(own[name].shape)}"
            for name in common
            if tuple(given[name].shape) != tuple(own[name].shape)
        ],
    )
    for name in sorted(common):
        if given[name].dtype != np.float32:
            raise ModelDamagedError(f"{label}: {name} must be float32, not {given[name].dtype}")
        if not np.isfinite(given[name]).all():
            raise ModelDamagedError(
                f"{label}: {name} holds NaN or infinity; use an earlier state of this model"
            )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(torch.from_numpy(np.array(given[name])))


def parameter_arrays(
    parameters: Mapping[str, torch.nn.Parameter],
) -> dict[str, NDArray[np.float32]]:
    """Copies of parameters as float32 arrays, by name."""
    return {
        name: np.array(parameter.detach().float().cpu().numpy())
        for name, parameter in parameters.items()
    }
