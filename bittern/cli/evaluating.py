"""`bittern eval`: its options, its progress, and the main measure of what it found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from bittern.cli.options import Embeddings, Json, flag
from bittern.cli.output import (
    INTERRUPTED,
    err,
    licence_notice,
    note,
    print_json,
    progress,
    show,
    table,
)
from bittern.errors import InvalidInputError
from bittern.text import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from bittern.benchmarks.eval.request import EvalRequest
    from bittern.benchmarks.eval.results import Results, Row
    from bittern.benchmarks.eval.tasks import Protocol

Policy = Literal["error", "skip"]
_compared = partial(typer.Option, rich_help_panel="What is compared")
_protocol = partial(typer.Option, rich_help_panel="Protocol: what papers differ in")
_files = partial(typer.Option, rich_help_panel="Files")


@dataclass
class Compared:
    """What is compared; lists are texts with commas."""

    models: Annotated[
        list[str] | None,
        _compared(
            "--model",
            metavar="NAMES",
            help="Encoder, or saved model; several, separated by commas or given again. An encoder "
            "is compared with the training-free codes over it. `field` by default.",
        ),
    ] = None
    bits: Annotated[
        str, _compared(metavar="NUMBERS", help="Code lengths, separated by commas.")
    ] = "16,32,64,128,256,512"
    systems: Annotated[
        str,
        _compared(
            metavar="NAMES",
            help="What is compared, separated by commas; all by default. --layout lists them.",
        ),
    ] = ""
    measures: Annotated[
        str,
        _compared(
            metavar="NAMES",
            help="Separated by commas, the main one first: AP, AP@k, AP_hits@k, AP_minR@k, nDCG@k, "
            "R-prec, Recall@k, P@k, MRR, hit@k, P_H2. The suite's own by default.",
        ),
    ] = ""
    rerank: Annotated[
        int,
        _compared(
            help="Also re-rank this many of the nearest by float cosine, as a separate row; 0: no."
        ),
    ] = 100


@dataclass
class ProtocolOptions:
    """The fields of a `Protocol`."""

    prompts: Annotated[
        list[str] | None,
        _protocol(
            "--prompt",
            metavar="TEMPLATE",
            help="Template of queries for classes, with {common}, {scientific}, {taxonomy} or "
            "{name}. Repeatable.",
        ),
    ] = None
    average_prompts: Annotated[
        bool,
        _protocol(
            "--average-prompts", metavar="", help="One query per class: the mean of its templates."
        ),
    ] = False
    database: Annotated[
        str,
        _protocol(help="inquire, inatsounds, ssw60: published split of the queries or items."),
    ] = ""
    windows: Annotated[
        Literal["max", "mean", "separate"],
        _protocol(
            metavar="HOW",
            help="A recording counts by its nearest window (max), by the mean of its windows "
            "(mean), or each window is an item (separate).",
        ),
    ] = "max"
    level: Annotated[
        Literal["species", "genus", "family", "order", "class"],
        _protocol(
            metavar="RANK",
            help="Rank at which items count as the same: species, genus, family, order or class.",
        ),
    ] = "species"
    novel: Annotated[
        Literal["none", "random", "taxonomy"],
        _protocol(
            metavar="HOW",
            help="inat24, inatsounds: separate seen and novel classes: none, random or taxonomy.",
        ),
    ] = "none"
    novel_share: Annotated[float, _protocol(help="Share of novel classes.")] = 0.2
    soundscapes: Annotated[
        Path | None, _protocol(help="inatsounds: annotated soundscapes to search as well.")
    ] = None
    candidates: Annotated[
        Literal["full", "rerank", "both"],
        _protocol(metavar="WHICH", help="inquire: full, rerank (the 100 given per query) or both."),
    ] = "both"
    fit_on: Annotated[
        Literal["items", "training"],
        _protocol(
            metavar="WHICH",
            help="What training-free codes are fitted on: the items searched (items), or the "
            "published training split (training).",
        ),
    ] = "items"
    fit_rows: Annotated[int, _protocol(help="Fit on at most this many rows, drawn at random.")] = (
        100_000
    )
    depth: Annotated[
        int | None,
        _protocol(
            help="Rank all systems to this depth and cut measures there; 0: everything. By default "
            "everything, or 1000 if that would take hours."
        ),
    ] = None
    missing: Annotated[
        Policy,
        _files(metavar="WHAT", help="If items are unusable: error, or skip and report them."),
    ] = "error"
    unknown: Annotated[
        Policy,
        _files(
            metavar="WHAT", help="If judgements name unknown items: error, or skip and report them."
        ),
    ] = "error"
    repeats: Annotated[int, _protocol(help="words: number of random splits.")] = 3
    seed: Annotated[int, _protocol(help="Seed of all random draws.")] = 0

    def protocol(self) -> Protocol:
        """The same as the suites take it."""
        from bittern.benchmarks.eval.tasks import Protocol

        values = dict(vars(self))
        values["prompts"] = tuple(self.prompts or ())
        values["soundscapes"] = str(self.soundscapes or "")
        return Protocol(**values)


@dataclass
class Files:
    """What is read and written besides the report."""

    cache: Annotated[
        Path | None, _files(help="Folder for embeddings; the user's cache by default.")
    ] = None
    embeddings: Embeddings = None
    trec: Annotated[
        bool,
        _files("--trec/--no-trec", metavar="", help="Write runs and qrels in TREC's formats."),
    ] = True


def evaluate(
    suite: Annotated[
        str,
        typer.Argument(
            help="inquire, inat24, inatsounds, ssw60, soundscapes, words, field or custom."
        ),
    ],
    *,
    output: Annotated[Path | None, typer.Option(help="Folder of the run and its report.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="The suite's data; `words` and `field` need none.")
    ] = None,
    layout: Annotated[bool, flag("--layout", "Only describe the suite and its data.")] = False,
    as_json: Json = False,
    compared: Compared,
    protocol: ProtocolOptions,
    files: Files,
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
    if output is None:
        raise InvalidInputError("--output is missing: name a folder for the run", field="out")
    request = EvalRequest(
        suite=suite,
        out=output,
        data=data,
        models=[name for given in compared.models or [] for name in _split(given)],
        bits=_numbers(compared.bits),
        systems=_split(compared.systems),
        measures=_split(compared.measures),
        rerank=compared.rerank,
        protocol=protocol.protocol(),
        **vars(files),
    )
    _run(request.checked(), as_json)


def _run(request: EvalRequest, as_json: bool) -> None:
    from bittern.benchmarks.eval.report import write_report
    from bittern.benchmarks.eval.request import command_of
    from bittern.benchmarks.eval.run import evaluate
    from bittern.benchmarks.eval.spaces import licences_of

    default = () if request.suite == "words" else ("field",)
    licence_notice(*licences_of(request.models or default))
    try:
        with Bar() as bar:
            results = evaluate(request, bar, command_of(request))
            bar.stage("writing the report", None)
            write_report(results, request.out)
    except KeyboardInterrupt:
        note("interrupted; finished measurements are kept. The same command continues the run.")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        print_json(json.loads((request.out / "results.json").read_text(encoding="utf-8")))
        return
    _print_results(results)
    note(f"report: {request.out / 'index.html'}")


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in _split(text)]
    except ValueError:
        raise InvalidInputError(
            f"--bits must be whole numbers separated by commas, such as 64,256, not {text!r}",
            field="bits",
        ) from None


def _print_layout(suite: str) -> None:
    from bittern.benchmarks.eval.suites import suite_named
    from bittern.benchmarks.eval.systems.selection import NAMES

    found = suite_named(suite)
    show(f"{found.name}: {found.about}")
    show(f"measures: {', '.join(found.measures)}")
    show(f"systems: {', '.join(NAMES)}")
    show("the folder given with --data holds:" if found.needs_data else "needs no --data")
    for file in found.layout:
        optional = " (optional)" if file.optional else ""
        show(f"  {' or '.join(file.path.split('|'))}{optional}")
        show(f"      {file.what}")
        show(f"      from {file.origin}; {file.size}")


class Bar:
    """How far a run is: a bar on a terminal, a line per stage elsewhere."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: Any = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def stage(self, what: str, total: int | None) -> None:
        """Something begins that has so many steps."""
        self._end()
        if not err.is_terminal:
            note(what)
            return
        self._bar, self._task = progress(what, total)
        self._bar.start()

    def advance(self, done: int | None = None) -> None:
        """One more step is done, or so many in all."""
        if self._bar is None:
            return
        if done is None:
            self._bar.advance(self._task)
        else:
            self._bar.update(self._task, completed=done)

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _print_results(results: Results) -> None:
    """The main measure: one table per task and group, systems by code lengths.

    Re-ranking is left to the report, as are all other measures.
    """
    models = {row.model for row in results.rows}
    show(results.command, style="dim")
    for task in results.tasks:
        every = {group.queries for group in task.groups if group.name == "all"}
        for group in task.groups:
            if group.name != "all" and group.queries in every:
                continue  # a group of all queries: its table would be the same
            of = f" ({task.model})" if len(models) > 1 else ""
            subset = "" if group.name == "all" else f", {group.name}"
            queries = counted(group.queries, "query", "queries")
            deep = f"; ranked to depth {task.depth:,}" if task.depth else ""
            known = "" if group.chance is None else f"; a random order gets {_figure(group.chance)}"
            show()
            show(f"{task.name}{of}{subset}: {task.measures[0]}, {queries}", style="bold")
            show(f"{task.items:,} items{deep}{known}", style="dim")
            rows = [
                row
                for row in results.rows
                if (row.task, row.model, row.group) == (task.name, task.model, group.name)
            ]
            show(_results_table(rows, task.measures[0]))
        for sentence in task.left_out:
            show(sentence, style="dim")
    for sentence in results.notes:
        show(sentence, style="dim")


def _results_table(rows: Sequence[Row], main: str) -> Table:
    rows = [row for row in rows if main in row.figures and not row.rerank]
    lengths: list[int | None] = [None] if any(row.bits is None for row in rows) else []
    lengths += sorted({row.bits for row in rows if row.bits})
    found: dict[tuple[str, str], dict[int | None, float]] = {}
    for row in rows:
        metric = "" if row.metric == "cosine" else row.metric
        found.setdefault((row.system, metric), {})[row.bits] = row.figures[main].expected
    headings = [str(length or "float") for length in lengths]
    return table(
        ("bits", "", *headings),
        [
            (system, metric, *(_figure(by_length[n]) if n in by_length else "" for n in lengths))
            for (system, metric), by_length in found.items()
        ],
        right=headings,
        whole=("", *headings),
    )


def _figure(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
