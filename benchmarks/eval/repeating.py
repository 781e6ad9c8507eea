"""The command that repeats a run, with no path of the machine in it but the last name."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

from bittern.benchmarks.eval.protocol import Protocol
from bittern.benchmarks.eval.request import DEFAULT_BITS, EvalRequest

_OTHERWISE = {"prompts": "prompt"}


def command_of(request: EvalRequest) -> str:
    """``bittern eval …`` with every option that is not the default."""
    words = ["bittern", "eval", request.suite]
    if request.data is not None:
        words += ["--data", _name(request.data)]
    if request.embeddings is not None:
        words += ["--embeddings", _name(request.embeddings)]
    for name in request.models:
        words += ["--model", _name(Path(name)) if "/" in name else name]
    if tuple(request.bits) != DEFAULT_BITS:
        words += ["--bits", ",".join(str(length) for length in request.bits)]
    for option, names in (("systems", request.systems), ("measures", request.measures)):
        if names:
            words += [f"--{option}", ",".join(names)]
    if request.rerank != EvalRequest.rerank:
        words += ["--rerank", str(request.rerank)]
    words += _protocol(request.protocol)
    words += ["--out", _name(request.out)]
    return shlex.join(words)


def _protocol(protocol: Protocol) -> list[str]:
    words = []
    for field in fields(Protocol):
        value = getattr(protocol, field.name)
        if value == field.default:
            continue
        option = "--" + _OTHERWISE.get(field.name, field.name).replace("_", "-")
        if isinstance(value, bool):
            words.append(option)
        elif field.name == "prompts":
            words += [word for prompt in value for word in (option, prompt)]
        elif field.name == "soundscapes":
            words += [option, _name(Path(value))]
        else:
            words += [option, str(value)]
    return words


def _name(path: Path) -> str:
    return path.resolve().name or str(path)
