"""Splits examples into those to train on and those held out for validation.

Examples are held out by a hash of the seed and their group. So their order has no effect, and new
species do not change the split of the others.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from bittern.errors import InvalidInputError
from bittern.service.training.examples import Example, Examples
from bittern.service.training.request import TrainingRequest, What

SplitBy = Literal["items", "groups"]
"""Hold out ``items`` of training groups (seen classes), or whole ``groups`` (novel classes)."""
_WAYS: Mapping[What, tuple[SplitBy, ...]] = {
    "pairs": ("items", "groups"),
    "labels": ("items",),
    "distill": ("groups", "items"),
}
"""The preferred way of holding out comes first."""
_ENOUGH = 0.5
"""The preferred way is used if it reaches this fraction of the share."""


@dataclass(frozen=True)
class Split:
    """Examples of one modality.

    Attributes:
        examples: all of them.
        training: ids of those that are trained on.
        way: what is held out: ``items``, ``groups`` or ``nothing``.
    """

    examples: Examples
    training: frozenset[str]
    way: str


def split_by_modality(examples: Examples, request: TrainingRequest) -> list[Split]:
    """Split each modality's examples, and check that they fill a batch.

    Raises:
        InvalidInputError: fewer items (for pairs, groups) than a batch; or nothing can be held out,
            but the request requires it.
    """
    splits = []
    for modality in sorted(examples.modalities):
        some = examples.of(modality)
        training, way = _held_out(some, request)
        try:
            if request.hasher != "aligned":  # which is fitted in closed form
                one_per_group = request.what == "pairs"
                check_enough(training, request.config.batch_size, one_per_group=one_per_group)
        except InvalidInputError as error:
            others = ", ".join(m for m in sorted(examples.modalities) if m != modality)
            if not others:
                raise
            raise InvalidInputError(
                f"{modality}: {error.message}, or train on one kind of media only (--modality "
                f"{others})",
                field="batch_size",
                details=error.details,
            ) from error
        splits.append(Split(some, frozenset(e.id for e in training), way))
    return splits


def _held_out(examples: Examples, request: TrainingRequest) -> tuple[Examples, str]:
    """The training examples, and the way in which the rest is held out."""
    share = request.config.validation_share
    if not share:
        return examples, "nothing"
    best: tuple[Examples, str] | None = None
    most = 1
    ways = _WAYS[request.what]
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
        share: of the items to hold out, 0 < share < 1.
        seed: of the random choice.
        held_out: ``items`` or ``groups``.

    Returns:
        training and validation examples, in the order of the source.

    Raises:
        InvalidInputError: the share would hold out nothing or everything.
    """
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
