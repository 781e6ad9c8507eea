"""INQUIRE: 250 expert queries in words, with all relevant images of iNat24.

Vendrow et al., "INQUIRE: A Natural World Text-to-Image Retrieval Benchmark", NeurIPS 2024 (arXiv
2411.02537). Two tasks: Fullrank ranks all images; Rerank ranks the 100 candidates of each query
that come with the data, and counts as relevant only what is relevant among these. There is no
prompt template: queries are embedded verbatim. AP is divided by min(R, k), over the first 50 of
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
are missing, the pictures inside the Parquet files (1.9 GB) are ranked, read a row group at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import (
    DataFile,
    Limit,
    Pair,
    Suite,
    check_files,
    check_layout,
    described,
    found,
    path_of,
    skipped_files,
)
from bittern.benchmarks.eval.suites.inat24 import (
    IMAGES,
    LISTED,
    METADATA,
    photographs_of,
    read_images,
)
from bittern.benchmarks.eval.suites.readers import (
    MAX_PARQUET_ROWS,
    SuiteFile,
    Texts,
    positions_of,
)
from bittern.benchmarks.eval.tasks import IMAGE, TEXT, Classes, Items, Protocol, Relevance, Task
from bittern.benchmarks.eval.tasks.prompts import VERBATIM, free_queries, prompts_note
from bittern.benchmarks.eval.tasks.splits import leave_out_unanswerable
from bittern.errors import LayoutError, QrelsError
from bittern.text import agreeing, some_of
from bittern.types import MediaItem

_VAL, _TEST = "val", "test"
_RELEASE = "the data of INQUIRE's repository"


def _in_repository(*names: str) -> str:
    """Alternatives of a path: in the data folder, or below ``inquire/``."""
    return "|".join(f"{folder}{name}" for name in names for folder in ("", "inquire/"))


_ONE_FILE = "inquire_queries.csv"
_QUERIES = {
    split: DataFile(
        _in_repository(f"inquire_queries_{split}.csv", _ONE_FILE),
        f"INQUIRE's {what} queries",
        f'"inquire_queries_{split}.csv" in {_RELEASE}',
        size,
    )
    for split, what, size in ((_VAL, "50 validation", "4 kB"), (_TEST, "200 test", "17 kB"))
}
_ANNOTATIONS = DataFile(
    _in_repository("inquire_annotations.csv"),
    "about 33,000 pairs of a query and an image that is relevant to it",
    f'"inquire_annotations.csv" in {_RELEASE}',
    "4 MB",
)
_CANDIDATES = DataFile(
    _in_repository("inquire_rerank.csv", "rerank/"),
    "the 100 candidates of each query; only the rerank task needs them",
    'the INQUIRE-Rerank data set, its files "validation-*.parquet" and "test-*.parquet" '
    'in a folder "rerank"',
    "1.9 GB, pictures included",
    optional=True,
)
_WANTED = {"": (_TEST,), _TEST: (_TEST,), _VAL: (_VAL,), "all": (_VAL, _TEST)}
"""Splits of the queries that a `--database` means."""
_RERANK_MEASURES = ("AP_minR@100", "nDCG@100", "MRR")
"""All candidates of a query are ranked."""
_NEEDED = ("query", "relevant", "inat24_image_id")
_WITH_PICTURES = "columns image (with bytes), " + ", ".join(_NEEDED)
_ABOUT = {
    "inat24_species_name": "scientificName",
    "rights_holder": "rightsHolder",
    "license": "license",
}
_FILE_NAME = "inat24_file_name"
_NO_CLASSES = "its queries name no classes; the suite inat24 does"
_NAMED = 3
MAX_QUERIES = 100_000
_DIGITS = 18
"""Digits that fit 64 bits."""


class Inquire(Suite):
    """Expert queries in words find photographs of iNaturalist 2024."""

    name = "inquire"
    about = "INQUIRE: 250 expert queries to 5,000,000 photographs (arXiv 2411.02537)"
    layout = (METADATA, IMAGES, *_QUERIES.values(), _ANNOTATIONS, _CANDIDATES)
    limits = (
        Limit("database", "it names the queries (the images have one split)", tuple(_WANTED)[1:]),
        Limit("level", _NO_CLASSES),
        Limit("novel", _NO_CLASSES),
    )
    measures = ("AP_minR@50", "nDCG@50", "MRR@50")
    pairs = ((TEXT, IMAGE),)

    def folder(self, data: Path | None, protocol: Protocol) -> Path:
        """The data folder, with every file that these queries and candidates need."""
        queries = [_QUERIES[split] for split in _WANTED[protocol.database]]
        needed: Sequence[DataFile] = (METADATA, IMAGES, *queries, _ANNOTATIONS, _CANDIDATES)
        rerank = protocol.candidates == "rerank"
        # Candidates bring their pictures along, unless iNat24 is there.
        if rerank and data is not None and data.is_dir():
            without = found(data, _CANDIDATES) is None and found(data, METADATA) is None
            if without or _only_pictures(data):
                needed = (*queries, replace(_CANDIDATES, optional=False))
        folder = check_layout(data, needed, self.name)
        if rerank and found(folder, _CANDIDATES) is None:
            raise LayoutError(
                f"{folder} lacks the candidates to rerank: {described(_CANDIDATES)}; put them "
                "there, or choose --candidates full",
                field="data",
            )
        if protocol.database in (_VAL, _TEST) and _one_query_file(folder):
            raise LayoutError(
                f"{folder} has all queries in one file, which does not tell {_VAL} from {_TEST}; "
                "leave --database out, or put there the two files of a later release",
                field="data",
            )
        return folder

    def make(self, root: Path, protocol: Protocol, pairs: Sequence[Pair]) -> list[Task]:
        """``text→image`` and ``text→image, rerank 100``, as far as wanted."""
        queries = read_queries(root, _WANTED[protocol.database])
        if protocol.candidates == "rerank" and _only_pictures(root):
            ranked = _pictures(root, queries, protocol)
        else:
            ranked = _photographs(root, queries, protocol)
        tasks = []
        if protocol.candidates != "rerank":
            tasks.append(_full(ranked, protocol))
        if ranked.candidates is not None:
            tasks.append(_rerank(ranked, ranked.candidates, protocol))
        return tasks


def _one_query_file(data: Path) -> bool:
    """Whether one file holds the queries of both splits."""
    path = found(data, _QUERIES[_VAL])
    return path is not None and path == found(data, _QUERIES[_TEST])


def _only_pictures(data: Path) -> bool:
    """Whether the candidates have pictures of their own, and iNat24 is missing or incomplete."""
    candidates = found(data, _CANDIDATES)
    if candidates is None or not candidates.is_dir():
        return False
    return any(found(data, file) is None for file in (METADATA, IMAGES, _ANNOTATIONS))


# Tasks


@dataclass(frozen=True)
class _Ranked:
    """What both tasks share, so that no image is embedded twice.

    Attributes:
        queries: as published.
        items: the ranked images.
        number: int64, the item of each image that lines may name, -1 for none.
        relevant: images that are relevant to the used queries.
        candidates: images that are candidates of the used queries, if they are known.
        left_out: sentences on what was skipped.
        notes: more notes on the rerank task.
    """

    queries: Queries
    items: Items
    number: NDArray[np.int64]
    relevant: Relevance
    candidates: Relevance | None
    left_out: Sequence[str]
    notes: Sequence[str] = ()


def _photographs(root: Path, queries: Queries, protocol: Protocol) -> _Ranked:
    """Images of iNat24: all of them, or only the candidates."""
    coco = read_images(root, protocol)
    matching = Matching(queries, protocol, coco.ids, coco.files)
    relevant = matching.images(_annotations(root), "annotations")
    candidates = None
    if protocol.candidates != "full" and found(root, _CANDIDATES) is not None:
        candidates = matching.images(_candidates(root, queries), "candidates")
    wanted, what = np.arange(len(coco.ids)), LISTED
    if candidates is not None and protocol.candidates == "rerank":
        wanted, what = np.unique(candidates.items), "images that are candidates"
    media = photographs_of(coco, root)
    media = media if len(wanted) == len(media) else media.only(wanted)
    exist = check_files(media.root, media.files, protocol.missing, what)
    media = media if exist.all() else media.only(np.flatnonzero(exist))
    # The queries name no class: the species of the images are not used.
    items = replace(media.items, classes=np.full(len(media), -1, np.int32))
    left_out = (*coco.left_out, *matching.left_out, *skipped_files(exist, what))
    number = _numbered(wanted[exist], len(coco.ids))
    return _Ranked(queries, items, number, relevant, candidates, left_out)


def _numbered(kept: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    number = np.full(total, -1, np.int64)
    number[kept] = np.arange(len(kept))
    return number


def _full(ranked: _Ranked, protocol: Protocol) -> Task:
    left_out = []
    if ranked.candidates is None and protocol.candidates == "both":
        left_out.append(
            f"INQUIRE-Rerank was not run, for it has no candidates here ({_CANDIDATES.path})"
        )
    relevance = ranked.relevant.renumbered(ranked.number)
    every = len(ranked.relevant.items)
    if skipped := every - len(relevance.items):
        left_out.append(
            f"{some_of(skipped, every, 'annotation')} "
            f"{agreeing(skipped, 'is about an image', 'are about images')} that "
            f"{agreeing(skipped, 'was', 'were')} skipped"
        )
    return _task(ranked, protocol, f"{TEXT}→{IMAGE}", relevance, left_out=left_out)


def _rerank(ranked: _Ranked, candidates: Relevance, protocol: Protocol) -> Task:
    given = candidates.renumbered(ranked.number)
    every, left_out = len(candidates.items), []
    if skipped := every - len(given.items):
        left_out.append(
            f"{some_of(skipped, every, 'candidate')} "
            f"{agreeing(skipped, 'is an image that was', 'are images that were')} skipped"
        )
    relevance = ranked.relevant.renumbered(ranked.number)
    total = len(ranked.items)
    among = np.isin(
        relevance.queries * total + relevance.items, given.queries * total + given.items
    )
    relevance = Relevance.from_pairs(
        relevance.queries[among], relevance.items[among], len(relevance)
    )
    name = f"{TEXT}→{IMAGE}, rerank 100"
    task = _task(ranked, protocol, name, relevance, given, left_out)
    note = "only what is relevant among a query's candidates counts as relevant"
    notes = (*task.notes, note, *ranked.notes)
    return replace(task, measures=_RERANK_MEASURES, notes=notes)


def _task(
    ranked: _Ranked,
    protocol: Protocol,
    name: str,
    relevance: Relevance,
    candidates: Relevance | None = None,
    left_out: Sequence[str] = (),
) -> Task:
    """A task of the used queries; `relevance` and `candidates` are of these, in their order."""
    queries, used = ranked.queries, ranked.queries.used.tolist()
    ids, texts, splits = (
        [column[i] for i in used] for column in (queries.ids, queries.texts, queries.splits)
    )
    query_set, chosen = free_queries(ids, texts, TEXT, protocol)
    of_query = np.array(splits, np.str_)[chosen]
    groups = {split: of_query == split for split in (_VAL, _TEST) if (of_query == split).any()}
    return leave_out_unanswerable(
        Task(
            name=name,
            queries=query_set,
            items=ranked.items,
            relevance=relevance.only(chosen),
            classes=Classes(()),
            candidates=candidates.only(chosen) if candidates else None,
            groups=groups if len(groups) > 1 else {},
            left_out=(*ranked.left_out, *left_out),
            notes=(_splits_note(queries), prompts_note(protocol, VERBATIM, "query")),
        )
    )


def _splits_note(queries: Queries) -> str:
    if not any(queries.splits):
        return (
            "All queries are used: their file does not tell the splits. Published figures are of "
            f"the {_TEST} queries"
        )
    if len(queries.wanted) > 1:
        return f"Queries of {_VAL} and {_TEST} are used; published figures are of {_TEST} alone"
    (split,) = queries.wanted
    usual = "as published figures are by default" if split == _TEST else "which is for tuning"
    return f"The queries of the {split} split are used, {usual}"


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
    read = {split: file for split, file in _QUERIES.items() if split in wanted or found(data, file)}
    files = {path_of(data, file): split for split, file in read.items()}
    texts: dict[str, str] = {}
    splits: list[str] = []
    for path, split in files.items():
        table, before = SuiteFile(path, _QUERIES[split].origin), len(texts)
        for number, row in table.rows(("query_id", "query_text")):
            own = row["query_id"]
            if own in texts:
                raise table.error(f"{path}, line {number}: query_id {own[:60]} occurs twice")
            if len(texts) == MAX_QUERIES:
                raise table.error(f"{path}: more than {MAX_QUERIES:,} queries")
            texts[own] = row["query_text"]
            splits.append("" if _one_query_file(data) else split)
        if len(texts) == before:
            raise table.error(f"{path} holds no query")
    return Queries(list(texts), list(texts.values()), splits, wanted, len(read) < len(_QUERIES))


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


def _annotations(data: Path) -> Iterator[Line]:
    """Which images are relevant to which queries."""
    table = SuiteFile(path_of(data, _ANNOTATIONS), _ANNOTATIONS.origin)
    for number, row in table.rows(("query_id", "image_id", "image_path")):
        where = f"{table.path.name}, line {number}"
        yield Line(where, row["query_id"], row["image_id"], row["image_path"])


def _candidates(data: Path, queries: Queries, *, pictures: bool = False) -> Iterator[Line]:
    """Which images are candidates of which queries.

    Args:
        data: the data folder.
        queries: those that lines name by id or by words.
        pictures: whether the files must have pictures and relevance.
    """
    path = path_of(data, _CANDIDATES)
    ids = queries.by_text()
    if path.is_file():
        yield from _listed_candidates(SuiteFile(path, _CANDIDATES.origin), ids)
        return
    for number, shard in enumerate(_shards(path)):
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


def _shards(folder: Path) -> list[SuiteFile]:
    shards = [SuiteFile(path, _CANDIDATES.origin) for path in sorted(folder.glob("*.parquet"))]
    if not shards:
        expected = "files 'validation-*.parquet' and 'test-*.parquet'"
        raise SuiteFile(folder, _CANDIDATES.origin).wrong(expected, "none that ends with .parquet")
    return shards


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


# Pictures inside the candidates' files


def _pictures(root: Path, queries: Queries, protocol: Protocol) -> _Ranked:
    """The pictures inside the candidates' files, and what these say about relevance."""
    folder = path_of(root, _CANDIDATES)
    lines: list[Line] = []
    for line in _candidates(root, queries, pictures=True):
        if len(lines) == MAX_PARQUET_ROWS:
            raise LayoutError(f"{folder} has more than {MAX_PARQUET_ROWS:,} rows", field="data")
        lines.append(line)
    used = {queries.ids[i] for i in queries.used.tolist()}
    first: dict[int, Line] = {}
    # Images of the used queries come first, in the order in which these name them.
    for line in sorted(lines, key=lambda line: line.query not in used):
        first.setdefault(int(line.image), line)
    ids = np.array(list(first), np.int64)
    matching = Matching(queries, protocol, ids)
    candidates = matching.images(lines, "candidates")
    known = Matching(queries, replace(protocol, unknown="skip"), ids)
    relevant = known.images([line for line in lines if line.row["relevant"]], "candidates")
    kept = np.unique(candidates.items)
    items = Items(
        Texts(pa.array(ids[kept])),
        IMAGE,
        Pictures(_shards(folder), [first[own] for own in ids[kept].tolist()]),
        np.full(len(kept), -1, np.int32),
        IMAGE,
    )
    note = "the pictures are those inside INQUIRE-Rerank's files: iNat24 is missing or incomplete"
    number = _numbered(kept, len(ids))
    return _Ranked(queries, items, number, relevant, candidates, matching.left_out, [note])


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
