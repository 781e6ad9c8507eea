"""`bittern models` and `bittern stats`: which models are usable here, what an archive contains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from bittern.cli.options import ArchiveName, FolderOrServer, Json, Snapshot, opened_archive
from bittern.cli.output import byte_size, copyable, note, print_json, show, table
from bittern.text import counted

if TYPE_CHECKING:
    from bittern.service.models.saved import EncoderInfo, SavedModelInfo
    from bittern.types import ArchiveStats, EngineStats


def models(
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            help="Also list saved models in this folder, or this saved model. Repeatable."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List encoders and models, what they encode, and whether their weights are on this machine.

    Listed are encoders, models that ship with Bittern, and saved models in `./models`, in
    `$BITTERN_MODELS` and in the folders given. The option `--model` of other commands takes the
    name of an encoder or shipped model, or the folder of a saved model; the folder's name alone
    is enough in `./models` and `$BITTERN_MODELS`.

    Example: bittern models --json

    Example: bittern models --folder runs
    """
    from bittern.service.models.saved import encoders, saved_models

    saved = saved_models(folder or [])
    infos = encoders()
    if as_json:
        as_objects = [{"kind": "encoder", **asdict(info)} for info in infos]
        print_json(as_objects + [asdict(info) for info in saved])
        return
    show(_encoder_table(infos))
    show()
    show(model_table([model for model in saved if not model.damaged]))
    for model in saved:
        if model.damaged:
            show(f"{model.folder}: {model.message}", style="red")
    missing = [info for info in infos if not info.ready]
    if missing:
        note()
        note("To get weights, on a machine with internet access:")
        for info in missing:
            note(copyable(f"  {info.bring}"))
        note("Then set BITTERN_WEIGHTS=DIR. `bittern models --json` lists the folders searched.")


def _encoder_table(infos: Sequence[EncoderInfo]) -> Table:
    return table(
        ("encoder", "takes", "dims", "weights", "licence"),
        [
            (info.name, ", ".join(info.modalities), info.dim, _here(info.ready), info.licence)
            for info in infos
        ],
    )


def model_table(infos: Sequence[SavedModelInfo]) -> Table:
    """Shipped and saved models, with the main figure of each."""
    return table(
        ("model", "takes", "bits", "hasher", "encoder", "weights", "measured"),
        [
            (
                _after_model(info),
                ", ".join(info.modalities),
                info.bits,
                info.hasher,
                " + ".join(info.encoders),
                _here(info.ready),
                "" if info.value is None else f"{_short(info.metric)} {_figure(info.value)}",
            )
            for info in infos
        ],
        whole=("takes", "bits", "hasher", "weights"),
    )


def _here(ready: bool) -> str:
    return "here" if ready else "not here"


def _after_model(info: SavedModelInfo) -> str:
    """What to type after ``--model``, and the card's name where that is another."""
    if info.kind == "shipped":
        return info.name
    same = Path(info.folder).resolve().name == info.name
    return info.folder if same else f"{info.folder} ({info.name})"


def _short(metric: str) -> str:
    """``held_out.words to sounds.mAP_learned`` as ``words to sounds mAP``."""
    before, _, figure = metric.rpartition(".")
    task = before.removeprefix("held_out").removeprefix("validation").lstrip(".")
    return f"{task} {figure.removesuffix('_learned')}".strip()


def _figure(value: float) -> str:
    """``.40``; figures that are no shares in three digits."""
    return f"{value:.2f}".removeprefix("0") if 0 <= value < 0.995 else f"{value:.3g}"


def stats(
    archive: FolderOrServer,
    name: ArchiveName = "",
    snapshot: Snapshot = None,
    as_json: Json = False,
) -> None:
    """Show what an archive contains, which engines search it, and why these were chosen.

    Example: bittern stats my-archive

    Example: bittern stats localhost:50051 --json
    """
    from bittern import LocalArchive

    with opened_archive(archive, name, snapshot) as opened:
        if isinstance(opened, LocalArchive):
            opened.load_codes()
        found = opened.stats()
    if as_json:
        print_json(asdict(found))
        return
    held = ", ".join(f"{rows:,} {modality}" for modality, rows in _in_order(found.observations))
    recordings = f" ({counted(found.recordings, 'recording')})" if found.recordings else ""
    besides = sum(e.other_bytes for model in found.models for e in model.engines.values())
    memory = f"{byte_size(found.code_bytes)} of codes and {byte_size(besides)} of other data"
    show(
        f"{found.name}: {held or 'no'} observations{recordings}, generation "
        f"{found.generation}; in memory {memory}"
    )
    if found.models:
        show(_engine_table(found))


def _engine_table(found: ArchiveStats) -> Table:
    """Which engine searches the codes of each model and modality, and why."""
    silent = found.code_bytes > 0 and not any(model.engines for model in found.models)
    unknown = "unknown: the server has an earlier version" if silent else "not in memory yet"
    rows = []
    for model in found.models:
        name = model.name if model.state == "ready" else f"{model.name} ({model.state})"
        for modality, count in _in_order(model.rows):
            engine = model.engines.get(modality)
            why = unknown if model.state != "pending" else "not searched before it is complete"
            cells = _engine_cells(engine) if engine else ("", "", "", why if count else "")
            rows.append((name, modality, f"{count:,}", *cells))
    return table(
        ("model", "target", "rows", "engine", "codes", "other data", "why"),
        rows,
        right=("rows", "codes", "other data"),
        whole=("target", "rows", "engine", "codes", "other data"),
    )


def _in_order(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Images before audio, also where they came over the wire, which keeps no order."""
    return sorted(counts.items(), reverse=True)


def _engine_cells(engine: EngineStats) -> tuple[str, str, str, str]:
    kind = f"{engine.kind}, {'exact' if engine.exact else 'approximate'}"
    building = f"; being built: {engine.building}" if engine.building else ""
    codes, besides = byte_size(engine.code_bytes), byte_size(engine.other_bytes)
    return kind, codes, besides, f"{engine.reason}{building}"
