"""The request of a run, its folder, and the command that repeats it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bittern.benchmarks.eval.request import RUN_FILE, EvalRequest, claim, command_of
from bittern.benchmarks.eval.tasks import Protocol
from bittern.errors import BitternError, InvalidInputError


def test_a_folder_is_claimed_once_and_found_again(tmp_path: Path) -> None:
    request = EvalRequest("field", tmp_path / "a" / "run", models=["field"])
    assert not claim(request)
    assert claim(request)
    assert json.loads((request.out / RUN_FILE).read_text())["models"] == ["field"]


def test_a_file_instead_of_the_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("")
    with pytest.raises(InvalidInputError, match="choose another --output"):
        claim(EvalRequest("field", path))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"protocol": 3}', "\0", "[" * 100_000])
def test_a_damaged_request_is_refused_where_something_was_measured(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / RUN_FILE
    path.write_text(content)
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "one.safetensors").touch()
    with pytest.raises(BitternError, match="choose another --output"):
        claim(EvalRequest("field", tmp_path))
    assert path.read_text() == content


def test_a_folder_in_which_nothing_was_measured_is_taken_over(tmp_path: Path) -> None:
    claim(EvalRequest("field", tmp_path, models=["feild"]))
    assert not claim(EvalRequest("field", tmp_path, models=["field"]))
    assert claim(EvalRequest("field", tmp_path, models=["field"]))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"measures": ("P@50",), "protocol": Protocol(depth=20), "rerank": 0}, "looks at 50 ranks"),
        ({"protocol": Protocol(depth=20)}, "--rerank 100 reaches deeper than --depth 20"),
        ({"embeddings": Path("e"), "models": ("a", "b")}, "--embeddings are those of one encoder"),
        ({"systems": ("flaot32",)}, "unknown system 'flaot32'; choose from float32"),
        ({"bits": ()}, "--bits needs at least one"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        replace(EvalRequest("field", tmp_path / "run"), **changed).checked()


def test_a_run_inside_its_data_is_refused(tmp_path: Path) -> None:
    request = EvalRequest("ssw60", tmp_path / "ssw60" / "run", data=tmp_path / "ssw60")
    (tmp_path / "ssw60").mkdir()
    with pytest.raises(InvalidInputError, match="is inside the data folder"):
        request.checked()


def test_the_order_of_code_lengths_makes_no_other_run(tmp_path: Path) -> None:
    claim(EvalRequest("field", tmp_path, bits=(64, 16)))
    assert claim(EvalRequest("field", tmp_path, bits=(16, 64, 64)))


def test_the_command_says_everything_but_where_things_lie(tmp_path: Path) -> None:
    protocol = Protocol(
        prompts=("a photo of a {common}", "{taxonomy}"), average_prompts=True, depth=0, seed=3
    )
    request = EvalRequest(
        "inquire",
        tmp_path / "runs" / "one",
        data=tmp_path / "iNat 24",
        models=["bioclip", str(tmp_path / "models" / "mine")],
        bits=(64,),
        measures=("AP_minR@50",),
        rerank=0,
        protocol=protocol,
    )
    command = command_of(request)
    assert str(tmp_path) not in command
    assert shlex.split(command) == [
        "bittern", "eval", "inquire", "--data", "iNat 24", "--model", "bioclip",
        "--model", "mine", "--bits", "64", "--measures", "AP_minR@50", "--rerank", "0",
        "--prompt", "a photo of a {common}", "--prompt", "{taxonomy}", "--average-prompts",
        "--depth", "0", "--seed", "3", "--output", "one",
    ]  # fmt: skip


def test_defaults_are_not_repeated(tmp_path: Path) -> None:
    request = EvalRequest("words", tmp_path / "run")
    assert command_of(request) == "bittern eval words --output run"
