"""Open the archive that a command names: a folder, or a server's address."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bittern.cli.output import licence_notice

if TYPE_CHECKING:
    from bittern.api import ArchiveAPI

_ADDRESS = re.compile(r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):\d{1,5}$")


def reach(
    archive: str, name: str = "", recall: float | None = None, snapshot: str | None = None
) -> ArchiveAPI:
    """Open the folder, or connect to the server, that `archive` names.

    Args:
        archive: folder, or HOST:PORT.
        name: which archive of a server.
        recall: of the one search that a folder is opened for: it uses an index that was built
            earlier, and builds none.
        snapshot: state of a folder; None for the newest.
    """
    from bittern.errors import ArchiveNotFoundError, InvalidInputError

    if Path(archive).exists():
        import bittern

        once = bittern.SearchOptions(recall=1.0 if recall is None else recall, build=False)
        opened = bittern.open(archive, search=once, snapshot=snapshot)
        for encoder in sorted(opened.registry.encoders()):
            licence_notice(encoder)
        return opened
    if snapshot is not None:
        raise InvalidInputError(
            "a server searches the newest state; name the archive's folder to search a snapshot",
            field="snapshot",
        )
    if _ADDRESS.match(archive):
        from bittern.client import connect

        try:
            return connect(archive, archive=name)
        except ArchiveNotFoundError as error:
            message = error.message.replace("with archive=...", "with --archive")
            raise ArchiveNotFoundError(message, field=error.field, details=error.details) from None
    raise ArchiveNotFoundError(
        f"there is no archive at '{archive}', and this is not HOST:PORT of a server. "
        "Make one with: bittern index ARCHIVE FOLDER"
    )


def refuse_address(archive: Path, why: str) -> None:
    """Refuse the HOST:PORT of a server where only a folder will do.

    Raises:
        InvalidInputError: it is one.
    """
    from bittern.errors import InvalidInputError

    if _ADDRESS.match(str(archive)) and not archive.exists():
        raise InvalidInputError(
            f"'{archive}' is the address of a server: {why}. Name the archive's folder there; from "
            "here, items are added in Python with bittern.connect(...).add(...)"
        )
