"""What a process writes down before and after each call, and how it is read once it is dead."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.survival.content import Content, Operation, Row


class Journal:
    """Lines of JSON at the end of a file, each written in one go.

    Args:
        path: the file.
        to: where a dot is written for each line.
    """

    def __init__(self, path: Path, to: int) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._to = to

    def write(self, line: dict[str, Any]) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")
        os.write(self._to, b".\n")


def read(path: Path) -> tuple[list[tuple[Operation, Any]], Operation | None]:
    """The operations that were acknowledged, with their answers; and the one in flight."""
    done: list[tuple[Operation, Any]] = []
    begun: Operation | None = None
    for text in path.read_text().split("\n")[:-1] if path.exists() else []:
        line = json.loads(text)
        if "begin" in line:
            begun = line["begin"]
        elif "done" in line:
            assert begun is not None
            done.append((begun, line["done"]))
            begun = None
    return done, begun


def content_to_json(content: Content) -> dict[str, Any]:
    return asdict(content)


def content_from_json(value: dict[str, Any]) -> Content:
    items = {
        name: {id_: Row(**row) for id_, row in item.items()}
        for name, item in value["items"].items()
    }
    return Content(items, value["models"], value["next_row"], value["kept"])
