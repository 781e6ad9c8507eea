"""Embeds examples once, as a set that heads are trained on.

    OUT/training/embeddings/<key>/
    ├── image.json     example and window of each row, and the skipped examples
    ├── image/         the set (`bittern.hashing.training.embedding_sets`)
    └── audio...

The key covers the examples, their files' sizes and times, and the towers: a resumed run embeds
nothing again, a changed source is embedded as a whole. A photograph is a row, and so is each window
of a recording: at most `MOST_WINDOWS`, evenly spread. Each variant of a caption is a view, so an
epoch can draw one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Encoder, Modality
from bittern.errors import InvalidInputError, ManifestError
from bittern.files import replace_file
from bittern.hashing.training.embedding_sets import (
    EmbeddingSet,
    EmbeddingWriter,
    Labels,
    View,
    digest_of,
)
from bittern.hashing.training.records import Progress
from bittern.hashing.training.validation import SplitSet
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.precomputed import Precomputed
from bittern.service.models.model import Embedder
from bittern.service.training.examples import Example, Examples, Skipped
from bittern.service.training.split import Split
from bittern.types import MediaItem

MOST_WINDOWS = 32
"""Most windows of one recording that are trained on."""
MOST_CAPTIONS = 8
"""Most variants of a caption that are used."""
_TEXT_BATCH = 64
_ROWS_AT_A_TIME = 256
_REMEMBERED_CAPTIONS = 100_000


@dataclass(frozen=True)
class EmbeddedExamples:
    """The examples of one modality, embedded.

    Attributes:
        examples: in order.
        source: their embeddings: views ``text-1``, ``text-2``... and one named as the modality.
        item: int64 [rows], number of the example behind each row.
        window: int64 [rows], window of its recording; 0 for a photograph.
        skipped: examples that could not be embedded.
    """

    examples: Examples
    source: EmbeddingSet
    item: NDArray[np.int64]
    window: NDArray[np.int64]
    skipped: tuple[Skipped, ...]

    def split(self, split: Split) -> SplitSet:
        """The set with its training and held-out rows."""
        trained = np.array([e.id in split.training for e in self.examples])[self.item]
        return SplitSet(
            self.source,
            self.examples[0].modality,
            np.flatnonzero(trained).astype(np.int64),
            np.flatnonzero(~trained).astype(np.int64),
        )


@dataclass(frozen=True)
class Towers:
    """The encoders that embed.

    Attributes:
        media: embeds photographs and recordings.
        text: embeds captions; None for no views of text.
        name: of the encoder, or encoders.
    """

    media: Encoder
    text: Encoder | None
    name: str

    def digests(self, modality: str) -> dict[str, str]:
        """Tower digests by modality."""
        digests = {modality: self.media.digests[Modality(modality)]}
        if self.text is not None:
            digests["text"] = self.text.digests[Modality.TEXT]
        return digests


def embed_examples(
    examples: Examples,
    towers: Towers,
    folder: Path,
    *,
    stored: Precomputed | None = None,
    strict: bool = False,
    progress: Progress = lambda *_: None,
) -> EmbeddedExamples:
    """Embed examples of one modality, or open the set that an earlier run has made.

    Args:
        examples: with captions, if there is a text tower; with labels, or else with groups that
            must not share a batch.
        towers: the encoders.
        folder: contains the sets.
        stored: embeddings of the media that were made before; None to embed them.
        strict: refuse the examples if one of them cannot be embedded.
        progress: called now and then, with ``encoding``.

    Raises:
        InvalidInputError: nothing can be embedded, or with `strict` not everything.
        QueryError: the text tower refuses a caption; names it.
    """
    modality = examples[0].modality
    home = folder / _key(examples, towers, modality, stored)
    listing = home / f"{modality}.json"
    if not (home / modality).is_dir():
        home.mkdir(parents=True, exist_ok=True)
        _embed(examples, towers, home / modality, listing, stored, strict, progress)
    item, window, skipped = _read_listing(listing)
    _refuse(examples, skipped, strict)
    return EmbeddedExamples(examples, EmbeddingSet.open(home / modality), item, window, skipped)


def _embed(
    examples: Examples,
    towers: Towers,
    folder: Path,
    listing: Path,
    stored: Precomputed | None,
    strict: bool,
    progress: Progress,
) -> None:
    """Write the set and the listing of its rows, in one pass over the examples."""
    modality = examples[0].modality
    items: list[int] = []
    windows: list[int] = []
    skipped: list[Skipped] = []
    media = [MediaItem(e.id, str(e.path), e.modality, path=e.path) for e in examples]
    with _RowWriter(examples, towers, folder) as rows:
        embedder = Embedder(towers.media.name, lambda _: towers.media)
        found = stored.embedded(embedder, media) if stored else embed_items(embedder, media)
        for number, embedded in enumerate(found):
            progress("encoding", number + 1, len(examples), modality)
            example = examples[number]
            if embedded.result is not None:
                skipped.append(Skipped(str(example.path), embedded.result.message))
                continue
            chosen = _spread(len(embedded.embeddings))
            items += [number] * len(chosen)
            windows += chosen
            rows.append(example, [embedded.embeddings[window] for window in chosen])
        _refuse(examples, skipped, strict or not items)
        value = {
            "item": items,
            "window": windows,
            "skipped": [[s.where, s.reason] for s in skipped],
        }
        replace_file(listing, json.dumps(value).encode())  # before the set: useless without it


class _RowWriter:
    """Writes rows of a set: embeddings with the captions, labels or groups of their examples."""

    def __init__(self, examples: Examples, towers: Towers, folder: Path) -> None:
        self._text = towers.text
        self._modality = modality = examples[0].modality
        self._captions: dict[str, NDArray[np.float32]] = {}
        variants = max((len(e.captions) for e in examples), default=0)
        self._variants = min(variants, MOST_CAPTIONS) if towers.text is not None else 0
        self._classes = {name: number for number, name in enumerate(examples.classes)}
        self._groups = {name: number for number, name in enumerate(sorted(examples.groups))}
        several = any(len(e.labels) > 1 for e in examples)
        self._labels: Labels | None = None
        if self._classes:
            self._labels = "multi" if several else "single"
        self._waiting: list[tuple[Example, NDArray[np.float32]]] = []
        texts = towers.text.dim if towers.text is not None else 0
        views = {f"text-{number + 1}": View("text", texts) for number in range(self._variants)}
        self._writer = EmbeddingWriter(
            folder,
            {**views, modality: View(modality, towers.media.dim)},
            encoder=towers.name,
            towers=towers.digests(modality),
            labels=self._labels,
            groups=self._labels is None,
        )

    def __enter__(self) -> _RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Complete the set, or after an error remove it."""
        if kind is not None:
            self._writer.abandon()
            return
        try:
            self._flush()
            self._writer.finish()
        except BaseException:
            self._writer.abandon()
            raise

    def append(self, example: Example, embeddings: Sequence[NDArray[np.float32]]) -> None:
        """Add the rows of an example, each float32 [dim]."""
        self._waiting += [(example, embedding) for embedding in embeddings]
        if len(self._waiting) >= _ROWS_AT_A_TIME:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        examples = [example for example, _ in self._waiting]
        views: dict[str, NDArray[np.floating]] = {
            self._modality: np.stack([embedding for _, embedding in self._waiting])
        }
        if self._variants:
            self._learn_captions(examples)
        for number in range(self._variants):
            views[f"text-{number + 1}"] = np.stack(
                [self._captions[variant(e.captions, number)] for e in examples]
            )
        classes = [[self._classes[name] for name in e.labels] for e in examples]
        labels: Any = None
        if self._labels == "multi":
            labels = classes
        elif self._labels == "single":
            labels = np.array([c[0] if c else -1 for c in classes])
        groups = None if self._labels else np.array([self._groups[e.group] for e in examples])
        self._writer.append(views, labels, groups)
        self._waiting.clear()

    def _learn_captions(self, examples: Sequence[Example]) -> None:
        wanted = {c: None for e in examples for c in e.captions[:MOST_CAPTIONS]}
        if len(self._captions) > _REMEMBERED_CAPTIONS:
            self._captions.clear()
        missing = [caption for caption in wanted if caption not in self._captions]
        assert self._text is not None
        for start in range(0, len(missing), _TEXT_BATCH):
            batch = missing[start : start + _TEXT_BATCH]
            rows = self._text.encode(Modality.TEXT, batch)
            self._captions.update(zip(batch, rows, strict=True))


def variant(captions: Sequence[str], number: int) -> str:
    """Variant `number` of a caption, counted modulo the number of variants."""
    usable = captions[:MOST_CAPTIONS]
    return usable[number % len(usable)]


def _spread(windows: int) -> list[int]:
    """Numbers of the windows to use."""
    if windows <= MOST_WINDOWS:
        return list(range(windows))
    return [int(w) for w in np.linspace(0, windows - 1, MOST_WINDOWS).round()]


def _key(examples: Examples, towers: Towers, modality: str, stored: Precomputed | None) -> str:
    files = []
    for example in examples:
        try:
            stat = example.path.stat()
            files.append(f"{stat.st_size} {stat.st_mtime_ns}")
        except OSError:
            files.append("")
    digests = json.dumps(towers.digests(modality), sort_keys=True)
    limits = f"{MOST_WINDOWS} {MOST_CAPTIONS}"
    made = [stored.digest] if stored else []
    return digest_of(examples.digest(), digests, limits, *files, *made)[:24]


def _refuse(examples: Examples, skipped: Sequence[Skipped], strict: bool) -> None:
    if not skipped or not strict:
        return
    shown = "; ".join(s.reason for s in skipped[:3])
    raise ManifestError(
        f"{examples.source}: {len(skipped)} of {len(examples)} files cannot be used: {shown}"
        + (f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""),
        field="source",
        details={"skipped": str(len(skipped))},
    )


def _read_listing(
    path: Path,
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[Skipped, ...]]:
    """Example and window of each row, and the skipped examples."""
    try:
        value: Mapping[str, Any] = json.loads(path.read_bytes())
        return (
            np.array(value["item"], dtype=np.int64),
            np.array(value["window"], dtype=np.int64),
            tuple(Skipped(where, reason) for where, reason in value["skipped"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{path} cannot be read ({error}); remove {path.parent} to embed the source again"
        ) from error
