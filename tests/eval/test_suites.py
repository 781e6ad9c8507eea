"""What holds for every suite: its layout, its options, its towers, and missing media."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bittern.benchmarks.eval.suites import NAMES, suite_named
from bittern.benchmarks.eval.tasks import Protocol
from bittern.errors import InvalidInputError, LayoutError
from tests.eval.conftest import BUILDERS, Miniatures
from tests.eval.miniatures import replace_text

ALL = frozenset({"text", "image", "audio"})
NEEDED = [
    (suite, file.path.split("|")[0], file)
    for suite in BUILDERS
    for file in suite_named(suite).layout
    if not file.optional
]


@pytest.mark.parametrize(("suite", "path", "file"), NEEDED)
def test_a_missing_file_is_named_with_origin_and_size(
    miniatures: Miniatures, tmp_path: Path, suite: str, path: str, file: Any
) -> None:
    data = shutil.copytree(miniatures(suite), tmp_path / "data")
    (data / path).rename(tmp_path / "other")
    protocol = Protocol(database="all") if suite == "inquire" else Protocol()
    with pytest.raises(LayoutError) as refused:
        suite_named(suite).tasks(data, protocol, ALL)
    assert f"lacks 1 of {suite}'s" in str(refused.value)
    assert f"from {file.origin}; {file.size}" in str(refused.value)


@pytest.mark.parametrize("suite", BUILDERS)
def test_all_missing_files_are_named_at_once(tmp_path: Path, suite: str) -> None:
    protocol = Protocol(database="all") if suite == "inquire" else Protocol()
    for towers in (ALL, frozenset[str]()):
        with pytest.raises(LayoutError) as refused:
            suite_named(suite).tasks(tmp_path, protocol, towers)
        for name, path, _ in NEEDED:
            assert name != suite or path in str(refused.value)
    with pytest.raises(LayoutError, match="--data"):
        suite_named(suite).check(None, protocol)


def test_custom_names_its_missing_files_too(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"lacks 3 of custom's 3 files:\n  queries\.csv: "):
        suite_named("custom").check(tmp_path, Protocol())


@pytest.mark.parametrize("suite", [*BUILDERS, "field"])
def test_a_model_without_towers_has_no_task(miniatures: Miniatures, suite: str) -> None:
    data = miniatures(suite) if suite in BUILDERS else None
    assert suite_named(suite).tasks(data, Protocol(), frozenset({"text"})) == []


@pytest.mark.parametrize(
    ("suite", "option", "value"),
    [
        ("inat24", "database", "val"),
        ("inquire", "database", "train"),
        ("inquire", "level", "genus"),
        ("inquire", "novel", "random"),
        ("inatsounds", "database", "dev"),
        ("soundscapes", "level", "family"),
        ("soundscapes", "database", "test"),
        ("soundscapes", "fit_on", "training"),
        *(
            (suite, option, value)
            for suite in ("field", "custom")
            for option, value in (
                ("level", "genus"),
                ("novel", "random"),
                ("database", "test"),
                ("soundscapes", "here"),
            )
        ),
        ("words", "level", "genus"),
        ("words", "novel", "taxonomy"),
        ("words", "novel_share", 0.5),
        ("words", "database", "test"),
        ("words", "soundscapes", "here"),
    ],
)
def test_an_option_that_a_suite_does_not_have_is_refused_before_files_are_missed(
    suite: str, option: str, value: Any
) -> None:
    named = f"{suite} has no --{option.replace('_', '-')} {value}"
    with pytest.raises(InvalidInputError, match=named) as refused:
        suite_named(suite).check(None, replace(Protocol(), **{option: value}))
    assert refused.value.field == option


@pytest.mark.parametrize("suite", ["inatsounds", "ssw60"])
def test_to_search_what_is_fitted_on_is_refused(suite: str) -> None:
    with pytest.raises(InvalidInputError, match="both fitted on and searched"):
        suite_named(suite).check(None, Protocol(fit_on="training", database="train"))


@pytest.mark.parametrize("database", ["inat:nabirds", "train:test"])
def test_a_database_of_ssw60_names_photographs_and_a_split(database: str) -> None:
    with pytest.raises(InvalidInputError, match="no choice of photographs and split"):
        suite_named("ssw60").check(None, Protocol(database=database))


@pytest.mark.parametrize("suite", NAMES)
@pytest.mark.parametrize("prompt", ["an animal", "{latin}"])
def test_a_prompt_that_cannot_be_filled_is_refused_before_anything_is_read(
    suite: str, prompt: str
) -> None:
    with pytest.raises(InvalidInputError, match=r"names no class|unknown placeholder"):
        suite_named(suite).tasks(None, Protocol(prompts=(prompt,)), ALL)


@pytest.mark.parametrize(
    ("suite", "pattern", "gone", "of"),
    [
        ("inat24", "train/*/*.jpg", 7, "14 images that train.json lists"),
        ("inatsounds", "test/*/*.wav", 4, "8 recordings that test.json lists"),
        ("soundscapes", "soundscape_data/MINI_001*", 1, "2 recordings that annotations.csv names"),
        ("ssw60", "images_nabirds/*0.jpg", 1, "6 files that images_inat.csv and images_nabirds"),
    ],
)
def test_missing_media_end_the_run_or_are_skipped_and_counted(
    miniatures: Miniatures, tmp_path: Path, suite: str, pattern: str, gone: int, of: str
) -> None:
    data = shutil.copytree(miniatures(suite), tmp_path / "data")
    before = suite_named(suite).tasks(data, Protocol(), ALL)[0]
    for path in sorted(data.glob(pattern))[::2]:
        path.unlink()
    with pytest.raises(LayoutError, match=f"{gone} of {of}"):
        suite_named(suite).tasks(data, Protocol(), ALL)
    task = suite_named(suite).tasks(data, Protocol(missing="skip"), ALL)[0]
    assert len(task.items) == len(before.items) - gone
    assert any(line.startswith(f"{gone} of {of}") for line in task.left_out)


@pytest.mark.parametrize(
    ("suite", "table", "old", "new", "wrong"),
    [
        ("ssw60", "audio_ml.csv", "asset_id,", "id,", "asset_id"),
        ("ssw60", "audio_ml.csv", "45516193,1", "45516191,1", "is in line 2 already"),
        ("ssw60", "audio_ml.csv", "45516193,1", "45516193,duck", "numbers as labels"),
        ("ssw60", "audio_ml.csv", "45516193,1", "45516193,-1", "numbers as labels"),
        ("ssw60", "audio_ml.csv", "45516193,1,test", "45516193,1", "cells"),
        ("ssw60", "audio_ml.csv", "45516193,1,test", "../../45516193,1,test", "leads out"),
        ("ssw60", "taxa.csv", "common_name", "name", "common_name"),
        ("ssw60", "taxa.csv", "1,mallar3", "0,mallar3", "0 again in line 3"),
        ("ssw60", "taxa.csv", "6,mutswa", "9,mutswa", "labels 0, 1, 2"),
        ("soundscapes", "annotations.csv", "Start Time (s)", "Begin", r"Start Time \(s\)"),
        ("soundscapes", "annotations.csv", ",1.0,", ",early,", "times in seconds.*line 2"),
        ("soundscapes", "annotations.csv", "MINI_001", "../../MINI_001", "leads out"),
        ("soundscapes", "species.csv", "Common Name", "Name", "Common Name"),
        ("soundscapes", "species.csv", "tawowl1", "mallar3", "'mallar3' again in line 3"),
        ("soundscapes", "species.csv", "Anas platyrhynchos,Mallard", ",", "has no name"),
    ],
)
def test_tables_of_another_form_are_refused(
    miniatures: Miniatures, tmp_path: Path, suite: str, table: str, old: str, new: str, wrong: str
) -> None:
    data = shutil.copytree(miniatures(suite), tmp_path / "data")
    replace_text(data / table, old, new)
    with pytest.raises(LayoutError, match=wrong):
        suite_named(suite).tasks(data, Protocol(), ALL)
