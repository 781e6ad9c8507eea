"""Readers of suites' data files: CSV and Parquet tables, and COCO-style JSON.

Everything is read within limits: tables row by row, JSON element by element. An error names the
file and the row.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import wrong_layout
from bittern.benchmarks.eval.tasks.prompts import RANKS
from bittern.errors import LayoutError, ManifestError, QrelsError
from bittern.service.sources.field_values import licence, text
from bittern.service.sources.json_items import Element, elements, first_keys
from bittern.service.sources.tables import Table
from bittern.text import agreeing, some_of

Unknown = Literal["error", "skip"]
MAX_ROWS = 20_000_000
"""Most rows of a CSV file."""
MAX_PARQUET_ROWS = 1_000_000
MAX_GROUP_BYTES = 1 << 30
"""Largest row group, unpacked: one is in memory at a time."""
MAX_CATEGORIES = 1_000_000
MAX_ITEMS = 50_000_000
"""Most images or recordings of a COCO-style file."""
MAX_WHOLE_BYTES = 256 << 20
"""Largest file that is read whole."""
_INT64 = 1 << 63
_CHUNK = 1 << 16
_NAMED = 3
_KEYS = 12


# Tables


def table_rows(
    path: Path,
    columns: Sequence[str],
    origin: str,
    filled: Sequence[str] | None = None,
    own: str = "",
) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The rows of a CSV file, with their line numbers; empty cells are left out.

    Args:
        path: the file, UTF-8.
        columns: columns that it must have, once each; it may have more.
        origin: where the right file comes from.
        filled: those that no row may leave empty; None for all of `columns`.
        own: for a file that its user writes: what to do where it is wrong, in place of taking
            another one.

    Raises:
        LayoutError: it cannot be read, lacks columns, or a row is damaged or leaves a cell empty;
            it has more than 20,000,000 rows.
    """
    remedy = own or f"take it from {origin}"
    if not path.stat().st_size:
        raise LayoutError(f"{path} is empty; {remedy}", field="data")

    def names(headings: list[str]) -> list[str]:
        bare = [heading.strip() for heading in headings]
        if any(bare.count(column) != 1 for column in columns):
            got = "columns " + ", ".join(f"'{h[:60]}'" for h in bare[:_KEYS])
            expected = "columns " + ", ".join(columns)
            raise wrong_layout(path, expected, got, remedy, published=not own)
        return bare

    try:
        for count, row in enumerate(Table(path.name, path).rows(names)):
            where = f"{path}, line {row.number}"
            if row.error:
                raise LayoutError(f"{where}: {row.error}; {remedy}", field="data")
            empty = [c for c in (columns if filled is None else filled) if c not in row.cells]
            if empty:
                raise LayoutError(f"{where} has no {', '.join(empty)}; {remedy}", field="data")
            if count >= MAX_ROWS:
                raise LayoutError(f"{path} has more than {MAX_ROWS:,} rows", field="data")
            yield row.number, {column: str(value) for column, value in row.cells.items()}
    except ManifestError as error:
        raise LayoutError(f"{error.message}; {remedy}", field="data") from error
    except OSError as error:
        raise LayoutError(f"{path} cannot be read: {error.strerror}", field="data") from error


def parquet_columns(path: Path, origin: str) -> pa.Schema:
    """The columns of a Parquet file.

    Raises:
        LayoutError: it cannot be read.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise unreadable_parquet(path, error, origin) from error


def parquet_rows(
    path: Path, columns: Sequence[str], origin: str, also: Sequence[str] = ()
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The rows of a Parquet file: row group, row in it, and the values of some columns.

    Args:
        path: the file.
        columns: columns that it must have.
        origin: where the right file comes from.
        also: columns that are read if it has them.

    Raises:
        LayoutError: it cannot be read, lacks columns, or has more than 1,000,000 rows or row groups
            of more than 1 GiB.
    """
    names = parquet_columns(path, origin).names
    if not set(columns) <= set(names):
        expected, got = (f"columns {', '.join(some)}" for some in (columns, names[:20]))
        raise wrong_layout(path, expected, got, f"take {origin}")
    read = [name for name in (*columns, *also) if name in names]
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > MAX_PARQUET_ROWS:
                raise LayoutError(f"{path} has more than {MAX_PARQUET_ROWS:,} rows", field="data")
            for group in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(group).total_byte_size
                if size > MAX_GROUP_BYTES:
                    raise LayoutError(
                        f"{path}: row group {group} takes {size:,} bytes, more than "
                        f"{MAX_GROUP_BYTES:,}; take {origin}",
                        field="data",
                    )
                rows = file.read_row_group(group, columns=read).to_pylist()
                yield from ((group, row, line) for row, line in enumerate(rows))
    except (pa.ArrowException, OSError) as error:
        raise unreadable_parquet(path, error, origin) from error


def unreadable_parquet(path: Path, error: Exception, origin: str) -> LayoutError:
    """The error for a damaged Parquet file."""
    return LayoutError(f"{path} cannot be read as Parquet ({error}); take {origin}", field="data")


# COCO-style JSON


def json_elements(
    path: Path,
    members: Sequence[str],
    origin: str,
    also: Sequence[str] = (),
    *,
    whole: bool = False,
) -> Iterator[Element]:
    """The elements of some lists of a JSON object, nested values left out; each is an object.

    Args:
        path: the file; it may be larger than memory.
        members: names of the lists. Each must have an element.
        origin: where the right file comes from.
        also: names of lists that it may lack.
        whole: read the file at once and take ``NaN`` for null, which is not JSON.

    Raises:
        LayoutError: it is not JSON (from some byte on), lacks a list or has an empty one, or an
            element is no object.
    """
    expected = "lists " + ", ".join(f"'{m}'" for m in members)
    keys = first_keys(path)
    remedy = f"take it from {origin}"
    if keys and not keys & ({*members} | {"info", "licenses", "categories"}):
        raise wrong_layout(path, expected, _listed(keys), remedy)
    met: set[str] = set()
    read = _whole if whole else _streamed
    try:
        for element in read(path, frozenset({*members, *also})):
            if element.error or not isinstance(element.value, dict) or not element.member:
                reason = element.error or "it is no object with named values"
                got = f"{element.position}: {reason}"
                raise wrong_layout(path, expected, got, remedy)
            met.add(element.member)
            yield element
    except ManifestError as error:
        raise LayoutError(f"{error.message}; {remedy}", field="data") from error
    lacking = [m for m in members if m not in met]
    if lacking:
        none = ", ".join(f"'{m}'" for m in lacking)
        raise wrong_layout(path, expected, f"{_listed(keys)}, nothing in {none}", remedy)


def _streamed(path: Path, members: frozenset[str]) -> Iterator[Element]:
    return elements(path, members, flat=True)


def _whole(path: Path, members: frozenset[str]) -> Iterator[Element]:
    """The elements of a file that is read at once."""
    try:
        if path.stat().st_size > MAX_WHOLE_BYTES:
            raise ManifestError(f"{path.name} has more than {MAX_WHOLE_BYTES >> 20} MiB")
        value = json.loads(path.read_text("utf-8"), parse_constant=lambda _: None)
    except OSError as error:
        raise ManifestError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path.name} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ManifestError(f"{path.name} holds no JSON object")
    for member in members & value.keys():
        if not isinstance(value[member], list):
            raise ManifestError(f"{path.name} is not readable: '{member}' is no list")
        for number, row in enumerate(value[member]):
            yield Element(member, number, row)


def _listed(keys: Iterable[str]) -> str:
    named = sorted(keys)
    if not named:
        return "no object with keys at its beginning"
    return "keys " + ", ".join(f"'{key[:60]}'" for key in named[:_KEYS])


@dataclass(frozen=True)
class CocoLayout:
    """How a COCO-style file names its lists: `items`, ``categories``, ``annotations``.

    Attributes:
        items: name of the list of images or recordings, with ``id`` and ``file_name``.
        reference: how an annotation names one of them, beside ``category_id``.
        noun: for messages: ``image``.
        origin: where the file comes from.
        category_fields: fields of categories that are kept beside their names.
        one_each: whether every item must have one annotation, without repeats.
        whole: see `json_elements`.
    """

    items: str
    reference: str
    noun: str
    origin: str
    category_fields: Sequence[str] = ()
    one_each: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Category:
    """A species: its id in the file, Darwin Core ranks and names, and further fields."""

    id: int
    taxon: Mapping[str, str]
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Coco:
    """A COCO-style file as columns, in the order of the file.

    Attributes:
        ids: int64 [n], unique.
        files: names of the files, unique.
        holders: rights holders.
        licences: short names.
        labels: int32 [n], position among `categories`, -1 for none.
        categories: the species.
        left_out: sentences on annotations that were skipped.
    """

    ids: NDArray[np.int64]
    files: Texts
    holders: Texts
    licences: Texts
    labels: NDArray[np.int32]
    categories: Sequence[Category]
    left_out: Sequence[str] = ()


def read_coco(path: Path, layout: CocoLayout, unknown: Unknown = "error") -> Coco:
    """Read a COCO-style file of any size: an item takes about 80 bytes.

    Args:
        path: the file; its lists may come in any order.
        layout: names of its lists.
        unknown: whether annotations of unknown items or categories (and with `layout.one_each`
            repeats, and items without one) end the run or are skipped.

    Raises:
        LayoutError: it is no JSON, not of this layout, or an id or file name is not unique.
        QrelsError: annotations that cannot be used, unless these are skipped; an item of several
            categories.
    """
    reader = _CocoReader(path, layout)
    add = {
        layout.items: reader.item,
        "annotations": reader.annotation,
        "categories": reader.category,
        "licenses": reader.licence,
    }
    required = (layout.items, "annotations", "categories")
    for element in json_elements(path, required, layout.origin, ("licenses",), whole=layout.whole):
        add[element.member](element.value, element.position)
    return reader.result(unknown)


class _CocoReader:
    """Collects the columns of one file."""

    def __init__(self, path: Path, layout: CocoLayout) -> None:
        self._path, self._layout = path, layout
        self._ids, self._item_of, self._category_of = array("q"), array("q"), array("q")
        self._hashes = array("Q")
        self._files, self._holders = TextColumn(paths=True), TextColumn()
        self._licences = TextColumn()
        self._licence_names: dict[str, str] = {}
        self._categories: dict[int, Category] = {}

    def item(self, row: Mapping[str, Any], where: str) -> None:
        if len(self._ids) == MAX_ITEMS:
            raise LayoutError(
                f"{self._path} has more than {MAX_ITEMS:,} {self._layout.noun}s", field="data"
            )
        self._ids.append(self._number(row, "id", where))
        name = self._text(row, "file_name", where)
        self._files.add(name)
        self._hashes.append(xxhash.xxh3_64_intdigest(name.encode()))
        self._holders.add(text(row.get("rights_holder")))
        self._licences.add(text(row.get("license")))

    def annotation(self, row: Mapping[str, Any], where: str) -> None:
        self._item_of.append(self._number(row, self._layout.reference, where))
        self._category_of.append(self._number(row, "category_id", where))

    def category(self, row: Mapping[str, Any], where: str) -> None:
        own = self._number(row, "id", where)
        name = self._text(row, "name", where)
        if own in self._categories:
            raise self._not_unique(f"category id {own}", where)
        if len(self._categories) == MAX_CATEGORIES:
            raise LayoutError(
                f"{self._path} has more than {MAX_CATEGORIES:,} categories", field="data"
            )
        taxon = {rank: text(row.get(rank)) for rank in RANKS}
        taxon |= {"scientificName": name, "vernacularName": text(row.get("common_name"))}
        self._categories[own] = Category(
            own,
            {rank: value for rank, value in taxon.items() if value},
            {key: row.get(key) for key in self._layout.category_fields},
        )

    def licence(self, row: Mapping[str, Any], where: str) -> None:
        del where
        url = text(row.get("url"))
        short = licence(url)
        name = short if short != url else text(row.get("name")) or url
        self._licence_names[text(row.get("id"))] = name

    def result(self, unknown: Unknown) -> Coco:
        """All columns, checked."""
        ids = np.frombuffer(self._ids, np.int64)
        files = self._files.texts()
        self._check_unique(ids, files)
        labels, sentences = self._labels(ids, unknown)
        licences = self._licences.texts()
        named = [self._licence_names.get(each, each) for each in licences.starts]
        return Coco(
            ids=ids,
            files=files,
            holders=self._holders.texts(),
            licences=replace(licences, starts=named),
            labels=labels,
            categories=list(self._categories.values()),
            left_out=sentences,
        )

    def _labels(
        self, ids: NDArray[np.int64], unknown: Unknown
    ) -> tuple[NDArray[np.int32], list[str]]:
        """The category of each item, and sentences on annotations and items without use."""
        noun = self._layout.noun
        items = positions_of(np.frombuffer(self._item_of, np.int64), ids)
        known = np.fromiter(self._categories, np.int64, len(self._categories))
        categories = positions_of(np.frombuffer(self._category_of, np.int64), known)
        errors, sentences = [], []
        lost = (items < 0) | (categories < 0)
        if lost.any():
            errors.append(self._lost(items, lost))
        items, categories = items[~lost], categories[~lost]
        labels = np.full(len(ids), -1, np.int32)
        labels[items] = categories
        several = np.flatnonzero(labels[items] != categories)
        if len(several):
            raise QrelsError(
                f"{self._path}: {noun} {ids[items[several[0]]]} is labelled with several "
                f"categories; each {noun} has one in this data set: take the published file"
            )
        bare = np.flatnonzero(labels < 0)
        if self._layout.one_each:
            errors += self._not_once(ids, items, bare, len(lost))
        elif len(bare):
            have = agreeing(len(bare), "has no label and answers", "have no label and answer")
            sentences.append(f"{some_of(len(bare), len(ids), noun)} {have} no query")
        if errors and unknown == "error":
            raise QrelsError(
                f"{'; '.join(errors)}; take {self._layout.origin}, or skip these with "
                "--unknown skip",
                field="data",
            )
        return labels, errors + sentences

    def _lost(self, items: NDArray[np.int64], lost: NDArray[np.bool_]) -> str:
        noun = self._layout.noun
        first = [
            f"{noun} {self._item_of[i]}" if items[i] < 0 else f"category {self._category_of[i]}"
            for i in np.flatnonzero(lost)[:_NAMED]
        ]
        number = int(lost.sum())
        names = agreeing(number, f"names a {noun} or category", f"name {noun}s or categories")
        names = names.replace("a image", "an image")
        return (
            f"{some_of(number, len(lost), 'annotation')} in {self._path.name} {names} that "
            f"{agreeing(number, 'is', 'are')} not in it ({', '.join(first)})"
        )

    def _not_once(
        self, ids: NDArray[np.int64], items: NDArray[np.int64], bare: NDArray[np.int64], total: int
    ) -> list[str]:
        """Sentences on annotations that repeat another, and on items that have none."""
        again = np.setdiff1d(
            np.arange(len(items)), np.unique(items, return_index=True)[1], assume_unique=True
        )
        noun, file = self._layout.noun, self._path.name
        sentences = []
        for rows, of, what, verb in (
            (items[again], some_of(len(again), total, "annotation"), "another", "repeat"),
            (bare, some_of(len(bare), len(ids), noun), "no annotation", "have"),
        ):
            if len(rows):
                verb = agreeing(len(rows), {"have": "has"}.get(verb, f"{verb}s"), verb)
                first = ", ".join(f"{noun} {ids[row]}" for row in rows[:_NAMED])
                sentences.append(f"{of} in {file} {verb} {what} ({first})")
        return sentences

    def _check_unique(self, ids: NDArray[np.int64], files: Texts) -> None:
        ordered = np.sort(ids)
        again = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(again):
            raise self._not_unique(f"{self._layout.noun} id {ordered[again[0]]}", self._path.name)
        hashes = np.frombuffer(self._hashes, np.uint64)
        order = np.argsort(hashes, kind="stable")
        for i in np.flatnonzero(hashes[order][1:] == hashes[order][:-1]).tolist():
            one, other = files[int(order[i])], files[int(order[i + 1])]
            if one == other:
                raise self._not_unique(f"{self._layout.noun} file '{one}'", self._path.name)

    def _number(self, row: Mapping[str, Any], key: str, where: str) -> int:
        value = text(row.get(key))
        if value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 19:
            number = int(value)
            if -_INT64 <= number < _INT64:
                return number
        raise self._wrong(f"a whole number as '{key}'", row, where)

    def _text(self, row: Mapping[str, Any], key: str, where: str) -> str:
        value = text(row.get(key)) if isinstance(row.get(key), str) else ""
        try:
            value.encode()
        except UnicodeEncodeError:
            value = ""
        if not value or "\0" in value:
            raise self._wrong(f"a text as '{key}'", row, where)
        return value

    def _wrong(self, expected: str, row: Mapping[str, Any], where: str) -> LayoutError:
        got = ", ".join(f"'{key[:40]}': {str(value)[:40]!r}" for key, value in [*row.items()][:6])
        return wrong_layout(
            self._path, expected, f"{where}: {got or 'nothing'}", f"take {self._layout.origin}"
        )

    def _not_unique(self, what: str, where: str) -> LayoutError:
        return LayoutError(
            f"{where}: {what} stands twice in {self._path}; take it from {self._layout.origin}",
            field="data",
        )


# Columns of millions of rows


@dataclass(frozen=True)
class Texts(Sequence[str]):
    """Many texts of which most begin, or are, as others are.

    Attributes:
        starts: the different beginnings.
        start_of: int32 [n], the beginning of each text.
        rests: a pyarrow array of the n rests; None where there are none.
    """

    starts: Sequence[str]
    start_of: NDArray[np.int32]
    rests: Any = None

    def __len__(self) -> int:
        return len(self.start_of)

    def __getitem__(self, position: Any, /) -> Any:
        """One of them, or a list of those in a slice."""
        if isinstance(position, slice):
            return [self[i] for i in range(*position.indices(len(self)))]
        start = self.starts[self.start_of[position]]
        return start if self.rests is None else start + self.rests[int(position)].as_py()


class TextColumn:
    """Builds `Texts`.

    Args:
        paths: whether texts share their beginning up to the last slash; else they are the same as
            others.
    """

    def __init__(self, *, paths: bool = False) -> None:
        self._paths = paths
        self._starts: dict[str, int] = {}
        self._start_of = array("i")
        self._chunks: list[Any] = []
        self._rests: list[str] = []

    def add(self, value: str) -> None:
        """Add one more."""
        folder, slash, rest = value.rpartition("/") if self._paths else (value, "", "")
        self._start_of.append(self._starts.setdefault(folder + slash, len(self._starts)))
        if self._paths:
            self._rests.append(rest)
            if len(self._rests) == _CHUNK:
                self._pack()

    def _pack(self) -> None:
        self._chunks.append(pa.array(self._rests, pa.string()))
        self._rests = []

    def texts(self) -> Texts:
        """All of them."""
        starts, start_of = list(self._starts), np.frombuffer(self._start_of, np.intc)
        if not self._paths:
            return Texts(starts, start_of.astype(np.int32))
        self._pack()
        rests = pa.chunked_array(self._chunks).cast(pa.large_string()).combine_chunks()
        return Texts(starts, start_of.astype(np.int32), rests)


class Numbers(Sequence[str]):
    """Numbers as texts, made when needed.

    Args:
        values: int64 [n].
    """

    def __init__(self, values: NDArray[np.int64]) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, position: Any, /) -> Any:
        """One of them, or a list of those in a slice."""
        if isinstance(position, slice):
            return [str(value) for value in self.values[position].tolist()]
        return str(self.values[position])


def positions_of(ids: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of ids among unique known ones, int64; -1 for those that are not among them."""
    if not len(known):
        return np.full(len(ids), -1, np.int64)
    order = np.argsort(known, kind="stable")
    nearest = np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)
    found = order[nearest]
    return np.where(known[found] == ids, found, -1)
