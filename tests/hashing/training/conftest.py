from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bittern.hashing.training import loop


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices are tiny here: threads would only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _quick_plot(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plot takes longer than these trainings; tests of plots use `real_plot`."""

    def draw(history: Any, bits: Any, path: Path, title: str = "") -> None:
        path.write_bytes(b"")

    if "real_plot" not in request.fixturenames:
        monkeypatch.setattr(loop, "draw_plot", draw)


@pytest.fixture
def real_plot() -> None:
    """Draw plots as users get them."""
