"""What a suite is: a layout that is checked before anything runs, and tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.tasks import Task


@dataclass(frozen=True)
class Piece:
    """A file or folder that a layout needs.

    Attributes:
        path: below the data folder; several alternatives are separated by ``|``.
        what: what is in it.
        origin: where it comes from, in words (project, release, file name); no address is fetched.
        size: how large it is, roughly, in words.
        optional: whether some tasks do without.
    """

    path: str
    what: str
    origin: str
    size: str
    optional: bool = False


class Suite(Interface):
    """A benchmark with its published layout.

    Attributes:
        name: on the command line.
        about: one line for people, with its paper.
        pieces: what its data folder holds.
        needs_data: whether `--data` must be given.
        measures: names of the measures that its papers report, the main one first.
    """

    name: str
    about: str
    pieces: Sequence[Piece]
    needs_data: bool
    measures: Sequence[str]

    def check(self, data: Path | None, protocol: Protocol) -> None:
        """Refuse what cannot be run before anything is loaded; all pieces must be there.

        Raises:
            LayoutError: pieces are missing; all of them are named in one message.
            InvalidInputError: the protocol asks for what this suite has not.
        """
        from bittern.benchmarks.eval.layouts import check

        del protocol
        if self.needs_data:
            check(data, self.pieces, self.name)

    def tasks(self, data: Path | None, protocol: Protocol, towers: frozenset[str]) -> list[Task]:
        """The tasks that the data and the model's towers allow, the layout checked first.

        Args:
            data: the data folder.
            protocol: how it is run.
            towers: modalities that the model has towers for.

        Raises:
            LayoutError: pieces are missing, or are not in the published layout; all of them are
                named in one message, with origin and size.
            QrelsError: judgements that cannot be used.
            InvalidInputError: the protocol asks for what this suite has not.
        """
        ...
