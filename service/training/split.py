"""Splits examples into those to train on and those held out for validation.

Examples are held out by a hash of the seed and their group. So their order has no effect, and new
species do not change the split of the others.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bittern.errors import InvalidInputError
from bittern.service.training.examples import Example, Examples
from bittern.service.training.request import TrainingRequest, What
from bittern.text import counted

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
    """Split each modality's examples, and check that something can be learned from them.

    Raises:
        InvalidInputError: fewer than two items or groups of a modality; or nothing can be held out,
            but the request requires it.
    """
    splits = []
    for modality in sorted(examples.modalities):
        some = examples.of(modality)
        others = [m for m in sorted(examples.modalities) if m != modality]
        _check_enough(some, modality, others)
        training, way = _held_out(some, request)
        splits.append(Split(some, frozenset(e.id for e in training), way))
    return splits


def _held_out(examples: Examples, request: TrainingRequest) -> tuple[Examples, str]:
    """The training examples, and the way in which the rest is held out."""
    share, seed = request.held_out_share(len(examples)), request.config.seed
    if not share:
        return examples, "nothing"
    best: tuple[Examples, str] | None = None
    most = 1
    ways = _WAYS[request.what]
    for way in ways:
        try:
            if share == request.config.validation_share:
                training, held_out = split(examples, share, seed, way)
            else:
                training, held_out = split_few(examples, round(share * len(examples)), seed, way)
        except InvalidInputError:
            if request.must_validate and best is None and way == ways[-1]:
                raise
            continue
        if len(held_out) > most:
            best, most = (training, way), len(held_out)
        if len(held_out) >= _ENOUGH * share * len(examples):
            break  # else, as with few items per species, the next way
    return best or (examples, "nothing")


def _check_enough(examples: Examples, modality: str, others: Sequence[str]) -> None:
    """Refuse a modality of a single item or group."""
    if len(examples.groups) > 1:
        return
    what = counted(len(examples), f"{modality} item")
    if len(examples) > 1:
        what += f", all of one group (species, name or caption), '{examples[0].group[:80]}'"
    raise InvalidInputError(
        f"{examples.source} gives {what}. Codes are learned by telling groups apart: bring items "
        "of two or more, or index without training (bittern index)"
        + (f", or train on {others[0]} only (--modality {others[0]})" if others else ""),
        field="source",
        details={"items": str(len(examples))},
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


def split_few(
    examples: Examples, count: int, seed: int, held_out: SplitBy
) -> tuple[Examples, Examples]:
    """Hold out a number of a few examples, whatever chance does to the shares of `split`.

    At least two groups, and with ``items`` an item of each, are trained on; so fewer may be held
    out. With ``groups``, the last of them may bring more.
    """
    left = Counter(examples.groups)
    chosen: set[str] = set()
    if held_out == "items":
        for item in sorted(examples, key=lambda i: _uniform(seed, "item", i.group, i.id)):
            if len(chosen) < count and left[item.group] > 1:
                left[item.group] -= 1
                chosen.add(item.id)
    else:
        for group in sorted(left, key=lambda g: _uniform(seed, "group", g)):
            if len(chosen) < count and len(left) > 2:
                del left[group]
                chosen |= {item.id for item in examples if item.group == group}
    training = tuple(item for item in examples if item.id not in chosen)
    validation = tuple(item for item in examples if item.id in chosen)
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
