"""INQUIRE: 250 expert queries in words, with all that is relevant among iNat24's images.

Vendrow et al., "INQUIRE: A Natural World Text-to-Image Retrieval Benchmark", NeurIPS 2024 (arXiv
2411.02537). Two tasks: Fullrank ranks all of the images; Rerank ranks anew the 100 candidates of
each query that are given with the data, and counts what is relevant among these alone. There is no
prompt template: queries are embedded as they are. AP is divided by min(R, k) there, over the first
50 of the full ranking (``AP_minR@50``) and all 100 candidates (``AP_minR@100``).

The authors' scripts ask the queries of `test` (200; 160 of them have candidates) and leave `val`
for tuning. So it is here: ``protocol.database`` is ``test`` unless told otherwise, ``val``, or
``all``, with a group for each.

With `--candidates rerank` only the candidates' images are needed; and where iNat24 or the
annotations are not there, the pictures inside INQUIRE-Rerank's own files are ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.layouts import (
    check,
    check_files,
    described,
    found,
    left_out_files,
    place,
)
from bittern.benchmarks.eval.prompts import asked_in_words, check_templates, told_prompts
from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.splits import leave_out_unanswerable
from bittern.benchmarks.eval.suites import inquire_files
from bittern.benchmarks.eval.suites.base import Piece, Suite
from bittern.benchmarks.eval.suites.inat24 import items_of
from bittern.benchmarks.eval.suites.inat24_files import (
    IMAGES,
    LISTED,
    METADATA,
    Images,
    read_images,
)
from bittern.benchmarks.eval.suites.inquire_files import (
    ANNOTATIONS,
    CANDIDATES,
    QUERIES_TEST,
    QUERIES_VAL,
    TEST,
    VAL,
    Queries,
)
from bittern.benchmarks.eval.suites.inquire_matching import Matching, Pairs
from bittern.benchmarks.eval.suites.inquire_pictures import read_pictures
from bittern.benchmarks.eval.tasks import IMAGE, TEXT, Asked, Classes, Items, Relevance, Task
from bittern.errors import InvalidInputError, LayoutError
from bittern.text import agreeing, some_of

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
    pieces: Sequence[Piece] = (
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
        """Refuse what cannot be run before anything is loaded. See `Suite.check`."""
        _checked(data, protocol)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """``text→image`` and ``text→image, rerank 100``, as far as wanted; none for a model
        without both towers. See `Suite.tasks`.
        """
        folder = _checked(data, protocol)
        rerank = protocol.candidates != "full" and found(folder, CANDIDATES) is not None
        if not {TEXT, IMAGE} <= towers:
            return []
        queries = inquire_files.read_queries(folder, ASKED[protocol.database])
        if protocol.candidates == "rerank" and _pictures_alone(folder):
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
        piece for split, piece in ((VAL, QUERIES_VAL), (TEST, QUERIES_TEST)) if split in splits
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
    if protocol.database in (VAL, TEST) and inquire_files.in_one_file(folder):
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
    return any(found(data, piece) is None for piece in (METADATA, IMAGES, ANNOTATIONS))


def _of_pictures(folder: Path, queries: Queries, protocol: Protocol) -> Task:
    items, relevant, given, told = read_pictures(folder, queries, protocol.unknown)
    every = np.arange(len(items))
    question = _Question(protocol, queries, len(items), every, items, told)
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
            asked=asked,
            items=question.items,
            relevance=relevance.only(of),
            classes=Classes(()),
            candidates=candidates.only(of) if candidates else None,
            groups=groups if len(groups) > 1 else {},
            left_out=(*question.left_out, *left_out),
            notes=(_told_splits(queries), told_prompts(protocol, AS_IT_IS, "query"), *notes),
        )
    )


def _asked(queries: Queries, protocol: Protocol) -> tuple[Asked, NDArray[np.int64]]:
    """Those that are asked in the protocol's prompts, and which of the published ones each is."""
    places = np.flatnonzero(queries.are_asked)
    named = asked_in_words(Classes(queries.texts), places, protocol, AS_IT_IS, side=TEXT)
    of = named.classes.astype(np.int64)
    each = len(named) // len(places)
    ids = [queries.ids[i] + (f"#{n % each}" if each > 1 else "") for n, i in enumerate(of.tolist())]
    none = np.full(len(of), -1, np.int32)
    return Asked(ids, TEXT, named.contents, none, TEXT), of


def _told_splits(queries: Queries) -> str:
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
