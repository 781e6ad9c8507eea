"""COCO-style JSON of any size as columns: an image or recording takes about 80 bytes."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.readers import SuiteFile, Texts, positions_of
from bittern.benchmarks.eval.tasks.prompts import RANKS
from bittern.errors import LayoutError, QrelsError
from bittern.service.sources.field_values import licence, text
from bittern.text import agreeing, first_few, some_of

MAX_CATEGORIES = 1_000_000
MAX_ITEMS = 50_000_000
"""Most images or recordings of a file."""
_INT64 = 1 << 63
_CHUNK = 1 << 16
_COLUMNS = ("folder", "name", "holder", "licence")


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
        whole: see `SuiteFile.elements`.
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


def read_coco(path: Path, layout: CocoLayout, unknown: Literal["error", "skip"] = "error") -> Coco:
    """Read a COCO-style file, element by element.

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
    reader = _CocoReader(SuiteFile(path, layout.origin), layout)
    add = {
        layout.items: reader.item,
        "annotations": reader.annotation,
        "categories": reader.category,
        "licenses": reader.licence,
    }
    required = (layout.items, "annotations", "categories")
    for element in reader.file.elements(required, ("licenses",), whole=layout.whole):
        add[element.member](element.value, element.position)
    return reader.result(unknown)


class _CocoReader:
    """Collects the columns of one file."""

    def __init__(self, file: SuiteFile, layout: CocoLayout) -> None:
        self.file, self._layout = file, layout
        self._ids, self._item_of, self._category_of = array("q"), array("q"), array("q")
        self._hashes = array("Q")
        self._rows: list[tuple[str, str, str, str]] = []
        self._chunks: list[pa.Table] = []
        self._licence_names: dict[str, str] = {}
        self._categories: dict[int, Category] = {}

    def item(self, row: Mapping[str, Any], where: str) -> None:
        if len(self._ids) == MAX_ITEMS:
            raise self.file.error(
                f"{self.file.path} has more than {MAX_ITEMS:,} {self._layout.noun}s"
            )
        self._ids.append(self._number(row, "id", where))
        path = self._text(row, "file_name", where)
        self._hashes.append(xxhash.xxh3_64_intdigest(path.encode()))
        folder, slash, name = path.rpartition("/")
        holder, short = (_encodable(text(row.get(key))) for key in ("rights_holder", "license"))
        self._rows.append((folder + slash, name, holder, short))
        if len(self._rows) == _CHUNK:
            self._pack()

    def _pack(self) -> None:
        """Move rows to Arrow's memory: everything but the names repeats."""
        columns = [pa.array(column, pa.large_string()) for column in zip(*self._rows, strict=True)]
        packed = [
            column if name == "name" else column.dictionary_encode()
            for name, column in zip(_COLUMNS, columns, strict=True)
        ]
        self._chunks.append(pa.table(packed, names=_COLUMNS))
        self._rows = []

    def annotation(self, row: Mapping[str, Any], where: str) -> None:
        self._item_of.append(self._number(row, self._layout.reference, where))
        self._category_of.append(self._number(row, "category_id", where))

    def category(self, row: Mapping[str, Any], where: str) -> None:
        own = self._number(row, "id", where)
        name = self._text(row, "name", where)
        if own in self._categories:
            raise self._not_unique(f"category id {own}", where)
        if len(self._categories) == MAX_CATEGORIES:
            raise self.file.error(f"{self.file.path} has more than {MAX_CATEGORIES:,} categories")
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

    def result(self, unknown: Literal["error", "skip"]) -> Coco:
        """All columns, checked."""
        if self._rows:
            self._pack()
        ids = np.frombuffer(self._ids, np.int64)
        table = pa.concat_tables(self._chunks).unify_dictionaries().combine_chunks()
        folder, name, holder, short = (table[column].chunk(0) for column in _COLUMNS)
        files = Texts(folder, name)
        self._check_unique(ids, files)
        labels, sentences = self._labels(ids, unknown)
        named = [self._licence_names.get(each, each) for each in short.dictionary.to_pylist()]
        return Coco(
            ids=ids,
            files=files,
            holders=Texts(holder),
            licences=Texts(pa.DictionaryArray.from_arrays(short.indices, pa.array(named))),
            labels=labels,
            categories=list(self._categories.values()),
            left_out=sentences,
        )

    def _labels(
        self, ids: NDArray[np.int64], unknown: Literal["error", "skip"]
    ) -> tuple[NDArray[np.int32], list[str]]:
        """The category of each item, and sentences on unusable annotations and bare items."""
        noun = self._layout.noun
        items = positions_of(np.frombuffer(self._item_of, np.int64), ids)
        categories = positions_of(
            np.frombuffer(self._category_of, np.int64),
            np.fromiter(self._categories, np.int64, len(self._categories)),
        )
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
                f"{self.file.path}: {noun} {ids[items[several[0]]]} is labelled with several "
                f"categories; each {noun} has one in this data set: take the published file"
            )
        bare = np.flatnonzero(labels < 0)
        if self._layout.one_each:
            again = np.setdiff1d(np.arange(len(items)), np.unique(items, return_index=True)[1])
            of = some_of(len(again), len(lost), "annotation")
            repeat = agreeing(len(again), "repeats", "repeat")
            errors += self._examples(ids[items[again]], f"{of} in {{}} {repeat} another")
            have = agreeing(len(bare), "has", "have")
            of = some_of(len(bare), len(ids), noun)
            errors += self._examples(ids[bare], f"{of} in {{}} {have} no annotation")
        elif len(bare):
            have = agreeing(len(bare), "has no label and answers", "have no label and answer")
            sentences.append(f"{some_of(len(bare), len(ids), noun)} {have} no query")
        if errors and unknown == "error":
            raise QrelsError(
                f"{'; '.join(errors)}; {self.file.remedy}, or skip these with --unknown skip",
                field="data",
            )
        return labels, errors + sentences

    def _examples(self, ids: NDArray[np.int64], sentence: str) -> list[str]:
        """The sentence with the file's name and the first ids; none where there are no ids."""
        first = first_few([f"{self._layout.noun} {own}" for own in ids[:4]])
        return [f"{sentence.format(self.file.path.name)} ({first})"] if len(ids) else []

    def _lost(self, items: NDArray[np.int64], lost: NDArray[np.bool_]) -> str:
        """The sentence on annotations of unknown items or categories."""
        noun = self._layout.noun
        article = "an" if noun[0] in "aeiou" else "a"
        names = [
            f"{noun} {self._item_of[i]}" if items[i] < 0 else f"category {self._category_of[i]}"
            for i in np.flatnonzero(lost)[:4]
        ]
        number = int(lost.sum())
        verb = agreeing(
            number,
            f"names {article} {noun} or category that is",
            f"name {noun}s or categories that are",
        )
        of = some_of(number, len(lost), "annotation")
        return f"{of} in {self.file.path.name} {verb} not in it ({first_few(names)})"

    def _check_unique(self, ids: NDArray[np.int64], files: Texts) -> None:
        ordered = np.sort(ids)
        again = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(again):
            name = self.file.path.name
            raise self._not_unique(f"{self._layout.noun} id {ordered[again[0]]}", name)
        hashes = np.frombuffer(self._hashes, np.uint64)
        order = np.argsort(hashes, kind="stable")
        for i in np.flatnonzero(hashes[order][1:] == hashes[order][:-1]).tolist():
            one, other = files[int(order[i])], files[int(order[i + 1])]
            if one == other:
                raise self._not_unique(f"{self._layout.noun} file '{one}'", self.file.path.name)

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
        return self.file.wrong(expected, f"{where}: {got or 'nothing'}")

    def _not_unique(self, what: str, where: str) -> LayoutError:
        return self.file.error(f"{where}: {what} occurs twice in {self.file.path}")


def _encodable(value: str) -> str:
    """The text with ``?`` in place of halves of surrogate pairs."""
    return value.encode("utf-8", "replace").decode()
