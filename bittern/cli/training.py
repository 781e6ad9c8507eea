"""`bittern train`: its three commands, their progress, and the report at the end."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bittern.cli.options import Embeddings, Json, flag, grouped
from bittern.cli.output import (
    INTERRUPTED,
    command,
    copyable,
    licence_notice,
    named_once,
    note,
    print_json,
    print_lines,
    progress,
    show,
    table,
)
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.service.training.request import TrainingRequest, What
    from bittern.service.training.train import TrainingReport

FEW_QUERIES = 30
_ITEMS = {"image": "photograph", "audio": "sound window", "text": "text"}

Source = Annotated[
    Path,
    typer.Argument(help="Folder of media, table, or export of a website."),
]
ModelFolder = Annotated[Path, typer.Option("--output", help="Folder for the model and the run.")]
Encoder = Annotated[
    str | None, typer.Option("--model", help="Encoder, e.g. bioclip-2; `field` by default.")
]
CaptionColumn = Annotated[
    str | None, typer.Option(help="Column with captions; by default they are made from the names.")
]


@dataclass
class Settings:
    """Settings of every training (`TrainingConfig`)."""

    config: Annotated[Path | None, typer.Option(help="YAML file with settings.")] = None
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="One setting. Repeatable."),
    ] = None
    lora: Annotated[bool, flag("--lora", "Train adapters on the towers as well.")] = False
    epochs: Annotated[int | None, typer.Option(help="Passes over the data; 5 by default.")] = None
    seed: Annotated[int | None, typer.Option(help="Seed of all random draws; 0 by default.")] = None
    batch_size: Annotated[
        int | None, typer.Option(help="Items per batch; 256 by default, or all of a smaller set.")
    ] = None
    augment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With --lora: published, plants, sound or none."),
    ] = None
    validation_share: Annotated[
        float | None,
        typer.Option(
            help="Share of the items held out for the comparison at the end; by default 0.05, but "
            "30 items at least, or half of a smaller set."
        ),
    ] = None
    strict: Annotated[bool, flag("--strict", "Fail if the source has unusable entries.")] = False
    as_json: Json = False


@dataclass
class HeadSettings:
    """What is learned from captions or labels."""

    bits: Annotated[int | None, typer.Option(help="Code length; 256 by default.")] = None
    size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Size of the heads: small or large.")
    ] = None
    heads: Annotated[
        str | None, typer.Option(metavar="KIND", help="Heads: per-modality or shared.")
    ] = None
    hasher: Annotated[
        str,
        typer.Option(metavar="KIND", help="Hasher to fit: hashcoder, aligned or hybrid."),
    ] = "hashcoder"
    modality: Annotated[str | None, typer.Option(help="Use only image or only audio items.")] = None


train = typer.Typer(
    no_args_is_help=True,
    help="Learn codes from captions or classes, or teach an audio tower a space of pictures.",
)


@train.command()
@grouped
def pairs(
    source: Source,
    *,
    output: ModelFolder,
    embeddings: Embeddings = None,
    model: Encoder = None,
    caption_column: CaptionColumn = None,
    heads: HeadSettings,
    settings: Settings,
) -> None:
    """Learn codes in which a photograph or recording is close to its caption.

    Captions come from a column, or from the names in `vernacularName`, `scientificName` and the
    ranks, or from the names of a folder's subfolders. The encoder embeds everything once, and
    heads are trained on that; with `--lora`, adapters on its towers as well. The same command
    continues a training that was stopped.

    Example: bittern train pairs birds.csv --model bioclip-2 --hasher hybrid --output bird-codes

    Example: bittern train pairs birds.csv --model bioclip-2 --lora --output bird-codes-lora
    """
    options = {"source": source, "out": output, "embeddings": embeddings, "model": model}
    options["caption_column"] = caption_column
    _train("pairs", options, settings, heads)


@train.command()
@grouped
def labels(
    source: Source,
    *,
    output: ModelFolder,
    embeddings: Embeddings = None,
    model: Encoder = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column with labels, several separated by |; by default label."),
    ] = None,
    heads: HeadSettings,
    settings: Settings,
) -> None:
    """Learn codes in which photographs or recordings of one class are close.

    Classes come from a column, or are a folder's subfolders. Where the encoder takes words, one
    head serves media and words, and class names that are words are shown to it too; so the model
    can be searched with words.

    Example: bittern train labels leaves/ --model bioclip-2 --lora --augment plants --output leaves
    """
    options = {"source": source, "out": output, "embeddings": embeddings, "model": model}
    options["label_column"] = label_column
    _train("labels", options, settings, heads)


@train.command()
@grouped
def distill(
    source: Source,
    *,
    output: ModelFolder,
    teacher: Annotated[
        str, typer.Option(help="Saved model with words and pictures: a folder, or a name.")
    ],
    student: Annotated[str, typer.Option(help="Encoder with an audio tower.")] = "biolingual",
    embeddings: Embeddings = None,
    caption_column: CaptionColumn = None,
    settings: Settings,
) -> None:
    """Teach an audio tower the space of an image-text model, so that sounds find pictures.

    From recordings with captions or names; no pictures are needed. The model has the teacher's
    towers for words and pictures and the student's for sound: photographs that are indexed with
    it can be found by sound.

    Example: bittern train distill songs.csv --teacher bird-codes --output bird-calls
    """
    options = {"source": source, "out": output, "embeddings": embeddings, "model": student}
    options |= {"teacher": teacher, "caption_column": caption_column}
    _train("distill", options, settings)


def _train(
    what: What, options: dict[str, Any], settings: Settings, heads: HeadSettings | None = None
) -> None:
    """Train; `options` are fields of the `TrainingRequest`."""
    from bittern.service.training.request import TrainingRequest, encoder_of, gather
    from bittern.service.training.train import train_model

    given = {
        "epochs": settings.epochs,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "augmentation": settings.augment,
        "validation_share": settings.validation_share,
    }
    if heads is not None:
        given |= {"bits": heads.bits, "size": heads.size, "heads": heads.heads}
        options |= {"hasher": heads.hasher, "modality": heads.modality}
    config, must_validate = gather(
        what,
        encoder_of(options["source"], options["model"]),
        settings.config,
        settings.assignments or [],
        given,
        lora=settings.lora,
    )
    request = TrainingRequest(
        what=what,
        config=config,
        must_validate=must_validate,
        strict=settings.strict,
        **options,
    )
    if request.encoder:
        licence_notice(request.encoder)
    # The report repeats the warnings of the loop.
    logging.getLogger("bittern.hashing.training").setLevel(logging.ERROR)
    bars = _Bars()
    try:
        with bars.shown:
            report = train_model(request, bars.update)
    except KeyboardInterrupt:
        note(f"stopped; {request.out} keeps the work done. The same command resumes it.")
        raise typer.Exit(INTERRUPTED) from None
    if settings.as_json:
        print_json(_report_as_json(report))
    else:
        _print_report(report, request)


class _Bars:
    """A progress bar for each stage, made when the stage begins."""

    def __init__(self) -> None:
        self.shown, task = progress("", 0)
        self.shown.remove_task(task)
        self._tasks: dict[str, Any] = {}

    def update(self, stage: str, done: int, total: int, note: str) -> None:
        text = f"{stage} {note}".strip()
        if stage not in self._tasks:
            self._tasks[stage] = self.shown.add_task(text, total=total)
        self.shown.update(self._tasks[stage], completed=done, total=total, description=text)


def _report_as_json(report: TrainingReport) -> dict[str, Any]:
    """The report of a training for programs."""
    card, fitted = report.card, report.fitted
    return {
        "model": card.name,
        "folder": str(report.folder),
        "digest": card.digest,
        "encoder": card.encoder,
        "bits": card.bits,
        "modalities": list(card.towers),
        "items": dict(card.data["rows"]),
        "held_out": {"rows": dict(card.data["rows_held_out"]), "ways": _ways(report)},
        "comparison": [asdict(c) for c in fitted.comparison],
        "metrics": dict(card.metrics),
        "skipped": [{"where": s.where, "reason": s.reason} for s in report.skipped],
        "warnings": list(fitted.warnings),
        "seconds": round(fitted.seconds, 3),
        "resumed": fitted.resumed,
        "was_finished": fitted.was_finished,
    }


def _ways(report: TrainingReport) -> dict[str, str]:
    """By modality, the way in which items were held out."""
    return dict(report.card.data.get("held_out", {}))


def _print_report(report: TrainingReport, request: TrainingRequest) -> None:
    """The report of a training for people."""
    card, fitted = report.card, report.fitted
    skipped = [named_once(one.where, one.reason) for one in report.skipped]
    print_lines(f"{counted(len(skipped), 'entry', 'entries')} skipped:", skipped, style="yellow")
    for warning in fitted.warnings:
        note(f"warning: {warning}", style="yellow")
    if fitted.was_finished:
        note("this training was finished before; nothing was left to do")
    items = ", ".join(counted(n, _ITEMS[modality]) for modality, n in card.data["rows"].items())
    resumed = ", resumed" if fitted.resumed and not fitted.was_finished else ""
    note(f"trained on {items} in {fitted.seconds:.1f} s{resumed}")
    if fitted.comparison:
        _print_comparison(report, distilled=request.what == "distill")
    else:
        note("nothing was held out, so the codes were not compared with codes without training")
    metrics = card.metrics
    if "bit_balance" in metrics:
        show(
            f"bits: {card.bits}, {metrics['dead_bits']} dead, balance "
            f"{metrics['bit_balance']:.2f}, mean correlation {metrics['bit_correlation']:.3f}"
        )
    if plan := metrics.get("plan"):
        show(_plan(plan))
    takes = ", ".join(card.towers)
    show(f"model: {report.folder} ({takes}; digest {card.digest[:12]})")
    show(
        copyable(
            f"next:  {command()} index my-archive {_next_source(request)} --model "
            f"{quote(str(report.folder))}"
        )
    )


def _next_source(request: TrainingRequest) -> str:
    """What to index with the model: the source, if it holds media that the model is for."""
    if request.what == "distill":
        return "PHOTOGRAPHS"
    embedded = (request.source / "set.json").exists()
    return "SOURCE" if embedded or not request.source.exists() else quote(str(request.source))


def _print_comparison(report: TrainingReport, *, distilled: bool) -> None:
    ways = _ways(report)
    species = {"groups": "new", "items": "trained on"}
    rows = [
        (
            row.task,
            species.get(ways.get(row.modality, ""), ""),
            row.queries,
            row.items,
            f"{row.floats:.3f}",
            "-" if row.training_free is None else f"{row.training_free:.3f}",
            f"{row.learned:.3f}",
        )
        for row in report.fitted.comparison
    ]
    floats = "floats, taught" if distilled else "floats"
    numbers = ("names", "queries", "items", floats, "training-free", "learned")
    show("mean average precision on held-out items:")
    show(table(("search", *numbers), rows, right=numbers))
    if report.card.metrics.get("epoch_chosen_on_held_out"):
        show("the epoch was chosen on these items, which flatters 'learned' a little")
    if min(row.queries for row in report.fitted.comparison) < FEW_QUERIES:
        show(
            f"with fewer than {FEW_QUERIES} queries, differences may well be chance; "
            "--validation-share 0 trains on all items and compares nothing"
        )
    for modality, way in ways.items():
        if way == "nothing":
            note(f"{_ITEMS[modality]}s: none held out, so none are compared")
    if advice := _advice(report):
        note(advice, style="yellow")


def _plan(plan: Mapping[str, Any]) -> str:
    """How the bits of aligned and hybrid codes are shared out, and why so."""
    shares = f"{plan['aligned_bits']} aligned, {plan['learned_bits']} learned bits"
    if why := plan.get("not_chosen"):
        return f"plan: {shares}, by default; none was chosen: {why}"
    return f"plan: {shares}, the best of {plan['plans']} on classes held out of the training"


def _advice(report: TrainingReport) -> str:
    """What to do where training did not help."""
    worse = [c for c in report.fitted.comparison if c.learned < (c.training_free or 0)]
    if not worse:
        return ""
    return (
        f"on held-out items ({', '.join(c.task for c in worse)}) codes without training are "
        "better: bring more items, try --hasher aligned, or index with the encoder alone"
    )
