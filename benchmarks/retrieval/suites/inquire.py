"""INQUIRE: 250 expert queries in words, with all that is relevant among iNat24's images.

Vendrow et al., "INQUIRE: A Natural World Text-to-Image Retrieval Benchmark", NeurIPS 2024 (arXiv
2411.02537). Two tasks: Fullrank ranks all of the images; Rerank ranks anew the 100 candidates of
each query that are given with the data, and counts what is relevant among these alone. There is no
prompt template: queries are embedded as they are. AP is divided by min(R, 50) there
(``AP_minR@50``). Queries of the published splits, `val` and `test`, are groups.

With `--candidates rerank` only the candidates' images are needed; and where there is no
`train.json` at all, the pictures inside INQUIRE-Rerank's own files are ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.retrieval.layouts import check, check_files, found, left_out_files, place
from benchmarks.retrieval.prompts import asked_in_words
from benchmarks.retrieval.protocol import Protocol
from benchmarks.retrieval.splits import leave_out_unanswerable
from benchmarks.retrieval.suites import inquire_files
from benchmarks.retrieval.suites.base import Piece, Suite
from benchmarks.retrieval.suites.inat24 import items_of, refuse_other_splits
from benchmarks.retrieval.suites.inat24_files import (
    IMAGES,
    LISTED,
    METADATA,
    Images,
    read_images,
)
from benchmarks.retrieval.suites.inquire_files import (
    ANNOTATIONS,
    CANDIDATES,
    QUERIES_TEST,
    QUERIES_VAL,
    TEST,
    VAL,
    Queries,
)
from benchmarks.retrieval.suites.inquire_matching import Matching, Pairs
from benchmarks.retrieval.suites.inquire_pictures import read_pictures
from benchmarks.retrieval.tasks import IMAGE, TEXT, Asked, Classes, Items, Relevance, Task
from bittern.errors import InvalidInputError, LayoutError

AS_IT_IS = ("{name}",)
"""No template."""
RERANK = f"{TEXT}→{IMAGE}, rerank 100"
"""Name of the second task."""


class Inquire(Suite):
    """Expert queries in words find photographs of iNaturalist 2024."""

    name = "inquire"
    about = "INQUIRE: 250 expert queries to 5,000,000 photographs (arXiv 2411.02537)"
    pieces: Sequence[Piece] = (
        METADATA,
        IMAGES,
        QUERIES_VAL,
        QUERIES_TEST,
        ANNOTATIONS,
        CANDIDATES,
    )
    needs_data = True
    measures: Sequence[str] = ("AP_minR@50", "nDCG@50", "MRR")

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """``text→image`` and ``text→image, rerank 100``, as far as wanted; none for a model
        without both towers. See `Suite.tasks`.
        """
        alone = protocol.candidates == "rerank" and data is not None and _pictures_alone(data)
        pieces = (QUERIES_VAL, QUERIES_TEST, CANDIDATES) if alone else self.pieces
        folder = check(data, pieces, self.name)
        _refuse(protocol)
        rerank = protocol.candidates != "full" and found(folder, CANDIDATES) is not None
        if protocol.candidates == "rerank" and not rerank:
            raise LayoutError(
                f"{folder} lacks the candidates that are to be ranked anew: "
                f"{CANDIDATES.path}: {CANDIDATES.what}; from {CANDIDATES.origin}; "
                f"{CANDIDATES.size}; put them there, or choose --candidates full",
                field="data",
            )
        if not {TEXT, IMAGE} <= towers:
            return []
        queries = inquire_files.read_queries(folder)
        if alone:
            return [_of_pictures(folder, queries, protocol)]
        images = read_images(place(folder, METADATA), protocol.unknown)
        matching = Matching(queries, images, protocol)
        relevant = matching.pairs(inquire_files.read_annotations(folder), "annotations")
        given = (
            matching.pairs(inquire_files.read_candidates(folder, queries), "candidates")
            if rerank
            else None
        )
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
    there = check_files(place(folder, IMAGES).parent, some.paths, protocol.missing, what)
    if not there.all():
        some = some.only(np.flatnonzero(there))
    # The queries ask for no class: the images' species decide nothing here.
    items = replace(items_of(some, folder), classes=np.full(len(some), -1, np.int32))
    told = (*left_out, *left_out_files(there, what))
    return _Question(protocol, queries, len(images), wanted[there], items, told)


def _fullrank(question: _Question, relevant: Pairs, lacks_candidates: bool) -> Task:
    left_out = []
    if lacks_candidates:
        left_out.append(f"INQUIRE-Rerank, whose candidates are not there ({CANDIDATES.path})")
    relevance = question.relevance(relevant)
    skipped = len(relevant.queries) - len(relevance.items)
    if skipped:
        left_out.append(
            f"{skipped:,} of {len(relevant.queries):,} annotations are about images that were "
            "skipped"
        )
    return _task(question, f"{TEXT}→{IMAGE}", relevance, None, left_out)


def _rerank(question: _Question, relevant: Pairs, given: Pairs) -> Task:
    relevance = question.relevance(relevant.among(given, question.images))
    candidates = question.relevance(given)
    left_out = []
    skipped = len(given.queries) - len(candidates.items)
    if skipped:
        left_out.append(
            f"{skipped:,} of {len(given.queries):,} candidates are images that were skipped"
        )
    note = "only what is relevant among a query's candidates counts as relevant"
    return _task(question, RERANK, relevance, candidates, left_out, [note])


def _pictures_alone(data: Path) -> bool:
    """Whether there is no iNat24, but files with the pictures of the candidates."""
    if not data.is_dir() or found(data, METADATA) is not None:
        return False
    candidates = found(data, CANDIDATES)
    return candidates is not None and candidates.is_dir()


def _of_pictures(folder: Path, queries: Queries, protocol: Protocol) -> Task:
    items, relevant, given, told = read_pictures(folder, queries, protocol.unknown)
    every = np.arange(len(items))
    question = _Question(protocol, queries, len(items), every, items, told)
    task = _rerank(question, relevant, given)
    note = "the pictures are those inside INQUIRE-Rerank's files, iNat24 is not there"
    return replace(task, notes=(*task.notes, note))


def _task(
    question: _Question,
    name: str,
    relevance: Relevance,
    candidates: Relevance | None,
    left_out: Sequence[str],
    notes: Sequence[str] = (),
) -> Task:
    asked, of = _asked(question.queries, question.protocol)
    splits = np.array(question.queries.splits)[of]
    return leave_out_unanswerable(
        Task(
            name=name,
            asked=asked,
            items=question.items,
            relevance=relevance.only(of),
            classes=Classes(()),
            candidates=candidates.only(of) if candidates else None,
            groups={split: splits == split for split in (VAL, TEST) if (splits == split).any()},
            left_out=(*question.left_out, *left_out),
            notes=notes,
        )
    )


def _asked(queries: Queries, protocol: Protocol) -> tuple[Asked, NDArray[np.int64]]:
    """The queries in the protocol's prompts, and which of the published ones each is."""
    named = asked_in_words(
        Classes(queries.texts), np.arange(len(queries)), protocol, AS_IT_IS, side=TEXT
    )
    of = named.classes.astype(np.int64)
    each = len(named) // len(queries)
    ids = [queries.ids[i] + (f"#{n % each}" if each > 1 else "") for n, i in enumerate(of.tolist())]
    none = np.full(len(of), -1, np.int32)
    return Asked(ids, TEXT, named.contents, none, TEXT), of


def _refuse(protocol: Protocol) -> None:
    """INQUIRE's queries ask for no classes."""
    refuse_other_splits(protocol, Inquire.name)
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
