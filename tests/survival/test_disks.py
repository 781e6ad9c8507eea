"""A disk that is full, or cannot be written to: typed errors, and nothing lost or half stored."""

from __future__ import annotations

from pathlib import Path

from bittern.index.archive import Archive
from tests.index.samples import OWL, photo
from tests.survival.disks import on_read_only_disk, on_small_disk


def test_on_a_full_disk_every_change_is_made_as_a_whole_or_refused(tmp_path: Path) -> None:
    printed = on_small_disk("tests.survival.full_disk", tmp_path / "disk", "16m")
    for kind in ("add", "delete", "register"):
        assert f"{kind} PRECONDITION" in printed


def test_an_archive_that_cannot_be_written_to_is_read_and_searched(tmp_path: Path) -> None:
    with Archive.create(tmp_path / "marsh") as archive:
        archive.register_model(OWL, {"card.json": b"{}"})
        archive.add([photo(f"p{i}", {"countryCode": "FR"}) for i in range(9)], model=OWL.digest)
    assert "refused" in on_read_only_disk("tests.survival.read_only", tmp_path)
    with Archive.open(tmp_path / "marsh", write=True) as archive:
        archive.delete(["p3"])
        assert archive.verify() == []
