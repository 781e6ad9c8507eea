"""Following the newest commit of an archive: header, generation, and what derives from it."""

from __future__ import annotations

import threading

from bittern.errors import DigestMismatchError, PreconditionError
from bittern.index.derived_files import DerivedFiles
from bittern.index.engines.choosing import EngineChooser
from bittern.index.folder import ArchiveFolder, Header
from bittern.index.generation import Generation
from bittern.index.generation_files import GenerationFiles
from bittern.index.models import ModelRecord
from bittern.index.opening import newest_state
from bittern.index.store import Store
from bittern.query import SearchOptions


class ArchiveFollower:
    """Follows the newest commit of an archive, or stays at a past one. Thread-safe.

    Args:
        folder: the archive's folder.
        store: its table.
        writes: whether this process is the writer.
        options: search options.
        past: the header of the store's version, to stay at it; None to follow the newest version.
    """

    def __init__(
        self,
        folder: ArchiveFolder,
        store: Store,
        *,
        writes: bool,
        options: SearchOptions | None,
        past: Header | None,
    ) -> None:
        self.closed = False
        self.header = past or folder.read_header().at(store.version)
        self._folder = folder
        self._store = store
        self._writes = writes
        self._past = past is not None
        self._options = options
        self._lock = threading.RLock()
        self._reset()

    def _reset(self) -> None:
        """Reset everything that depends on the store's content."""
        self.replacements = self._store.replacements
        self.derived = DerivedFiles(self._folder.derived, self._store)
        self._files = GenerationFiles(self.derived)
        # Derived files belong to the newest state: readers of an old one do not use them.
        self.engines = EngineChooser(self._options, None if self._past else self.derived)
        self._generation: Generation | None = None

    def generation(self) -> Generation:
        """The newest generation, or the past one."""
        with self._lock:
            self.check_open()
            if self._past:
                self._generation = self._generation or Generation(self._store)
                return self._generation
            version = self._follow()
            if not self._writes:
                self.derived.expect(version, self._store.followed)
            if self._generation is None or self._generation.version != version:
                since = {one.code_column: one.since for one in self.header.models if one.since}
                self._generation = Generation(self._store, self._generation, self._files, since)
                self._files.save_if_worth_it(self._generation)
            return self._generation

    def to_verify(self) -> tuple[Header, Generation]:
        """Header and generation for `verify`, which writes no derived files right after opening."""
        with self._lock:
            self.check_open()
            if self._past or self._generation is not None:
                generation = self.generation()
            else:
                self._follow()
                files = DerivedFiles(self._folder.derived, self._store)
                generation = Generation(self._store, None, GenerationFiles(files, write=False))
            return self.header, generation

    def model(self, digest: str) -> ModelRecord:
        """The registered model with this digest.

        Raises:
            DigestMismatchError: there is none.
        """
        for refreshed in (False, True):
            if refreshed:
                self.generation()
            for record in self.header.models:
                if record.digest == digest:
                    return record
        models = self.header.models
        known = ", ".join(f"{one.name} ({one.digest[:16]})" for one in models) or "no model"
        raise DigestMismatchError(
            f"the archive {self.header.name!r} holds codes of {known}, not of a model with digest "
            f"{digest[:16]!r}; search and add with the model that made its codes",
            field="model",
            details={"given": digest, "archive": ",".join(one.digest for one in models)},
        )

    def check_open(self) -> None:
        """Raise a `PreconditionError` once the archive is closed."""
        if self.closed:
            raise PreconditionError(f"the archive at {self._folder.path} is closed; open it again")

    def close(self) -> bool:
        """Stop using the archive; returns whether it was open."""
        with self._lock:
            if self.closed:
                return False
            self.closed = True
            self.engines.close()
            self._files.close(None if self._past else self._generation)
            self._generation = None
            return True

    def _follow(self) -> int:
        """Read the newest header and version; reset everything if the store was replaced."""
        header, version = newest_state(self._folder, self._store, follow=not self._writes)
        if self._store.replacements != self.replacements:
            self.engines.close()
            self._reset()
        self.header = header
        return version
