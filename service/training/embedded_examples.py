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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.encoders.base import Encoder, Modality
from bittern.errors import InvalidInputError, ManifestError
from bittern.files import replace_file
from bittern.hashing.training.embedding_sets import EmbeddingSet, EmbeddingWriter, View
from bittern.hashing.training.heads import digest_of
from bittern.service.ingest.embedding import embed_items
from bittern.service.ingest.items import Embedded
from bittern.service.models.model import Embedder
from bittern.service.training.examples import Example, Examples, Skipped
from bittern.service.training.request import OnProgress
from bittern.types import MediaItem

MOST_WINDOWS = 32
"""Most windows of one recording that are trained on."""
MOST_CAPTIONS = 8
"""Most variants of a caption that are used."""
_TEXT_BATCH = 64
_ROWS_AT_A_TIME = 256
_REMEMBERED_CAPTIONS = 100_000


@dataclass(frozen=True)
class Rows:
    """The examples behind the rows of a set.

    Attributes:
        item: int64 [rows], number of the example.
        window: int64 [rows], window of its recording; 0 for a photograph.
        skipped: examples that could not be embedded.
    """

    item: NDArray[np.int64]
    window: NDArray[np.int64]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Embeddings:
    """The examples of one modality, embedded.

    Attributes:
        examples: in order.
        source: their embeddings: views ``text-1``, ``text-2``... and one named as the modality.
        rows: the examples behind the rows.
    """

    examples: Examples
    source: EmbeddingSet
    rows: Rows

    @property
    def modality(self) -> str:
        """``image`` or ``audio``."""
        return self.examples[0].modality


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
    strict: bool = False,
    progress: OnProgress = lambda *_: None,
) -> Embeddings:
    """Embed examples of one modality, or open the set that an earlier run has made.

    Args:
        examples: with captions, if there is a text tower; with labels, or else with groups that
            must not share a batch.
        towers: the encoders.
        folder: contains the sets.
        strict: refuse the examples if one of them cannot be embedded.
        progress: called now and then, with ``encoding``.

    Raises:
        InvalidInputError: nothing can be embedded, or with `strict` not everything.
        QueryError: the text tower refuses a caption; names it.
    """
    modality = examples[0].modality
    home = folder / _key(examples, towers, modality)
    listing = home / f"{modality}.json"
    if (home / modality).is_dir():
        rows = _read_rows(listing)
        _refuse(examples, rows.skipped, strict)
        return Embeddings(examples, EmbeddingSet.open(home / modality), rows)
    home.mkdir(parents=True, exist_ok=True)
    writing = _Writing(examples, towers, home / modality)
    source, rows = writing.run(listing, strict, progress)
    return Embeddings(examples, source, rows)


class _Writing:
    """One pass over the examples."""

    def __init__(self, examples: Examples, towers: Towers, folder: Path) -> None:
        self._examples, self._towers, self._folder = examples, towers, folder
        self._modality = examples[0].modality
        self._captions: dict[str, NDArray[np.float32]] = {}
        variants = max((len(e.captions) for e in examples), default=0)
        self._variants = min(variants, MOST_CAPTIONS) if towers.text is not None else 0
        self._classes = {name: number for number, name in enumerate(examples.classes)}
        self._groups = {name: number for number, name in enumerate(sorted(examples.groups))}
        several = any(len(e.labels) > 1 for e in examples)
        self._labels: Any = ("multi" if several else "single") if self._classes else None

    def run(self, listing: Path, strict: bool, progress: OnProgress) -> tuple[EmbeddingSet, Rows]:
        items: list[int] = []
        windows: list[int] = []
        skipped: list[Skipped] = []
        waiting: list[tuple[Example, NDArray[np.float32]]] = []
        writer = self._writer()
        try:
            for number, done in enumerate(self._embedded()):
                progress("encoding", number + 1, len(self._examples), self._modality)
                example = self._examples[number]
                if done.result is not None:
                    skipped.append(Skipped(str(example.path), done.result.message))
                    continue
                for window in _spread(len(done.embeddings)):
                    items.append(number)
                    windows.append(window)
                    waiting.append((example, done.embeddings[window]))
                if len(waiting) >= _ROWS_AT_A_TIME:
                    self._append(writer, waiting)
                    waiting.clear()
            if not items:
                _refuse(self._examples, tuple(skipped), strict=True)
            _refuse(self._examples, tuple(skipped), strict)
            self._append(writer, waiting)
            rows = Rows(np.array(items), np.array(windows), tuple(skipped))
            _write_rows(listing, rows)  # before the set, which is useless without it
            return writer.finish(), rows
        except BaseException:
            writer.abandon()
            raise

    def _writer(self) -> EmbeddingWriter:
        views: dict[str, View] = {}
        if self._towers.text is not None:
            for number in range(self._variants):
                views[f"text-{number + 1}"] = View("text", self._towers.text.dim)
        media: Any = self._modality
        views[self._modality] = View(media, self._towers.media.dim)
        return EmbeddingWriter(
            self._folder,
            views,
            encoder=self._towers.name,
            towers=self._towers.digests(self._modality),
            labels=self._labels,
            groups=self._labels is None,
        )

    def _embedded(self) -> Iterator[Embedded]:
        entries = [MediaItem(e.id, str(e.path), e.modality, path=e.path) for e in self._examples]
        embedder = Embedder(self._towers.media.name, lambda _: self._towers.media)
        return embed_items(embedder, entries)

    def _append(
        self, writer: EmbeddingWriter, rows: Sequence[tuple[Example, NDArray[np.float32]]]
    ) -> None:
        if not rows:
            return
        views: dict[str, NDArray[np.floating]] = {
            self._modality: np.stack([embedding for _, embedding in rows])
        }
        if self._variants:
            self._learn_captions([e for e, _ in rows])
        for number in range(self._variants):
            views[f"text-{number + 1}"] = np.stack(
                [self._captions[variant(e.captions, number)] for e, _ in rows]
            )
        classes = [[self._classes[name] for name in e.labels] for e, _ in rows]
        labels: Any = None
        if self._labels == "multi":
            labels = classes
        elif self._labels == "single":
            labels = np.array([c[0] if c else -1 for c in classes])
        groups = None if self._labels else np.array([self._groups[e.group] for e, _ in rows])
        writer.append(views, labels, groups)

    def _learn_captions(self, examples: Sequence[Example]) -> None:
        wanted = {c: None for e in examples for c in e.captions[:MOST_CAPTIONS]}
        if len(self._captions) > _REMEMBERED_CAPTIONS:
            self._captions.clear()
        missing = [caption for caption in wanted if caption not in self._captions]
        assert self._towers.text is not None
        for start in range(0, len(missing), _TEXT_BATCH):
            batch = missing[start : start + _TEXT_BATCH]
            rows = self._towers.text.encode(Modality.TEXT, batch)
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


def _key(examples: Examples, towers: Towers, modality: str) -> str:
    files = []
    for example in examples:
        try:
            stat = example.path.stat()
            files.append(f"{stat.st_size} {stat.st_mtime_ns}")
        except OSError:
            files.append("")
    digests = json.dumps(towers.digests(modality), sort_keys=True)
    limits = f"{MOST_WINDOWS} {MOST_CAPTIONS}"
    return digest_of(examples.digest(), digests, limits, *files)[:24]


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


def _write_rows(path: Path, rows: Rows) -> None:
    value = {
        "item": rows.item.tolist(),
        "window": rows.window.tolist(),
        "skipped": [[s.where, s.reason] for s in rows.skipped],
    }
    replace_file(path, json.dumps(value).encode())


def _read_rows(path: Path) -> Rows:
    try:
        value: Mapping[str, Any] = json.loads(path.read_bytes())
        return Rows(
            np.array(value["item"], dtype=np.int64),
            np.array(value["window"], dtype=np.int64),
            tuple(Skipped(where, reason) for where, reason in value["skipped"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{path} cannot be read ({error}); remove {path.parent} to embed the source again"
        ) from error
