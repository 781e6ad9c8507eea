"""Queries through a tower: one embedding each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.embeddings.base import EmbeddedRows
from bittern.benchmarks.eval.embeddings.encoding import embed
from bittern.benchmarks.eval.embeddings.progress import OnProgress
from bittern.benchmarks.eval.embeddings.work import TEXT_BATCH, Work
from bittern.benchmarks.eval.tasks import TEXT, Asked
from bittern.encoders.base import Modality
from bittern.errors import QueryError
from bittern.service.ingest.report import Cancelled, never
from bittern.service.models.loaded import Embedder
from bittern.text import some_of
from bittern.types import MediaItem

ALONE = 2_048
"""So many different texts go through the tower each by itself, as a search embeds them. More go
in batches of 64, padded to the longest among them, which may change the last bits of a float."""
_LEAST_NORM = 1e-6


def embed_asked(
    embedder: Embedder,
    asked: Asked,
    cache: Path,
    *,
    on_progress: OnProgress = lambda progress: None,
    cancelled: Cancelled = never,
) -> NDArray[np.float32]:
    """Embed queries, float32 [q, dim], unit norm.

    A query of several prompts, or of a recording of several windows, is the mean of their
    embeddings, scaled to unit norm, as a search takes it. The same prompt of several queries is
    embedded once.

    Args:
        embedder: what embeds.
        asked: the queries.
        cache: the same as that of the items.
        on_progress: see `embed_items`; counts different texts.
        cancelled: see `embed_items`.

    Raises:
        QueryError: a query that cannot be embedded, by name.
        UnsupportedModalityError, WeightsMissingError: no tower for these queries.
        LimitExceededError: the disk is full.
        PreconditionError: it was cancelled.
    """
    if not len(asked):
        return np.empty((0, embedder.encoder().dim), np.float32)
    if asked.modality == TEXT:
        contents, members = _prompts(asked)
    else:
        contents, members = _recordings(asked), [[query] for query in range(len(asked))]
    batch = 1 if len(contents) <= ALONE else TEXT_BATCH
    queries = _first_of(members)
    work = Work(
        embedder,
        Modality(asked.modality),
        contents,
        cache,
        lambda place: asked.ids[queries[place]],
        batch,
    )
    rows = embed(work, on_progress=on_progress, cancelled=cancelled)
    if rows.failed:
        place, why = rows.failed[0]
        what = "text" if asked.modality == TEXT else "recording"
        raise QueryError(
            f"query '{asked.ids[queries[place]]}' cannot be embedded: {why}. Mend it, or leave it "
            f"out; {some_of(len(rows.failed), len(contents), what)} could not be embedded.",
            field="queries",
        )
    return _means(rows, members, lambda query: asked.ids[query])


def _prompts(asked: Asked) -> tuple[list[MediaItem | str], list[list[int]]]:
    """All different prompts, and which of them each query consists of."""
    places: dict[str, int] = {}
    members: list[list[int]] = []
    for name, prompts in zip(asked.ids, asked.contents, strict=True):
        if not isinstance(prompts, tuple) or not prompts:
            raise QueryError(
                f"query '{name}' is in words and has none; give it a prompt", field="queries"
            )
        members.append([places.setdefault(prompt.strip(), len(places)) for prompt in prompts])
    return list(places), members


def _recordings(asked: Asked) -> list[MediaItem | str]:
    media: list[MediaItem | str] = []
    for name, content in zip(asked.ids, asked.contents, strict=True):
        if not isinstance(content, MediaItem):
            raise QueryError(
                f"query '{name}' is of the modality {asked.modality} and has no file; give it one",
                field="queries",
            )
        media.append(content)
    return media


def _first_of(members: Sequence[Sequence[int]]) -> dict[int, int]:
    """Of each content the first query that has it."""
    queries: dict[int, int] = {}
    for query, contents in enumerate(members):
        for content in contents:
            queries.setdefault(content, query)
    return queries


def _means(
    rows: EmbeddedRows, members: Sequence[Sequence[int]], name: Callable[[int], str]
) -> NDArray[np.float32]:
    """Of each query the mean over the rows of its contents, of unit norm, float32 [q, dim]."""
    starts = np.searchsorted(rows.owners, np.arange(rows.owners.max(initial=-1) + 2))
    means = np.empty((len(members), rows.dim), np.float32)
    for query, contents in enumerate(members):
        places = np.concatenate([np.arange(starts[c], starts[c + 1]) for c in contents])
        mean = rows.read(places).mean(axis=0)
        norm = float(np.linalg.norm(mean))
        if norm < _LEAST_NORM:
            raise QueryError(
                f"the embeddings of query '{name(query)}' cancel one another out: their mean is "
                "zero. Ask with fewer prompts.",
                field="queries",
            )
        means[query] = mean / norm
    return means
