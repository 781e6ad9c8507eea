"""INQUIRE: 250 expert queries in words, with all that is relevant among iNat24's images.

Vendrow et al., "INQUIRE: A Natural World Text-to-Image Retrieval Benchmark", NeurIPS 2024 (arXiv
2411.02537). Two tasks: Fullrank ranks all of the images; Rerank ranks anew the 100 candidates of
each query that are given with the data, and counts what is relevant among these alone. There is no
prompt template: queries are embedded as they are. AP is divided by min(R, 50) there
(``AP_minR@50``). Queries of the published splits, `val` and `test`, are groups.

Candidates alone need the candidates' images alone: with `--candidates rerank` nothing else has to
lie in the data folder.
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
from benchmarks.retrieval.suites.base import Piece
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
from benchmarks.retrieval.tasks import IMAGE, TEXT, Asked, Classes, Relevance, Task
from bittern.errors import InvalidInputError, LayoutError

AS_IT_IS = ("{name}",)
"""No template."""


class Inquire:
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
        folder = check(data, self.pieces, self.name)
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
        images = read_images(place(folder, METADATA), protocol.unknown)
        matching = Matching(queries, images, protocol)
        relevant = matching.pairs(inquire_files.read_annotations(folder), "annotations")
        given = (
            matching.pairs(inquire_files.read_candidates(folder, queries), "candidates")
            if rerank
            else None
        )
        asked = _Question(folder, protocol, queries, images, (*images.left_out, *matching.left_out))
        tasks = []
        if protocol.candidates != "rerank":
            missing = given is None and protocol.candidates == "both"
            tasks.append(_fullrank(asked, relevant, missing))
        if given is not None:
            tasks.append(_rerank(asked, relevant, given))
        return tasks


@dataclass(frozen=True)
class _Question:
    """What both tasks are made of."""

    folder: Path
    protocol: Protocol
    queries: Queries
    images: Images
    left_out: Sequence[str]


def _fullrank(asked: _Question, relevant: Pairs, lacks_candidates: bool) -> Task:
    images = asked.images
    kept, left_out = _there(asked, np.arange(len(images)), LISTED)
    note = f"the 100 candidates of INQUIRE-Rerank are not there ({CANDIDATES.path})"
    return _task(
        asked,
        f"{TEXT}→{IMAGE}",
        kept,
        relevant.relevance(len(asked.queries), kept, len(images)),
        None,
        [*left_out, *([note] if lacks_candidates else [])],
    )


def _rerank(asked: _Question, relevant: Pairs, given: Pairs) -> Task:
    images, queries = asked.images, len(asked.queries)
    candidates = np.unique(given.images)
    kept, left_out = _there(asked, candidates, "images that are candidates")
    both = relevant.among(given, len(images))
    return _task(
        asked,
        f"{TEXT}→{IMAGE}, rerank 100",
        kept,
        both.relevance(queries, kept, len(images)),
        given.relevance(queries, kept, len(images)),
        left_out,
        ["only what is relevant among a query's candidates counts as relevant"],
    )


def _there(
    asked: _Question, places: NDArray[np.int64], what: str
) -> tuple[NDArray[np.int64], list[str]]:
    root = place(asked.folder, IMAGES).parent
    there = check_files(root, asked.images.paths.only(places), asked.protocol.missing, what)
    return places[there], left_out_files(there, what)


def _task(
    asked: _Question,
    name: str,
    kept: NDArray[np.int64],
    relevance: Relevance,
    candidates: Relevance | None,
    left_out: Sequence[str],
    notes: Sequence[str] = (),
) -> Task:
    images = asked.images if len(kept) == len(asked.images) else asked.images.only(kept)
    questions, of = _asked(asked.queries, asked.protocol)
    splits = np.array(asked.queries.splits)[of]
    groups = {split: splits == split for split in (VAL, TEST) if (splits == split).any()}
    return leave_out_unanswerable(
        Task(
            name=name,
            asked=questions,
            # The queries ask for no class: the images' species decide nothing here.
            items=replace(
                items_of(images, asked.folder), classes=np.full(len(images), -1, np.int32)
            ),
            relevance=relevance.only(of),
            classes=Classes(()),
            candidates=candidates.only(of) if candidates else None,
            groups=groups,
            left_out=(*asked.left_out, *left_out),
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
