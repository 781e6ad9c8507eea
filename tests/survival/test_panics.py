"""Where the library of the store falls over, its panic is one of Bittern's errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bittern.errors import ArchiveDamagedError, PreconditionError
from bittern.index.archive import Archive
from tests.index.samples import OWL, ids, photo


class PanicException(BaseException):
    """Like that of PyO3: no `Exception`, so that nobody catches it by accident."""


class _Falling:
    """A table of which every method panics."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        def fall(*args: object, **options: object) -> None:
            raise PanicException("called `Result::unwrap()` on an `Err` value, src/lib.rs:7:1")

        return fall


def test_a_panic_is_damage_where_it_reads_and_a_refusal_where_it_writes(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "marsh") as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
        archive.add([photo("p")], model=OWL.digest)
        store, read, written = archive._store, archive._store._data, archive._store._writable
        store._data = store._writable = _Falling()
        with pytest.raises(ArchiveDamagedError, match="PanicException"):
            store.count()
        with pytest.raises(PreconditionError, match="PanicException"):
            store.append(store.table({}, 0))
        store._data, store._writable = read, written
        assert ids(archive) == ["p"]


def test_an_interrupt_is_no_damage(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "marsh") as archive, pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with archive._store._reading():
            raise KeyboardInterrupt
