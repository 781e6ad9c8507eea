"""Precomputed embeddings on disk: sets of items with one or more views.

    SET/
    ├── set.json             format, encoder, tower digests, rows, views, labels, groups
    ├── <view>.npy           float16 or float32 [rows, dim], one file per view
    ├── labels.npy           int32 [rows], class of each item, -1 for none   (labels: single)
    ├── label_offsets.npy    int64 [rows + 1]                                (labels: multi)
    ├── label_values.npy     int32, classes of item r at offsets[r]:offsets[r + 1]
    └── groups.npy           int32 [rows], items that must not share a batch (groups: true)

A view is an embedding of the item: of a photograph, its caption, or a second crop. All arrays are
in the format of `numpy.save`, so anyone can make a set. Pickles are never read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, BinaryIO, Literal, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from bittern.errors import CodeError, InvalidInputError, SourceNotFoundError

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
        modality: ``text``, ``image``, ``audio``, or another name.
        dim: length of an embedding.
        dtype: of the file.
    """

    __pydantic_config__ = _STRICT
    modality: _Name
    dim: Annotated[int, Field(ge=1, le=65_536)]
    dtype: Literal["float16", "float32"] = "float16"


@dataclass(frozen=True)
class SetDescription:
    """The content of ``set.json``.

    Attributes:
        rows: items.
        views: by name, which is also the file's.
        encoder: catalogue name of the encoder that made the embeddings.
        towers: tower digests by modality.
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
        """As JSON text."""
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class EmbeddingSet:
    """A set of embeddings on disk.

    Arrays are mapped for each read only: pages of a mapped file count as memory of the process.
    """

    folder: Path
    description: SetDescription

    @classmethod
    def open(cls, folder: Path) -> EmbeddingSet:
        """Open a set and compare every file with ``set.json``; reads no embeddings yet.

        Raises:
            SourceNotFoundError: no such folder, or a file of the set is missing.
            InvalidInputError: a file does not match the description.
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

    @cached_property
    def classes(self) -> tuple[NDArray[np.int64], NDArray[np.int32]] | None:
        """Single or multiple labels as offsets and values (`multi_labels`); None without labels."""
        labels = self.labels
        if labels is None:
            return self.multi_labels
        labelled = labels >= 0
        return np.concatenate(([0], np.cumsum(labelled))).astype(np.int64), labels[labelled]

    def read(self, view: str, rows: NDArray[np.integer]) -> NDArray[np.floating]:
        """Embeddings of some items, in the given order; ascending rows read fastest.

        Returns:
            float16 or float32 [len(rows), dim], as stored.
        """
        read: NDArray[np.floating] = np.take(self._mapped(view), rows, axis=0)
        return read

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of description and arrays, from one pass over all of them.

        Raises:
            InvalidInputError: an embedding holds NaN or infinity, or two views are the same.
        """
        digest = hashlib.sha256(self.description.to_json().encode())
        seen: dict[str, str] = {}
        for name in self.views:
            content = self._scan(name)
            if content in seen:
                raise InvalidInputError(
                    f"the views {seen[content]} and {name} of {self.folder} hold the same "
                    "embeddings: aligning a view with itself teaches nothing. Remove one.",
                    field=name,
                )
            seen[content] = name
            digest.update(content.encode())
        for array in (self.labels, *(self.multi_labels or ()), self.groups):
            digest.update(b"-" if array is None else array.tobytes())
        return digest.hexdigest()

    def _scan(self, name: str) -> str:
        """The digest of a view; refuses values that are not finite."""
        content = hashlib.sha256()
        for start in range(0, self.rows, _SCAN_ROWS):
            block = np.array(self._mapped(name)[start : start + _SCAN_ROWS])
            content.update(block.data)
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                row = start + int(np.flatnonzero(~finite)[0])
                raise InvalidInputError(
                    f"row {row} of {self._path(name)} holds NaN or infinity. Leave the item out, "
                    "or encode it again.",
                    field=name,
                    details={"row": str(row), "view": name},
                )
        return content.hexdigest()

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
            # Only .npy, without objects: numpy.load would also read archives.
            array: NDArray[Any] = npy.open_memmap(path, mode="r")
        except Exception as error:
            # A hostile header can raise any error: it is parsed as Python, then as dtype and shape.
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
        where = ".".join(str(name) for name in first["loc"])
        raise InvalidInputError(
            f"{path} does not describe embeddings: {where or 'content'}: {first['msg']}",
            field=where,
        ) from error
    if taken := sorted(RESERVED & set(description.views)):
        raise InvalidInputError(f"{path}: no view may be called {', '.join(taken)}", field="views")
    return description


class EmbeddingWriter:
    """Appends batches to a set; `finish`, or leaving a ``with`` block, completes it.

    The arrays grow in ``FOLDER.partial``, which is renamed at the end. Memory: one batch, and 4
    bytes per item for labels.
    """

    def __init__(
        self,
        folder: Path,
        views: Mapping[str, View],
        *,
        encoder: str = "",
        towers: Mapping[str, str] | None = None,
        labels: Labels | None = None,
        groups: bool = False,
    ) -> None:
        """Start a set; an unfinished one of the same name is removed.

        Raises:
            InvalidInputError: the folder exists, or there is no view, or one with a bad name.
        """
        if folder.exists():
            raise InvalidInputError(f"{folder} exists already; choose another name", field="out")
        if not views or RESERVED & set(views):
            raise InvalidInputError(
                f"a set needs views, called other than {', '.join(sorted(RESERVED))}",
                field="views",
            )
        self._folder = folder
        self._partial = folder.with_name(folder.name + ".partial")
        self._views = dict(views)
        self._encoder, self._towers = encoder, dict(towers or {})
        self._labels, self._groups = labels, groups
        self._rows = 0
        self._columns: dict[str, list[NDArray[np.int32]]] = {"labels": [], "groups": []}
        self._counts: list[NDArray[np.int64]] = []
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir(parents=True)
        self._files = {name: (self._partial / f"{name}.npy").open("wb+") for name in views}
        for name, file in self._files.items():
            self._write_header(file, self._views[name])

    def append(
        self,
        views: Mapping[str, NDArray[np.floating]],
        labels: NDArray[np.integer] | Sequence[Sequence[int]] | None = None,
        groups: NDArray[np.integer] | None = None,
    ) -> None:
        """Add items.

        Args:
            views: per view float [n, dim].
            labels: int [n] (-1 for none), or per item its classes, as the set was declared.
            groups: int [n].

        Raises:
            CodeError: arrays that do not fit the declaration or one another, NaN or infinity.
        """
        stored = {name: self._stored(name, array) for name, array in views.items()}
        lengths = {len(array) for array in stored.values()}
        if set(stored) != set(self._views) or len(lengths) != 1:
            raise CodeError(
                f"a batch needs equally many rows of {', '.join(self._views)}, not "
                f"{ {name: len(array) for name, array in stored.items()} }"
            )
        rows = lengths.pop()
        for name, given, wanted in (
            ("labels", labels, self._labels is not None),
            ("groups", groups, self._groups),
        ):
            if (given is not None) != wanted or (given is not None and len(given) != rows):
                raise CodeError(
                    f"{name} must be given for all {rows} items"
                    if wanted
                    else f"this set was declared without {name}",
                    field=name,
                )
        if labels is not None and self._labels == "multi":
            self._counts.append(np.array([len(classes) for classes in labels], dtype=np.int64))
            flat = [int(one) for classes in labels for one in classes]
            self._columns["labels"].append(np.array(flat, dtype=np.int32))
        elif labels is not None:
            self._columns["labels"].append(np.asarray(labels, dtype=np.int32))
        if groups is not None:
            self._columns["groups"].append(np.asarray(groups, dtype=np.int32))
        for name, array in stored.items():
            self._files[name].write(array.tobytes())
        self._rows += rows

    def finish(self) -> EmbeddingSet:
        """Complete the set and open it.

        Raises:
            InvalidInputError: nothing was appended, or an invalid name.
        """
        if not self._rows:
            self.abandon()
            raise InvalidInputError("no embeddings were given: a set needs at least one item")
        for name, file in self._files.items():
            self._write_header(file, self._views[name])
            _close_durably(file)
        for name, array in self._label_arrays().items():
            np.save(self._partial / f"{name}.npy", array, allow_pickle=False)
        description = SetDescription(
            rows=self._rows,
            views=self._views,
            encoder=self._encoder,
            towers=self._towers,
            labels=self._labels,
            groups=self._groups,
        )
        (self._partial / SET_FILE).write_text(description.to_json())
        EmbeddingSet.open(self._partial)
        self._partial.rename(self._folder)
        return EmbeddingSet.open(self._folder)

    def abandon(self) -> None:
        """Remove the unfinished set."""
        for file in self._files.values():
            file.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abandon()
        elif self._partial.exists():
            self.finish()

    def _stored(self, name: str, array: NDArray[np.floating]) -> NDArray[np.floating]:
        view = self._views.get(name)
        array = np.asarray(array)
        if view is None or array.ndim != 2 or array.shape[1] != view.dim:
            raise CodeError(
                f"{name} must be one of {', '.join(self._views)}, [n, dim] as declared, not "
                f"{list(array.shape)}",
                field=name,
            )
        with np.errstate(over="ignore"):
            stored: NDArray[np.floating] = np.ascontiguousarray(array, dtype=view.dtype)
        finite = np.isfinite(stored).all(axis=1)
        if not finite.all():
            row = self._rows + int(np.flatnonzero(~finite)[0])
            raise CodeError(f"row {row} of {name} holds NaN or infinity in {view.dtype}")
        return stored

    def _write_header(self, file: BinaryIO, view: View) -> None:
        """NumPy pads headers, so the first axis can grow without moving the data."""
        file.seek(0)
        descr = npy.dtype_to_descr(np.dtype(view.dtype))
        shape = (self._rows, view.dim)
        npy.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})

    def _label_arrays(self) -> dict[str, NDArray[np.integer]]:
        arrays: dict[str, NDArray[np.integer]] = {}
        if self._labels == "multi":
            counts = np.concatenate(self._counts)
            arrays["label_offsets"] = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
            arrays["label_values"] = np.concatenate(self._columns["labels"])
        elif self._labels == "single":
            arrays["labels"] = np.concatenate(self._columns["labels"])
        if self._groups:
            arrays["groups"] = np.concatenate(self._columns["groups"])
        return arrays


def digest_of(*texts: str) -> str:
    """Hex SHA-256 of some texts."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _close_durably(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
