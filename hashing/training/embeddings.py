"""Precomputed embeddings on disk: sets of items, each seen in one or more views.

    SET/
    ├── set.json             format, encoder, tower digests, rows, views, labels, groups
    ├── <view>.npy           float16 or float32 [rows, dim], one file per view
    ├── labels.npy           int32 [rows], class of each item, -1 for none   (labels: single)
    ├── label_offsets.npy    int64 [rows + 1]                                (labels: multi)
    ├── label_values.npy     int32, classes of item r at offsets[r]:offsets[r + 1]
    └── groups.npy           int32 [rows], items that must not share a batch (groups: true)

A view is what shows the item: a photograph's embedding, its caption's, a second crop's. All
arrays are what `numpy.save` writes, so anyone can make a set. Pickles are never read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from bittern.errors import InvalidInputError, SourceNotFoundError

SET_FILE = "set.json"
RESERVED = frozenset({"labels", "label_offsets", "label_values", "groups", "set"})
MAX_VIEWS = 16
_LARGEST_SET_FILE = 1 << 20
_SCAN_ROWS = 8192
_STRICT = ConfigDict(strict=True, extra="forbid")

Labels = Literal["single", "multi"]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
_Text = Annotated[str, Field(max_length=500)]


@dataclass(frozen=True)
class View:
    """One array of a set.

    Attributes:
        modality: ``text``, ``image``, ``audio``, or whatever has a mean and a head of its own.
        dim: length of an embedding.
        dtype: of the file.
    """

    __pydantic_config__ = _STRICT
    modality: _Name
    dim: Annotated[int, Field(ge=1, le=65_536)]
    dtype: Literal["float16", "float32"] = "float16"


@dataclass(frozen=True)
class SetDescription:
    """What ``set.json`` says.

    Attributes:
        rows: items.
        views: by name; the name is the file's.
        encoder: catalogue name of the encoder that made the embeddings.
        towers: per modality the digest of the tower that did.
        labels: whether there are labels, and whether an item may have several.
        groups: whether there are groups.
        format: version of this layout.
    """

    __pydantic_config__ = _STRICT
    rows: Annotated[int, Field(ge=1, le=2**31 - 1)]
    views: Annotated[dict[_Name, View], Field(min_length=1, max_length=MAX_VIEWS)]
    encoder: _Text = ""
    towers: dict[_Text, _Text] = field(default_factory=dict)
    labels: Labels | None = None
    groups: bool = False
    format: Literal[1] = 1

    def to_json(self) -> str:
        """The content of ``set.json``."""
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class Summary:
    """What one pass over all arrays finds.

    Attributes:
        means: per modality float64 [dim], over all views of that modality.
        digest: hex SHA-256 of description and arrays.
    """

    means: Mapping[str, NDArray[np.float64]]
    digest: str


@dataclass(frozen=True)
class EmbeddingSet:
    """A set of embeddings on disk, of which only what is asked for is in memory.

    Arrays are mapped anew for each read: pages of a file that stays mapped count as this
    process's memory, up to the whole file.
    """

    folder: Path
    description: SetDescription

    @classmethod
    def open(cls, folder: Path) -> EmbeddingSet:
        """Open a set and compare every file with ``set.json``; reads no embeddings yet.

        Raises:
            SourceNotFoundError: no such folder, or a file of the set is missing.
            InvalidInputError: a file is not what the description says.
        """
        opened = cls(folder, _read_description(folder))
        for name in opened.views:
            opened._mapped(name)
        opened._check_labels()
        return opened

    @property
    def rows(self) -> int:
        """Items."""
        return self.description.rows

    @property
    def views(self) -> Mapping[str, View]:
        """Views by name, in the order of ``set.json``."""
        return self.description.views

    @cached_property
    def labels(self) -> NDArray[np.int32] | None:
        """int32 [rows], -1 for none; None unless the set has single labels."""
        if self.description.labels != "single":
            return None
        return np.array(self._array("labels", np.int32, (self.rows,)))

    @cached_property
    def multi_labels(self) -> tuple[NDArray[np.int64], NDArray[np.int32]] | None:
        """Offsets int64 [rows + 1] and values int32; None unless the set has multi-labels."""
        if self.description.labels != "multi":
            return None
        offsets = np.array(self._array("label_offsets", np.int64, (self.rows + 1,)))
        values = np.array(self._array("label_values", np.int32, None))
        if offsets[0] != 0 or offsets[-1] != len(values) or (np.diff(offsets) < 0).any():
            raise InvalidInputError(
                f"{self.folder}/label_offsets.npy must rise from 0 to the {len(values)} entries "
                "of label_values.npy",
                field="label_offsets",
            )
        return offsets, values

    @cached_property
    def groups(self) -> NDArray[np.int32] | None:
        """int32 [rows]; None when the set has no groups."""
        if not self.description.groups:
            return None
        return np.array(self._array("groups", np.int32, (self.rows,)))

    def read(self, view: str, rows: NDArray[np.integer]) -> NDArray[np.floating]:
        """Embeddings of some items, in the order asked for; ascending rows read fastest.

        Returns:
            float16 or float32 [len(rows), dim], as stored.
        """
        read: NDArray[np.floating] = np.take(self._mapped(view), rows, axis=0)
        return read

    def blocks(self, view: str) -> Iterator[tuple[int, NDArray[np.floating]]]:
        """All rows of a view in order: first row, and float [<= 8192, dim] as stored."""
        for start in range(0, self.rows, _SCAN_ROWS):
            yield start, np.array(self._mapped(view)[start : start + _SCAN_ROWS])

    @cached_property
    def summary(self) -> Summary:
        """Means and digest, from one pass over all arrays.

        Raises:
            InvalidInputError: an embedding holds NaN or infinity, or two views are the same.
        """
        digest = hashlib.sha256(self.description.to_json().encode())
        sums: dict[str, NDArray[np.float64]] = {}
        prints: dict[str, str] = {}
        for name, view in self.views.items():
            total, content = self._scan(name)
            if content in prints:
                raise InvalidInputError(
                    f"the views {prints[content]} and {name} of {self.folder} hold the same "
                    "embeddings: aligning a view with itself teaches nothing. Remove one.",
                    field=name,
                )
            prints[content] = name
            digest.update(content.encode())
            sums[view.modality] = sums.get(view.modality, 0.0) + total
        labels = (self.labels, *(self.multi_labels or ()), self.groups)
        for array in labels:
            digest.update(b"-" if array is None else array.tobytes())
        modalities = [view.modality for view in self.views.values()]
        means = {m: s / (self.rows * modalities.count(m)) for m, s in sums.items()}
        return Summary(means, digest.hexdigest())

    def _scan(self, name: str) -> tuple[NDArray[np.float64], str]:
        """Sum of the rows of a view, and the digest of its values (whatever their dtype)."""
        content = hashlib.sha256()
        total = np.zeros(self.views[name].dim)
        for start, block in self.blocks(name):
            values = block.astype(np.float32, copy=False)
            content.update(block.data)
            # Sums of finite float32 values are finite in float64, so this looks at every value.
            part = values.sum(axis=0, dtype=np.float64)
            if not np.isfinite(part).all():
                row = start + int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
                raise InvalidInputError(
                    f"row {row} of {self._path(name)} holds NaN or infinity. Leave the item out, "
                    "or encode it again.",
                    field=name,
                    details={"row": str(row), "view": name},
                )
            total += part
        return total, content.hexdigest()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _mapped(self, name: str) -> NDArray[np.floating]:
        view = self.views[name]
        return self._array(name, np.dtype(view.dtype).type, (self.rows, view.dim))

    def _array(
        self, name: str, dtype: type[np.generic], shape: tuple[int, ...] | None
    ) -> NDArray[Any]:
        path = self._path(name)
        if not path.is_file():
            raise SourceNotFoundError(f"{path} is missing, though {SET_FILE} names it", field=name)
        try:
            # Only .npy: numpy.load would also look into archives. Objects are refused.
            array: NDArray[Any] = npy.open_memmap(path, mode="r")
        except Exception as error:
            # Headers go through Python's parser and on into dtypes and shapes: one that was made
            # to harm fails with whatever the step fails with that it reaches.
            raise InvalidInputError(
                f"{path} is not an array that numpy.save wrote: {error!r:.300}", field=name
            ) from error
        if array.dtype != np.dtype(dtype):
            raise InvalidInputError(
                f"{path} holds {array.dtype}, {SET_FILE} says {np.dtype(dtype)}", field=name
            )
        if (array.ndim != 1) if shape is None else (array.shape != shape):
            raise InvalidInputError(
                f"{path} has the shape {list(array.shape)}, {SET_FILE} says "
                f"{list(shape) if shape else 'one dimension'}",
                field=name,
            )
        if not array.flags.c_contiguous:
            raise InvalidInputError(
                f"{path} is stored by columns; save numpy.ascontiguousarray(array)", field=name
            )
        return array

    def _check_labels(self) -> None:
        several = (self.multi_labels or (None, None))[1]
        if several is not None and (several < 0).any():
            raise InvalidInputError(
                f"{self.folder}/label_values.npy must hold classes from 0, not {several.min()}; "
                "an item of no class has equal offsets",
                field="label_values",
            )
        for values in (self.labels, self.groups):
            if values is not None and (values < -1).any():
                raise InvalidInputError(
                    f"labels and groups of {self.folder} must be -1 or more, not {values.min()}",
                    field="labels",
                )


def _read_description(folder: Path) -> SetDescription:
    path = folder / SET_FILE
    if not path.is_file():
        raise SourceNotFoundError(
            f"{folder} holds no embeddings: there is no {SET_FILE} in it", field="source"
        )
    if path.stat().st_size > _LARGEST_SET_FILE:
        raise InvalidInputError(f"{path} is larger than {_LARGEST_SET_FILE} bytes")
    try:
        description = TypeAdapter(SetDescription).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInputError(
            f"{path} does not describe embeddings: {where or 'content'}: {first['msg']}",
            field=where,
        ) from error
    if taken := sorted(RESERVED & set(description.views)):
        raise InvalidInputError(f"{path}: no view may be called {', '.join(taken)}", field="views")
    return description
