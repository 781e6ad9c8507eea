"""The models of an archive: their records and their files."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from bittern.errors import BitternError, CodeError, InvalidInputError
from bittern.hashing.codes import check_bits

_DIGEST = re.compile(r"[0-9a-f]{16,128}")
_DIGEST_DIGITS_IN_COLUMN = 16
CODE_PREFIX = "code_"
"""Prefix of columns of codes, followed by the first digits of the model's digest."""
ModelState = Literal["ready", "pending", "retired"]
"""Ready models are searched; pending ones are not complete and not searched; retired ones are
searched if named."""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One model that coded (part of) an archive.

    Attributes:
        name: e.g. ``field-256``.
        digest: hex SHA-256 of everything that decides its codes.
        bits: code length.
        encoder: catalogue name of its encoder.
        modalities: its towers.
        state: ``ready``, ``pending`` or ``retired``.
        since: store version that added its column of codes, if the store had one of that name
            before: codes of earlier versions must not be used. Else 0.
        successor: digest of the model that replaced it; empty unless it is retired.
    """

    name: str
    digest: str
    bits: int
    encoder: str
    modalities: tuple[str, ...]
    state: ModelState = field(default="ready", compare=False)
    since: int = field(default=0, compare=False)
    successor: str = field(default="", compare=False)

    @property
    def code_column(self) -> str:
        """Name of the store's column that holds its codes."""
        return f"{CODE_PREFIX}{self.digest[:_DIGEST_DIGITS_IN_COLUMN]}"

    @property
    def embedding_column(self) -> str:
        """Name of the store's column that holds its embeddings, if they are kept."""
        return f"embedding_{self.digest[:_DIGEST_DIGITS_IN_COLUMN]}"

    @property
    def columns(self) -> tuple[str, str]:
        """Names of its columns of codes and of embeddings."""
        return self.code_column, self.embedding_column

    def checked(self) -> ModelRecord:
        """Return the record if it can be registered.

        Raises:
            InvalidInputError: the digest is not lower-case hex of at least 16 digits.
            CodeError: the code length is unusable.
        """
        if not is_digest(self.digest):
            raise InvalidInputError(
                f"a model's digest must be 16 to 128 lower-case hex digits, not {self.digest!r}",
                field="digest",
            )
        check_bits(self.bits)
        return self

    def to_json(self) -> dict[str, Any]:
        """As JSON values, for `archive.json`."""
        value: dict[str, Any] = {
            "name": self.name,
            "digest": self.digest,
            "bits": self.bits,
            "encoder": self.encoder,
            "modalities": list(self.modalities),
        }
        if self.state != "ready":
            value["state"] = self.state
        if self.since:
            value["since"] = self.since
        if self.successor:
            value["successor"] = self.successor
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelRecord:
        """The record from the output of `to_json`.

        Raises:
            KeyError, TypeError, ValueError: the value is malformed.
        """
        record = cls(
            name=str(value["name"]),
            digest=str(value["digest"]),
            bits=int(value["bits"]),
            encoder=str(value["encoder"]),
            modalities=tuple(str(modality) for modality in value["modalities"]),
            state=value.get("state", "ready"),
            since=int(value.get("since", 0)),
            successor=str(value.get("successor", "")),
        )
        if record.state not in get_args(ModelState):
            raise ValueError(f"model {record.name} has an unknown state {record.state!r}")
        try:
            return record.checked()
        except (CodeError, BitternError) as error:
            raise ValueError(str(error)) from error


def is_digest(text: str) -> bool:
    """Whether a text can be the digest of a model: 16 to 128 lower-case hex digits."""
    return _DIGEST.fullmatch(text) is not None


def write_model_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a model's files to a temporary folder, which then replaces `folder`.

    Args:
        folder: the model's folder.
        files: contents by relative POSIX path.

    Raises:
        InvalidInputError: a path is absolute, empty, or leads out of the folder.
    """
    for name in files:
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name:
            raise InvalidInputError(
                f"a model's file cannot be called {name!r}: use a relative path without '..'",
                field="files",
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".new-{secrets.token_hex(4)}")
    temporary.mkdir()
    try:
        for name, content in files.items():
            target = temporary / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
