"""Miniatures of the suites' data, built once per process."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.eval.miniatures import inat24, inatsounds, inquire, soundscapes, ssw60

Miniatures = Callable[[str], Path]
BUILDERS = {
    "inquire": inquire.build,
    "inat24": inat24.build,
    "inatsounds": inatsounds.build,
    "ssw60": ssw60.build,
    "soundscapes": soundscapes.build,
}


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory: pytest.TempPathFactory) -> Miniatures:
    """The folder of a suite's miniature, not to be changed."""
    root = tmp_path_factory.mktemp("miniatures")

    @cache
    def built(suite: str) -> Path:
        return BUILDERS[suite](root / suite)

    return built
