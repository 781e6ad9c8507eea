"""The files of INQUIRE: queries, annotations, candidates and their pictures.

``inquire_queries_val.csv`` (50) and ``inquire_queries_test.csv`` (200), or one
``inquire_queries.csv`` of an earlier release, with ``query_id,query_text``;
``inquire_annotations.csv`` with ``query_id,image_id,image_path``, one line per relevant image;
candidates as Parquet (``validation-*.parquet``, ``test-*.parquet``), 100 lines per query, which
they name by its text, with ``inat24_image_id``, ``relevant`` and the picture's bytes; or as CSV
with ``query_id`` or ``query``, and ``image_id`` or ``file_name``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import DataFile, found, path_of
from bittern.benchmarks.eval.suites.inat24 import IMAGES, METADATA
from bittern.benchmarks.eval.suites.readers import SuiteFile, positions_of
from bittern.benchmarks.eval.tasks import IMAGE, Protocol, Relevance
from bittern.errors import QrelsError
from bittern.text import agreeing
from bittern.types import MediaItem

VAL, TEST = "val", "test"
_RELEASE = "the data of INQUIRE's repository"


def _in_repository(*names: str) -> str:
    """Alternatives of a path: in the data folder, or below ``inquire/``."""
    return "|".join(f"{folder}{name}" for name in names for folder in ("", "inquire/"))


_ONE_FILE = "inquire_queries.csv"
QUERIES = {
    split: DataFile(
        _in_repository(f"inquire_queries_{split}.csv", _ONE_FILE),
        f"INQUIRE's {what} queries",
        f'"inquire_queries_{split}.csv" in {_RELEASE}',
        size,
    )
    for split, what, size in ((VAL, "50 validation", "4 kB"), (TEST, "200 test", "17 kB"))
}
ANNOTATIONS = DataFile(
    _in_repository("inquire_annotations.csv"),
    "about 33,000 pairs of a query and an image that is relevant to it",
    f'"inquire_annotations.csv" in {_RELEASE}',
    "4 MB",
)
CANDIDATES = DataFile(
    _in_repository("inquire_rerank.csv", "rerank/"),
    "the 100 candidates of each query; only the rerank task needs them",
    'the INQUIRE-Rerank data set, its files "validation-*.parquet" and "test-*.parquet" '
    'in a folder "rerank"',
    "1.9 GB, pictures included",
    optional=True,
)
_NEEDED = ("query", "relevant", "inat24_image_id")
_WITH_PICTURES = "columns image (with bytes), " + ", ".join(_NEEDED)
_ABOUT = {
    "inat24_species_name": "scientificName",
    "rights_holder": "rightsHolder",
    "license": "license",
}
_FILE_NAME = "inat24_file_name"
_NAMED = 3
MAX_QUERIES = 100_000
_DIGITS = 18
"""Digits that fit 64 bits."""


def one_query_file(data: Path) -> bool:
    """Whether one file holds the queries of both splits."""
    path = found(data, QUERIES[VAL])
    return path is not None and path == found(data, QUERIES[TEST])


def only_pictures(data: Path) -> bool:
    """Whether the candidates have pictures of their own, and iNat24 is missing or incomplete."""
    candidates = found(data, CANDIDATES)
    if candidates is None or not candidates.is_dir():
        return False
    return any(found(data, file) is None for file in (METADATA, IMAGES, ANNOTATIONS))


# Queries


@dataclass(frozen=True)
class Queries:
    """The queries, in the order of the files, validation first.

    Attributes:
        ids: as published; unique.
        texts: in words.
        splits: ``val`` or ``test``; empty where one file holds both.
        wanted: the splits that are used.
        partial: whether the file of an unused split is missing: other files may then name queries
            that no file holds.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    splits: Sequence[str]
    wanted: Collection[str]
    partial: bool

    @property
    def used(self) -> NDArray[np.int64]:
        """Positions of the queries of a split that is used, or of an unknown one."""
        return np.flatnonzero([not split or split in self.wanted for split in self.splits])

    def by_text(self) -> dict[str, str]:
        """Ids by words with single spaces.

        Raises:
            QrelsError: two have the same words.
        """
        ids: dict[str, str] = {}
        for own, words in zip(self.ids, self.texts, strict=True):
            known = ids.setdefault(" ".join(words.split()), own)
            if known != own:
                raise QrelsError(
                    f"queries {known} and {own} have the same words ('{words[:60]}'), so "
                    "candidates that are named by words cannot be matched; leave --candidates at "
                    "full"
                )
        return ids


def read_queries(data: Path, wanted: Collection[str]) -> Queries:
    """The queries: those of the wanted splits, and of the other one if its file exists.

    Raises:
        LayoutError: a file cannot be used, or an id is not unique.
    """
    read = {split: file for split, file in QUERIES.items() if split in wanted or found(data, file)}
    files = {path_of(data, file): split for split, file in read.items()}
    texts: dict[str, str] = {}
    splits: list[str] = []
    for path, split in files.items():
        table, before = SuiteFile(path, QUERIES[split].origin), len(texts)
        for number, row in table.rows(("query_id", "query_text")):
            own = row["query_id"]
            if own in texts:
                raise table.error(f"{path}, line {number}: query_id {own[:60]} occurs twice")
            if len(texts) == MAX_QUERIES:
                raise table.error(f"{path}: more than {MAX_QUERIES:,} queries")
            texts[own] = row["query_text"]
            splits.append("" if one_query_file(data) else split)
        if len(texts) == before:
            raise table.error(f"{path} holds no query")
    return Queries(list(texts), list(texts.values()), splits, wanted, len(read) < len(QUERIES))


# Annotations and candidates


@dataclass(frozen=True)
class Line:
    """A line that names a query and an image.

    Attributes:
        where: file and line, for messages.
        query: id, or text, of the query.
        image: id of the image; empty where its path names it.
        path: of the image below iNat24's folder; may be empty.
        row: other columns.
        at: file, row group, and row in it.
    """

    where: str
    query: str
    image: str
    path: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)
    at: tuple[int, int, int] = (0, 0, 0)

    @property
    def number(self) -> int | None:
        """The image's id as a number; None for none."""
        text = self.image
        return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else None


def annotation_lines(data: Path) -> Iterator[Line]:
    """Which images are relevant to which queries."""
    table = SuiteFile(path_of(data, ANNOTATIONS), ANNOTATIONS.origin)
    for number, row in table.rows(("query_id", "image_id", "image_path")):
        where = f"{table.path.name}, line {number}"
        yield Line(where, row["query_id"], row["image_id"], row["image_path"])


def candidate_lines(data: Path, queries: Queries, *, pictures: bool = False) -> Iterator[Line]:
    """Which images are candidates of which queries.

    Args:
        data: the data folder.
        queries: those that lines name by id or by words.
        pictures: whether the files must have pictures and relevance.
    """
    path = path_of(data, CANDIDATES)
    ids = queries.by_text()
    if path.is_file():
        yield from _listed_candidates(SuiteFile(path, CANDIDATES.origin), ids)
        return
    for number, shard in enumerate(candidate_files(path)):
        if pictures:
            _check_pictures(shard)
        needed = _NEEDED if pictures else ("query", "inat24_image_id")
        also = (_FILE_NAME, *_ABOUT) if pictures else ()
        for count, (group, row, cells) in enumerate(shard.parquet_rows(needed, also), 1):
            words = " ".join(str(cells["query"] or "").split())
            line = Line(
                where=f"{shard.path.name}, row {count}",
                query=ids.get(words, words),
                image=str(cells["inat24_image_id"]),
                row=cells,
                at=(number, group, row),
            )
            if pictures and line.number is None:
                got = f"image id '{line.image}' in row group {group}, row {row}"
                raise shard.wrong(_WITH_PICTURES, got)
            yield line


def _listed_candidates(table: SuiteFile, ids: Mapping[str, str]) -> Iterator[Line]:
    for number, row in table.rows(()):
        words = " ".join(row.get("query", "").split())
        query = row.get("query_id") or ids.get(words, words)
        image, name = row.get("image_id", ""), row.get("file_name", "")
        if not query or not (image or name):
            cells = ", ".join(f"'{column[:40]}'" for column in list(row)[:8]) or "nothing"
            raise table.wrong(
                "columns query_id or query, and image_id or file_name",
                f"in line {number} cells of {cells}",
            )
        yield Line(f"{table.path.name}, line {number}", query, image, name)


def candidate_files(folder: Path) -> list[SuiteFile]:
    """The Parquet files of candidates.

    Raises:
        LayoutError: the folder has none.
    """
    files = [SuiteFile(path, CANDIDATES.origin) for path in sorted(folder.glob("*.parquet"))]
    if not files:
        expected = "files 'validation-*.parquet' and 'test-*.parquet'"
        raise SuiteFile(folder, CANDIDATES.origin).wrong(expected, "none that ends with .parquet")
    return files


class Matching:
    """Looks up the queries and images that lines name, and counts unknown ones.

    Args:
        queries: the queries.
        protocol: whether unknown queries and images end the run.
        ids: int64, the images.
        paths: of the images; empty where no line names a path.

    Attributes:
        left_out: sentences on lines that were skipped.
    """

    def __init__(
        self,
        queries: Queries,
        protocol: Protocol,
        ids: NDArray[np.int64],
        paths: Sequence[str] = (),
    ) -> None:
        self._queries, self._protocol, self._ids, self._paths = queries, protocol, ids, paths
        self.left_out: list[str] = []

    def images(self, lines: Iterable[Line], what: str) -> Relevance:
        """The images of each used query that the lines of a file name, each once.

        Raises:
            QrelsError: lines name unknown queries or images, unless these are skipped.
        """
        lines = list(lines)
        if self._queries.partial:
            known = set(self._queries.ids)
            kept_lines = [line for line in lines if line.query in known]
            if lost := len(lines) - len(kept_lines):
                self.left_out.append(
                    f"{lost:,} of {len(lines):,} {what} {agreeing(lost, 'is', 'are')} of queries "
                    "of the split that is not used, whose file is missing; left out"
                )
            lines = kept_lines
        queries, images = self.find(lines)
        self._check(lines, queries, images, what)
        kept = (queries >= 0) & (images >= 0)
        pairs = Relevance.from_pairs(queries[kept], images[kept], len(self._queries.ids))
        if again := int(kept.sum()) - len(pairs.items):
            occur = agreeing(again, "occurs twice and counts", "occur twice and count")
            self.left_out.append(f"{again:,} of {len(lines):,} {what} {occur} once")
        return pairs.only(self._queries.used)

    def find(self, lines: Sequence[Line]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the lines' queries and images, -1 for unknown ones."""
        queries = positions_of([line.query for line in lines], list(self._queries.ids))
        images = positions_of([line.number for line in lines], self._ids)
        by_path = {line.path: -1 for line in lines if not line.image}
        if by_path:
            for number, path in enumerate(self._paths):
                if path in by_path:
                    by_path[path] = number
        for number, line in enumerate(lines):
            if not line.image:
                images[number] = by_path[line.path]
            elif line.path and images[number] >= 0:
                same = self._paths[int(images[number])] == line.path
                images[number] = images[number] if same else -1
        return queries, images

    def _check(
        self,
        lines: Sequence[Line],
        queries: NDArray[np.int64],
        images: NDArray[np.int64],
        what: str,
    ) -> None:
        lost = np.flatnonzero((queries < 0) | (images < 0)).tolist()
        if not lost:
            return
        shown = [
            f"{line.where}: query '{line.query[:60]}'"
            if queries[i] < 0
            else f"{line.where}: image {line.image[:200]} {line.path[:200]}".rstrip()
            for i, line in ((i, lines[i]) for i in lost[:_NAMED])
        ]
        name = agreeing(
            len(lost), "names an unknown query or image", "name unknown queries or images"
        )
        sentence = f"{len(lost):,} of {len(lines):,} {what} {name} ({'; '.join(shown)})"
        if self._protocol.unknown == "error":
            raise QrelsError(
                f"{sentence}; queries, {what} and images have to be of the same release of "
                "INQUIRE; skip these lines with --unknown skip"
            )
        self.left_out.append(sentence)


# Pictures


class Pictures:
    """The pictures, one for each image id.

    Args:
        shards: the files.
        lines: one of each image.
    """

    def __init__(self, shards: Sequence[SuiteFile], lines: Sequence[Line]) -> None:
        self._shards, self._lines = shards, lines
        self._lock = Lock()
        self._group: tuple[int, int] = (-1, -1)
        self._pictures: Any = None

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int, /) -> MediaItem:
        line = self._lines[number]
        metadata = {term: str(line.row.get(column) or "") for column, term in _ABOUT.items()}
        return MediaItem(
            occurrence_id=line.image,
            media=str(line.row.get(_FILE_NAME) or line.image),
            modality=IMAGE,
            data=self._bytes(*line.at),
            metadata={term: value for term, value in metadata.items() if value},
        )

    def _bytes(self, shard: int, group: int, row: int) -> bytes:
        with self._lock:
            if self._group != (shard, group):
                self._pictures = None
                with self._shards[shard].parquet() as file:
                    self._pictures = file.read_row_group(group, columns=["image"]).column(0)
                self._group = (shard, group)
            picture = self._pictures[row].as_py()
        # A picture without bytes is an empty file, refused where it is decoded, by its name.
        return bytes((picture or {}).get("bytes") or b"")


def _check_pictures(shard: SuiteFile) -> None:
    """Refuse a file without pictures, relevance or ids."""
    with shard.parquet() as file:
        schema = file.schema_arrow
    picture = schema.field("image").type if "image" in schema.names else pa.null()
    pictures = pa.types.is_struct(picture) and picture.get_field_index("bytes") >= 0
    if not pictures or not set(_NEEDED) <= set(schema.names):
        raise shard.wrong(_WITH_PICTURES, "columns " + ", ".join(schema.names[:20]))
