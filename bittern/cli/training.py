"""`bittern train pairs`, `bittern train labels` and `bittern train distill`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bittern.cli.job_screen import INTERRUPTED
from bittern.cli.output import (
    err,
    licence_notice,
    print_json,
    progress,
)
from bittern.cli.training_report import print_report, report_as_json

if TYPE_CHECKING:
    from bittern.service.training.request import What

Source = Annotated[
    Path, typer.Argument(help="CSV manifest, folder of media, or folder with embeddings.")
]
Out = Annotated[Path, typer.Option("--output", help="Folder for the model and the run.")]
Model = Annotated[str | None, typer.Option(help="Encoder, e.g. field or bioclip-2.")]
Bits = Annotated[int | None, typer.Option(help="Code length; 256 by default.")]
Config = Annotated[Path | None, typer.Option(help="YAML file with settings.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="A setting, as name=value. Repeatable.")
]
Lora = Annotated[bool, typer.Option("--lora", help="Train adapters on the towers as well.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the data; 5 by default.")]
Seed = Annotated[int | None, typer.Option(help="Seed of all random draws; 0 by default.")]
BatchSize = Annotated[int | None, typer.Option(help="Items per batch; 256 by default.")]
Augment = Annotated[str | None, typer.Option(help="With --lora: published, plants, sound or none.")]
Share = Annotated[
    float | None,
    typer.Option("--validation-share", help="Share of the items held out; 0.05 by default."),
]
Size = Annotated[str | None, typer.Option(help="Size of the heads: small or large.")]
Heads = Annotated[str | None, typer.Option(help="Heads: per-modality or shared.")]
HasherKind = Annotated[
    str, typer.Option("--hasher", help="Kind of hasher to fit: hashcoder, aligned or hybrid.")
]
Media = Annotated[
    str | None, typer.Option("--modality", help="Use only image or only audio items.")
]
Strict = Annotated[bool, typer.Option(help="Fail if the source has unusable entries.")]
AsProgram = Annotated[bool, typer.Option("--json", help="Print one JSON object for programs.")]

_SETTINGS = {
    name: "augmentation" if name == "augment" else name
    for name in (
        "bits", "epochs", "seed", "batch_size", "augment", "validation_share", "size", "heads"
    )
}  # fmt: skip
"""Options, and the settings (`TrainingConfig`) that they give."""
_REQUEST_OPTIONS = (
    "teacher", "hasher", "modality", "caption_column", "label_column", "strict"
)  # fmt: skip


def attach(app: typer.Typer) -> None:
    """Add `train` with its three kinds to the app."""
    train = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Learn codes from captions or classes, or teach an audio tower a space of pictures.",
    )
    train.command()(pairs)
    train.command()(labels)
    train.command()(distill)
    app.add_typer(train, name="train")


def pairs(
    ctx: typer.Context,
    source: Source,
    to: Out,
    model: Model = None,
    bits: Bits = None,
    config: Config = None,
    settings: Set = None,
    caption_column: Annotated[
        str | None,
        typer.Option(help="Column with captions; by default they are made from the names."),
    ] = None,
    lora: Lora = False,
    epochs: Epochs = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    augment: Augment = None,
    validation_share: Share = None,
    size: Size = None,
    heads: Heads = None,
    hasher: HasherKind = "hashcoder",
    modality: Media = None,
    strict: Strict = False,
    as_program: AsProgram = False,
) -> None:
    """Learn codes in which a photograph or recording is close to its caption.

    Captions come from a column, or from the names in `vernacularName`, `scientificName` and the
    ranks, or from the names of a folder's subfolders. The encoder embeds everything once, and
    heads are trained on that; with `--lora`, adapters on its towers as well. The same command
    continues a training that was stopped.

    Example: bittern train pairs birds.csv --model bioclip-2 --hasher hybrid --output bird-codes

    Example: bittern train pairs birds.csv --model bioclip-2 --lora --output bird-codes-lora
    """
    _train("pairs", ctx.params)


def labels(
    ctx: typer.Context,
    source: Source,
    to: Out,
    model: Model = None,
    bits: Bits = None,
    config: Config = None,
    settings: Set = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column with labels, several separated by |; by default label."),
    ] = None,
    lora: Lora = False,
    epochs: Epochs = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    augment: Augment = None,
    validation_share: Share = None,
    size: Size = None,
    heads: Heads = None,
    hasher: HasherKind = "hashcoder",
    modality: Media = None,
    strict: Strict = False,
    as_program: AsProgram = False,
) -> None:
    """Learn codes in which photographs or recordings of one class are close.

    Classes come from a column, or are a folder's subfolders. Where the encoder takes words, one
    head serves media and words, and class names that are words are shown to it too; so the model
    can be searched with words.

    Example: bittern train labels leaves/ --model bioclip-2 --lora --augment plants --output leaves
    """
    _train("labels", ctx.params)


def distill(
    ctx: typer.Context,
    source: Source,
    teacher: Annotated[
        str, typer.Option(help="Saved model with words and pictures: a folder, or a name.")
    ],
    to: Out,
    student: Annotated[str, typer.Option(help="Encoder with an audio tower.")] = "biolingual",
    config: Config = None,
    settings: Set = None,
    caption_column: Annotated[
        str | None,
        typer.Option(help="Column with captions; by default they are made from the names."),
    ] = None,
    lora: Lora = False,
    epochs: Epochs = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    augment: Augment = None,
    validation_share: Share = None,
    strict: Strict = False,
    as_program: AsProgram = False,
) -> None:
    """Teach an audio tower the space of an image-text model, so that sounds find pictures.

    From recordings with captions or names; no pictures are needed. The model has the teacher's
    towers for words and pictures and the student's for sound: photographs that are indexed with
    it can be found by sound.

    Example: bittern train distill songs.csv --teacher bird-codes --output bird-calls
    """
    _train("distill", ctx.params)


def _train(what: What, given: dict[str, Any]) -> None:
    """Train with the options of a command, as its context has them."""
    from bittern.service.training.request import TrainingRequest, gather
    from bittern.service.training.train import train_model

    model = given["student" if what == "distill" else "model"]
    file = None if given["config"] is None else Path(given["config"])
    options = {field: given.get(option) for option, field in _SETTINGS.items()}
    config, must_validate = gather(
        what, model, file, given["settings"] or [], options, lora=given["lora"]
    )
    request = TrainingRequest(
        what=what,
        source=given["source"],
        out=given["to"],
        model=model,
        config=config,
        must_validate=must_validate,
        **{name: given[name] for name in _REQUEST_OPTIONS if name in given},
    )
    if model:
        licence_notice(model)
    # The report repeats the warnings of the loop.
    logging.getLogger("bittern.hashing.training").setLevel(logging.ERROR)
    bars = _Bars()
    try:
        with bars.shown:
            report = train_model(request, bars.update)
    except KeyboardInterrupt:
        err.print(f"stopped; {request.out} keeps the work done. The same command resumes it.")
        raise typer.Exit(INTERRUPTED) from None
    if given["as_program"]:
        print_json(report_as_json(report))
    else:
        print_report(report, request)


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
