"""The folder of a training: the model, and the run in ``training/``.

    OUT/
    ├── model.json, hasher.safetensors[, adapters.safetensors]    when the training is done
    └── training/
        ├── request.json                           source, encoder and settings
        ├── config.json, log.jsonl, log.csv, plot.png, checkpoint.safetensors
        └── embeddings/                            of the source

``model.json`` is written last: only a complete model has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from bittern.errors import InvalidInputError, TrainingError
from bittern.files import check_outside_archives, replace_file
from bittern.hashing.saved_model import CARD_FILE, SavedModel
from bittern.hashing.training.records import CHECKPOINT_FILE
from bittern.service.training.request import TrainingRequest

RUN = "training"
REQUEST_FILE = "request.json"
EMBEDDINGS = "embeddings"
_LOCK = "out.lock"


@dataclass(frozen=True)
class ModelEncoder:
    """The encoder of a model, for its card.

    Attributes:
        name: of the encoder, or encoders.
        towers: per modality the digest of the tower, adapters included.
        licence: of the weights.
        assembly: how the towers are combined; None for an unchanged encoder.
        adapters: trained tensors of the towers.
    """

    name: str
    towers: Mapping[str, str]
    licence: str
    assembly: Mapping[str, Any] | None = None
    adapters: Mapping[str, NDArray[np.float32]] | None = None


class OutputFolder:
    """The folder OUT of a training.

    Attributes:
        path: OUT.
        run: the folder of the run.
        embeddings: the folder of embedded sets.
    """

    def __init__(self, request: TrainingRequest) -> None:
        """Check that the request may train there; writes nothing.

        Raises:
            InvalidInputError: a file, a folder with other content, another model, or in an archive.
            TrainingError: a training with other settings; names the differences.
        """
        self.path = request.out
        self.run = request.out / RUN
        self.embeddings = self.run / EMBEDDINGS
        self._identity = request.identity()
        check_outside_archives(self.path, "out")
        if self.path.exists() and not self.path.is_dir():
            raise InvalidInputError(f"{self.path} is a file; name a folder", field="out")
        if (self.run / REQUEST_FILE).is_file():
            self._refuse_other()
        elif (self.path / CARD_FILE).exists():
            raise InvalidInputError(
                f"{self.path} holds a model that was not trained here; name another folder",
                field="out",
            )
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise InvalidInputError(
                f"{self.path} is not empty and holds no training; name another folder", field="out"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Create and lock the folder.

        Raises:
            TrainingError: another process trains there, or the folder now has a training with
                other settings.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        request = self.run / REQUEST_FILE
        lock = FileLock(self.run / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise TrainingError(
                f"another process is training in {self.path}: wait for it, or choose another "
                "folder",
                field="out",
            ) from None
        try:
            if request.is_file():
                self._refuse_other()
            replace_file(request, json.dumps(self._identity, indent=1).encode() + b"\n")
            yield
        finally:
            lock.release()

    def write(self, model: SavedModel) -> None:
        """Write the model's files; the card comes last."""
        card = self.path / CARD_FILE
        if card.exists():
            if SavedModel.load(self.path).card == model.card:
                return
            card.unlink()
        files = model.files()
        for name in sorted(files, key=lambda name: name == CARD_FILE):
            replace_file(self.path / name, files[name])

    def _refuse_other(self) -> None:
        if not ((self.run / CHECKPOINT_FILE).exists() or (self.path / CARD_FILE).exists()):
            return  # nothing has been trained yet
        path = self.run / REQUEST_FILE
        try:
            read = dict(json.loads(path.read_bytes()))
            # Early versions wrote no settings here, only in the checkpoint.
            before = _flat({"settings": self._identity["settings"], **read})
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise TrainingError(
                f"{path} cannot be read: {error}; train into another folder"
            ) from error
        now = _flat(self._identity)
        differ = [n for n in now if before.get(n) != now[n]]
        if differ:
            changes = "; ".join(f"{n} was {before.get(n)}, is {now[n]}" for n in differ)
            raise TrainingError(
                f"{self.path} holds a training with other settings: {changes}. Give the same "
                "options, or name another folder.",
                field=differ[0],
            )


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a training, with its settings, as one mapping."""
    others = {name: value for name, value in identity.items() if name != "settings"}
    return others | dict(identity["settings"])
