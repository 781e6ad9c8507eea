"""INQUIRE: 250 expert queries in words, with all relevant images of iNat24.

Vendrow et al., "INQUIRE: A Natural World Text-to-Image Retrieval Benchmark", NeurIPS 2024 (arXiv
2411.02537). Two tasks: Fullrank ranks all images; Rerank ranks the 100 candidates of each query
that come with the data, and counts as relevant only what is relevant among these. There is no
prompt template: queries are embedded as they are. AP is divided by min(R, k), over the first 50 of
the full ranking (``AP_minR@50``) and all 100 candidates (``AP_minR@100``). The authors' scripts use
the queries of `test` (200; 160 of them have candidates) and leave `val` for tuning; so does
``--database``, by default.

Files: ``inquire_queries_val.csv`` (50) and ``inquire_queries_test.csv`` (200), or one
``inquire_queries.csv`` of an earlier release, with ``query_id,query_text``;
``inquire_annotations.csv`` with ``query_id,image_id,image_path``, one line per relevant image;
candidates as Parquet (``validation-*.parquet``, ``test-*.parquet``), 100 lines per query, which
they name by its text, with ``inat24_image_id``, ``relevant`` and the picture's bytes; or as CSV
with ``query_id`` or ``query``, and ``image_id`` or ``file_name``.

With `--candidates rerank` only the candidates' images are needed. Where iNat24 or the annotations
are missing, the pictures inside the Parquet files (1.9 GB) are ranked; they are read when they are
needed, a row group at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import (
    DataFile,
    Suite,
    check,
    check_files,
    described,
    found,
    path_of,
    skipped_files,
    table_rows,
    wrong_layout,
)
from bittern.benchmarks.eval.suites.inat24 import (
    IMAGES,
    LISTED,
    METADATA,
    Images,
    Numbers,
    items_of,
    read_images,
)
from bittern.benchmarks.eval.tasks import (
    IMAGE,
    TEXT,
    Classes,
    Items,
    Protocol,
    QuerySet,
    Relevance,
    Task,
)
from bittern.benchmarks.eval.tasks.prompts import check_templates, prompts_note, text_queries
from bittern.benchmarks.eval.tasks.splits import leave_out_unanswerable
from bittern.errors import InvalidInputError, LayoutError, QrelsError
from bittern.text import agreeing, some_of
from bittern.types import MediaItem

_RELEASE = "the data of INQUIRE's repository"
QUERIES_VAL = DataFile(
    "inquire_queries_val.csv|inquire/inquire_queries_val.csv"
    "|inquire_queries.csv|inquire/inquire_queries.csv",
    "INQUIRE's 50 validation queries",
    f'"inquire_queries_val.csv" in {_RELEASE}',
    "4 kB",
)
QUERIES_TEST = DataFile(
    "inquire_queries_test.csv|inquire/inquire_queries_test.csv"
    "|inquire_queries.csv|inquire/inquire_queries.csv",
    "INQUIRE's 200 test queries",
    f'"inquire_queries_test.csv" in {_RELEASE}',
    "17 kB",
)
ANNOTATIONS = DataFile(
    "inquire_annotations.csv|inquire/inquire_annotations.csv",
    "about 33,000 pairs of a query and an image that is relevant to it",
    f'"inquire_annotations.csv" in {_RELEASE}',
    "4 MB",
)
CANDIDATES = DataFile(
    "inquire_rerank.csv|inquire/inquire_rerank.csv|rerank/|inquire/rerank/",
    "the 100 candidates of each query; only the rerank task needs them",
    'the INQUIRE-Rerank data set, its files "validation-*.parquet" and "test-*.parquet" '
    'in a folder "rerank"',
    "1.9 GB, pictures included",
    optional=True,
)
VAL, TEST = "val", "test"
MAX_QUERIES = 100_000


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
    layout = {VAL: QUERIES_VAL, TEST: QUERIES_TEST}
    there = {split: file for split, file in layout.items() if split in wanted or found(data, file)}
    files = {path_of(data, file): split for split, file in there.items()}
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
    return Queries(list(ids), texts, splits, wanted, partial=len(there) < len(layout))


def read_annotations(data: Path) -> Iterator[Pair]:
    """Which images are relevant to which queries.

    Raises:
        LayoutError: the file cannot be used.
    """
    path = path_of(data, ANNOTATIONS)
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
    path = path_of(data, CANDIDATES)
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
        query = row.get("query_id") or _id_of(row.get("query", ""), ids)
        image, name = row.get("image_id", ""), row.get("file_name", "")
        if not query or not (image or name):
            got = ", ".join(f"'{column[:40]}'" for column in list(row)[:8]) or "nothing"
            raise wrong_layout(
                path, expected, f"in line {number} cells of {got}", f"take {CANDIDATES.origin}"
            )
        yield Pair(where, query, image, name)


def _of_shard(shard: Path, ids: Mapping[str, str]) -> Iterator[Pair]:
    for number, (_, _, line) in enumerate(_parquet_rows(shard, ("query", "inat24_image_id")), 1):
        query, image = _id_of(str(line["query"] or ""), ids), str(line["inat24_image_id"])
        yield Pair(f"{shard.name}, row {number}", query, image)


def _parquet_rows(
    shard: Path, columns: Sequence[str], also: Sequence[str] = ()
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Row group, row in it, and the values of some columns.

    Args:
        shard: the file.
        columns: columns that it must have.
        also: columns that are read if it has them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

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
            if file.metadata.num_rows > MAX_ROWS:
                raise LayoutError(f"{shard} has more than {MAX_ROWS:,} rows", field="data")
            read = [name for name in (*columns, *also) if name in names]
            for group in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(group).total_byte_size
                if size > MAX_GROUP_BYTES:
                    raise LayoutError(
                        f"{shard}: row group {group} takes {size:,} bytes, more than "
                        f"{MAX_GROUP_BYTES:,}; take {CANDIDATES.origin}",
                        field="data",
                    )
                rows = file.read_row_group(group, columns=read).to_pylist()
                yield from ((group, row, line) for row, line in enumerate(rows))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(shard, error) from error


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


def _id_of(words: str, ids: Mapping[str, str]) -> str:
    """The id of the query of these words; the words themselves where there is none."""
    return ids.get(plain(words), words)


def plain(words: str) -> str:
    """Words with single spaces between them."""
    return " ".join(words.split())


_NAMED = 3
_INT64_DIGITS = 18


@dataclass(frozen=True)
class Pairs:
    """Queries and images that belong together: int64 places, none twice, in order."""

    queries: NDArray[np.int64]
    images: NDArray[np.int64]

    def relevance(self, queries: int, kept: NDArray[np.int64], images: int) -> Relevance:
        """Over those images that are kept, numbered anew."""
        number = np.full(images, -1, np.int64)
        number[kept] = np.arange(len(kept))
        of, items = self.queries, number[self.images]
        of, items = of[items >= 0], items[items >= 0]
        offsets = np.searchsorted(of, np.arange(queries + 1)).astype(np.int64)
        return Relevance(offsets, items, np.ones(len(items), np.int32))

    def only(self, queries: NDArray[np.bool_]) -> Pairs:
        """Those of some queries, bool [q]."""
        kept = queries[self.queries]
        return Pairs(self.queries[kept], self.images[kept])

    def among(self, others: Pairs, images: int) -> Pairs:
        """Those that are among others as well."""
        own = self.queries * images + self.images
        kept = np.isin(own, others.queries * images + others.images)
        return Pairs(self.queries[kept], self.images[kept])


class Matching:
    """Looks up what lines name, and counts what is unknown.

    Attributes:
        left_out: sentences on lines that were left out.
    """

    def __init__(self, queries: Queries, images: Images, protocol: Protocol) -> None:
        self._queries = {own: number for number, own in enumerate(queries.ids)}
        self._published = queries
        self._images = images
        self._unknown = protocol.unknown
        self.left_out: list[str] = []

    def pairs(self, lines: Iterable[Pair], what: str) -> Pairs:
        """The pairs of a file for queries that are asked, each once.

        Raises:
            QrelsError: lines name queries or images that there are not, unless these are skipped.
        """
        read = list(lines)
        if self._published.partial:
            read = self._of_known_queries(read, what)
        queries = np.array([self._queries.get(line.query, -1) for line in read], np.int64)
        images = self._found(read)
        lost = np.flatnonzero((queries < 0) | (images < 0))
        if len(lost):
            self._lose(read, queries, lost, what)
        known = (queries >= 0) & (images >= 0)
        both = np.unique(np.stack([queries[known], images[known]], 1), axis=0)
        again = int(known.sum()) - len(both)
        if again:
            stand = agreeing(again, "stands there twice and counts", "stand there twice and count")
            self.left_out.append(f"{again:,} of {len(read):,} {what} {stand} once")
        return Pairs(both[:, 0], both[:, 1]).only(self._published.are_asked)

    def _of_known_queries(self, read: Sequence[Pair], what: str) -> list[Pair]:
        known = [line for line in read if line.query in self._queries]
        if len(known) < len(read):
            self.left_out.append(other_queries(len(read) - len(known), len(read), what))
        return known

    def _found(self, read: Sequence[Pair]) -> NDArray[np.int64]:
        """Places of the lines' images; -1 where there is none of that id, or under another path."""
        paths = {line.path: -1 for line in read if not line.image}
        if paths:
            for number, path in enumerate(self._images.paths):
                if path in paths:
                    paths[path] = number
        ids = [line.image if _is_id(line.image) else "-1" for line in read]
        positions = self._images.find(np.array(ids, np.int64))
        for number, line in enumerate(read):
            if not line.image:
                positions[number] = paths[line.path]
            elif not _is_id(line.image) or (
                line.path and positions[number] >= 0 and self._path(positions[number]) != line.path
            ):
                positions[number] = -1
        return positions

    def _path(self, number: np.int64) -> str:
        return str(self._images.paths[int(number)])

    def _lose(
        self, read: Sequence[Pair], queries: NDArray[np.int64], lost: NDArray[np.int64], what: str
    ) -> None:
        first = "; ".join(
            f"{read[i].where}: "
            + (f"query '{read[i].query[:60]}'" if queries[i] < 0 else f"image {_named(read[i])}")
            for i in lost[:_NAMED].tolist()
        )
        name = agreeing(
            len(lost), "names an unknown query or image", "name unknown queries or images"
        )
        sentences = f"{len(lost):,} of {len(read):,} {what} {name} ({first})"
        if self._unknown == "error":
            raise QrelsError(
                f"{sentences}; queries, {what} and train.json have to be of the same release of "
                "INQUIRE; leave these lines out with --unknown skip"
            )
        self.left_out.append(sentences)


def other_queries(lost: int, lines: int, what: str) -> str:
    """The sentence on lines about queries whose file is not there, and need not be."""
    return (
        f"{lost:,} of {lines:,} {what} {agreeing(lost, 'is', 'are')} of queries of the split that "
        "is not asked, whose file is not there; left out"
    )


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _INT64_DIGITS


def _named(line: Pair) -> str:
    return " ".join(chunk[:200] for chunk in (line.image, line.path) if chunk)


MAX_ROWS = 1_000_000
"""Most lines of all files."""
MAX_GROUP_BYTES = 1 << 30
"""Largest row group, unpacked: one is in memory at a time."""
_NEEDED = ("query", "relevant", "inat24_image_id")
_ABOUT = {
    "inat24_species_name": "scientificName",
    "rights_holder": "rightsHolder",
    "license": "license",
}
_FILE = "inat24_file_name"
_INT64 = 1 << 63


class Pictures:
    """The pictures, one for each image id.

    Args:
        shards: the files.
        where: int64 [n, 3], file, row group, and row in it, of each picture.
        rows: what else is known of each: columns of the files.
    """

    def __init__(
        self, shards: Sequence[Path], where: NDArray[np.int64], rows: Sequence[dict[str, Any]]
    ) -> None:
        self._shards, self._where, self._rows = shards, where, rows
        self._lock = Lock()
        self._group: tuple[int, int] = (-1, -1)
        self._pictures: Any = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int, /) -> MediaItem:
        shard, group, row = self._where[number].tolist()
        own = self._rows[number]
        metadata = {term: str(own[column]) for column, term in _ABOUT.items() if own.get(column)}
        return MediaItem(
            occurrence_id=str(own["inat24_image_id"]),
            media=str(own.get(_FILE) or own["inat24_image_id"]),
            modality=IMAGE,
            data=self._bytes(shard, group, row),
            metadata=metadata,
        )

    def _bytes(self, shard: int, group: int, row: int) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._lock:
            if self._group != (shard, group):
                self._pictures = None
                try:
                    with pq.ParquetFile(self._shards[shard]) as file:
                        self._pictures = file.read_row_group(group, columns=["image"]).column(0)
                except (pa.ArrowException, OSError) as error:
                    raise _unreadable(self._shards[shard], error) from error
                self._group = (shard, group)
            picture = self._pictures[row].as_py()
        # What has no bytes is an empty file, refused where it is decoded, by its name.
        return bytes((picture or {}).get("bytes") or b"")


def read_pictures(
    data: Path, queries: Queries, unknown: Literal["error", "skip"]
) -> tuple[Items, Pairs, Pairs, list[str]]:
    """What is ranked, what of it is relevant, what is given, and sentences on what is left out.

    Args:
        data: the data folder, with the files in `CANDIDATES`' folder.
        queries: as published.
        unknown: whether lines of queries that there are not end the run.

    Raises:
        LayoutError: a file cannot be used.
        QrelsError: lines of unknown queries, unless these are left out.
    """
    shards = sorted(path_of(data, CANDIDATES).glob("*.parquet"))
    if not shards:
        raise _wrong(path_of(data, CANDIDATES), "no file that ends with .parquet")
    numbers = {own: number for number, own in enumerate(queries.ids)}
    ids = by_text(queries)
    images: dict[int, int] = {}
    where: list[tuple[int, int, int]] = []
    rows: list[dict[str, Any]] = []
    given: list[tuple[int, int]] = []
    relevant: list[bool] = []
    lost: list[str] = []
    asked, not_asked = queries.are_asked, 0
    for number, shard in enumerate(shards):
        for group, row, line in _lines(shard):
            query = ids.get(plain(str(line["query"])))
            if query is None:
                lost.append(f"{shard.name}, row group {group}, row {row}")
                continue
            if not asked[numbers[query]]:
                not_asked += 1
                continue
            image = line["inat24_image_id"]
            if image not in images:
                images[image] = len(images)
                where.append((number, group, row))
                rows.append(line)
            given.append((numbers[query], images[image]))
            relevant.append(bool(line["relevant"]))
            if len(given) > MAX_ROWS:
                raise LayoutError(f"{shard.parent} has more than {MAX_ROWS:,} rows", field="data")
    lines = len(given) + len(lost) + not_asked
    if lost and queries.partial:
        sentences = [other_queries(len(lost), lines, "candidates")]
    else:
        sentences = _unlisted(lost, lines, unknown)
    pairs = np.array(given, np.int64).reshape(-1, 2)
    chosen = np.array(relevant, np.bool_)
    items = Items(
        Numbers(np.fromiter(images, np.int64, len(images))),
        IMAGE,
        Pictures(shards, np.array(where, np.int64).reshape(-1, 3), rows),
        np.full(len(images), -1, np.int32),
        IMAGE,
    )
    return items, _pairs(pairs[chosen]), _pairs(pairs), sentences


def _lines(shard: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Row group, row in it, and all columns but the picture; checked to hold pictures and ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(shard) as file:
            schema = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(shard, error) from error
    picture = schema.field("image").type if "image" in schema.names else pa.null()
    pictures = pa.types.is_struct(picture) and picture.get_field_index("bytes") >= 0
    if not pictures or not set(_NEEDED) <= set(schema.names):
        raise _wrong(shard, "columns " + ", ".join(schema.names[:20]))
    for group, row, line in _parquet_rows(shard, _NEEDED, (_FILE, *_ABOUT)):
        image = line["inat24_image_id"]
        if not isinstance(image, int) or not 0 <= image < _INT64:
            raise _wrong(shard, f"image id '{image}' in row group {group}, row {row}")
        yield group, row, line


def _pairs(both: NDArray[np.int64]) -> Pairs:
    once = np.unique(both, axis=0)
    return Pairs(once[:, 0], once[:, 1])


def _unlisted(lost: Sequence[str], lines: int, unknown: Literal["error", "skip"]) -> list[str]:
    if not lost:
        return []
    sentences = (
        f"{len(lost):,} of {lines:,} candidates {agreeing(len(lost), 'is', 'are')} of unknown "
        f"queries (the first: {lost[0]})"
    )
    if unknown == "error":
        raise QrelsError(
            f"{sentences}; queries and candidates have to be of the same release of INQUIRE; leave "
            "these lines out with --unknown skip"
        )
    return [sentences]


def _wrong(path: Path, got: str) -> LayoutError:
    expected = "columns image (with bytes), " + ", ".join(_NEEDED)
    return wrong_layout(path, expected, got, f"take {CANDIDATES.origin}")


def _unreadable(shard: Path, error: Exception) -> LayoutError:
    return LayoutError(
        f"{shard} cannot be read as Parquet ({error}); take {CANDIDATES.origin}", field="data"
    )


AS_IT_IS = ("{name}",)
"""No template."""
RERANK = f"{TEXT}→{IMAGE}, rerank 100"
"""Name of the second task."""
RERANK_MEASURES = ("AP_minR@100", "nDCG@100", "MRR")
"""All of a query's candidates are looked at."""
ASKED = {"": (TEST,), TEST: (TEST,), VAL: (VAL,), "all": (VAL, TEST)}
"""Which queries a `--database` means."""


class Inquire(Suite):
    """Expert queries in words find photographs of iNaturalist 2024."""

    name = "inquire"
    about = "INQUIRE: 250 expert queries to 5,000,000 photographs (arXiv 2411.02537)"
    layout: Sequence[DataFile] = (
        METADATA,
        IMAGES,
        QUERIES_VAL,
        QUERIES_TEST,
        ANNOTATIONS,
        CANDIDATES,
    )
    needs_data = True
    measures: Sequence[str] = ("AP_minR@50", "nDCG@50", "MRR@50")

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Check the layout and the options before anything is loaded. See `Suite.check`."""
        _checked(data, protocol)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """``text→image`` and ``text→image, rerank 100``, as far as wanted; none for a model
        without both towers. See `Suite.tasks`.
        """
        folder = _checked(data, protocol)
        rerank = protocol.candidates != "full" and found(folder, CANDIDATES) is not None
        if not {TEXT, IMAGE} <= towers:
            return []
        queries = read_queries(folder, ASKED[protocol.database])
        if protocol.candidates == "rerank" and _pictures_alone(folder):
            return [_of_pictures(folder, queries, protocol)]
        images = read_images(path_of(folder, METADATA), protocol.unknown)
        matching = Matching(queries, images, protocol)
        relevant = matching.pairs(read_annotations(folder), "annotations")
        given = matching.pairs(read_candidates(folder, queries), "candidates") if rerank else None
        left_out = (*images.left_out, *matching.left_out)
        wanted, what = np.arange(len(images)), LISTED
        if given is not None and protocol.candidates == "rerank":
            wanted, what = np.unique(given.images), "images that are candidates"
        question = _question(folder, protocol, queries, images, wanted, what, left_out)
        tasks = []
        if protocol.candidates != "rerank":
            lacking = protocol.candidates == "both" and given is None
            tasks.append(_fullrank(question, relevant, lacking))
        if given is not None:
            tasks.append(_rerank(question, relevant, given))
        return tasks


@dataclass(frozen=True)
class _Question:
    """What both tasks have in common, so that no image is embedded twice.

    Attributes:
        protocol: how it is run.
        queries: as published.
        images: how many `train.json` lists.
        kept: int64, places of those that are ranked.
        items: these.
        left_out: sentences on what is not.
    """

    protocol: Protocol
    queries: Queries
    images: int
    kept: NDArray[np.int64]
    items: Items
    left_out: Sequence[str]

    def relevance(self, pairs: Pairs) -> Relevance:
        """The pairs, over what is ranked."""
        return pairs.relevance(len(self.queries), self.kept, self.images)


def _question(
    folder: Path,
    protocol: Protocol,
    queries: Queries,
    images: Images,
    wanted: NDArray[np.int64],
    what: str,
    left_out: Sequence[str],
) -> _Question:
    """The images that are wanted and are there.

    Raises:
        LayoutError: images are not there that must not be missing.
    """
    some = images if len(wanted) == len(images) else images.only(wanted)
    there = check_files(path_of(folder, IMAGES).parent, some.paths, protocol.missing, what)
    if not there.all():
        some = some.only(np.flatnonzero(there))
    # The queries ask for no class: the images' species decide nothing here.
    items = replace(items_of(some, folder), classes=np.full(len(some), -1, np.int32))
    sentences = (*left_out, *skipped_files(there, what))
    return _Question(protocol, queries, len(images), wanted[there], items, sentences)


def _fullrank(question: _Question, relevant: Pairs, lacks_candidates: bool) -> Task:
    left_out = []
    if lacks_candidates:
        left_out.append(
            f"INQUIRE-Rerank was not run, for its candidates are not there ({CANDIDATES.path})"
        )
    relevance = question.relevance(relevant)
    skipped = len(relevant.queries) - len(relevance.items)
    if skipped:
        left_out.append(
            f"{some_of(skipped, len(relevant.queries), 'annotation')} "
            f"{agreeing(skipped, 'is about an image', 'are about images')} that "
            f"{agreeing(skipped, 'was', 'were')} skipped"
        )
    return _task(question, f"{TEXT}→{IMAGE}", relevance, None, left_out)


def _rerank(question: _Question, relevant: Pairs, given: Pairs) -> Task:
    relevance = question.relevance(relevant.among(given, question.images))
    candidates = question.relevance(given)
    left_out = []
    skipped = len(given.queries) - len(candidates.items)
    if skipped:
        left_out.append(
            f"{some_of(skipped, len(given.queries), 'candidate')} "
            f"{agreeing(skipped, 'is an image that was', 'are images that were')} skipped"
        )
    note = "only what is relevant among a query's candidates counts as relevant"
    task = _task(question, RERANK, relevance, candidates, left_out, [note])
    return replace(task, measures=RERANK_MEASURES)


def _checked(data: Path | None, protocol: Protocol) -> Path:
    """The data folder, if what the protocol asks for can be run on it."""
    _refuse(protocol)
    splits = ASKED[protocol.database]
    queries = [
        file for split, file in ((VAL, QUERIES_VAL), (TEST, QUERIES_TEST)) if split in splits
    ]
    given = (METADATA, IMAGES, *queries, ANNOTATIONS, CANDIDATES)
    # Candidates to rank anew bring their pictures with them, unless iNat24 is there.
    anew = protocol.candidates == "rerank" and data is not None and data.is_dir()
    if anew and data is not None:
        candidates = found(data, CANDIDATES)
        if _pictures_alone(data) or (candidates is None and found(data, METADATA) is None):
            given = (*queries, replace(CANDIDATES, optional=False))
    folder = check(data, given, Inquire.name)
    if anew and found(folder, CANDIDATES) is None:
        raise LayoutError(
            f"{folder} lacks the candidates that are to be ranked anew: {described(CANDIDATES)}; "
            "put them there, or choose --candidates full",
            field="data",
        )
    if protocol.database in (VAL, TEST) and in_one_file(folder):
        raise LayoutError(
            f"{folder} has all queries in one file, which does not tell {VAL} from {TEST}; leave "
            "--database out, or put there the two files of a later release",
            field="data",
        )
    return folder


def _pictures_alone(data: Path) -> bool:
    """Whether files with the candidates' pictures are there, and iNat24 is not, or not whole."""
    candidates = found(data, CANDIDATES)
    if candidates is None or not candidates.is_dir():
        return False
    return any(found(data, file) is None for file in (METADATA, IMAGES, ANNOTATIONS))


def _of_pictures(folder: Path, queries: Queries, protocol: Protocol) -> Task:
    items, relevant, given, sentences = read_pictures(folder, queries, protocol.unknown)
    every = np.arange(len(items))
    question = _Question(protocol, queries, len(items), every, items, sentences)
    task = _rerank(question, relevant, given)
    note = "the pictures are those inside INQUIRE-Rerank's files: iNat24 is not there, or not whole"
    return replace(task, notes=(*task.notes, note))


def _task(
    question: _Question,
    name: str,
    relevance: Relevance,
    candidates: Relevance | None,
    left_out: Sequence[str],
    notes: Sequence[str] = (),
) -> Task:
    queries, protocol = question.queries, question.protocol
    asked, of = _asked(queries, protocol)
    splits = np.array(queries.splits)[of]
    groups = {split: splits == split for split in (VAL, TEST) if (splits == split).any()}
    return leave_out_unanswerable(
        Task(
            name=name,
            queries=asked,
            items=question.items,
            relevance=relevance.only(of),
            classes=Classes(()),
            candidates=candidates.only(of) if candidates else None,
            groups=groups if len(groups) > 1 else {},
            left_out=(*question.left_out, *left_out),
            notes=(_splits_note(queries), prompts_note(protocol, AS_IT_IS, "query"), *notes),
        )
    )


def _asked(queries: Queries, protocol: Protocol) -> tuple[QuerySet, NDArray[np.int64]]:
    """Those that are asked in the protocol's prompts, and which of the published ones each is."""
    positions = np.flatnonzero(queries.are_asked)
    named = text_queries(Classes(queries.texts), positions, protocol, AS_IT_IS, side=TEXT)
    of = named.classes.astype(np.int64)
    each = len(named) // len(positions)
    ids = [queries.ids[i] + (f"#{n % each}" if each > 1 else "") for n, i in enumerate(of.tolist())]
    none = np.full(len(of), -1, np.int32)
    return QuerySet(ids, TEXT, named.contents, none, TEXT), of


def _splits_note(queries: Queries) -> str:
    if not any(queries.splits):
        return (
            "All queries are asked: their file does not tell the splits. Published figures are of "
            f"the {TEST} queries"
        )
    if len(queries.wanted) > 1:
        return f"Queries of {VAL} and {TEST} are asked; published figures are of {TEST} alone"
    (split,) = queries.wanted
    usual = "as published figures are by default" if split == TEST else "which is for tuning"
    return f"The queries of the {split} split are asked, {usual}"


def _refuse(protocol: Protocol) -> None:
    """INQUIRE's queries ask for no classes, and are of two splits.

    Raises:
        InvalidInputError: the protocol asks for something else.
    """
    if protocol.prompts:
        check_templates(protocol.prompts)
    if protocol.database not in ASKED:
        raise InvalidInputError(
            f"INQUIRE has no queries '{protocol.database[:60]}'; give --database "
            f"{', '.join(name for name in ASKED if name)}, which says what queries are asked (the "
            "images have one split)",
            field="database",
        )
    for option, value, usual in (
        ("level", protocol.level, "species"),
        ("novel", protocol.novel, "none"),
    ):
        if value != usual:
            raise InvalidInputError(
                f"INQUIRE's queries ask for no classes, so there is no --{option} {value}; leave "
                f"it at {usual}, or take the suite inat24",
                field=option,
            )
