"""`python -m benchmarks [quality|encode|search|service] [--json FILE]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.report import Report, show
from bittern.errors import BitternError

PARTS = ("quality", "encode", "search", "service")


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that were asked for, one after the other; all of them by default."""
    options = _parser().parse_args(arguments)
    written: dict[str, Any] = {}
    try:
        for part in options.part or PARTS:
            load = machine.load_average()
            report = _runner(part, options)()
            measured_on = machine.describe(load)
            show(report, machine.lines(measured_on))
            written[part] = {
                "machine": measured_on,
                "size": report.size,
                "values": report.values,
            }
            if options.json:
                options.json.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n")
    except (BitternError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _runner(part: str, options: argparse.Namespace) -> Callable[[], Report]:
    """The part's measurement; its libraries are loaded when it is run."""
    from benchmarks import encode, quality, search, service
    from bittern.cli.screen import licence_notice

    if part == "search":
        return lambda: search.run(rows=options.rows, rounds=options.rounds)
    licence_notice(options.encoder)
    if part == "quality":
        return lambda: quality.run(options.manifest, options.encoder)
    if part == "encode":
        return lambda: encode.run(options.manifest, options.encoder, rounds=options.rounds)
    return lambda: service.run(options.manifest, options.encoder, rounds=options.rounds)


def _parser() -> argparse.ArgumentParser:
    from benchmarks.collection import SAMPLE

    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure quality and speed on this machine. Nothing passes or fails.",
        epilog="Example: python -m benchmarks search --rows 2000000 --json search.json",
    )
    parser.add_argument(
        "part", nargs="*", type=_part, help=f"{', '.join(PARTS)}; all of them by default"
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        default=SAMPLE,
        help="CSV with media and label columns (default: the sample)",
    )
    parser.add_argument("--encoder", default="field", help="encoder of the catalogue")
    parser.add_argument("--rows", type=_positive, default=1_000_000, help="codes of `search`")
    parser.add_argument("--rounds", type=_positive, help="timed turns of each contestant")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    return parser


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"there is no '{text}'; there are {', '.join(PARTS)}")
    return text


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


if __name__ == "__main__":
    sys.exit(main())
