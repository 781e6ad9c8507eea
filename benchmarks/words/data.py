"""Items, classes and queries from WordNet, and their embeddings.

An item is a synset: its text is the first clause of its gloss. Its class is the kind that it is
directly a kind of (the first, where it has several), if at least 12 items share it. The query
for a class is the class's own names. Which nouns these are is only a matter of `files`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.speed.report import say
from bittern.encoders.wordnet import Synset, find_nouns, read_nouns
from bittern.errors import InvalidInputError

FILES = (5, 20)
"""Lexicographer files of animals and of plants."""
FEWEST = 12
"""Items that a class has at the least."""
_TOWER = "MiniLM-L6"


@dataclass(frozen=True)
class Words:
    """What is searched, and what for.

    Attributes:
        texts: of the items, in WordNet's order.
        labels: int64 [n], the class of each item.
        names: of the classes: the queries.
        definitions: of the classes, the first clauses of their own glosses: other queries.
    """

    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    definitions: tuple[str, ...] = ()


@dataclass(frozen=True)
class EmbeddedWords:
    """Words with their embeddings, unit norm.

    Attributes:
        words: the texts.
        items: float32 [n, dim].
        queries: float32 [classes, dim], of the names.
        asked: float32 [classes, dim], what is asked with, where that is not the names.
    """

    words: Words
    items: NDArray[np.float32]
    queries: NDArray[np.float32]
    asked: NDArray[np.float32] | None = None


def load(
    folder: Path | None = None,
    files: Sequence[int] = FILES,
    fewest: int = FEWEST,
    *,
    by_definition: bool = False,
) -> EmbeddedWords:
    """Read WordNet and embed it with MiniLM; embeddings are kept in the user's cache.

    Args:
        folder: with `data.noun`; found or fetched if none is given.
        files: lexicographer files to take nouns from.
        fewest: items that a class has at the least.
        by_definition: ask with the classes' definitions; what is trained on are still names.
            Items whose text is one of the definitions are left out then: a class is itself an
            item of the class above it.

    Raises:
        SourceNotFoundError, LimitExceededError, InvalidInputError: WordNet cannot be used.
        WeightsMissingError: MiniLM is not installed.
    """
    words = collect(read_nouns(find_nouns(folder, cache_folder()), files), fewest)
    embedded = embed((*words.texts, *words.names), cache_folder())
    count = len(words.texts)
    found = EmbeddedWords(words, embedded[:count], embedded[count:])
    if not by_definition:
        return found
    return asked_by_definition(found, embed(words.definitions, cache_folder()))


def asked_by_definition(words: EmbeddedWords, asked: NDArray[np.float32]) -> EmbeddedWords:
    """The same words, to be asked for by definitions that are in no item.

    Args:
        words: with definitions.
        asked: float32 [classes, dim], embeddings of the definitions.
    """
    definitions = set(words.words.definitions)
    kept = np.array([text not in definitions for text in words.words.texts])
    texts = tuple(text for text in words.words.texts if text not in definitions)
    fewer = replace(words.words, texts=texts, labels=words.words.labels[kept])
    return EmbeddedWords(fewer, words.items[kept], words.queries, asked)


def collect(synsets: Sequence[Synset], fewest: int = FEWEST) -> Words:
    """Items and their classes among `synsets`.

    Raises:
        InvalidInputError: fewer than two classes are large enough.
    """
    among = {synset.offset: synset for synset in synsets}
    members: dict[str, list[Synset]] = {}
    for synset in synsets:
        if synset.hypernyms and synset.hypernyms[0] in among:
            members.setdefault(synset.hypernyms[0], []).append(synset)
    classes = [s for s in synsets if len(members.get(s.offset, ())) >= fewest]
    if len(classes) < 2:
        raise InvalidInputError(
            f"{len(classes)} of {len(members)} classes have {fewest} items or more; the "
            "benchmark needs two at the least: take more lexicographer files"
        )
    label = {synset.offset: number for number, synset in enumerate(classes)}
    items = [s for s in synsets if s.hypernyms and s.hypernyms[0] in label]
    return Words(
        texts=tuple(first_clause(s.gloss) for s in items),
        labels=np.array([label[s.hypernyms[0]] for s in items], dtype=np.int64),
        names=tuple(", ".join(s.words) for s in classes),
        definitions=tuple(first_clause(s.gloss) for s in classes),
    )


def first_clause(gloss: str) -> str:
    """What stands before the first semicolon."""
    return gloss.split(";", 1)[0].strip()


def cache_folder() -> Path:
    """Where WordNet and the embeddings are kept between runs."""
    from platformdirs import user_cache_path

    return user_cache_path("bittern") / "words"


def embed(texts: Sequence[str], cache: Path) -> NDArray[np.float32]:
    """MiniLM embeddings: float32 [n, 384], unit norm; computed once per list of texts.

    Raises:
        WeightsMissingError: MiniLM is not installed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    from bittern.encoders.field.packages import sha256
    from bittern.encoders.field.text import BATCH, MiniLM

    state = hashlib.sha256(f"{_TOWER} {BATCH}".encode())
    for part in (*(sha256(path) for path in MiniLM.files()), *texts):
        state.update(b"\0" + part.encode("utf-8", "replace"))
    path = cache / f"{state.hexdigest()}.safetensors"
    if path.exists():
        try:
            kept = load_file(path).get("embeddings")
        except (SafetensorError, OSError):
            kept = None  # cut short: made anew
        if kept is not None and kept.shape[:1] == (len(texts),):
            return np.asarray(kept, dtype=np.float32)
    say(f"embedding {len(texts)} texts (once; kept in {cache})")
    embeddings = MiniLM(batch=BATCH).encode(texts)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file({"embeddings": embeddings}, partial)
    partial.replace(path)
    return embeddings
