"""INQUIRE: 250 expert queries in words, with all relevant images of iNat24.

Vendrow et al., "INQUIRE: A Natural World Text-to-Image Retrieval Benchmark", NeurIPS 2024 (arXiv
2411.02537). Two tasks: Fullrank ranks all images; Rerank ranks the 100 candidates of each query
that come with the data, and counts as relevant only what is relevant among these. There is no
prompt template: queries are embedded verbatim. AP is divided by min(R, k), over the first 50 of
the full ranking (``AP_minR@50``) and all 100 candidates (``AP_minR@100``). The authors' scripts use
the queries of `test` (200; 160 of them have candidates) and leave `val` for tuning; so does
``--database``, by default.

With `--candidates rerank` only the candidates' images are needed. Where iNat24 or the annotations
are missing, the pictures inside the Parquet files (1.9 GB) are ranked, read a row group at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from bittern.benchmarks.eval.suites.inquire_files import (
    ANNOTATIONS,
    CANDIDATES,
    QUERIES,
    TEST,
    VAL,
    Line,
    Matching,
    Pictures,
    Queries,
    annotation_lines,
    candidate_files,
    candidate_lines,
    one_query_file,
    only_pictures,
    read_queries,
)
from bittern.benchmarks.eval.suites.readers import MAX_PARQUET_ROWS, Texts
from bittern.benchmarks.eval.tasks import IMAGE, TEXT, Classes, Items, Protocol, Relevance, Task
from bittern.benchmarks.eval.tasks.prompts import VERBATIM, free_queries, prompts_note
from bittern.benchmarks.eval.tasks.splits import leave_out_unanswerable
from bittern.errors import LayoutError
from bittern.text import agreeing, some_of

_WANTED = {"": (TEST,), TEST: (TEST,), VAL: (VAL,), "all": (VAL, TEST)}
"""Splits of the queries that a `--database` means."""
_RERANK_MEASURES = ("AP_minR@100", "nDCG@100", "MRR")
"""All candidates of a query are ranked."""
_NO_CLASSES = "its queries name no classes; the suite inat24 does"


class Inquire(Suite):
    """Expert queries in words find photographs of iNaturalist 2024."""

    name = "inquire"
    about = "INQUIRE: 250 expert queries to 5,000,000 photographs (arXiv 2411.02537)"
    layout = (METADATA, IMAGES, *QUERIES.values(), ANNOTATIONS, CANDIDATES)
    limits = (
        Limit("database", "it names the queries (the images have one split)", tuple(_WANTED)[1:]),
        Limit("level", _NO_CLASSES),
        Limit("novel", _NO_CLASSES),
    )
    measures = ("AP_minR@50", "nDCG@50", "MRR@50")
    pairs = ((TEXT, IMAGE),)

    def folder(self, data: Path | None, protocol: Protocol) -> Path:
        """The data folder, with every file that these queries and candidates need."""
        queries = [QUERIES[split] for split in _WANTED[protocol.database]]
        needed: Sequence[DataFile] = (METADATA, IMAGES, *queries, ANNOTATIONS, CANDIDATES)
        rerank = protocol.candidates == "rerank"
        # Candidates bring their pictures along, unless iNat24 is there.
        if rerank and data is not None and data.is_dir():
            without = found(data, CANDIDATES) is None and found(data, METADATA) is None
            if without or only_pictures(data):
                needed = (*queries, replace(CANDIDATES, optional=False))
        folder = check_layout(data, needed, self.name)
        if rerank and found(folder, CANDIDATES) is None:
            raise LayoutError(
                f"{folder} lacks the candidates to rerank: {described(CANDIDATES)}; put them "
                "there, or choose --candidates full",
                field="data",
            )
        if protocol.database in (VAL, TEST) and one_query_file(folder):
            raise LayoutError(
                f"{folder} has all queries in one file, which does not tell {VAL} from {TEST}; "
                "leave --database out, or put there the two files of a later release",
                field="data",
            )
        return folder

    def make(self, root: Path, protocol: Protocol, pairs: Sequence[Pair]) -> list[Task]:
        """``text→image`` and ``text→image, rerank 100``, as far as wanted."""
        queries = read_queries(root, _WANTED[protocol.database])
        if protocol.candidates == "rerank" and only_pictures(root):
            ranked = _pictures(root, queries, protocol)
        else:
            ranked = _photographs(root, queries, protocol)
        tasks = []
        if protocol.candidates != "rerank":
            tasks.append(_full(ranked, protocol))
        if ranked.candidates is not None:
            tasks.append(_rerank(ranked, ranked.candidates, protocol))
        return tasks


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
    relevant = matching.images(annotation_lines(root), "annotations")
    candidates = None
    if protocol.candidates != "full" and found(root, CANDIDATES) is not None:
        candidates = matching.images(candidate_lines(root, queries), "candidates")
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
            f"INQUIRE-Rerank was not run, for it has no candidates here ({CANDIDATES.path})"
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
    groups = {split: of_query == split for split in (VAL, TEST) if (of_query == split).any()}
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
            f"the {TEST} queries"
        )
    if len(queries.wanted) > 1:
        return f"Queries of {VAL} and {TEST} are used; published figures are of {TEST} alone"
    (split,) = queries.wanted
    usual = "as published figures are by default" if split == TEST else "which is for tuning"
    return f"The queries of the {split} split are used, {usual}"


def _pictures(root: Path, queries: Queries, protocol: Protocol) -> _Ranked:
    """The pictures inside the candidates' files, and what these say about relevance."""
    folder = path_of(root, CANDIDATES)
    lines: list[Line] = []
    for line in candidate_lines(root, queries, pictures=True):
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
        Pictures(candidate_files(folder), [first[own] for own in ids[kept].tolist()]),
        np.full(len(kept), -1, np.int32),
        IMAGE,
    )
    note = "the pictures are those inside INQUIRE-Rerank's files: iNat24 is missing or incomplete"
    number = _numbered(kept, len(ids))
    return _Ranked(queries, items, number, relevant, candidates, matching.left_out, [note])
