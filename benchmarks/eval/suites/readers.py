"""Tables and JSON of a suite, read within limits; an error names the file, the row and a remedy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bittern.benchmarks.eval.tasks import Selection
from bittern.errors import LayoutError, ManifestError
from bittern.service.sources.json_items import Element, elements, first_keys
from bittern.service.sources.tables import Table

MAX_ROWS = 20_000_000
"""Most rows of a CSV file."""
MAX_PARQUET_ROWS = 1_000_000
MAX_GROUP_BYTES = 1 << 30
"""Largest row group, unpacked: one is in memory at a time."""
MAX_WHOLE_BYTES = 256 << 20
"""Largest JSON file that is read whole."""
_COLUMNS_SHOWN = 12
_CHUNK = 1 << 16


@dataclass(frozen=True)
class SuiteFile:
    """A data file of a suite.

    Attributes:
        path: of the file.
        origin: where the right file comes from.
        own: for a file that its user writes: how, in place of an origin.
    """

    path: Path
    origin: str
    own: str = ""

    @property
    def remedy(self) -> str:
        """What to do where the file is wrong."""
        return self.own or f"take it from {self.origin}"

    def error(self, what: str) -> LayoutError:
        """The error for an unusable file, with its remedy."""
        return LayoutError(f"{what}; {self.remedy}", field="data")

    def wrong(self, expected: str, found: str) -> LayoutError:
        """The error for a file of another layout.

        Args:
            expected: what the layout has.
            found: what the file has instead.
        """
        layout = "the layout that is read" if self.own else "the published layout"
        return LayoutError(
            f"{self.path} is not in {layout}: expected {expected}, found {found}; {self.remedy}",
            field="data",
            details={"expected": expected, "found": found},
        )

    def rows(
        self, columns: Sequence[str], filled: Sequence[str] | None = None
    ) -> Iterator[tuple[int, Mapping[str, str]]]:
        """The rows of a CSV file in UTF-8, with their line numbers; empty cells are left out.

        Args:
            columns: columns that it must have, once each; it may have more.
            filled: those that no row may leave empty; None for all of `columns`.

        Raises:
            LayoutError: it cannot be read, lacks columns, or a row is damaged or leaves a cell
                empty; it has more than 20,000,000 rows.
        """
        if not self.path.stat().st_size:
            raise self.error(f"{self.path} is empty")

        def names(headings: list[str]) -> list[str]:
            bare = [heading.strip() for heading in headings]
            if any(bare.count(column) != 1 for column in columns):
                raise self.wrong("columns " + ", ".join(columns), _quoted("columns", bare))
            return bare

        try:
            for count, row in enumerate(Table(self.path.name, self.path).rows(names)):
                where = f"{self.path}, line {row.number}"
                if row.error:
                    raise self.error(f"{where}: {row.error}")
                required = columns if filled is None else filled
                if empty := [column for column in required if column not in row.cells]:
                    raise self.error(f"{where} has no {', '.join(empty)}")
                if count >= MAX_ROWS:
                    raise self.error(f"{self.path} has more than {MAX_ROWS:,} rows")
                yield row.number, {column: str(value) for column, value in row.cells.items()}
        except ManifestError as error:
            raise self.error(error.message) from error
        except OSError as error:
            raise LayoutError(
                f"{self.path} cannot be read: {error.strerror}", field="data"
            ) from error

    @contextmanager
    def parquet(self) -> Iterator[pq.ParquetFile]:
        """The file opened as Parquet.

        Raises:
            LayoutError: it cannot be read.
        """
        try:
            with pq.ParquetFile(self.path) as file:
                yield file
        except (pa.ArrowException, OSError) as error:
            raise self.error(f"{self.path} cannot be read as Parquet ({error})") from error

    def parquet_rows(
        self, columns: Sequence[str], also: Sequence[str] = ()
    ) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """The rows of a Parquet file: row group, row in it, and the values of some columns.

        Args:
            columns: columns that it must have.
            also: columns that are read if it has them.

        Raises:
            LayoutError: it cannot be read, lacks columns, or has more than 1,000,000 rows or row
                groups of more than 1 GiB.
        """
        with self.parquet() as file:
            names = file.schema_arrow.names
            if not set(columns) <= set(names):
                expected, found = (f"columns {', '.join(some)}" for some in (columns, names[:20]))
                raise self.wrong(expected, found)
            if file.metadata.num_rows > MAX_PARQUET_ROWS:
                raise self.error(f"{self.path} has more than {MAX_PARQUET_ROWS:,} rows")
            read = [name for name in (*columns, *also) if name in names]
            for group in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(group).total_byte_size
                if size > MAX_GROUP_BYTES:
                    raise self.error(
                        f"{self.path}: row group {group} takes {size:,} bytes, more than "
                        f"{MAX_GROUP_BYTES:,}"
                    )
                rows = file.read_row_group(group, columns=read).to_pylist()
                yield from ((group, row, cells) for row, cells in enumerate(rows))

    def elements(
        self, members: Sequence[str], also: Sequence[str] = (), *, whole: bool = False
    ) -> Iterator[Element]:
        """The elements of some lists of a JSON object, nested values left out; each is an object.

        Args:
            members: names of the lists; each must have an element. The file may be larger than
                memory.
            also: names of lists that it may lack.
            whole: read the file at once and take ``NaN`` for null, which is not JSON.

        Raises:
            LayoutError: it is not JSON (from some byte on), lacks a list or has an empty one, or
                an element is no object.
        """
        expected = "lists " + ", ".join(f"'{m}'" for m in members)
        keys = first_keys(self.path)
        found_keys = _quoted("keys", sorted(keys)) if keys else "no object with keys"
        if keys and not keys & {*members, "info", "licenses", "categories"}:
            raise self.wrong(expected, found_keys)
        lists = frozenset({*members, *also})
        found: set[str] = set()
        try:
            for element in self._whole(lists) if whole else elements(self.path, lists, flat=True):
                if element.error or not isinstance(element.value, dict) or not element.member:
                    reason = element.error or "it is no object with named values"
                    raise self.wrong(expected, f"{element.position}: {reason}")
                found.add(element.member)
                yield element
        except ManifestError as error:
            raise self.error(error.message) from error
        if lacking := [f"'{m}'" for m in members if m not in found]:
            raise self.wrong(expected, f"{found_keys}, nothing in {', '.join(lacking)}")

    def _whole(self, members: frozenset[str]) -> Iterator[Element]:
        """The elements of a file that is read at once."""
        name = self.path.name
        try:
            if self.path.stat().st_size > MAX_WHOLE_BYTES:
                raise ManifestError(f"{name} has more than {MAX_WHOLE_BYTES >> 20} MiB")
            value = json.loads(self.path.read_text("utf-8"), parse_constant=lambda _: None)
        except OSError as error:
            raise ManifestError(f"{self.path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{name} is not readable JSON: {error}") from error
        if not isinstance(value, dict):
            raise ManifestError(f"{name} holds no JSON object")
        for member in members & value.keys():
            if not isinstance(value[member], list):
                raise ManifestError(f"{name} is not readable: '{member}' is no list")
            for number, row in enumerate(value[member]):
                yield Element(member, number, row, file=name)


def _quoted(what: str, names: Iterable[str]) -> str:
    return f"{what} " + ", ".join(f"'{name[:60]}'" for name in [*names][:_COLUMNS_SHOWN])


def positions_of(values: Any, known: Any) -> NDArray[np.int64]:
    """Positions of values among unique known ones, int64; -1 for unknown values and nulls.

    Args:
        values: a sequence or array of texts or whole numbers.
        known: the same, without nulls.
    """
    if not len(values) or not len(known):
        return np.full(len(values), -1, np.int64)
    value_set = pa.array(known)
    found = pc.index_in(pa.array(values, value_set.type), value_set=value_set)
    return np.asarray(found.fill_null(-1), np.int64)


class Texts(Sequence[str]):
    """Millions of texts or numbers in Arrow's memory, made into strings when they are needed.

    Args:
        columns: Arrow arrays of one length; row by row, their texts are joined.
    """

    def __init__(self, *columns: pa.Array) -> None:
        self._columns = [
            Selection(column.dictionary.to_pylist(), column.indices.to_numpy())
            if pa.types.is_dictionary(column.type)
            else column
            for column in columns
        ]

    def __len__(self) -> int:
        return len(self._columns[0])

    def __getitem__(self, position: Any, /) -> Any:
        """One of them, or a list of those in a slice."""
        if isinstance(position, slice):
            chunks = (column[position] for column in self._columns)
            cells = (c.to_pylist() if isinstance(c, pa.Array) else c for c in chunks)
            return ["".join(map(str, row)) for row in zip(*cells, strict=True)]
        row = (column[int(position)] for column in self._columns)
        return "".join(str(cell.as_py() if isinstance(cell, pa.Scalar) else cell) for cell in row)

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), _CHUNK):
            yield from self[first : first + _CHUNK]
