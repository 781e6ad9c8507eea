"""`python -m bittern.benchmarks [BENCHMARK ...] [--json FILE]`: speed, measured."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from bittern.benchmarks import machine
from bittern.benchmarks.speed.harness import SAMPLE, Options, Report, show, to_json
from bittern.errors import BitternError, CodeError

BENCHMARKS = {
    "encode": "bittern.benchmarks.speed.jobs.encode",
    "search": "bittern.benchmarks.speed.search.run",
    "latency": "bittern.benchmarks.speed.latency",
    "service": "bittern.benchmarks.speed.service",
    "training": "bittern.benchmarks.speed.training",
    "jobs": "bittern.benchmarks.speed.jobs.run",
    "sharded": "bittern.benchmarks.speed.sharded",
    "gpu": "bittern.benchmarks.speed.gpu",
    "evaluation": "bittern.benchmarks.speed.evaluation",
}
"""Modules with a function ``run(options) -> Report``, loaded when they are needed."""
USUAL = ("encode", "search", "service")
"""Run when no benchmark is named; `search` then measures less."""
USUAL_SEARCH = {"tables": ("exact", "filters"), "rows": 1_000_000, "rounds": 5}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks that are named, one after the other; the usual ones if none is."""
    given = vars(_parser().parse_args(arguments))
    names, file = given.pop("benchmark"), given.pop("json")
    written: dict[str, Any] = {}
    try:
        for name in names or USUAL:
            load = machine.load_average()
            usual = USUAL_SEARCH if name == "search" and not names else {}
            changed = {option: value for option, value in given.items() if value}
            report = _measured(name, Options(**{**usual, **changed}))
            measured_on = machine.describe(load)
            show(report, machine.lines(measured_on))
            written[name] = {
                "machine": measured_on,
                "size": report.size,
                "values": report.values,
            }
            if file:
                text = json.dumps(written, indent=1, ensure_ascii=False, default=to_json)
                file.write_text(text + "\n")
    except (BitternError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _measured(name: str, options: Options) -> Report:
    if name in ("encode", "service"):
        from bittern.cli.output import licence_notice

        licence_notice(options.encoder)
    report: Report = import_module(BENCHMARKS[name]).run(options)
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bittern.benchmarks",
        description="Measure speed on this machine. Nothing passes or fails.",
        epilog="Example: python -m bittern.benchmarks search --rows 2000000 --json search.json",
    )
    parser.add_argument(
        "benchmark",
        nargs="*",
        type=_benchmark,
        help=f"{', '.join(BENCHMARKS)}; by default {', '.join(USUAL)}",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        default=SAMPLE,
        help="CSV with a media column, of `encode` and `service` (default: the sample)",
    )
    parser.add_argument("--encoder", default="field", help="encoder of the catalogue, likewise")
    parser.add_argument("--rows", type=_positive, help="codes to search, items to train on")
    parser.add_argument("--rounds", type=_positive, help="timed turns of each contestant")
    parser.add_argument("--bits", type=_bits, nargs="+", help="code lengths of `search`, `gpu`")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it all work?")
    parser.add_argument("--full", action="store_true", help="`search`: larger sizes, an hour")
    parser.add_argument(
        "--only", dest="tables", nargs="+", metavar="TABLE", help="some tables of `search`, `jobs`"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    return parser


def _benchmark(text: str) -> str:
    if text not in BENCHMARKS:
        raise argparse.ArgumentTypeError(
            f"unknown benchmark {text!r}; known: {', '.join(BENCHMARKS)}"
        )
    return text


def _bits(text: str) -> int:
    from bittern.hashing.codes import check_bits

    try:
        return check_bits(int(text))
    except CodeError as error:
        raise argparse.ArgumentTypeError(error.message) from error


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
