"""Where something was seen first, for millions of things, at 12 bytes each."""

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray

_RECENT = 1 << 16


class FirstLines:
    """The line in which each text was seen first.

    Texts are told apart by 64-bit hashes (XXH3): among five million, two share one with a
    probability below one in a million, and the later row would be called a repetition then.
    """

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]] = []

    def first(self, line: int, *text: str) -> int:
        """The line in which this was seen first, which is `line` if it is new."""
        key = _key(text)
        before = self._find(key)
        if before is not None:
            return before
        self._recent[key] = line
        if len(self._recent) >= _RECENT:
            self._settle()
        return line

    def __contains__(self, text: str) -> bool:
        return self._find(_key((text,))) is not None

    def _find(self, key: int) -> int | None:
        found = self._recent.get(key)
        if found is not None:
            return found
        wanted = np.uint64(key)
        for keys, lines in self._runs:
            place = int(keys.searchsorted(wanted))
            if place < len(keys) and keys[place] == wanted:
                return int(lines[place])
        return None

    def _settle(self) -> None:
        """Sort the recent ones into a run; runs of like sizes become one, so there are few."""
        keys = np.fromiter(self._recent.keys(), np.uint64, len(self._recent))
        lines = np.fromiter(self._recent.values(), np.uint32, len(self._recent))
        self._recent = {}
        while self._runs and len(self._runs[-1][0]) <= 2 * len(keys):
            earlier = self._runs.pop()
            keys, lines = np.concatenate([earlier[0], keys]), np.concatenate([earlier[1], lines])
        order = np.argsort(keys, kind="stable")
        self._runs.append((keys[order], lines[order]))


def _key(text: tuple[str, ...]) -> int:
    joined = "\0".join(text).encode("utf-8", "surrogatepass")
    return xxhash.xxh3_64_intdigest(joined)
