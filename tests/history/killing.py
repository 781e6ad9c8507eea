"""A process that dies at a chosen one of its writes."""

from __future__ import annotations

from collections.abc import Callable

import pytest


class KilledError(BaseException):
    """Stands for the death of the process: nothing catches it."""


class Killer:
    """Kills at one of the calls that it watches.

    Args:
        patch: undone by the test.
        calls: how many calls are let through.
        after: also kill between two calls, when one is done and nobody knows yet.
    """

    def __init__(self, patch: pytest.MonkeyPatch, calls: int, *, after: bool = False) -> None:
        self._patch = patch
        self._left = calls
        self._after = after

    def watch(self, owner: object, *names: str) -> None:
        """Watch functions of a module, or methods of a class."""
        for name in names:
            self._patch.setattr(owner, name, self._dying(getattr(owner, name)))

    def _dying(self, real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **named: object) -> object:
            self._count()
            done = real(*args, **named)
            if self._after:
                self._count()
            return done

        return step

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KilledError
