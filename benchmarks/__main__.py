"""`python -m bittern.benchmarks [PART ...] [--json FILE]`: see `PARTS` and `ON_REQUEST`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bittern.benchmarks import machine
from bittern.benchmarks.speed.report import Report, show
from bittern.errors import BitternError, CodeError

PARTS = ("encode", "search", "service")
ON_REQUEST = (
    "training", "sharded", "gpu", "jobs", "evaluation", "embeddings",
)  # fmt: skip
"""Parts that take minutes, and are run only when they are named."""


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
    from bittern.benchmarks.speed import encode, service
    from bittern.cli.output import licence_notice

    if part == "search":
        return lambda: _search(options)
    if part == "training":
        return lambda: _training(options)
    if part == "gpu":
        return lambda: _gpu(options)
    if part == "jobs":
        return lambda: _jobs(options)
    if part == "evaluation":
        return lambda: _evaluation(options)
    if part == "embeddings":
        from bittern.benchmarks.speed import embedding_scale

        return lambda: embedding_scale.run(options.rows or embedding_scale.ROWS)
    if part == "sharded":
        from bittern.benchmarks.speed import sharded

        return lambda: sharded.run(rows=options.rows, rounds=options.rounds)
    licence_notice(options.encoder)
    if part == "encode":
        return lambda: encode.run(options.manifest, options.encoder, rounds=options.rounds)
    return lambda: service.run(options.manifest, options.encoder, rounds=options.rounds)


def _search(options: argparse.Namespace) -> Report:
    from bittern.benchmarks.speed.search.run import run
    from bittern.benchmarks.speed.search.settings import Settings

    if options.quick:
        settings = Settings.quick()
    elif options.rows:
        settings = Settings.of_rows(options.rows)
    elif options.full:
        settings = Settings.full()
    else:
        settings = Settings() if options.part else Settings.among_others()
    changed = {"bits": options.bits, "rounds": options.rounds, "parts": options.only}
    return run(settings.but(**{k: v for k, v in changed.items() if v}), options.plot)


def _training(options: argparse.Namespace) -> Report:
    from bittern.benchmarks.speed import training

    return training.run(rows=options.rows, rounds=options.rounds, towers=not options.quick)


def _gpu(options: argparse.Namespace) -> Report:
    from bittern.benchmarks.speed import search_gpu

    return search_gpu.run(options.rows, options.bits, options.rounds)


def _evaluation(options: argparse.Namespace) -> Report:
    from dataclasses import replace

    from bittern.benchmarks.speed.evaluation_cost import Size, run

    changed = {"rows": options.rows, "queries": options.queries, "rounds": options.rounds}
    size = Size.quick() if options.quick else Size()
    return run(replace(size, **{name: value for name, value in changed.items() if value}))


def _jobs(options: argparse.Namespace) -> Report:
    from dataclasses import replace

    from bittern.benchmarks.speed.jobs.run import Settings, run

    settings = Settings.quick() if options.quick else Settings()
    changed = {"rounds": options.rounds, "parts": options.only}
    return run(replace(settings, **{name: value for name, value in changed.items() if value}))


def _parser() -> argparse.ArgumentParser:
    from bittern.benchmarks.speed.collection import SAMPLE

    parser = argparse.ArgumentParser(
        prog="python -m bittern.benchmarks",
        description="Measure speed on this machine. Nothing passes or fails.",
        epilog="Example: python -m bittern.benchmarks search --rows 2000000 --json search.json",
    )
    parser.add_argument(
        "part",
        nargs="*",
        type=_part,
        help=f"{', '.join(PARTS)}, all of them by default; on request: {', '.join(ON_REQUEST)}",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        default=SAMPLE,
        help="CSV with media and label columns (default: the sample)",
    )
    parser.add_argument("--encoder", default="field", help="encoder of the catalogue")
    parser.add_argument(
        "--rows",
        type=_positive,
        help="codes of `search` (several sizes) and `evaluation`, items of `training`, "
        "`embeddings`",
    )
    parser.add_argument("--queries", type=_positive, help="of `evaluation` (100,000)")
    parser.add_argument("--rounds", type=_positive, help="timed turns of each contestant")
    parser.add_argument("--bits", type=_bits, nargs="+", help="code lengths of `search`")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="`training`: heads only; `search`: 100,000 codes; "
        "`jobs`: a glance; `evaluation`: 2,000 queries to 100,000 codes",
    )
    parser.add_argument("--full", action="store_true", help="`search`: more sizes, an hour")
    parser.add_argument("--only", nargs="+", metavar="TABLE", help="`search`, `jobs`: some of it")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="`search`: draw its curves here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers here")
    return parser


def _part(text: str) -> str:
    if text not in (*PARTS, *ON_REQUEST):
        known = ", ".join((*PARTS, *ON_REQUEST))
        raise argparse.ArgumentTypeError(f"there is no '{text}'; there are {known}")
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
