"""Writing a set of embeddings, batch after batch, so that it appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from bittern.errors import CodeError, InvalidInputError
from bittern.hashing.training.embeddings import (
    RESERVED,
    SET_FILE,
    EmbeddingSet,
    Labels,
    SetDescription,
    View,
)


class EmbeddingWriter:
    """Appends batches to a set; `finish`, or leaving a ``with`` block, makes it appear.

    The arrays grow in ``FOLDER.partial``, which is renamed at the end. One batch is in memory
    at a time (and the labels: 4 bytes per item).
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
        """Start a set; an unfinished one of the same name is thrown away.

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
            InvalidInputError: nothing was appended, or a name that no set can have.
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
        """Throw away what was written."""
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
        """NumPy pads headers so that the first axis can grow without moving the data."""
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


def _close_durably(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
