"""INQUIRE's own files: its queries, what is relevant, and the candidates of INQUIRE-Rerank.

As published (arXiv 2411.02537): ``inquire_queries_val.csv`` (50) and ``inquire_queries_test.csv``
(200) with ``query_id,query_text,supercategory,category,iconic_group``, behind a column without a
name; ``inquire_annotations.csv`` with ``query_id,image_id,image_path``, one line for each relevant
image. A release before had all queries in one ``inquire_queries.csv``.

The candidates are published as Parquet, with the pictures inside: ``validation-*.parquet`` (40
queries) and ``test-*.parquet`` (160), 100 lines for each query, told by its text, with
``inat24_image_id`` and ``relevant``. Only these columns are read. The other 50 queries are
not part of INQUIRE-Rerank. A CSV is read as well: ``query_id`` or ``query`` (the text), and
``image_id`` or ``file_name`` (the path of the image); INQUIRE's pre-release had ``query`` and
``file_name``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.layouts import found, place, table_rows, wrong_layout
from bittern.benchmarks.eval.suites.base import Piece
from bittern.errors import LayoutError, QrelsError

_RELEASE = "the data of INQUIRE's repository"
QUERIES_VAL = Piece(
    "inquire_queries_val.csv|inquire/inquire_queries_val.csv"
    "|inquire_queries.csv|inquire/inquire_queries.csv",
    "INQUIRE's 50 validation queries",
    f'"inquire_queries_val.csv" in {_RELEASE}',
    "4 kB",
)
QUERIES_TEST = Piece(
    "inquire_queries_test.csv|inquire/inquire_queries_test.csv"
    "|inquire_queries.csv|inquire/inquire_queries.csv",
    "INQUIRE's 200 test queries",
    f'"inquire_queries_test.csv" in {_RELEASE}',
    "17 kB",
)
ANNOTATIONS = Piece(
    "inquire_annotations.csv|inquire/inquire_annotations.csv",
    "about 33,000 pairs of a query and an image that is relevant to it",
    f'"inquire_annotations.csv" in {_RELEASE}',
    "4 MB",
)
CANDIDATES = Piece(
    "inquire_rerank.csv|inquire/inquire_rerank.csv|rerank/|inquire/rerank/",
    "the 100 candidates of each query; only the rerank task needs them",
    'the INQUIRE-Rerank data set, its files "validation-*.parquet" and "test-*.parquet" '
    'in a folder "rerank"',
    "1.9 GB, pictures included",
    optional=True,
)
VAL, TEST = "val", "test"
MAX_QUERIES = 100_000
_SHARD_ROWS = 1_000_000


@dataclass(frozen=True)
class Queries:
    """The queries, in the order of the files, validation first.

    Attributes:
        ids: as published; unique.
        texts: in words.
        splits: ``val`` or ``test``; empty where one file holds both.
        wanted: the splits that are asked.
        partial: whether the file of a split that is not asked is not there: other files may then
            name queries that are in none.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    splits: Sequence[str]
    wanted: Collection[str] = (VAL, TEST)
    partial: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def are_asked(self) -> NDArray[np.bool_]:
        """Whether each is of a split that is asked, or of one that is not told: bool [n]."""
        return np.array([not split or split in self.wanted for split in self.splits], np.bool_)


@dataclass(frozen=True)
class Pair:
    """A line that says something of a query and an image.

    Attributes:
        where: file and line, for messages.
        query: id, or text, of the query.
        image: id of the image; empty where its path says which it is.
        path: of the image below iNat24's folder; may be empty.
    """

    where: str
    query: str
    image: str
    path: str = ""


def in_one_file(data: Path) -> bool:
    """Whether one file holds the queries of both splits, and does not tell them apart."""
    path = found(data, QUERIES_VAL)
    return path is not None and path == found(data, QUERIES_TEST)


def read_queries(data: Path, wanted: Collection[str] = (VAL, TEST)) -> Queries:
    """The queries: those of the wanted splits, and of the other one if its file is there.

    Raises:
        LayoutError: a file cannot be used, or an id stands twice.
    """
    pieces = {VAL: QUERIES_VAL, TEST: QUERIES_TEST}
    there = {
        split: piece for split, piece in pieces.items() if split in wanted or found(data, piece)
    }
    files = {place(data, piece): split for split, piece in there.items()}
    if in_one_file(data):
        files = dict.fromkeys(files, "")
    ids: dict[str, None] = {}
    texts, splits = [], []
    for path, split in files.items():
        origin = (QUERIES_VAL if split == VAL else QUERIES_TEST).origin
        before = len(ids)
        for number, row in table_rows(path, ("query_id", "query_text"), origin):
            own = row["query_id"]
            if own in ids:
                raise LayoutError(
                    f"{path}, line {number}: query_id {own[:60]} stands twice; take {origin}",
                    field="data",
                )
            if len(ids) == MAX_QUERIES:
                raise LayoutError(f"{path}: more than {MAX_QUERIES:,} queries", field="data")
            ids[own] = None
            texts.append(row["query_text"])
            splits.append(split)
        if len(ids) == before:
            raise LayoutError(f"{path} holds no query; take {origin}", field="data")
    return Queries(list(ids), texts, splits, wanted, partial=len(there) < len(pieces))


def read_annotations(data: Path) -> Iterator[Pair]:
    """Which images are relevant to which queries.

    Raises:
        LayoutError: the file cannot be used.
    """
    path = place(data, ANNOTATIONS)
    columns = ("query_id", "image_id", "image_path")
    for number, row in table_rows(path, columns, ANNOTATIONS.origin):
        where = f"{path.name}, line {number}"
        yield Pair(where, row["query_id"], row["image_id"], row["image_path"])


def read_candidates(data: Path, queries: Queries) -> Iterator[Pair]:
    """Which images are given for which queries; queries told by their texts have ids here.

    Raises:
        LayoutError: a file cannot be used.
        QrelsError: two queries have the same text, and candidates are told by text.
    """
    path = place(data, CANDIDATES)
    ids = by_text(queries)
    if path.is_file():
        yield from _listed(path, ids)
        return
    shards = sorted(path.glob("*.parquet"))
    if not shards:
        raise wrong_layout(
            path,
            "files 'validation-*.parquet' and 'test-*.parquet'",
            "none that ends with .parquet",
            f"take {CANDIDATES.origin}",
        )
    for shard in shards:
        yield from _of_shard(shard, ids)


def _listed(path: Path, ids: Mapping[str, str]) -> Iterator[Pair]:
    expected = "columns query_id or query, and image_id or file_name"
    for number, row in table_rows(path, (), CANDIDATES.origin):
        where = f"{path.name}, line {number}"
        query = row.get("query_id") or _told(row.get("query", ""), ids)
        image, name = row.get("image_id", ""), row.get("file_name", "")
        if not query or not (image or name):
            got = ", ".join(f"'{column[:40]}'" for column in list(row)[:8]) or "nothing"
            raise wrong_layout(
                path, expected, f"in line {number} cells of {got}", f"take {CANDIDATES.origin}"
            )
        yield Pair(where, query, image, name)


def _of_shard(shard: Path, ids: Mapping[str, str]) -> Iterator[Pair]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["query", "inat24_image_id"]
    try:
        with pq.ParquetFile(shard) as file:
            names = file.schema_arrow.names
            if not set(columns) <= set(names):
                raise wrong_layout(
                    shard,
                    "columns " + ", ".join(columns),
                    "columns " + ", ".join(names[:20]),
                    f"take {CANDIDATES.origin}",
                )
            if file.metadata.num_rows > _SHARD_ROWS:
                raise LayoutError(f"{shard} has more than {_SHARD_ROWS:,} rows", field="data")
            row = 0
            for batch in file.iter_batches(4096, columns=columns):
                for query, image in zip(
                    *(batch.column(c).to_pylist() for c in columns), strict=True
                ):
                    row += 1
                    where = f"{shard.name}, row {row}"
                    yield Pair(where, _told(str(query or ""), ids), str(image))
    except (pa.ArrowException, OSError) as error:
        raise LayoutError(
            f"{shard} cannot be read as Parquet ({error}); take {CANDIDATES.origin}", field="data"
        ) from error


def by_text(queries: Queries) -> dict[str, str]:
    """Ids of the queries by their `plain` words.

    Raises:
        QrelsError: two have the same words.
    """
    ids: dict[str, str] = {}
    for own, words in zip(queries.ids, queries.texts, strict=True):
        if ids.setdefault(plain(words), own) != own:
            raise QrelsError(
                f"queries {ids[plain(words)]} and {own} have the same words ('{words[:60]}'), so "
                "candidates that are told by words cannot be matched; leave --candidates at full"
            )
    return ids


def _told(words: str, ids: Mapping[str, str]) -> str:
    """The id of the query of these words; the words themselves where there is none."""
    return ids.get(plain(words), words)


def plain(words: str) -> str:
    """Words with single spaces between them."""
    return " ".join(words.split())
