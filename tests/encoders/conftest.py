"""Tiny checkpoints, built once per run."""

from __future__ import annotations

from pathlib import Path

import pytest

from bittern.encoders.clap import ClapEncoder
from bittern.encoders.openclip import OpenClipEncoder
from tests.encoders import tiny


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test finds this machine's weights, or calls the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty-cache"))
    monkeypatch.delenv("BITTERN_WEIGHTS", raising=False)


@pytest.fixture(scope="session")
def openclip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_openclip(tmp_path_factory.mktemp("openclip"))


@pytest.fixture(scope="session")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_clap(tmp_path_factory.mktemp("clap"))


@pytest.fixture(scope="session")
def openclip(openclip_folder: Path) -> OpenClipEncoder:
    return OpenClipEncoder(openclip_folder, name="tiny-clip", device="cpu")


@pytest.fixture(scope="session")
def clap(clap_folder: Path) -> ClapEncoder:
    return ClapEncoder(clap_folder, name="tiny-clap", device="cpu")
