"""Every kind of file damaged in every way: it shows at open or at verify, or it does no harm."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.damage.harm import ATTACKS, HARMS, harmed, kind_of
from tests.damage.judging import attack, judge, judge_repair, make, make_full

SHOWS = ("_deletions", "data", "models", "newest manifest", "archive.json")
"""Files in which no damage is harmless."""
KINDS = (*SHOWS, "older manifest", "_transactions", "version hint", "sums", "archive.copy.json")
SEED = "heron"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("template") / "marsh"
    return path, make(path)


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_reported_or_does_no_harm_and_can_be_repaired(
    template: tuple[Path, dict[str, Any]], tmp_path: Path, kind: str, harm: str
) -> None:
    source, expected = template
    path = tmp_path / "marsh"
    shutil.copytree(source, path)
    files = [one for one in sorted(path.rglob("*")) if one.is_file() and kind_of(one, path) == kind]
    file = random.Random(f"{SEED} {kind} {harm}").choice(files)
    assert harmed(file, harm, f"{SEED} {file.name} {harm}")
    shown = judge(path, expected)
    if kind in SHOWS:
        assert shown in ("open", "verify")
    if kind in ("newest manifest", "archive.json"):
        assert shown == "open"
    repaired = judge_repair(path, expected)
    if kind not in ("data", "_deletions", "newest manifest"):
        assert repaired == "whole"


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "marsh"
    make_full(path)
    return path


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_archive_gives_typed_errors_and_nothing_outside_is_changed(
    full: Path, tmp_path: Path, name: str, number: int
) -> None:
    path = shutil.copytree(full, tmp_path / "marsh")
    attack(path, tmp_path / "outside", [name], f"{SEED} {number}")


def test_an_archive_is_made_of_the_kinds_that_are_damaged_here(
    template: tuple[Path, dict[str, Any]],
) -> None:
    path, _ = template
    kinds = {kind_of(one, path) for one in path.rglob("*") if one.is_file()}
    assert kinds - {"lock"} == set(KINDS)
