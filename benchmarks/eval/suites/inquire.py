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
are missing, the pictures inside the Parquet files (1.9 GB) are ranked; they are read when they are
needed, a row group at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bittern.benchmarks.eval.suites.base import (
    DataFile,
    Limit,
    Suite,
    check_files,
    check_layout,
    described,
    found,
    path_of,
    skipped_files,
    wrong_layout,
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
    Numbers,
    parquet_columns,
    parquet_rows,
    positions_of,
    table_rows,
    unreadable_parquet,
)
from bittern.benchmarks.eval.tasks import (
    IMAGE,
    TEXT,
    Classes,
    Items,
    Protocol,
    Relevance,
    Task,
)
from bittern.benchmarks.eval.tasks.prompts import VERBATIM, free_queries, prompts_note
from bittern.benchmarks.eval.tasks.splits import leave_out_unanswerable
from bittern.errors import LayoutError, QrelsError
from bittern.text import agreeing, some_of
from bittern.types import MediaItem

_RELEASE = "the data of INQUIRE's repository"
_QUERIES_VAL = DataFile(
    "inquire_queries_val.csv|inquire/inquire_queries_val.csv"
    "|inquire_queries.csv|inquire/inquire_queries.csv",
    "INQUIRE's 50 validation queries",
    f'"inquire_queries_val.csv" in {_RELEASE}',
    "4 kB",
)
_QUERIES_TEST = DataFile(
    "inquire_queries_test.csv|inquire/inquire_queries_test.csv"
    "|inquire_queries.csv|inquire/inquire_queries.csv",
    "INQUIRE's 200 test queries",
    f'"inquire_queries_test.csv" in {_RELEASE}',
    "17 kB",
)
_ANNOTATIONS = DataFile(
    "inquire_annotations.csv|inquire/inquire_annotations.csv",
    "about 33,000 pairs of a query and an image that is relevant to it",
    f'"inquire_annotations.csv" in {_RELEASE}',
    "4 MB",
)
_CANDIDATES = DataFile(
    "inquire_rerank.csv|inquire/inquire_rerank.csv|rerank/|inquire/rerank/",
    "the 100 candidates of each query; only the rerank task needs them",
    'the INQUIRE-Rerank data set, its files "validation-*.parquet" and "test-*.parquet" '
    'in a folder "rerank"',
    "1.9 GB, pictures included",
    optional=True,
)
_VAL, _TEST = "val", "test"
_QUERIES = {_VAL: _QUERIES_VAL, _TEST: _QUERIES_TEST}
_WANTED = {"": (_TEST,), _TEST: (_TEST,), _VAL: (_VAL,), "all": (_VAL, _TEST)}
"""Splits of the queries that a `--database` means."""
_RERANK_MEASURES = ("AP_minR@100", "nDCG@100", "MRR")
"""All of a query's candidates are ranked."""
_NEEDED = ("query", "relevant", "inat24_image_id")
_ABOUT = {
    "inat24_species_name": "scientificName",
    "rights_holder": "rightsHolder",
    "license": "license",
}
_FILE_NAME = "inat24_file_name"
_NO_CLASSES = "its queries name no classes; the suite inat24 does"
_NAMED = 3
MAX_QUERIES = 100_000
_INT64 = 1 << 63
_INT64_DIGITS = 18


class Inquire(Suite):
    """Expert queries in words find photographs of iNaturalist 2024."""

    name = "inquire"
    about = "INQUIRE: 250 expert queries to 5,000,000 photographs (arXiv 2411.02537)"
    layout = (METADATA, IMAGES, _QUERIES_VAL, _QUERIES_TEST, _ANNOTATIONS, _CANDIDATES)
    limits = (
        Limit("database", "it names the queries (the images have one split)", tuple(_WANTED)[1:]),
        Limit("level", _NO_CLASSES),
        Limit("novel", _NO_CLASSES),
    )
    measures = ("AP_minR@50", "nDCG@50", "MRR@50")

    def folder(self, data: Path | None, protocol: Protocol) -> Path:
        """The data folder, with every file that these queries and candidates need."""
        splits = _WANTED[protocol.database]
        queries = [file for split, file in _QUERIES.items() if split in splits]
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

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """``text→image`` and ``text→image, rerank 100``, as far as wanted; none for a model
        without both towers. See `Suite.tasks`.
        """
        self.check_options(protocol)
        folder = self.folder(data, protocol)
        if not {TEXT, IMAGE} <= towers:
            return []
        queries = read_queries(folder, _WANTED[protocol.database])
        if protocol.candidates == "rerank" and _only_pictures(folder):
            return [_rerank_pictures(folder, queries, protocol)]
        coco = read_images(folder, protocol)
        matching = Matching(queries, protocol, coco.ids, coco.files)
        relevant = matching.pairs(_annotations(folder), "annotations")
        given = None
        if protocol.candidates != "full" and found(folder, _CANDIDATES) is not None:
            given = matching.pairs(_candidates(folder, queries), "candidates")
        wanted, what = np.arange(len(coco.ids)), LISTED
        if given is not None and protocol.candidates == "rerank":
            wanted, what = np.unique(given.images), "images that are candidates"
        media = photographs_of(coco, folder)
        files = media.files if len(wanted) == len(media) else media.only(wanted).files
        exist = check_files(media.root, files, protocol.missing, what)
        kept = wanted[exist]
        media = media if len(kept) == len(media) else media.only(kept)
        # The queries name no class: the images' species decide nothing here.
        items = replace(media.items, classes=np.full(len(kept), -1, np.int32))
        sentences = (*coco.left_out, *matching.left_out, *skipped_files(exist, what))
        ranked = _Ranked(protocol, queries, items, _numbered(kept, len(coco.ids)), sentences)
        tasks = []
        if protocol.candidates != "rerank":
            tasks.append(_full(ranked, relevant, given is None and protocol.candidates == "both"))
        if given is not None:
            tasks.append(_rerank(ranked, relevant.among(given, len(coco.ids)), given))
        return tasks


def _one_query_file(data: Path) -> bool:
    """Whether one file holds the queries of both splits."""
    path = found(data, _QUERIES_VAL)
    return path is not None and path == found(data, _QUERIES_TEST)


def _only_pictures(data: Path) -> bool:
    """Whether files with the candidates' pictures exist, and iNat24 does not, or not whole."""
    candidates = found(data, _CANDIDATES)
    if candidates is None or not candidates.is_dir():
        return False
    return any(found(data, file) is None for file in (METADATA, IMAGES, _ANNOTATIONS))


# Tasks


@dataclass(frozen=True)
class _Ranked:
    """What both tasks share, so that no image is embedded twice.

    Attributes:
        protocol: how it is run.
        queries: as published.
        items: the images that are ranked.
        number: int64, position among the items of each image that lines may name, -1 for none.
        left_out: sentences on what was skipped.
    """

    protocol: Protocol
    queries: Queries
    items: Items
    number: NDArray[np.int64]
    left_out: Sequence[str]

    def relevance(self, pairs: Pairs) -> Relevance:
        """The pairs, over what is ranked."""
        items = self.number[pairs.images]
        of, items = pairs.queries[items >= 0].astype(np.int32), items[items >= 0]
        every = np.arange(len(self.queries), dtype=np.int32)
        rows = Relevance.by_class(every, of)
        return replace(rows, items=items[rows.items])


def _numbered(kept: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    number = np.full(total, -1, np.int64)
    number[kept] = np.arange(len(kept))
    return number


def _full(ranked: _Ranked, relevant: Pairs, lacks_candidates: bool) -> Task:
    left_out = []
    if lacks_candidates:
        left_out.append(
            f"INQUIRE-Rerank was not run, for its candidates are not there ({_CANDIDATES.path})"
        )
    relevance = ranked.relevance(relevant)
    skipped = len(relevant.queries) - len(relevance.items)
    if skipped:
        left_out.append(
            f"{some_of(skipped, len(relevant.queries), 'annotation')} "
            f"{agreeing(skipped, 'is about an image', 'are about images')} that "
            f"{agreeing(skipped, 'was', 'were')} skipped"
        )
    return _task(ranked, f"{TEXT}→{IMAGE}", relevance, left_out=left_out)


def _rerank(ranked: _Ranked, relevant: Pairs, given: Pairs, notes: Sequence[str] = ()) -> Task:
    candidates = ranked.relevance(given)
    left_out = []
    skipped = len(given.queries) - len(candidates.items)
    if skipped:
        left_out.append(
            f"{some_of(skipped, len(given.queries), 'candidate')} "
            f"{agreeing(skipped, 'is an image that was', 'are images that were')} skipped"
        )
    note = "only what is relevant among a query's candidates counts as relevant"
    name = f"{TEXT}→{IMAGE}, rerank 100"
    task = _task(ranked, name, ranked.relevance(relevant), candidates, left_out)
    return replace(task, measures=_RERANK_MEASURES, notes=(*task.notes, note, *notes))


def _task(
    ranked: _Ranked,
    name: str,
    relevance: Relevance,
    candidates: Relevance | None = None,
    left_out: Sequence[str] = (),
) -> Task:
    queries, protocol = ranked.queries, ranked.protocol
    wanted = np.flatnonzero(queries.are_wanted).tolist()
    ids, texts = ([column[i] for i in wanted] for column in (queries.ids, queries.texts))
    query_set, chosen = free_queries(ids, texts, TEXT, protocol)
    of = np.array(wanted, np.int64)[chosen]
    splits = np.array(queries.splits)[of]
    groups = {split: splits == split for split in (_VAL, _TEST) if (splits == split).any()}
    return leave_out_unanswerable(
        Task(
            name=name,
            queries=query_set,
            items=ranked.items,
            relevance=relevance.only(of),
            classes=Classes(()),
            candidates=candidates.only(of) if candidates else None,
            groups=groups if len(groups) > 1 else {},
            left_out=(*ranked.left_out, *left_out),
            notes=(_splits_note(queries), prompts_note(protocol, VERBATIM, "query")),
        )
    )


def _splits_note(queries: Queries) -> str:
    if not any(queries.splits):
        return (
            "All queries are asked: their file does not tell the splits. Published figures are of "
            f"the {_TEST} queries"
        )
    if len(queries.wanted) > 1:
        return f"Queries of {_VAL} and {_TEST} are asked; published figures are of {_TEST} alone"
    (split,) = queries.wanted
    usual = "as published figures are by default" if split == _TEST else "which is for tuning"
    return f"The queries of the {split} split are asked, {usual}"


# Queries, annotations, candidates


@dataclass(frozen=True)
class Queries:
    """The queries, in the order of the files, validation first.

    Attributes:
        ids: as published; unique.
        texts: in words.
        splits: ``val`` or ``test``; empty where one file holds both.
        wanted: the splits that are used.
        partial: whether the file of an unused split does not exist: other files may then name
            queries that no file holds.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    splits: Sequence[str]
    wanted: Collection[str]
    partial: bool

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def are_wanted(self) -> NDArray[np.bool_]:
        """Whether each is of a split that is used, or of an unknown one: bool [n]."""
        return np.array([not split or split in self.wanted for split in self.splits], np.bool_)

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
                    "candidates that are told by words cannot be matched; leave --candidates at "
                    "full"
                )
        return ids


def read_queries(data: Path, wanted: Collection[str]) -> Queries:
    """The queries: those of the wanted splits, and of the other one if its file exists.

    Raises:
        LayoutError: a file cannot be used, or an id is not unique.
    """
    used = {split: file for split, file in _QUERIES.items() if split in wanted or found(data, file)}
    files = {path_of(data, file): split for split, file in used.items()}
    ids: dict[str, None] = {}
    texts, splits = [], []
    for path, split in files.items():
        origin = _QUERIES[split].origin
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
            splits.append("" if _one_query_file(data) else split)
        if len(ids) == before:
            raise LayoutError(f"{path} holds no query; take {origin}", field="data")
    return Queries(list(ids), texts, splits, wanted, partial=len(used) < len(_QUERIES))


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


def _annotations(data: Path) -> Iterator[Line]:
    """Which images are relevant to which queries."""
    path = path_of(data, _ANNOTATIONS)
    columns = ("query_id", "image_id", "image_path")
    for number, row in table_rows(path, columns, _ANNOTATIONS.origin):
        where = f"{path.name}, line {number}"
        yield Line(where, row["query_id"], row["image_id"], row["image_path"])


def _candidates(data: Path, queries: Queries, *, pictures: bool = False) -> Iterator[Line]:
    """Which images are candidates of which queries.

    Args:
        data: the data folder.
        queries: those that lines name by id or by words.
        pictures: whether the files must have pictures and relevance.
    """
    path, origin = path_of(data, _CANDIDATES), _CANDIDATES.origin
    ids = queries.by_text()
    if path.is_file():
        yield from _listed_candidates(path, ids)
        return
    for number, shard in enumerate(_shards(path)):
        if pictures:
            _check_pictures(shard)
        needed = _NEEDED if pictures else ("query", "inat24_image_id")
        also = (_FILE_NAME, *_ABOUT) if pictures else ()
        for count, (group, row, cells) in enumerate(parquet_rows(shard, needed, origin, also), 1):
            words = " ".join(str(cells["query"] or "").split())
            image = cells["inat24_image_id"]
            if pictures and not (isinstance(image, int) and 0 <= image < _INT64):
                raise _no_pictures(shard, f"image id '{image}' in row group {group}, row {row}")
            yield Line(
                where=f"{shard.name}, row {count}",
                query=ids.get(words, words),
                image=str(image),
                row=cells,
                at=(number, group, row),
            )


def _listed_candidates(path: Path, ids: Mapping[str, str]) -> Iterator[Line]:
    expected = "columns query_id or query, and image_id or file_name"
    for number, row in table_rows(path, (), _CANDIDATES.origin):
        words = " ".join(row.get("query", "").split())
        query = row.get("query_id") or ids.get(words, words)
        image, name = row.get("image_id", ""), row.get("file_name", "")
        if not query or not (image or name):
            got = ", ".join(f"'{column[:40]}'" for column in list(row)[:8]) or "nothing"
            got = f"in line {number} cells of {got}"
            raise wrong_layout(path, expected, got, f"take {_CANDIDATES.origin}")
        yield Line(f"{path.name}, line {number}", query, image, name)


def _shards(path: Path) -> list[Path]:
    shards = sorted(path.glob("*.parquet"))
    if not shards:
        expected = "files 'validation-*.parquet' and 'test-*.parquet'"
        remedy = f"take {_CANDIDATES.origin}"
        raise wrong_layout(path, expected, "none that ends with .parquet", remedy)
    return shards


@dataclass(frozen=True)
class Pairs:
    """Queries and images that belong together: int64 positions, unique, in order."""

    queries: NDArray[np.int64]
    images: NDArray[np.int64]

    def only(self, kept: NDArray[np.bool_]) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.queries[kept], self.images[kept])

    def among(self, others: Pairs, images: int) -> Pairs:
        """Those that are among others as well."""
        own = self.queries * images + self.images
        return self.only(np.isin(own, others.queries * images + others.images))


class Matching:
    """Looks up the queries and images that lines name, and counts what is unknown.

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
        self._numbers = {own: number for number, own in enumerate(queries.ids)}
        self.left_out: list[str] = []

    def pairs(self, lines: Iterable[Line], what: str) -> Pairs:
        """The pairs of a file for queries that are wanted, each once.

        Raises:
            QrelsError: lines name unknown queries or images, unless these are skipped.
        """
        read = list(lines)
        if self._queries.partial:
            known = [line for line in read if line.query in self._numbers]
            if len(known) < len(read):
                lost = len(read) - len(known)
                self.left_out.append(
                    f"{lost:,} of {len(read):,} {what} {agreeing(lost, 'is', 'are')} of queries of "
                    "the split that is not asked, whose file is not there; left out"
                )
            read = known
        queries, images = self.find(read)
        self._check(read, queries, images, what)
        kept = (queries >= 0) & (images >= 0)
        both = np.unique(np.stack([queries[kept], images[kept]], 1), axis=0)
        again = int(kept.sum()) - len(both)
        if again:
            stand = agreeing(again, "stands there twice and counts", "stand there twice and count")
            self.left_out.append(f"{again:,} of {len(read):,} {what} {stand} once")
        return Pairs(both[:, 0], both[:, 1]).only(self._queries.are_wanted[both[:, 0]])

    def find(self, lines: Sequence[Line]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the lines' queries and images, -1 for unknown ones."""
        queries = np.array([self._numbers.get(line.query, -1) for line in lines], np.int64)
        paths = {line.path: -1 for line in lines if not line.image}
        if paths:
            for number, path in enumerate(self._paths):
                if path in paths:
                    paths[path] = number
        ids = [int(line.image) if _is_id(line.image) else -1 for line in lines]
        images = positions_of(np.array(ids, np.int64), self._ids)
        for number, line in enumerate(lines):
            image = int(images[number])
            if not line.image:
                images[number] = paths[line.path]
            elif not _is_id(line.image) or (
                line.path and image >= 0 and self._paths[image] != line.path
            ):
                images[number] = -1
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
        first = "; ".join(
            f"{lines[i].where}: "
            + (
                f"query '{lines[i].query[:60]}'"
                if queries[i] < 0
                else " ".join(["image", *(w[:200] for w in (lines[i].image, lines[i].path) if w)])
            )
            for i in lost[:_NAMED]
        )
        name = agreeing(
            len(lost), "names an unknown query or image", "name unknown queries or images"
        )
        sentence = f"{len(lost):,} of {len(lines):,} {what} {name} ({first})"
        if self._protocol.unknown == "error":
            raise QrelsError(
                f"{sentence}; queries, {what} and images have to be of the same release of "
                "INQUIRE; skip these lines with --unknown skip"
            )
        self.left_out.append(sentence)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _INT64_DIGITS


# Pictures inside the candidates' files


def _rerank_pictures(folder: Path, queries: Queries, protocol: Protocol) -> Task:
    """The rerank task over the pictures inside the candidates' files."""
    path = path_of(folder, _CANDIDATES)
    lines: list[Line] = []
    for line in _candidates(folder, queries, pictures=True):
        if len(lines) == MAX_PARQUET_ROWS:
            raise LayoutError(f"{path} has more than {MAX_PARQUET_ROWS:,} rows", field="data")
        lines.append(line)
    wanted = {own for own, used in zip(queries.ids, queries.are_wanted, strict=True) if used}
    # Images of the wanted queries come first, in the order in which these name them.
    ordered = sorted(lines, key=lambda line: line.query not in wanted)
    first = {int(line.image): line for line in reversed(ordered)}
    ids = np.array(list(dict.fromkeys(int(line.image) for line in ordered)), np.int64)
    matching = Matching(queries, protocol, ids)
    given = matching.pairs(lines, "candidates")
    of, images = matching.find([line for line in lines if line.row["relevant"]])
    relevant = Pairs(*np.unique(np.stack([of, images], 1)[of >= 0], axis=0).T)
    kept = np.unique(given.images)
    chosen = [first[own] for own in ids[kept].tolist()]
    items = Items(
        Numbers(ids[kept]),
        IMAGE,
        Pictures(_shards(path), chosen),
        np.full(len(kept), -1, np.int32),
        IMAGE,
    )
    ranked = _Ranked(protocol, queries, items, _numbered(kept, len(ids)), matching.left_out)
    note = "the pictures are those inside INQUIRE-Rerank's files: iNat24 is not there, or not whole"
    return _rerank(ranked, relevant.among(given, len(ids)), given, [note])


class Pictures:
    """The pictures, one for each image id.

    Args:
        shards: the files.
        lines: one of each image.
    """

    def __init__(self, shards: Sequence[Path], lines: Sequence[Line]) -> None:
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
                try:
                    with pq.ParquetFile(self._shards[shard]) as file:
                        self._pictures = file.read_row_group(group, columns=["image"]).column(0)
                except (pa.ArrowException, OSError) as error:
                    raise unreadable_parquet(
                        self._shards[shard], error, _CANDIDATES.origin
                    ) from error
                self._group = (shard, group)
            picture = self._pictures[row].as_py()
        # A picture without bytes is an empty file, refused where it is decoded, by its name.
        return bytes((picture or {}).get("bytes") or b"")


def _check_pictures(shard: Path) -> None:
    """Refuse a file without pictures, relevance or ids."""
    schema = parquet_columns(shard, _CANDIDATES.origin)
    picture = schema.field("image").type if "image" in schema.names else pa.null()
    pictures = pa.types.is_struct(picture) and picture.get_field_index("bytes") >= 0
    if not pictures or not set(_NEEDED) <= set(schema.names):
        raise _no_pictures(shard, "columns " + ", ".join(schema.names[:20]))


def _no_pictures(shard: Path, got: str) -> LayoutError:
    expected = "columns image (with bytes), " + ", ".join(_NEEDED)
    return wrong_layout(shard, expected, got, f"take {_CANDIDATES.origin}")
