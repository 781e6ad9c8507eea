"""Distillation: an audio tower learns the text space of an image-text model; sounds find pictures.

After arXiv 2602.00681 (details ours: only the abstract was available). The teacher's text tower is
frozen. The student's audio tower, with a linear map after it, learns by a symmetric contrastive
loss to embed a recording close to its caption. No pictures are needed. The teacher's hasher codes
the student's embeddings like text, centred by their own mean.

Without adapters the student's embeddings are computed once and only the map is trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.encoders.assembly import Plans, TowerPlan, begin, plans_to_json
from bittern.encoders.base import Encoder, Modality
from bittern.encoders.catalogue import find_entry
from bittern.encoders.prompts import IMAGE_TEMPLATES
from bittern.encoders.towers import TrainableTower
from bittern.errors import InvalidInputError, ManifestError, ModelNotFoundError
from bittern.hashing.hashers import Hasher
from bittern.hashing.losses import Scale, contrastive_loss
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.heads import digest_of, draw
from bittern.hashing.training.objective import Step
from bittern.hashing.training.records import TrainingResult
from bittern.hashing.training.sampling import Sampler, stream
from bittern.hashing.training.validation import (
    MOST_ITEMS,
    MOST_QUERIES,
    SplitSet,
    Task,
    evenly,
)
from bittern.service.models.fitting import shipped_model
from bittern.service.models.model import Embedders
from bittern.service.models.saved import load_saved, model_folder, plans_of
from bittern.service.training.adapter_training import MOST_RAW_ITEMS, Reader, lora_of, prefetched
from bittern.service.training.embedded_examples import Embeddings, Towers, embed_examples
from bittern.service.training.examples import Examples
from bittern.service.training.fit import Fitted, TrainingData, bits_of, run_training
from bittern.service.training.output_folder import Encoding, OutFolder, licence_of
from bittern.service.training.request import Comparison, LoadEncoder, OnProgress, TrainingRequest
from bittern.service.training.sources import read_pairs
from bittern.service.training.split import Prepared, only_media, prepare, split_set

_MEAN_ROWS = 8192


@dataclass(frozen=True)
class Lesson:
    """The input of a distillation.

    Attributes:
        teacher: model of words and pictures.
        text_encoder: with the teacher's text tower.
        audio_encoder: of the student.
        examples: recordings with captions.
        prepared: the same, split.
    """

    teacher: SavedModel
    text_encoder: Encoder
    audio_encoder: Encoder
    examples: Examples
    prepared: Prepared


def prepare_lesson(request: TrainingRequest, load: LoadEncoder) -> Lesson:
    """Load teacher, student and recordings; writes nothing.

    Raises:
        ModelNotFoundError: unknown teacher or student.
        InvalidInputError: the teacher lacks a text or image tower, or the student an audio tower.
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
    audio_encoder = load(request.model, config.device)
    text_encoder: Encoder = embedders.of(teacher).encoder()
    return Lesson(teacher, text_encoder, audio_encoder, examples, prepared)


def distill(
    request: TrainingRequest, lesson: Lesson, out: OutFolder, progress: OnProgress
) -> tuple[Fitted, Encoding, TrainingData, Embeddings]:
    """Train the student, and add it to the teacher's model; `out` is locked.

    Raises:
        TrainingError: as `bittern.hashing.training.loop.train`.
    """
    config, teacher, encoder = request.config, lesson.teacher, lesson.audio_encoder
    assert request.model is not None
    name = "+".join(sorted({encoder.name, *teacher.card.encoder.split("+")}))
    embedded = embed_examples(
        lesson.prepared.examples,
        Towers(encoder, lesson.text_encoder, name),
        out.embeddings,
        strict=request.strict,
        progress=progress,
    )
    plan = TowerPlan(request.model, lora_of(config), projection=True)
    student = begin(
        name, {Modality.AUDIO: plan}, lambda _: encoder, dim=teacher.card.dim, seed=config.seed
    ).towers[Modality.AUDIO]
    split = split_set(embedded, lesson.prepared)
    of = Distillation(teacher, student, plan, embedded, split, config)
    objective = DistillObjective(of)
    result = run_training(objective, config, out.run, progress)
    objective.module.eval()
    fitted = _fitted(of, result)
    return fitted, _encoding(of), TrainingData([split], labels=False), embedded


def teacher_named(name: str | None) -> SavedModel:
    """A saved or shipped model with text and image towers.

    Raises:
        ModelNotFoundError: unknown model.
        InvalidInputError: it lacks a tower.
    """
    shipped = shipped_model(name) if name else None
    folder = model_folder(name) if name else None
    if shipped is None and folder is None:
        raise ModelNotFoundError(
            f"there is no model '{name}' to be the teacher: give the folder of a saved one, such "
            "as `bittern train pairs ... --output FOLDER` leaves, or the name of a shipped one "
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
    """Recordings with image captions of their names, which the teacher knows.

    A source without names, or a named column, provides its own captions.
    """
    if request.caption_column is None:
        try:
            return read_pairs(request.source, templates=IMAGE_TEMPLATES, strict=request.strict)
        except ManifestError:
            pass
    return read_pairs(request.source, caption_column=request.caption_column, strict=request.strict)


def _fitted(of: Distillation, result: TrainingResult) -> Fitted:
    recordings = of.embed(evenly(of.split.training, MOST_RAW_ITEMS if of.raw else _MEAN_ROWS))
    hasher = of.teacher.hasher.with_modality("audio", "text", recordings.mean(axis=0))
    comparison = _comparison(of.task(), hasher)
    return Fitted.of(hasher, result, comparison, bits_of(hasher, {"audio": recordings}))


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
    """The teacher's towers, with the student's audio tower."""
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


@dataclass(frozen=True)
class Distillation:
    """Models and data of a distillation.

    Attributes:
        teacher: the model whose space is learned.
        student: the audio tower, with a map and perhaps adapters.
        plan: of that tower.
        embedded: recordings by the untrained student, captions by the teacher.
        split: their training and held-out rows.
        config: the settings.
    """

    teacher: SavedModel
    student: TrainableTower
    plan: TowerPlan
    embedded: Embeddings
    split: SplitSet
    config: TrainingConfig

    def texts(self, rows: NDArray[np.int64], epoch: int) -> torch.Tensor:
        """The teacher's embedding of a random caption of each row: float32 [n, dim]."""
        names = [n for n, v in self.split.source.views.items() if v.modality == "text"]
        chosen = draw(self.config.seed, epoch, rows, len(names))
        found = np.empty((len(rows), self.teacher.card.dim), dtype=np.float32)
        for number, name in enumerate(names):
            here = np.flatnonzero(chosen == number)
            found[here] = self.split.read(name, rows[here])
        return torch.from_numpy(found)

    def groups(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """int32 [n]."""
        assert self.split.source.groups is not None
        return self.split.source.groups[rows]

    @property
    def raw(self) -> bool:
        """Whether the tower changes, so recordings must be encoded again."""
        return self.student.adapters is not None

    def reader(self) -> Reader:
        """Reads the recordings."""
        windowing = self.student.encoder.windowing
        return Reader(self.embedded, windowing, self.config.augmentation, self.config.seed)

    def embed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings by the current student: float32 [n, dim] of unit norm."""
        if not self.raw:
            bare = torch.from_numpy(self.split.read("audio", rows))
            with torch.inference_mode():
                mapped: NDArray[np.float32] = self.map(bare).cpu().numpy()
            return mapped
        return self.reader().encoded(rows, self.student.encode)

    def map(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings of the untrained student, mapped into the teacher's space."""
        linear = self.student.projection
        assert linear is not None
        with torch.autocast(linear.weight.device.type, enabled=False):
            mapped = linear(embeddings.to(linear.weight.device).float())
        return torch.nn.functional.normalize(mapped, dim=-1)

    def task(self) -> Task | None:
        """Searches for the captions of held-out recordings among those of all species."""
        most = MOST_RAW_ITEMS if self.raw else MOST_ITEMS
        rows = evenly(self.split.held_out, most)
        if len(rows) < 2:
            return None
        queries = evenly(rows, MOST_QUERIES)
        # Captions of training species are likely wrong answers.
        candidates = np.concatenate([queries, self.split.training])
        _, first = np.unique(self.groups(candidates), return_index=True)
        captions = candidates[np.sort(first)[:MOST_ITEMS]]
        return Task(
            "sounds to words",
            ("audio", self.embed(queries)),
            ("text", self.split.read("text-1", captions)),
            self.groups(queries)[:, None] == self.groups(captions),
        )


class _Student(torch.nn.Module):
    def __init__(self, tower: TrainableTower) -> None:
        super().__init__()
        self.tower = tower
        self.scale = Scale()


@dataclass(frozen=True)
class StudentBatch:
    """Recordings and captions.

    Attributes:
        inputs: float32 [n, dim] of the untrained student, or inputs of its tower.
        texts: float32 [n, dim] of the teacher.
        groups: int32 [n].
    """

    inputs: Any
    texts: torch.Tensor
    groups: NDArray[np.int32]


class DistillObjective:
    """The student's map, and its adapters if it has some, as an `Objective`.

    A batch has each species once if there are enough of them. Otherwise all captions of a
    recording's species are right.

    Attributes:
        module: tower and scale.
        steps_per_epoch: batches.
        data_digest: over embeddings, teacher, and which rows are held out.
    """

    def __init__(self, distillation: Distillation) -> None:
        self.of = distillation
        config, split = distillation.config, distillation.split
        self.module = _Student(distillation.student)
        self._epoch = 1
        self._reader = distillation.reader()
        rows = split.training
        if distillation.raw:  # one window of each recording per epoch
            rows = rows[np.unique(distillation.embedded.rows.item[rows], return_index=True)[1]]
        groups = distillation.groups(rows)
        enough = len(np.unique(groups)) >= config.batch_size
        self._sampler = Sampler(rows, config.batch_size, config.seed, groups if enough else None)
        self.steps_per_epoch = self._sampler.steps
        self.data_digest = digest_of(
            split.source.digest, distillation.teacher.card.digest, rows.tobytes().hex()
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Map and adapters; the scale, without weight decay."""
        tower = list(self.of.student.named().values())
        return [
            {"params": tower},
            {"params": list(self.module.scale.parameters()), "weight_decay": 0.0},
        ]

    def begin_epoch(self, epoch: int) -> None:
        """Train the adapters from their first epoch on."""
        self._epoch = epoch
        if self.of.student.adapters is not None:
            self.of.student.adapters.set_gradients(epoch >= self.of.config.lora_from_epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[StudentBatch]:
        """The batches of an epoch, from number `start` on."""
        if self.of.raw:
            return prefetched(self._sampler.batches(epoch, start), self._read_in(epoch))
        return self._streamed(epoch, start)

    def loss(self, batch: StudentBatch) -> Step:
        """The contrastive loss of both directions."""
        student = self.of.student(batch.inputs) if self.of.raw else self.of.map(batch.inputs)
        groups = torch.from_numpy(batch.groups).to(student.device)
        scale = self.module.scale()
        same = groups[:, None] == groups
        loss = contrastive_loss(student, batch.texts.to(student.device), scale, same)
        return Step(loss, {"contrastive": loss.detach(), "scale": scale.detach()})

    def validate(self) -> dict[str, float] | None:
        """MAP and recall of captions searched with held-out recordings."""
        task = self.of.task()
        if task is None or not task.relevant.any():
            return None
        return {"mAP": task.of_floats(), "recall_at_1": recall_at_1(task)}

    def _streamed(self, epoch: int, start: int) -> Iterator[StudentBatch]:
        names = list(self.of.split.source.views)
        audio = names.index("audio")
        texts = [i for i, name in enumerate(names) if name != "audio"]
        for batch in stream(self.of.split.source, self._sampler, epoch, start):
            chosen = draw(self.of.config.seed, epoch, batch.rows, len(texts))
            stacked = torch.stack([batch.views[i] for i in texts])
            text = stacked[torch.from_numpy(chosen), torch.arange(len(chosen))]
            yield StudentBatch(batch.views[audio], text, self.of.groups(batch.rows))

    def _read_in(self, epoch: int) -> Any:
        def make(rows: NDArray[np.int64], decoders: Executor) -> StudentBatch:
            items = [int(i) for i in self.of.embedded.rows.item[rows]]
            media = list(decoders.map(lambda item: self._reader.view(item, epoch, 0), items))
            inputs = self.of.student.prepare(media)
            return StudentBatch(inputs, self.of.texts(rows, epoch), self.of.groups(rows))

        return make


def recall_at_1(task: Task) -> float:
    """Share of the queries whose nearest item, by cosine, is right."""
    nearest = (task.queries[1] @ task.items[1].T).argmax(axis=1)
    return float(task.relevant[np.arange(len(nearest)), nearest].mean())
