"""Examples held out for validation: chosen by hash, so the same whatever their order.

Whether an item is held out depends on the seed and on its own group only: a manifest that gets
more species keeps its split for the old ones.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from typing import Literal, get_args

from bittern.errors import InvalidInputError
from bittern.service.training.examples import Example, Examples

HeldOut = Literal["items", "groups"]
"""What is held out: ``items`` of groups that are trained on as well (seen classes), or whole
``groups`` (novel classes)."""


def split(
    examples: Examples, share: float, seed: int, held_out: HeldOut = "items"
) -> tuple[Examples, Examples]:
    """Hold out a share of the examples.

    With ``items``, a group's share is rounded up or down by chance, but every group keeps at
    least one item to train on, and so a group of one is never held out. With ``groups``, all
    items of a group go to the same side, each group by chance.

    Args:
        examples: to be split.
        share: of the items to hold out, 0 <= share < 1.
        seed: another one holds out others.
        held_out: ``items`` or ``groups``.

    Returns:
        what to train on and what to validate on, in the order of the source.

    Raises:
        InvalidInputError: a share out of range, an unknown way, or a share above 0 that would
            hold out nothing or everything.
    """
    if not 0 <= share < 1:
        raise InvalidInputError(
            f"the share held out for validation must be at least 0 and below 1, not {share}",
            field="share",
        )
    if held_out not in get_args(HeldOut):
        raise InvalidInputError(
            f"what is held out is one of {', '.join(get_args(HeldOut))}, not {held_out!r}",
            field="held_out",
        )
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
    """The items of one group that are held out: its share, rounded up or down by chance."""
    count = math.floor(share * len(items) + _uniform(seed, "round", group))
    ordered = sorted(items, key=lambda item: (_uniform(seed, "item", group, item.id), item.id))
    return ordered[: min(count, len(items) - 1)]


def _uniform(seed: int, *names: str) -> float:
    """A number in [0, 1) that these names always get."""
    told = "\0".join((str(seed), *names)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(told).digest()[:6], "big") / float(1 << 48)
