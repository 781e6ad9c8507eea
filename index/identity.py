"""Whether the archive that is read is still the one that lies in its folder.

A version's number says which state it is only within one history. Where a backup is copied
back over an archive, and written to from there, the same numbers come again for other states.
The checksum of the version's manifest tells them apart (see `versions.identity`).
"""

from __future__ import annotations

from bittern.errors import ArchiveDamagedError
from bittern.index.store import Store


class Sameness:
    """Follows the store of a reader, and notices when it becomes another one.

    Args:
        store: the reader's table; nothing of it was handed out before.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stamp = self._now()
        self._identity = store.identity(store.version)

    @property
    def identity(self) -> str | None:
        """What tells the version that the store is at from every other."""
        return self._identity

    def is_lost(self) -> bool:
        """Whether the version that the store is at is not there as it was.

        It costs one look at a folder as long as nothing happens there. A version that was
        cleaned up proves nothing, so it counts as lost as well.
        """
        stamp = self._now()
        if stamp == self._stamp:
            return False
        there = self._store.identity(self._store.version)
        if there is None or there != self._identity:
            return True
        self._stamp = stamp
        return False

    def follow(self) -> int:
        """Move the store to the newest version and return its number."""
        before = self._store.version
        version = self._store.follow()
        if version != before:
            self._identity = self._store.identity(version)
        return version

    def _now(self) -> tuple[int, ...]:
        try:
            return self._store.folder_stamp()
        except OSError as error:
            raise ArchiveDamagedError(
                f"the archive's store at {self._store.path} is not there ({error}); restore the "
                "archive from a backup"
            ) from error
