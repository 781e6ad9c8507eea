"""Looking at the first entries of a source costs nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from bittern.errors import BitternError, ManifestError, SourceUnreachableError
from bittern.service.sources.base import _KEPT_ENTRIES, Entry, Listed, Source
from bittern.types import MediaItem


class Listing:
    def __init__(self, count: int, data: bytes | None = None) -> None:
        self.count, self.data = count, data
        self.begun = self.closed = 0

    def __call__(self) -> Iterator[Listed]:
        self.begun += 1
        try:
            for number in range(self.count):
                yield Listed(MediaItem(str(number), f"{number}.jpg", "image", None, self.data))
        finally:
            self.closed += 1

    def source(self) -> Source:
        return Source(Path("x"), "test", self)


def ids(source: Source, most: int | None = None) -> list[str]:
    return [e.occurrence_id for e in islice(source, most)]


def test_a_listing_that_was_begun_is_continued_by_the_next_iteration() -> None:
    listing = Listing(10)
    source = listing.source()
    assert ids(source, 1) == ["0"]
    assert ids(source, 4) == ["0", "1", "2", "3"]
    assert ids(source, 2) == ["0", "1"]
    assert ids(source) == [str(number) for number in range(10)]
    assert (listing.begun, listing.closed) == (1, 1)


def test_a_finished_listing_is_begun_again() -> None:
    listing = Listing(3)
    source = listing.source()
    assert ids(source) == ids(source) == ["0", "1", "2"]
    assert listing.begun == 2


def test_two_iterations_at_once_each_get_all_entries() -> None:
    listing = Listing(5)
    source = listing.source()
    one, other = iter(source), iter(source)
    pairs = list(zip(one, other, strict=True))
    assert all(a == b for a, b in pairs)
    assert len(pairs) == 5
    assert (listing.begun, listing.closed) == (2, 2)


def test_a_listing_that_was_left_after_many_entries_is_not_kept() -> None:
    listing = Listing(_KEPT_ENTRIES + 10)
    source = listing.source()
    assert len(ids(source, _KEPT_ENTRIES + 5)) == _KEPT_ENTRIES + 5
    assert listing.closed == 1
    assert len(ids(source)) == _KEPT_ENTRIES + 10
    assert listing.begun == 2


def test_entries_with_many_bytes_are_not_kept() -> None:
    listing = Listing(5, b"x" * (20 << 20))
    source = listing.source()
    ids(source, 3)
    assert listing.closed == 1
    assert len(ids(source)) == 5


class Broken(Listing):
    """Breaks off before its sixth entry."""

    error: Exception = ManifestError("the file ends in the middle")

    def __call__(self) -> Iterator[Listed]:
        yield from islice(super().__call__(), 5)
        raise self.error


@pytest.mark.parametrize("looked", [0, 1, 5])
def test_a_listing_that_failed_fails_again(looked: int) -> None:
    source = Broken(10).source()
    assert len(ids(source, looked)) == looked
    for _ in range(3):
        seen: list[Entry] = []
        with pytest.raises(ManifestError, match="in the middle"):
            seen.extend(iter(source))
        assert len(seen) == 5


def test_errors_of_the_disk_and_of_remote_systems_are_typed() -> None:
    broken = Broken(10)
    broken.error = OSError(5, "Input/output error")
    with pytest.raises(
        SourceUnreachableError, match=r"x cannot be read any further: .* Input/output"
    ):
        ids(broken.source())
    broken.error = ZeroDivisionError("a library of somebody")
    with pytest.raises(ZeroDivisionError):
        ids(broken.source())
    with pytest.raises(BitternError, match="s3://b cannot be read any further"):
        ids(Source(Path("b"), "test", broken, address="s3://b"))
