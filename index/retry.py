"""Asking again where the state that a question began with has been cleaned up meanwhile.

Old versions of the store are kept for a while (see `versions`), so that questions come to
their end in the state they began in. One that takes longer than that, or whose machine was
asleep, finds files missing though nothing is damaged: it is answered from the newest state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from bittern.errors import ArchiveDamagedError

_TRIES = 3
P = ParamSpec("P")
T = TypeVar("T")


class Renewable(Protocol):
    """Something with states that follow each other."""

    @property
    def state(self) -> object:
        """The newest state, which is gone to; no other one equals it."""


A = TypeVar("A", bound=Renewable)


def asks_again(question: Callable[Concatenate[A, P], T]) -> Callable[Concatenate[A, P], T]:
    """A method that is called again where its archive has moved on and files are missing."""

    @functools.wraps(question)
    def asking(archive: A, /, *args: P.args, **options: P.kwargs) -> T:
        for _ in range(_TRIES - 1):
            began = None
            try:
                began = archive.state
                return question(archive, *args, **options)
            except ArchiveDamagedError:
                if archive.state == began:
                    raise
        return question(archive, *args, **options)

    return asking
