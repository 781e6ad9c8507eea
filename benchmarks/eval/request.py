"""The options of a run, and its folder: one request per folder, continued where it stopped.

RUN/
├── run.json             the request; the folder is refused to another one
├── cells/               finished measurements (`bittern.benchmarks.eval.cells`)
├── results.json, results.csv, results.md, index.html, plots/      the report
└── trec/                runs and qrels
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from bittern.benchmarks.eval.cells import CELLS
from bittern.benchmarks.eval.tasks import Protocol
from bittern.errors import InvalidInputError, PreconditionError
from bittern.files import replace_file
from bittern.hashing.codes import check_bits

RUN_FILE = "run.json"
FORMAT = 1
_LARGEST = 1 << 20
DEFAULT_BITS = (16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class EvalRequest:
    """One run.

    Attributes:
        suite: its name.
        out: folder of the run.
        data: of the suite; None where it needs none.
        models: encoders and saved models; empty for the suite's own.
        bits: code lengths.
        systems: names of systems; empty for all that fit.
        measures: names, the main one first; empty for the suite's own.
        rerank: the nearest so many are re-ranked by float cosine, beside the plain ranking; 0
            for not at all.
        protocol: everything else that papers differ in.
        cache: folder of embeddings; None for the user's cache.
        embeddings: file or folder with the items' embeddings, made before; see
            `bittern.service.ingest.precomputed`.
        trec: whether runs and qrels are written.
    """

    suite: str
    out: Path
    data: Path | None = None
    models: Sequence[str] = ()
    bits: Sequence[int] = DEFAULT_BITS
    systems: Sequence[str] = ()
    measures: Sequence[str] = ()
    rerank: int = 100
    protocol: Protocol = field(default_factory=Protocol)
    cache: Path | None = None
    embeddings: Path | None = None
    trec: bool = True

    def checked(self) -> EvalRequest:
        """The same, if it can be run.

        Raises:
            CodeError, InvalidInputError: it cannot; the message says what can.
        """
        from bittern.benchmarks.eval.systems.selection import NAMES

        for length in self.bits:
            check_bits(length)
        self.check_measures(self.measures)
        if self.protocol.depth and self.rerank > self.protocol.depth:
            raise InvalidInputError(
                f"--rerank {self.rerank} reaches deeper than --depth {self.protocol.depth}: give "
                f"--rerank 0, or at most {self.protocol.depth}",
                field="rerank",
            )
        if self.embeddings is not None and len(self.models) > 1:
            raise InvalidInputError(
                f"--embeddings are those of one encoder, and --model names {len(self.models)}: "
                "run each by itself",
                field="embeddings",
            )
        unknown = [name for name in self.systems if name.lower() not in NAMES]
        if unknown:
            raise InvalidInputError(
                f"unknown system {', '.join(map(repr, unknown))}; choose from {', '.join(NAMES)}",
                field="systems",
            )
        self._check_output()
        for what, number, least in (
            ("rerank", self.rerank, 0),
            ("repeats", self.protocol.repeats, 1),
            ("fit-rows", self.protocol.fit_rows, 1),
            ("depth", self.protocol.depth or 0, 0),
            ("seed", self.protocol.seed, 0),
        ):
            if number < least:
                raise InvalidInputError(f"--{what} must be {least} or more, not {number}")
        if not 0 < self.protocol.novel_share < 1:
            raise InvalidInputError(
                f"--novel-share must be above 0 and below 1, not {self.protocol.novel_share}"
            )
        if not self.bits:
            raise InvalidInputError("--bits needs at least one code length, such as 256")
        return self

    def check_measures(self, names: Sequence[str]) -> None:
        """Refuse unknown measures, and those that look deeper than is ranked.

        Raises:
            InvalidInputError: one of them; the message says what can.
        """
        from bittern.benchmarks.eval.measures import measure

        depth = self.protocol.depth
        for name in names:
            cut = measure(name).cutoff
            if cut and depth and cut > depth:
                raise InvalidInputError(
                    f"{name} looks at {cut} ranks, and --depth is {depth}; rank deeper, or "
                    "choose other --measures",
                    field="depth",
                )

    def _check_output(self) -> None:
        if self.data is None or not self.data.is_dir():
            return
        data, out = self.data.resolve(), self.out.resolve()
        if out == data or data in out.parents:
            raise InvalidInputError(
                f"--output {self.out} is inside the data folder {self.data}; choose another folder",
                field="out",
            )

    def identity(self) -> dict[str, Any]:
        """What tells this run from others, as JSON values."""
        return {
            "format": FORMAT,
            "suite": self.suite,
            "data": str(self.data.resolve()) if self.data else None,
            "embeddings": str(self.embeddings.resolve()) if self.embeddings else None,
            "models": list(self.models),
            "bits": sorted(set(self.bits)),
            "systems": list(self.systems),
            "measures": list(self.measures),
            "rerank": self.rerank,
            "protocol": self.protocol.to_json(),
        }


def claim(request: EvalRequest) -> bool:
    """Make the run's folder, or find it begun by the same request.

    A folder in which nothing has been measured yet is taken over.

    Returns:
        whether it was begun before.

    Raises:
        InvalidInputError: the folder holds another run, or something else.
        PreconditionError: it cannot be written to, or read.
    """
    folder, identity = request.out, request.identity()
    path = folder / RUN_FILE
    if not path.is_file():
        _refuse_other_content(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, _written(identity))
        except OSError as error:
            raise PreconditionError(
                f"cannot write to {folder}: {error.strerror}; choose another --output"
            ) from error
        return False
    begun = _read(path)
    if begun == identity:
        return True
    if (folder / CELLS).is_dir() and any((folder / CELLS).iterdir()):
        raise InvalidInputError(
            f"{folder} holds another run, with other {', '.join(_differing(begun, identity))}; "
            "choose another --output, or give the same options to go on with it",
            field="out",
        )
    replace_file(path, _written(identity))
    return False


def _written(identity: Mapping[str, Any]) -> bytes:
    return (json.dumps(identity, indent=1) + "\n").encode()


def _refuse_other_content(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(
            f"{folder} exists, and is no folder of a run; choose another --output", field="out"
        )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            value = json.loads(stream.read(_LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise PreconditionError(
            f"{path} cannot be read ({error}); choose another --output, or remove the folder"
        ) from error
    return value if isinstance(value, dict) else {}


def _differing(begun: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    names = [name for name in identity if name != "protocol" and begun.get(name) != identity[name]]
    before = begun.get("protocol")
    before = before if isinstance(before, dict) else {}
    protocol = identity["protocol"]
    names += [name for name in protocol if before.get(name) != protocol[name]]
    return names or ["entries in run.json"]


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
    words += ["--output", _name(request.out)]
    return shlex.join(words)


def _protocol(protocol: Protocol) -> list[str]:
    words = []
    for option_field in fields(Protocol):
        value = getattr(protocol, option_field.name)
        if value == option_field.default:
            continue
        option = "--" + _OTHERWISE.get(option_field.name, option_field.name).replace("_", "-")
        if isinstance(value, bool):
            words.append(option)
        elif option_field.name == "prompts":
            words += [word for prompt in value for word in (option, prompt)]
        elif option_field.name == "soundscapes":
            words += [option, _name(Path(value))]
        else:
            words += [option, str(value)]
    return words


def _name(path: Path) -> str:
    return path.resolve().name or str(path)
