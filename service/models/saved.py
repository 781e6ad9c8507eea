"""Saved models on this machine: reads, finds and lists them.

`bittern models` lists those in `./models/*` and `$BITTERN_MODELS/*`, whose folder's name is enough
to find them. Names of the catalogue and of shipped models have priority.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bittern.encoders.assembly import Plans, plans_from_json
from bittern.encoders.base import Modality
from bittern.encoders.catalogue import CATALOGUE, WeightsStatus, find_weights
from bittern.errors import BitternError, ModelDamagedError, SourceNotFoundError
from bittern.hashing.saved_model import CARD_FILE, TENSOR_FILE, ModelCard, SavedModel
from bittern.service.models.fitting import SHIPPED

MODELS_FOLDER = "models"
_BEGUN = Path("training", "request.json")
"""File that a training writes into its model's folder at the start."""
MODELS_VARIABLE = "BITTERN_MODELS"
"""Environment variable: a folder with one folder per saved model."""
_HEADLINES = ("map_learned", "map", "ndcg", "recall", "precision", "accuracy")
"""Names of the figure to show of a model, the preferred first."""
_DEEPEST = 3
"""Depth of nested objects to search for figures."""
_INFINITE = 1e300
"""Larger figures are not shown."""


@dataclass(frozen=True, slots=True)
class SavedModelInfo:
    """One saved model for ``--model``; has all keys of `EncoderInfo`.

    Attributes:
        name: on its card; the folder's name if the card cannot be read.
        kind: ``shipped`` with the package, or ``saved``.
        folder: of the model.
        modalities: that it codes.
        dim: length of an embedding.
        bits: length of a code.
        hasher: kind of its hasher.
        encoders: catalogue names of its encoders.
        digest: hex SHA-256 of everything that decides a code.
        licence: of the encoders' weights.
        metric: name of the most important figure on its card; empty without one.
        value: that figure; None without one.
        ready: whether it can be read, and its weights are on this machine.
        where: location of the weights, or empty.
        message: ``ready``, the missing weights, or why it is damaged.
        bring: always empty; for an encoder, the command that fetches it.
        damaged: whether it cannot be read; other values are empty then.
    """

    name: str
    kind: str
    folder: str
    modalities: tuple[str, ...] = ()
    dim: int = 0
    bits: int = 0
    hasher: str = ""
    encoders: tuple[str, ...] = ()
    digest: str = ""
    licence: str = ""
    metric: str = ""
    value: float | None = None
    ready: bool = False
    where: str = ""
    message: str = ""
    bring: str = ""
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """One encoder for ``--model``.

    Attributes:
        name: in the catalogue.
        modalities: its towers.
        dim: length of an embedding.
        licence: of the weights.
        ready: whether the weights are on this machine.
        where: their location, or empty.
        message: searched locations and how to fetch them; empty if ready.
        bring: the command that fetches them; empty for an embedded encoder.
    """

    name: str
    modalities: tuple[str, ...]
    dim: int
    licence: str
    ready: bool
    where: str
    message: str
    bring: str


def encoders() -> list[EncoderInfo]:
    """All encoders of the catalogue; loads none of them."""
    infos = []
    for name, entry in CATALOGUE.items():
        status = find_weights(name)
        revision = f" --revision {entry.revision}" if entry.pinned else ""
        bring = f"hf download {entry.hub_id}{revision} --local-dir DIR/{name}"
        infos.append(
            EncoderInfo(
                name=name,
                modalities=tuple(str(m) for m in entry.modalities),
                dim=entry.dim,
                licence=entry.licence,
                ready=status.ready,
                where=status.where,
                message=status.message,
                bring=bring if entry.hub_id else "",
            )
        )
    return infos


def encoder_names(encoder: str) -> tuple[str, ...]:
    """The encoder names on a model's card: one, or several joined by ``+``."""
    return tuple(dict.fromkeys(encoder.split("+")))


def weights_of(encoder: str) -> WeightsStatus:
    """Whether the weights of all encoders on a card are on this machine; reads none.

    The message names all missing ones.
    """
    found = [find_weights(name) for name in encoder_names(encoder)]
    missing = [status.message for status in found if not status.ready]
    if missing:
        return WeightsStatus(False, "", "; ".join(missing))
    return WeightsStatus(True, ", ".join(dict.fromkeys(s.where for s in found)), "ready")


def notices_of(encoders: Iterable[str]) -> dict[str, str]:
    """Notices to show before the first use of encoders (as on cards), by catalogue name."""
    names = {name for encoder in encoders for name in encoder_names(encoder)}
    known = [CATALOGUE[name] for name in sorted(names & set(CATALOGUE))]
    return {entry.name: entry.notice for entry in known if entry.notice}


def load_saved(folder: Path) -> SavedModel:
    """Read a saved model and check that its files fit each other.

    Raises:
        ModelNotFoundError: there is no model in this folder.
        ModelDamagedError: a file is missing, unreadable, or contradicts another.
    """
    try:
        saved = SavedModel.load(folder)
    except RecursionError:
        raise ModelDamagedError(
            f"{folder / CARD_FILE} is not a model card: it is nested too deeply"
        ) from None
    except OSError as error:
        raise ModelDamagedError(f"the model in {folder} cannot be read: {error}") from error
    try:
        plans_of(saved.card)
    except ModelDamagedError as error:
        raise ModelDamagedError(f"the model in {folder} is damaged: {error.message}") from error
    return saved


def model_folders() -> list[Path]:
    """Folders in which saved models are found by name: `./models`, `$BITTERN_MODELS`."""
    own = os.environ.get(MODELS_VARIABLE)
    return [Path(MODELS_FOLDER), *([Path(own).expanduser()] if own else [])]


def model_folder(name: str) -> Path | None:
    """The folder of a saved model: at this path, or of this name in `model_folders`."""
    for folder in _candidates(name):
        try:
            if (folder / CARD_FILE).is_file():
                return folder
        except (OSError, ValueError):  # not readable, or not a possible file name
            continue
    return None


def _candidates(name: str) -> list[Path]:
    folders = [] if not name or Path(name).name != name else model_folders()
    return [Path(name), *(folder / name for folder in folders)]


def encoders_of_saved(name: str) -> tuple[str, ...]:
    """Catalogue names of the encoders of a shipped or saved model; empty for another name."""
    shipped = SHIPPED / name
    folder = shipped if name in {f.name for f in SHIPPED.iterdir()} else model_folder(name)
    try:
        return encoder_names(load_saved(folder).card.encoder) if folder else ()
    except BitternError:
        return ()


def unfinished_training(name: str) -> Path | None:
    """The folder of an unfinished training: at this path, or of this name in `model_folders`."""
    for folder in _candidates(name):
        try:
            if (folder / _BEGUN).is_file():
                return folder
        except (OSError, ValueError):
            continue
    return None


def saved_models(folders: Iterable[Path] = ()) -> list[SavedModelInfo]:
    """Models that ship with the package, and those in `model_folders` and `folders`.

    Args:
        folders: each a saved model, or a folder of saved models.

    Returns:
        Sorted by folder and name; damaged models are listed with the reason.

    Raises:
        SourceNotFoundError: one of `folders` is not a folder.
    """
    given = list(folders)
    for folder in given:
        if not folder.is_dir():
            raise SourceNotFoundError(f"there is no folder {folder} with models", field="folder")
    listed: dict[Path, SavedModelInfo] = {}
    for kind, parents in (("shipped", [SHIPPED]), ("saved", [*model_folders(), *given])):
        for parent in parents:
            for folder in _models_in(parent):
                listed.setdefault(folder.resolve(), _info(folder, kind))
    return list(listed.values())


def _models_in(parent: Path) -> Iterator[Path]:
    """The saved models in a folder, or the folder itself if it is one."""
    try:
        folders = [parent] if _is_model(parent) else sorted(parent.iterdir())
    except OSError:
        return
    yield from filter(_is_model, folders)


def _is_model(folder: Path) -> bool:
    """Whether a folder has a model, perhaps a damaged one."""
    try:
        return any((folder / name).is_file() for name in (CARD_FILE, TENSOR_FILE))
    except OSError:
        return False


def is_sound(folder: Path) -> bool:
    """Whether the files of a model in an archive have the digest that their folder is named by."""
    try:
        return load_saved(folder).card.digest == folder.name
    except BitternError:
        return False


def _info(folder: Path, kind: str) -> SavedModelInfo:
    try:
        card = load_saved(folder).card
    except BitternError as error:
        name = folder.resolve().name
        return SavedModelInfo(name, kind, str(folder), message=error.message, damaged=True)
    weights = weights_of(card.encoder)
    metric, value = headline(card.metrics) or ("", None)
    return SavedModelInfo(
        name=card.name,
        kind=kind,
        folder=str(folder),
        modalities=tuple(str(m) for m in Modality if m in card.towers),
        dim=card.dim,
        bits=card.bits,
        hasher=str(card.hasher["kind"]),
        encoders=encoder_names(card.encoder),
        digest=card.digest,
        licence=card.licence,
        metric=metric,
        value=value,
        ready=weights.ready,
        where=weights.where,
        message=weights.message,
    )


def headline(metrics: Mapping[str, Any]) -> tuple[str, float] | None:
    """Name and value of the most important figure on a card; None without one."""
    figures = list(_figures(metrics))
    for wanted in _HEADLINES:
        for name, value in figures:
            if wanted in name.rpartition(".")[2].lower():
                return name, value
    return None


def _figures(metrics: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, float]]:
    """Finite numbers by their path, e.g. ``validation.mAP``, in the card's order.

    Objects in a list are named by their ``task``, or else by number.
    """
    for name, value in metrics.items():
        if isinstance(value, list):
            tasks = [v.get("task", i) if isinstance(v, dict) else i for i, v in enumerate(value)]
            value = dict(zip(map(str, tasks), value, strict=True))
        if isinstance(value, Mapping) and within.count(".") < _DEEPEST:
            yield from _figures(value, f"{within}{name}.")
        elif isinstance(value, int | float) and type(value) is not bool and abs(value) < _INFINITE:
            yield f"{within}{name}", float(value)


def plans_of(card: ModelCard) -> Plans:
    """How a model's encoder is assembled; empty for an unchanged one of the catalogue.

    Raises:
        ModelDamagedError: the card names other encoders or towers than its assembly.
    """
    unknown = sorted(set(card.towers) - set(Modality))
    if unknown or not card.towers:
        raise ModelDamagedError(
            f"model '{card.name}' has towers for {', '.join(unknown) or 'nothing'}; there are "
            f"towers for {', '.join(Modality)}"
        )
    names = encoder_names(card.encoder)
    if not card.assembly:
        if len(names) != 1:
            raise ModelDamagedError(
                f"model '{card.name}' names the encoders {card.encoder!r}, but not how they are "
                "combined"
            )
        return {}
    plans = plans_from_json(card.assembly)
    used = {plan.encoder for plan in plans.values()}
    if used != set(names):
        raise ModelDamagedError(
            f"model '{card.name}' names the encoders {card.encoder!r}, but is assembled from "
            f"{'+'.join(sorted(used))!r}"
        )
    if lacking := sorted(set(card.towers) - set(plans)):
        raise ModelDamagedError(
            f"model '{card.name}' has digests of towers for {', '.join(lacking)}, but its "
            "assembly has none"
        )
    return plans
