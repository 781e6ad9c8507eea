"""Selects the examples that an encoder can take, and holds some of them out.

Examples are held out by a hash of the seed and their group. So their order has no effect, and new
species do not change the split of the others.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from bittern.encoders.base import Encoder, Modality
from bittern.errors import InvalidInputError, UnsupportedModalityError
from bittern.hashing.training.validation import SplitSet
from bittern.service.training.embedded_examples import Embeddings
from bittern.service.training.examples import Example, Examples, Skipped
from bittern.service.training.request import TrainingRequest
from bittern.service.training.sources import (
    captions_of,
    names_of_folder,
    read_labels,
    read_pairs,
)

_ENOUGH = 0.5
"""The preferred way of holding out is used if it reaches this fraction of the share."""
BATCHLESS = frozenset({"aligned"})
"""Hashers that are fitted in closed form."""
_WORD = re.compile(r"[^\W\d_]{3}")


SplitBy = Literal["items", "groups"]
"""Hold out ``items`` of training groups (seen classes), or whole ``groups`` (novel classes)."""


@dataclass(frozen=True)
class Prepared:
    """Examples of one modality.

    Attributes:
        examples: all of them.
        training: ids of those that are trained on.
        way: what is held out: ``items``, ``groups`` or ``nothing``.
    """

    examples: Examples
    training: frozenset[str]
    way: str


def read_examples(request: TrainingRequest, encoder: Encoder) -> Examples:
    """The source's examples that the encoder has a tower for.

    Labels that are words become captions too, if there is a text tower.

    Raises:
        ManifestError, SourceNotFoundError, InvalidInputError: as `read_pairs`, `read_labels`.
        UnsupportedModalityError: the encoder has no tower for any of them, or for captions.
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
    """Whether class names are words to search with, unlike ``00017`` or ``c3``."""
    return all(_WORD.search(name) for name in classes)


def prepare(examples: Examples, request: TrainingRequest) -> list[Prepared]:
    """Split each modality's examples, and check that they fill a batch.

    Raises:
        InvalidInputError: fewer items (for pairs, groups) than a batch; or nothing can be held out,
            but the request requires it.
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


def split_set(embedded: Embeddings, prepared: Prepared) -> SplitSet:
    """The embedded examples, with their training and held-out rows."""
    ids = [example.id for example in embedded.examples]
    trained = np.array([i in prepared.training for i in ids])[embedded.rows.item]
    return SplitSet(
        embedded.source,
        embedded.modality,
        np.flatnonzero(trained).astype(np.int64),
        np.flatnonzero(~trained).astype(np.int64),
    )


def only_media(examples: Examples, modality: str) -> Examples:
    """The examples of one modality, with `skipped`.

    Raises:
        InvalidInputError: there are none.
    """
    if not examples.modalities[modality]:
        found = ", ".join(f"{n} {m}" for m, n in sorted(examples.modalities.items()))
        raise InvalidInputError(f"{examples.source} has {found}, and no {modality}", field="source")
    return replace(examples.of(modality), skipped=examples.skipped)


def _held_out(examples: Examples, request: TrainingRequest) -> tuple[Examples, str]:
    """The training examples, and the way in which the rest is held out."""
    share = request.config.validation_share
    if not share:
        return examples, "nothing"
    ways: tuple[SplitBy, ...] = ("items", "groups")
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
            break  # else, as with few items per species, the next way
    return best or (examples, "nothing")


def _with_names(example: Example) -> Example:
    names = [names_of_folder(label) for label in example.labels]
    filled = [captions_of(n, example.modality, None) for n in names]
    if len(filled) > 1:  # an item of several classes: one caption for each
        return replace(example, captions=tuple(c[0] for c in filled))
    return replace(example, captions=filled[0])


def _suitable(examples: Examples, wanted: str | None, encoder: Encoder) -> Examples:
    towers = {str(m) for m in encoder.modalities}
    suitable = tuple(e for e in examples if e.modality in towers and wanted in (None, e.modality))
    if not suitable:
        found = ", ".join(f"{n} {m}" for m, n in sorted(examples.modalities.items()))
        raise UnsupportedModalityError(
            f"{examples.source} has {found}; {encoder.name} takes {', '.join(sorted(towers))}"
            + (f", and --modality is {wanted}" if wanted else "")
        )
    foreign = [e for e in examples if e.modality not in towers]
    reasons = tuple(
        Skipped(str(e.path), f"{encoder.name} has no {e.modality} tower") for e in foreign
    )
    return replace(examples, items=suitable, skipped=(*examples.skipped, *reasons))


def check_enough(examples: Examples, batch_size: int, *, one_per_group: bool = False) -> None:
    """Refuse examples that do not fill one batch.

    Args:
        examples: those to train on.
        batch_size: items per batch.
        one_per_group: whether no two items of a batch may share a group.

    Raises:
        InvalidInputError: too few items or groups; the message names both numbers.
    """
    count, what = len(examples), "examples"
    if count >= batch_size and one_per_group:
        count, what = len(examples.groups), "different groups (species, names or captions)"
    if count < batch_size:
        skipped = f" ({len(examples.skipped)} were skipped)" if examples.skipped else ""
        raise InvalidInputError(
            f"{examples.source} gives {count} {what}{skipped}, which do not fill one batch of "
            f"{batch_size}; give more, or choose a batch size of {max(2, count)} or less",
            field="batch_size",
            details={"examples": str(count), "batch_size": str(batch_size)},
        )


def split(
    examples: Examples, share: float, seed: int, held_out: SplitBy = "items"
) -> tuple[Examples, Examples]:
    """Hold out a share of the examples.

    With ``items``, each group's share is rounded up or down at random, but at least one item of a
    group is trained on. With ``groups``, whole groups are held out at random.

    Args:
        examples: to be split.
        share: of the items to hold out, 0 <= share < 1.
        seed: of the random choice.
        held_out: ``items`` or ``groups``.

    Returns:
        training and validation examples, in the order of the source.

    Raises:
        InvalidInputError: a share above 0 that would hold out nothing or everything.
    """
    if share == 0:
        return examples, replace(examples, items=(), skipped=())
    members: dict[str, list[Example]] = {}
    for item in examples:
        members.setdefault(item.group, []).append(item)
    if held_out == "items":
        chosen = {i.id for g, items in members.items() for i in _some(g, items, share, seed)}
    else:
        groups = [g for g in members if _uniform(seed, "group", g) < share]
        chosen = {item.id for group in groups for item in members[group]}
    training = tuple(item for item in examples if item.id not in chosen)
    validation = tuple(item for item in examples if item.id in chosen)
    if not training or not validation:
        raise InvalidInputError(
            f"a share of {share} holds out {len(validation)} of {len(examples)} examples in "
            f"{len(members)} groups: choose another share or seed"
            + (", hold out whole groups" if held_out == "items" else "")
            + ", or 0 to train without validation",
            field="share",
        )
    return replace(examples, items=training), replace(examples, items=validation, skipped=())


def _some(group: str, items: list[Example], share: float, seed: int) -> list[Example]:
    """The held-out items of one group."""
    count = math.floor(share * len(items) + _uniform(seed, "round", group))
    ordered = sorted(items, key=lambda item: (_uniform(seed, "item", group, item.id), item.id))
    return ordered[: min(count, len(items) - 1)]


def _uniform(seed: int, *names: str) -> float:
    """A deterministic number in [0, 1) for these names."""
    text = "\0".join((str(seed), *names)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big") / float(1 << 48)
