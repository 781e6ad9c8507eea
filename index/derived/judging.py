"""Which errors say that a derived set cannot be used, and that all others say so too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UnusableError(ValueError):
    """A set that cannot be used; says why."""


class OutdatedError(UnusableError):
    """A set that may be whole, and cannot be told to be of this store."""


@contextmanager
def judging() -> Iterator[None]:
    """Whatever goes wrong while a set is looked at: it is unusable, and nothing else is.

    Files from outside can make any library raise anything, and none of it may keep an archive
    from being opened.
    """
    try:
        yield
    except UnusableError:
        raise
    except (OSError, ValueError) as error:
        raise UnusableError(str(error) or type(error).__name__) from error
    except Exception as error:
        raise UnusableError(f"{type(error).__name__}: {error}") from error
