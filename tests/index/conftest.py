from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bittern.index.archive import Archive
from tests.index.samples import OWL


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with Archive.create(tmp_path / "marsh") as made:
        made.register_model(OWL, {"card.json": b"{}", "heads/shared.bin": b"\x00\x01"})
        yield made
