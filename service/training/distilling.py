"""An audio tower taught the text space of an image-text model, so that sounds find pictures.

After arXiv 2602.00681 (details ours: only the abstract was at hand): the teacher's text tower is
frozen and says where a caption lies; the student's audio tower and a linear map behind it learn to
put a recording there, by a symmetric contrastive loss. No pictures take part. The teacher's hasher
codes the student's embeddings as it codes text, around a mean of their own. Photographs that the
new model indexes, with the teacher's tower and codes, can be asked for by sound.

Without adapters the student's embeddings are made once and only the map is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bittern.encoders.assembly import Plans, TowerPlan, begin, plans_to_json
from bittern.encoders.base import Encoder, Modality
from bittern.encoders.catalogue import find_entry
from bittern.encoders.prompts import IMAGE_TEMPLATES
from bittern.errors import InvalidInputError, ManifestError, ModelNotFoundError
from bittern.hashing.hashers import Hasher
from bittern.hashing.saved import SavedModel
from bittern.hashing.training.bits import bit_statistics
from bittern.hashing.training.records import TrainingResult
from bittern.service.models.fitting import shipped_model
from bittern.service.models.loaded import Embedders
from bittern.service.models.saved import load_saved, model_folder, plans_of
from bittern.service.training.embedding import Embeddings, Towers, embed_examples
from bittern.service.training.examples import Examples
from bittern.service.training.fitting import Fitted, TrainingData, run_training
from bittern.service.training.preparing import Prepared, only_media, part_of, prepare
from bittern.service.training.probing import evenly
from bittern.service.training.raw import MOST_RAW_ITEMS
from bittern.service.training.request import (
    Comparison,
    LoadEncoder,
    OnProgress,
    TrainingRequest,
)
from bittern.service.training.saving import Encoding, OutFolder, licence_of
from bittern.service.training.sources import read_pairs
from bittern.service.training.students import Distillation, DistillObjective
from bittern.service.training.towers import lora_of
from bittern.service.training.validating import Task

_MEAN_ROWS = 8192


@dataclass(frozen=True)
class Lesson:
    """What a distillation takes.

    Attributes:
        teacher: with words and pictures.
        words: the encoder with the teacher's text tower.
        listener: the student's encoder.
        examples: recordings with captions.
        prepared: the same, split.
    """

    teacher: SavedModel
    words: Encoder
    listener: Encoder
    examples: Examples
    prepared: Prepared


def prepare_lesson(request: TrainingRequest, load: LoadEncoder) -> Lesson:
    """Find teacher, student and recordings; writes nothing.

    Raises:
        ModelNotFoundError: no such teacher or student.
        InvalidInputError: a teacher without words and pictures, or a student without ears.
    """
    config = request.config
    assert request.model is not None
    teacher = teacher_named(request.teacher)
    if Modality.AUDIO not in find_entry(request.model).modalities:
        raise InvalidInputError(
            f"the student {request.model} has no audio tower; choose biolingual or field",
            field="student",
        )
    examples = only_media(_read(request), "audio")
    (prepared,) = prepare(examples, request)
    embedders = Embedders(lambda name: load(name, config.device))
    listener = load(request.model, config.device)
    words: Encoder = embedders.of(teacher).encoder()
    return Lesson(teacher, words, listener, examples, prepared)


def distill(
    request: TrainingRequest, lesson: Lesson, out: OutFolder, progress: OnProgress
) -> tuple[Fitted, Encoding, TrainingData, Embeddings]:
    """Train the student, and extend the teacher by it; `out` is held.

    Raises:
        TrainingError: as `bittern.hashing.training.loop.train`.
    """
    config, teacher, listener = request.config, lesson.teacher, lesson.listener
    assert request.model is not None
    name = "+".join(sorted({listener.name, *teacher.card.encoder.split("+")}))
    embedded = embed_examples(
        lesson.prepared.examples,
        Towers(listener, lesson.words, name),
        out.embeddings,
        strict=request.strict,
        progress=progress,
    )
    plan = TowerPlan(request.model, lora_of(config), projection=True)
    student = begin(
        name, {Modality.AUDIO: plan}, lambda _: listener, dim=teacher.card.dim, seed=config.seed
    ).towers[Modality.AUDIO]
    part = part_of(embedded, lesson.prepared)
    of = Distillation(teacher, student, plan, embedded, part, config)
    objective = DistillObjective(of)
    result, was_finished = run_training(objective, config, out.run, progress)
    objective.module.eval()
    fitted = _fitted(of, result, was_finished)
    return fitted, _encoding(of), TrainingData([part], labels=False), embedded


def teacher_named(name: str | None) -> SavedModel:
    """A saved model with words and pictures.

    Raises:
        ModelNotFoundError: neither a folder with a model nor a shipped one.
        InvalidInputError: it lacks words or pictures.
    """
    shipped = shipped_model(name) if name else None
    folder = model_folder(name) if name else None
    if shipped is None and folder is None:
        raise ModelNotFoundError(
            f"there is no model '{name}' to be the teacher: give the folder of a saved one, such "
            "as `bittern train pairs ... --out FOLDER` leaves, or the name of a shipped one "
            "(field-256)",
            field="teacher",
        )
    teacher = shipped or load_saved(folder)  # type: ignore[arg-type]
    lacking = {"text", "image"} - set(teacher.card.towers)
    if lacking:
        raise InvalidInputError(
            f"the teacher {teacher.card.name} has no {' and no '.join(sorted(lacking))} tower; it "
            f"has {', '.join(sorted(teacher.card.towers))}",
            field="teacher",
        )
    return teacher


def _read(request: TrainingRequest) -> Examples:
    """Recordings with captions such as the teacher knows: names, as for photographs.

    Only a source without names, or with a column that is asked for, gives its own captions.
    """
    if request.caption_column is None:
        try:
            return read_pairs(request.source, templates=IMAGE_TEMPLATES, strict=request.strict)
        except ManifestError:
            pass
    return read_pairs(request.source, caption_column=request.caption_column, strict=request.strict)


def _fitted(of: Distillation, result: TrainingResult, was_finished: bool) -> Fitted:
    mean_rows = evenly(of.part.training, MOST_RAW_ITEMS if of.raw else _MEAN_ROWS)
    heard = of.embed(mean_rows)
    hasher = of.teacher.hasher.with_modality("audio", "text", heard.mean(axis=0))
    bits = bit_statistics(hasher.logits(heard, "audio"))
    task = of.task()
    comparison = _comparison(task, hasher)
    best = result.best
    metrics = {
        "epoch": result.best_epoch,
        "loss": best.loss,
        **best.parts,
        "validation": dict(best.validation),
        "held_out": [
            {"task": c.task, "queries": c.queries, "items": c.items, "mAP_floats": c.floats,
             "mAP_learned": c.learned}
            for c in comparison
        ],
        "bit_balance": bits.balance,
        "bit_correlation": bits.mean_correlation,
        "dead_bits": len(bits.dead),
        "stopped_early": result.stopped_early,
    }  # fmt: skip
    return Fitted(
        hasher=hasher,
        metrics=metrics,
        comparison=comparison,
        warnings=result.warnings,
        seconds=result.seconds,
        resumed=result.resumed,
        was_finished=was_finished,
    )


def _comparison(task: Task | None, hasher: Hasher) -> Sequence[Comparison]:
    if task is None or not task.relevant.any():
        return ()
    return (
        Comparison(
            task=task.name,
            modality="audio",
            queries=len(task.relevant),
            items=task.relevant.shape[1],
            floats=task.of_floats(),
            training_free=None,
            learned=task.of_codes(hasher.logits),
        ),
    )


def _encoding(of: Distillation) -> Encoding:
    """The teacher's towers, and the student's for sound."""
    card = of.teacher.card
    plans: dict[Modality, TowerPlan] = {}
    before: Plans = plans_of(card)
    for modality in of.teacher.hasher.modalities:
        if modality in card.towers and modality != "audio":
            key = Modality(modality)
            plans[key] = before.get(key) or TowerPlan(card.encoder)
    plans[Modality.AUDIO] = of.plan
    adapters = {n: t for n, t in of.teacher.adapters.items() if not n.startswith("audio.")}
    adapters |= {f"audio.{n}": t for n, t in of.student.tensors().items()}
    encoders = sorted({plan.encoder for plan in plans.values()})
    licences = dict.fromkeys([card.licence, licence_of(of.plan.encoder)])
    return Encoding(
        name="+".join(encoders),
        towers={**card.towers, "audio": of.student.digest()},
        licence="; ".join(licence for licence in licences if licence),
        assembly=plans_to_json(plans),
        adapters=adapters,
    )
