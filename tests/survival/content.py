"""What an archive should hold: a plain model of it, changed by the same operations.

Operations are JSON, so that a process can write down what it is about to do. Names that
begin with ``p`` are photographs, the others recordings of several windows.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bittern.index.models import ModelRecord
from bittern.index.observation import CodedObservation, Fingerprint
from bittern.types import Observation
from tests.index.samples import code, model

Operation = dict[str, Any]
MODELS = 6
DIM = 8
WINDOWS = 5
CROWDED = 120
"""Media items from which on more are deleted than added."""
COUNTRIES = ("FR", "DE", "US")


def record_of(name: str) -> ModelRecord:
    return model(name, 32 if int(name[1:]) % 2 else 64)


def embedding(seed: int) -> list[float]:
    return [((seed * 31 + i * 7) % 64) / 64 for i in range(DIM)]


@dataclass
class Row:
    """One observation: its row number and its fields."""

    row: int
    fields: dict[str, Any]
    codes: dict[str, int] = field(default_factory=dict)
    embeddings: dict[str, int] = field(default_factory=dict)


@dataclass
class Content:
    """What is acknowledged.

    Attributes:
        items: `occurrenceID` to observations by id.
        models: registered models, in that order.
        next_row: the row number that the next observation gets.
        kept: the rows of versions that are kept, by name.
    """

    items: dict[str, dict[str, Row]] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    next_row: int = 0
    kept: dict[str, dict[str, int]] = field(default_factory=dict)

    def rows(self) -> dict[str, Row]:
        return {id_: row for item in self.items.values() for id_, row in item.items()}

    def numbers(self) -> dict[str, int]:
        return {id_: row.row for id_, row in self.rows().items()}

    def after(self, operation: Operation) -> tuple[Content, Any]:
        """What is held once this is done, and what the call returns."""
        changed = copy.deepcopy(self)
        done = getattr(changed, "_" + operation["do"], lambda _: None)(operation)
        return changed, done

    # One for each kind of operation that changes what is held

    def _register(self, operation: Operation) -> None:
        if operation["model"] not in self.models:
            self.models.append(operation["model"])

    def _keep(self, operation: Operation) -> None:
        self.kept[operation["name"]] = self.numbers()

    def _let_go(self, operation: Operation) -> None:
        del self.kept[operation["name"]]

    def _delete(self, operation: Operation) -> list[str]:
        wanted, gone = set(operation["ids"]), {}
        for name, item in list(self.items.items()):
            for id_ in [id_ for id_ in item if id_ in wanted or name in wanted]:
                gone[item.pop(id_).row] = id_
            if not item:
                del self.items[name]
        return [gone[row] for row in sorted(gone)]

    def _add(self, operation: Operation) -> list[str]:
        return [self._add_item(operation, item) for item in operation["items"]]

    def _add_item(self, operation: Operation, item: dict[str, Any]) -> str:
        used, policy = operation["model"], operation["policy"]
        before = self.items.get(item["name"], {})
        coded = any(used in row.codes for row in before.values())
        if coded and policy != "overwrite":
            return {"error": "failed", "skip": "skipped"}[policy]
        after = {} if coded else dict(before)
        for one, seed in zip(observations(operation, item), seeds(item), strict=True):
            id_ = one.observation.id
            if id_ in before and not coded:
                row = before[id_]
            else:
                number = before[id_].row if id_ in before else self.next_row
                self.next_row = max(self.next_row, number + 1)
                row = Row(number, said_of(one))
            row.codes[used] = seed
            if item["embed"]:
                row.embeddings[used] = seed
            after[id_] = row
        self.items[item["name"]] = after
        return "overwritten" if coded else "added"


def seeds(item: dict[str, Any]) -> list[int]:
    return [item["seed"] + number for number in range(len(item["windows"]))]


def said_of(one: CodedObservation) -> dict[str, Any]:
    """The columns of an observation besides its row, codes and embeddings; none that are null."""
    seen, fingerprint = one.observation, one.fingerprint
    fields = {
        "id": seen.id,
        "occurrenceID": seen.occurrence_id,
        "modality": seen.modality,
        "media": seen.media,
        "mediaRoot": seen.media_root,
        "start_s": seen.start_s,
        "end_s": seen.end_s,
        **seen.metadata,
    }
    if fingerprint:
        fields |= {"mediaHash": fingerprint.content, "mediaBytes": fingerprint.size}
    return {name: value for name, value in fields.items() if value is not None}


def observations(operation: Operation, item: dict[str, Any]) -> list[CodedObservation]:
    """The observations of one item of an ``add``, as an archive takes them."""
    name, bits = item["name"], record_of(operation["model"]).bits
    found = []
    for start, seed in zip(item["windows"], seeds(item), strict=True):
        photo = name.startswith("p")
        seen = Observation(
            id=name if photo else f"{name}#t={start},{start + 3}",
            occurrence_id=name,
            modality="image" if photo else "audio",
            media=f"{name}.{item['seed']}",
            media_root=item["root"],
            start_s=None if photo else float(start),
            end_s=None if photo else start + 3.0,
            metadata=item["metadata"],
        )
        fingerprint = Fingerprint(f"{seed:032x}", seed) if item["print"] else None
        floats = embedding(seed) if item["embed"] else None
        found.append(CodedObservation(seen, code(seed, bits), floats, fingerprint))  # type: ignore[arg-type]
    return found


# What to do next


def next_operation(content: Content, chance: random.Random) -> Operation:
    """Something that can be done now; the same for the same chance."""
    if not content.models:
        return {"do": "register", "model": "m0"}
    crowded = len(content.items) > CROWDED
    kinds: dict[Callable[[Content, random.Random], Operation], float] = {
        _new: 1 if crowded else 5,
        _again: 4,
        _deletion: 6 if crowded else 2,
        _maintenance: 2,
        _registration: 0.5,
        _keeping: 0.5,
    }
    return chance.choices(list(kinds), list(kinds.values()))[0](content, chance)


def _item(name: str, chance: random.Random) -> dict[str, Any]:
    photo = name.startswith("p")
    starts = sorted(chance.sample(range(0, 3 * WINDOWS, 3), 1 if photo else chance.randint(1, 5)))
    metadata: dict[str, Any] = {"countryCode": chance.choice(COUNTRIES)}
    if chance.random() < 0.5:
        metadata["decimalLatitude"] = chance.randrange(-90, 90) / 2
    if chance.random() < 0.1:
        metadata[f"extra{chance.randrange(20)}"] = chance.randrange(9)
    return {
        "name": name,
        "windows": starts,
        "seed": chance.randrange(1 << 30),
        "metadata": metadata,
        "root": chance.choice(["", "/marsh"]),
        "embed": chance.random() < 0.3,
        "print": chance.random() < 0.5,
    }


def _new(content: Content, chance: random.Random) -> Operation:
    names = {f"{chance.choice('pr')}{chance.randrange(10**6)}" for _ in range(chance.randint(1, 8))}
    items = [_item(name, chance) for name in sorted(names)]
    return {"do": "add", "model": chance.choice(content.models), "policy": "skip", "items": items}


def _again(content: Content, chance: random.Random) -> Operation:
    """Known items, perhaps with other windows, perhaps of another model; a new one too."""
    names = sorted(content.items)
    chosen = chance.sample(names, min(len(names), chance.randint(1, 5)))
    items = [_item(name, chance) for name in [*chosen, f"r{chance.randrange(10**6)}"]]
    policy = chance.choice(["overwrite", "overwrite", "overwrite", "skip", "error"])
    return {"do": "add", "model": chance.choice(content.models), "policy": policy, "items": items}


def _deletion(content: Content, chance: random.Random) -> Operation:
    names = sorted({*content.items, *content.rows()})
    if not names:
        return _new(content, chance)
    return {"do": "delete", "ids": chance.sample(names, min(len(names), chance.randint(1, 12)))}


def _maintenance(content: Content, chance: random.Random) -> Operation:
    kind = chance.choice(["compact", "clean", "lookups", "index", "reopen"])
    return {"do": kind, "model": chance.choice(content.models)}


def _registration(content: Content, chance: random.Random) -> Operation:
    return {"do": "register", "model": f"m{chance.randrange(MODELS)}"}


def _keeping(content: Content, chance: random.Random) -> Operation:
    if len(content.kept) > 1:
        return {"do": "let_go", "name": sorted(content.kept)[0]}
    return {"do": "keep", "name": f"v{chance.randrange(10**6)}"}
