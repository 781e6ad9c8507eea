"""How long a caller still waits, asked between the steps of a long answer."""

from __future__ import annotations

from collections.abc import Callable

from bittern.errors import DeadlineExceededError


class Deadline:
    """The caller's patience.

    Args:
        seconds_left: seconds until the caller gives up, or None when it waits for ever.
        gone: whether the caller has hung up already.
    """

    def __init__(
        self,
        seconds_left: Callable[[], float | None],
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._seconds_left = seconds_left
        self._gone = gone

    def check(self, doing: str) -> None:
        """Stop here if nobody waits for the answer any more.

        Args:
            doing: the step that is about to begin, for the message, e.g. ``encoding the query``.

        Raises:
            DeadlineExceededError: no time is left, or the caller has hung up.
        """
        left = self._seconds_left()
        if left is not None and left <= 0:
            raise DeadlineExceededError(
                f"the deadline passed before {doing}; allow more time, or ask for less"
            )
        if self._gone():
            raise DeadlineExceededError(f"the caller hung up before {doing}")
