"""What `bittern train` prints when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bittern.cli.output import command, err, named_once, out, plain, print_lines
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.service.training.request import TrainingReport, TrainingRequest

FEW_QUERIES = 30


def report_as_json(report: TrainingReport) -> dict[str, Any]:
    """The report of a training for programs."""
    return {
        "model": report.name,
        "folder": str(report.folder),
        "digest": report.digest,
        "encoder": report.encoder,
        "bits": report.bits,
        "modalities": list(report.modalities),
        "items": dict(report.items),
        "held_out": dict(report.held_out),
        "comparison": [asdict(c) for c in report.comparison],
        "metrics": dict(report.metrics),
        "skipped": [{"where": s.where, "reason": s.reason} for s in report.skipped],
        "warnings": list(report.warnings),
        "seconds": round(report.seconds, 3),
        "resumed": report.resumed,
        "was_finished": report.was_finished,
    }


def print_report(report: TrainingReport, request: TrainingRequest) -> None:
    """The report of a training for people."""
    skipped = [named_once(one.where, one.reason) for one in report.skipped]
    print_lines(f"{counted(len(skipped), 'entry', 'entries')} skipped:", skipped, style="yellow")
    for warning in report.warnings:
        err.print(plain(f"warning: {warning}"), style="yellow", soft_wrap=not err.is_terminal)
    if report.was_finished:
        err.print("this training was finished before; nothing was left to do")
    called = {"image": "photograph", "audio": "sound window", "text": "text"}
    items = ", ".join(counted(n, called[m]) for m, n in report.items.items())
    went_on = ", resumed" if report.resumed and not report.was_finished else ""
    err.print(f"trained on {items} in {report.seconds:.1f} s{went_on}", markup=False)
    if report.comparison:
        out.print("mean average precision on held-out items:")
        out.print(_table(report, taught=request.what == "distill"))
        if report.metrics.get("epoch_chosen_on_held_out"):
            out.print("the epoch was chosen on these items, which flatters 'learned' a little")
        if min(row.queries for row in report.comparison) < FEW_QUERIES:
            out.print(f"with fewer than {FEW_QUERIES} queries, differences may well be chance")
        for medium, way in report.held_out.get("ways", {}).items():
            if way == "nothing":
                err.print(f"{called[medium]}s: none held out, so none are compared")
        if advice := _advice(report):
            err.print(advice, style="yellow", soft_wrap=not err.is_terminal)
    else:
        err.print("nothing was held out, so there is nothing to compare: raise --validation-share")
    metrics = report.metrics
    if "bit_balance" in metrics:
        out.print(
            f"bits: {report.bits}, {metrics['dead_bits']} dead, balance "
            f"{metrics['bit_balance']:.2f}, mean correlation {metrics['bit_correlation']:.3f}"
        )
    if plan := metrics.get("plan"):
        out.print(plain(_plan(plan)), soft_wrap=not out.is_terminal)
    takes = ", ".join(report.modalities)
    out.print(plain(f"model: {report.folder} ({takes}; digest {report.digest[:12]})"))
    source = request.source if request.source.exists() else Path("SOURCE")
    if (request.source / "set.json").exists() or request.what == "distill":
        source = Path("PHOTOGRAPHS" if request.what == "distill" else "SOURCE")
    out.print(
        plain(
            f"next:  {command()} index my-archive {quote(str(source))} "
            f"--model {quote(str(report.folder))}"
        ),
        soft_wrap=True,
    )


def _table(report: TrainingReport, *, taught: bool) -> Table:
    ways = report.held_out.get("ways", {})
    species = {"groups": "new", "items": "trained on"}
    table = Table(box=None, pad_edge=False)
    table.add_column("search")
    floats = "floats, taught" if taught else "floats"
    for heading in ("names", "queries", "items", floats, "training-free", "learned"):
        table.add_column(heading, justify="right")
    for row in report.comparison:
        free = "-" if row.training_free is None else f"{row.training_free:.3f}"
        numbers = (f"{row.floats:.3f}", free, f"{row.learned:.3f}")
        of = species.get(ways.get(row.modality, ""), "")
        table.add_row(row.task, of, str(row.queries), str(row.items), *numbers)
    return table


def _plan(plan: Mapping[str, Any]) -> str:
    """How the bits of aligned and hybrid codes are shared out, and why so."""
    shares = f"{plan['aligned_bits']} aligned, {plan['learned_bits']} learned bits"
    if why := plan.get("not_chosen"):
        return f"plan: {shares}, by default; none was chosen: {why}"
    return f"plan: {shares}, the best of {plan['plans']} on classes held out of the training"


def _advice(report: TrainingReport) -> str:
    """What to do where training did not help."""
    worse = [c for c in report.comparison if c.learned < (c.training_free or 0)]
    if not worse:
        return ""
    return (
        f"on held-out items ({', '.join(c.task for c in worse)}) codes without training are "
        "better: bring more items, or index with the encoder alone"
    )
