"""`bittern eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bittern.cli.eval_screen import Bar, print_results
from bittern.cli.job_screen import INTERRUPTED
from bittern.cli.output import err, licence_notice, out, plain
from bittern.errors import InvalidInputError

_COMPARED, _PROTOCOL, _FILES = "What is compared", "Protocol: what papers differ in", "Files"

Policy = Literal["error", "skip"]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Encoder, or saved model; several, separated by commas or given again. An encoder "
        "is compared with the training-free codes over it. `field` by default.",
        rich_help_panel=_COMPARED,
    ),
]
Lengths = Annotated[
    str,
    typer.Option(
        "--bits",
        help="Code lengths, separated by commas.",
        show_default=True,
        rich_help_panel=_COMPARED,
    ),
]
Names = Annotated[
    str,
    typer.Option(
        "--systems",
        help="What is compared, separated by commas; all by default. --layout lists them.",
        rich_help_panel=_COMPARED,
    ),
]
MeasureNames = Annotated[
    str,
    typer.Option(
        "--measures",
        help="Separated by commas, the main one first: AP, AP@k, AP_hits@k, AP_minR@k, nDCG@k, "
        "R-prec, Recall@k, P@k, MRR, hit@k, P_H2. The suite's own by default.",
        rich_help_panel=_COMPARED,
    ),
]


def attach(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command(name="eval")(evaluate)


def evaluate(
    suite: Annotated[
        str,
        typer.Argument(
            help="inquire, inat24, inatsounds, ssw60, soundscapes, words, field or custom."
        ),
    ],
    to: Annotated[
        Path | None, typer.Option("--output", help="Folder of the run and its report.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="The suite's data; `words` and `field` need none.")
    ] = None,
    models: ModelNames = None,
    bits: Lengths = "16,32,64,128,256,512",
    systems: Names = "",
    measures: MeasureNames = "",
    rerank: Annotated[
        int,
        typer.Option(
            help="Also re-rank this many of the nearest by float cosine, as a separate row; 0: no.",
            rich_help_panel=_COMPARED,
        ),
    ] = 100,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="Template of queries for classes, with {common}, {scientific}, {taxonomy} or "
            "{name}. Repeatable.",
            rich_help_panel=_PROTOCOL,
        ),
    ] = None,
    average_prompts: Annotated[
        bool,
        typer.Option(
            "--average-prompts",
            help="One query per class: the mean of its templates.",
            rich_help_panel=_PROTOCOL,
        ),
    ] = False,
    database: Annotated[
        str,
        typer.Option(
            help="inquire, inatsounds, ssw60: published split of the queries or items.",
            rich_help_panel=_PROTOCOL,
        ),
    ] = "",
    windows: Annotated[
        Literal["max", "mean", "separate"],
        typer.Option(
            help="A recording counts by its nearest window (max), by the mean of "
            "its windows (mean), or each window is an item (separate).",
            rich_help_panel=_PROTOCOL,
        ),
    ] = "max",
    level: Annotated[
        Literal["species", "genus", "family", "order", "class"],
        typer.Option(
            help="Rank at which items count as the same: species, genus, family, order or class.",
            rich_help_panel=_PROTOCOL,
        ),
    ] = "species",
    novel: Annotated[
        Literal["none", "random", "taxonomy"],
        typer.Option(
            help="inat24, inatsounds: separate seen and novel classes: none, random or taxonomy.",
            rich_help_panel=_PROTOCOL,
        ),
    ] = "none",
    novel_share: Annotated[
        float, typer.Option(help="Share of novel classes.", rich_help_panel=_PROTOCOL)
    ] = 0.2,
    soundscapes: Annotated[
        Path | None,
        typer.Option(
            help="inatsounds: annotated soundscapes to search as well.", rich_help_panel=_PROTOCOL
        ),
    ] = None,
    candidates: Annotated[
        Literal["full", "rerank", "both"],
        typer.Option(
            help="inquire: full, rerank (the 100 given per query) or both.",
            rich_help_panel=_PROTOCOL,
        ),
    ] = "both",
    fit_on: Annotated[
        Literal["items", "training"],
        typer.Option(
            help="What training-free codes are fitted on: the items searched, or the "
            "published training split.",
            rich_help_panel=_PROTOCOL,
        ),
    ] = "items",
    fit_rows: Annotated[
        int,
        typer.Option(
            help="Fit on at most this many rows, drawn at random.", rich_help_panel=_PROTOCOL
        ),
    ] = 100_000,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Rank all systems to this depth and cut measures there; 0: everything. By default "
            "everything, or 1000 if that would take hours.",
            rich_help_panel=_PROTOCOL,
        ),
    ] = None,
    missing: Annotated[
        Policy,
        typer.Option(
            help="If items are unusable: error, or skip and report them.", rich_help_panel=_FILES
        ),
    ] = "error",
    unknown: Annotated[
        Policy,
        typer.Option(
            help="If judgements name unknown items: error, or skip and report them.",
            rich_help_panel=_FILES,
        ),
    ] = "error",
    repeats: Annotated[
        int, typer.Option(help="words: number of random splits.", rich_help_panel=_PROTOCOL)
    ] = 3,
    seed: Annotated[
        int, typer.Option(help="Seed of all random draws.", rich_help_panel=_PROTOCOL)
    ] = 0,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder for embeddings; the user's cache by default.", rich_help_panel=_FILES
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the items' embeddings, made elsewhere with the same encoder: "
            "embeddings.npy (or .safetensors) and ids.txt, one id per row.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    trec: Annotated[
        bool,
        typer.Option(
            "--trec/--no-trec",
            help="Write runs and qrels in TREC's formats.",
            rich_help_panel=_FILES,
        ),
    ] = True,
    layout: Annotated[
        bool, typer.Option("--layout", help="Only describe the suite and its data.")
    ] = False,
    as_program: Annotated[
        bool, typer.Option("--json", help="Print results.json on standard output.")
    ] = False,
) -> None:
    """Measure retrieval on a benchmark: a number that can be compared with a paper's.

    Float vectors, training-free codes and learned codes are compared side by side, at equal
    bytes, with expected, best and worst values over ties, intervals and paired tests. The
    folder gets results.json, results.csv, results.md, plots, and index.html to look at. The
    same command continues an interrupted run, and embeds nothing twice.

    Example: bittern eval field --model field --bits 64,256 --output field-run

    Example: bittern eval inquire --data inat24/ --model bioclip-2 --output inquire-run
    """
    from bittern.benchmarks.eval.request import EvalRequest

    if layout:
        _print_layout(suite)
        return
    if to is None:
        raise InvalidInputError("--output is missing: name a folder for the run", field="out")
    from bittern.benchmarks.eval.tasks import Protocol

    protocol = Protocol(
        prompts=tuple(prompt or ()),
        average_prompts=average_prompts,
        database=database,
        windows=windows,
        level=level,
        novel=novel,
        novel_share=novel_share,
        soundscapes=str(soundscapes) if soundscapes else "",
        candidates=candidates,
        fit_on=fit_on,
        fit_rows=fit_rows,
        depth=depth,
        missing=missing,
        unknown=unknown,
        repeats=repeats,
        seed=seed,
    )
    request = EvalRequest(
        suite=suite,
        out=to,
        data=data,
        models=[name for given in models or [] for name in _split(given)],
        bits=_numbers(bits),
        systems=_split(systems),
        measures=_split(measures),
        rerank=rerank,
        protocol=protocol,
        cache=cache,
        embeddings=embeddings,
        trec=trec,
    )
    _run(request, as_program)


def _run(request: Any, as_program: bool) -> None:
    from bittern.benchmarks.eval.report import write_report
    from bittern.benchmarks.eval.request import command_of
    from bittern.benchmarks.eval.run import evaluate
    from bittern.benchmarks.eval.spaces import licences_of

    request = request.checked()
    for name in licences_of(request.models or (() if request.suite == "words" else ("field",))):
        licence_notice(name)
    try:
        with Bar() as bar:
            results = evaluate(request, bar, command_of(request))
            bar.stage("writing the report", None)
            write_report(results, request.out)
    except KeyboardInterrupt:
        err.print(
            "interrupted; finished measurements are kept. The same command continues the run."
        )
        raise typer.Exit(INTERRUPTED) from None
    if as_program:
        print((request.out / "results.json").read_text(encoding="utf-8"), end="")
        return
    print_results(results)
    err.print(plain(f"report: {request.out / 'index.html'}"), soft_wrap=True)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in _split(text)]
    except ValueError:
        raise InvalidInputError(
            f"--bits must be whole numbers separated by commas, such as 64,256, not {text!r}",
            field="bits",
        ) from None


def _print_layout(suite: str) -> None:
    from bittern.benchmarks.eval.suites import suite_named
    from bittern.benchmarks.eval.systems.selection import NAMES

    found = suite_named(suite)
    out.print(plain(f"{found.name}: {found.about}"), soft_wrap=True)
    out.print(plain(f"measures: {', '.join(found.measures)}"), soft_wrap=True)
    out.print(plain(f"systems: {', '.join(NAMES)}"), soft_wrap=True)
    needed = "the folder given with --data holds:" if found.needs_data else "needs no --data"
    out.print(plain(needed))
    for file in found.layout:
        optional = " (optional)" if file.optional else ""
        out.print(plain(f"  {' or '.join(file.path.split('|'))}{optional}"), soft_wrap=True)
        out.print(plain(f"      {file.what}"), soft_wrap=True)
        out.print(plain(f"      from {file.origin}; {file.size}"), soft_wrap=True)
