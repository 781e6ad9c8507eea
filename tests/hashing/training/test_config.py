from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bittern.errors import InvalidInputError
from bittern.hashing.training.config import (
    LARGEST_FILE,
    TrainingConfig,
    differing,
    load_mapping,
    read_settings,
)


def parsed(text: str) -> TrainingConfig:
    return TrainingConfig(**load_mapping(text, "the settings"))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("bits", 12, "a whole number divisible by 8 from 8 to 4096"),
        ("bits", True, "a whole number"),
        ("bits", "256", "a whole number"),
        ("bits", 256.0, "a whole number"),
        ("size", "huge", "one of small, large"),
        ("epochs", 0, "from 1 to 100000"),
        ("learning_rate", 0, "a number above 0 to 1"),
        ("learning_rate", float("nan"), "a number"),
        ("learning_rate", "fast", "a number"),
        ("validation_share", 0.6, "from 0 to 0.5"),
        ("device", "tpu", "text like"),
        ("seed", -1, "from 0"),
        ("seed", [1], "not a list"),
    ],
)
def test_a_value_out_of_range_is_refused_with_field_value_and_range(
    field: str, value: Any, allowed: str
) -> None:
    with pytest.raises(InvalidInputError, match=field) as caught:
        TrainingConfig(**{field: value})
    assert caught.value.field == field
    assert allowed in caught.value.message
    if not isinstance(value, list):
        assert repr(value) in caught.value.message


@pytest.mark.parametrize(
    "value",
    ["!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "!!map [1]", "!!set [1]", "!!map x"],
)
def test_a_tag_that_its_value_does_not_fit_is_refused(value: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read as YAML"):
        load_mapping(f"bits: {value}", "the settings")


def test_a_config_made_directly_is_checked_too() -> None:
    with pytest.raises(InvalidInputError, match="batch_size must be"):
        TrainingConfig(batch_size=1)


def test_a_final_rate_above_the_first_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="at most learning_rate"):
        TrainingConfig(learning_rate=1e-5, final_learning_rate=1e-4)


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match=r"no setting 'epoch'; there are bits"):
        parsed("epoch: 3")


def test_yaml_and_json_give_the_same_settings() -> None:
    yaml = parsed("bits: 64\nlearning_rate: 1e-4  # no point: text to YAML 1.1\ndevice: null")
    assert yaml == parsed('{"bits": 64, "learning_rate": 1e-4, "device": null}')
    assert yaml.learning_rate == 1e-4


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("")
    assert read_settings(tmp_path / "c.yaml") == {}


def test_json_reads_back_to_an_equal_value() -> None:
    config = TrainingConfig(bits=64, device="cuda:1", learning_rate=3e-4, lora_rank=16)
    assert parsed(config.to_json()) == config
    assert json.loads(config.to_json())["lora_rank"] == 16


def test_overrides_replace_only_what_they_name() -> None:
    config = TrainingConfig(bits=64).with_overrides({"epochs": 9})
    assert (config.bits, config.epochs) == (64, 9)
    with pytest.raises(InvalidInputError, match="epochs must be"):
        config.with_overrides({"epochs": "9"})


@pytest.mark.parametrize(
    "text",
    [
        "- a\n- list",
        "just words",
        "1: 2",
        "bits: 64\nbits: 128",
        "a: &x [1, 2]\nb: *x",
        "bits: [64",
        "bits: !!python/object/apply:os.system ['true']",
        "a: " + "[" * 5000,
    ],
)
def test_text_that_is_not_plain_settings_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parsed(text)


def test_files_that_cannot_be_settings_are_refused_with_their_name(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text("#" * (LARGEST_FILE + 1))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    for name in ("long.yaml", "bytes.yaml", "missing.yaml"):
        with pytest.raises(InvalidInputError, match=name):
            read_settings(tmp_path / name)


def test_settings_that_change_no_weight_may_differ_on_resume() -> None:
    a = TrainingConfig().to_dict()
    b = TrainingConfig(log_every=1, checkpoint_every=5, seed=1).to_dict()
    assert differing(a, b) == ["seed"]


def test_settings_are_read_without_torch() -> None:
    code = "import sys, bittern.hashing.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
