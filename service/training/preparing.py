"""What a request names, made ready: the examples that an encoder can take, and what to hold out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bittern.encoders.base import Encoder, Modality
from bittern.errors import InvalidInputError, UnsupportedModalityError
from bittern.service.training.embedding import Embeddings
from bittern.service.training.examples import Example, Examples, Skipped, check_enough
from bittern.service.training.naming import captions_of, names_of_folder
from bittern.service.training.probing import Part
from bittern.service.training.request import TrainingRequest
from bittern.service.training.sources import read_labels, read_pairs
from bittern.service.training.splitting import HeldOut, split

_ENOUGH = 0.5
"""The better way of holding out is taken if it holds out this part of the share."""
BATCHLESS = frozenset({"aligned"})
"""Hashers that are fitted in closed form."""
_WORD = re.compile(r"[^\W\d_]{3}")


@dataclass(frozen=True)
class Prepared:
    """Examples of one modality.

    Attributes:
        examples: all of them.
        training: ids of those that are trained on.
        way: whether ``items`` of seen groups or whole ``groups`` are held out; ``nothing``.
    """

    examples: Examples
    training: frozenset[str]
    way: str


def read_examples(request: TrainingRequest, encoder: Encoder) -> Examples:
    """The source's examples that the encoder has a tower for.

    Labels that are words become captions too, where there is a tower for them.

    Raises:
        ManifestError, SourceNotFoundError, InvalidInputError: as `read_pairs`, `read_labels`.
        UnsupportedModalityError: the encoder has no tower for any of them, or none for words.
    """
    if request.what == "labels":
        examples = read_labels(
            request.source, label_column=request.label_column, strict=request.strict
        )
        if Modality.TEXT in encoder.modalities and are_words(examples.classes):
            examples = replace(examples, items=tuple(map(_with_names, examples)))
    else:
        if Modality.TEXT not in encoder.modalities:
            raise UnsupportedModalityError(
                f"{encoder.name} has no text tower for captions; train on labels, or choose "
                "another encoder"
            )
        examples = read_pairs(
            request.source, caption_column=request.caption_column, strict=request.strict
        )
    return _suitable(examples, request.modality, encoder)


def are_words(classes: Sequence[str]) -> bool:
    """Whether class names could be asked for in words, unlike ``00017`` or ``c3``."""
    return all(_WORD.search(name) for name in classes)


def prepare(examples: Examples, request: TrainingRequest) -> list[Prepared]:
    """Split each modality's examples, and see that batches can be made of them.

    Raises:
        InvalidInputError: fewer items (or, of pairs, groups) than a batch, where it takes
            batches; nothing can be held
            out though the request insists.
    """
    config = request.config
    prepared = []
    for modality in sorted(examples.modalities):
        some = examples.of(modality)
        training, way = _held_out(some, request)
        try:
            if request.hasher not in BATCHLESS:
                check_enough(training, config.batch_size, one_per_group=request.what == "pairs")
        except InvalidInputError as error:
            if len(examples.modalities) == 1:
                raise
            others = ", ".join(m for m in sorted(examples.modalities) if m != modality)
            raise InvalidInputError(
                f"{modality}: {error.message}, or train on one kind of media only (--modality "
                f"{others})",
                field="batch_size",
                details=error.details,
            ) from error
        prepared.append(Prepared(some, frozenset(e.id for e in training), way))
    return prepared


def part_of(embedded: Embeddings, prepared: Prepared) -> Part:
    """Which rows of the embedded examples are trained on, and which are held out."""
    ids = [example.id for example in embedded.examples]
    trained = np.array([i in prepared.training for i in ids])[embedded.rows.item]
    return Part(
        embedded.source,
        embedded.modality,
        np.flatnonzero(trained).astype(np.int64),
        np.flatnonzero(~trained).astype(np.int64),
    )


def only_media(examples: Examples, modality: str) -> Examples:
    """The examples of one modality; what was skipped stays.

    Raises:
        InvalidInputError: there are none.
    """
    if not examples.modalities[modality]:
        found = ", ".join(f"{n} {m}" for m, n in sorted(examples.modalities.items()))
        raise InvalidInputError(f"{examples.source} has {found}, and no {modality}", field="source")
    kept = tuple(e for e in examples if e.modality == modality)
    return replace(examples, items=kept)


def _held_out(examples: Examples, request: TrainingRequest) -> tuple[Examples, str]:
    """What is left to train on, and the way in which the rest is held out."""
    share = request.config.validation_share
    if not share:
        return examples, "nothing"
    ways: tuple[HeldOut, ...] = ("items", "groups")
    if request.what == "labels":
        ways = ("items",)
    elif request.what == "distill":
        ways = ("groups", "items")
    best: tuple[Examples, str] | None = None
    most = 1
    for way in ways:
        try:
            training, held_out = split(examples, share, request.config.seed, way)
        except InvalidInputError:
            if request.must_validate and best is None and way == ways[-1]:
                raise
            continue
        if len(held_out) > most:
            best, most = (training, way), len(held_out)
        if len(held_out) >= _ENOUGH * share * len(examples):
            break  # few items to a species: whole species must be held out instead
    return best or (examples, "nothing")


def _with_names(example: Example) -> Example:
    names = [names_of_folder(label) for label in example.labels]
    filled = [captions_of(n, example.modality, None) for n in names]
    if len(filled) > 1:  # an item of several classes: one caption for each
        return replace(example, captions=tuple(c[0] for c in filled))
    return replace(example, captions=filled[0])


def _suitable(examples: Examples, wanted: str | None, encoder: Encoder) -> Examples:
    if wanted is not None and wanted not in ("image", "audio"):
        raise InvalidInputError(
            f"modality must be image or audio, not {wanted!r}", field="modality"
        )
    here = {str(m) for m in encoder.modalities}
    kept = tuple(e for e in examples if e.modality in here and wanted in (None, e.modality))
    if not kept:
        found = ", ".join(f"{n} {m}" for m, n in sorted(examples.modalities.items()))
        raise UnsupportedModalityError(
            f"{examples.source} has {found}; {encoder.name} takes {', '.join(sorted(here))}"
            + (f", and only {wanted} was asked for" if wanted else "")
        )
    foreign = [e for e in examples if e.modality not in here]
    reasons = tuple(
        Skipped(str(e.path), f"{encoder.name} has no {e.modality} tower") for e in foreign
    )
    return replace(examples, items=kept, skipped=(*examples.skipped, *reasons))
