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
from bittern.encoders.catalogue import licence_of
from bittern.encoders.towers import TrainableTower
from bittern.errors import InvalidInputError, ModelNotFoundError
from bittern.hashing.hashers import Hasher
from bittern.hashing.losses import Scale, contrastive_loss
from bittern.hashing.saved_model import SavedModel
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import digest_of
from bittern.hashing.training.loop import train
from bittern.hashing.training.objective import Step
from bittern.hashing.training.records import Progress, TrainingResult
from bittern.hashing.training.sampling import Sampler, random_numbers, stream
from bittern.hashing.training.validation import (
    MOST_ITEMS,
    MOST_QUERIES,
    SplitSet,
    Task,
    TrainingData,
    evenly,
)
from bittern.service.ingest.precomputed import Precomputed
from bittern.service.models.fitting import shipped_model
from bittern.service.models.model import Embedders
from bittern.service.models.saved import load_saved, model_folder, plans_of
from bittern.service.training.adapter_training import lora_of
from bittern.service.training.embedded_examples import EmbeddedExamples, Towers, embed_examples
from bittern.service.training.examples import Skipped
from bittern.service.training.fit import Comparison, Fitted, bits_of
from bittern.service.training.media_reading import MOST_RAW_ITEMS, MediaReader, prefetched
from bittern.service.training.output_folder import ModelEncoder, OutputFolder
from bittern.service.training.request import LoadEncoder, TrainingRequest
from bittern.service.training.split import Split

_MEAN_ROWS = 8192


@dataclass(frozen=True)
class Teacher:
    """A model of words and pictures, and the encoder with its text tower."""

    model: SavedModel
    encoder: Encoder


def load_teacher(request: TrainingRequest, load: LoadEncoder) -> Teacher:
    """The saved or shipped model that is the teacher.

    Raises:
        ModelNotFoundError: unknown model.
        InvalidInputError: it lacks a text or image tower.
    """
    name = request.teacher
    shipped = shipped_model(name) if name else None
    folder = model_folder(name) if name else None
    if shipped is None and folder is None:
        raise ModelNotFoundError(
            f"there is no model '{name}' to be the teacher: give the folder of a saved one, such "
            "as `bittern train pairs ... --output FOLDER` leaves, or the name of a shipped one "
            "(field-256)",
            field="teacher",
        )
    model = shipped or load_saved(folder)  # type: ignore[arg-type]
    lacking = {"text", "image"} - set(model.card.towers)
    if lacking:
        raise InvalidInputError(
            f"the teacher {model.card.name} has no {' and no '.join(sorted(lacking))} tower; it "
            f"has {', '.join(sorted(model.card.towers))}",
            field="teacher",
        )
    embedders = Embedders(lambda encoder: load(encoder, request.config.device))
    return Teacher(model, embedders.of(model).encoder())


def distill(
    request: TrainingRequest,
    teacher: Teacher,
    encoder: Encoder,
    recordings: Split,
    out: OutputFolder,
    progress: Progress,
    stored: Precomputed | None = None,
) -> tuple[Fitted, ModelEncoder, TrainingData, Sequence[Skipped]]:
    """Train the student, and add it to the teacher's model; `out` is locked.

    Args:
        request: the training.
        teacher: whose space is learned.
        encoder: of the student.
        recordings: with captions.
        out: folder of the run.
        progress: called now and then.
        stored: embeddings of the recordings by the student; None to embed them.

    Returns:
        The hasher, the towers, the data, and the recordings that could not be embedded.

    Raises:
        TrainingError: as `bittern.hashing.training.loop.train`.
    """
    config, card = request.config, teacher.model.card
    name = "+".join(sorted({encoder.name, *card.encoder.split("+")}))
    embedded = embed_examples(
        recordings.examples,
        Towers(encoder, teacher.encoder, name),
        out.embeddings,
        stored=stored,
        strict=request.strict,
        progress=progress,
    )
    plan = TowerPlan(encoder.name, lora_of(config), projection=True)
    student = begin(
        name, {Modality.AUDIO: plan}, lambda _: encoder, dim=card.dim, seed=config.seed
    ).towers[Modality.AUDIO]
    split = embedded.split(recordings)
    objective = DistillObjective(student, card.digest, embedded, split, config)
    result = train(objective, config, out.run, progress=progress)
    objective.module.eval()
    fitted = _fitted(objective, teacher.model.hasher, result)
    model_encoder = _encoder(teacher.model, plan, student)
    return fitted, model_encoder, TrainingData([split], labels=False), embedded.skipped


def _fitted(objective: DistillObjective, teacher: Hasher, result: TrainingResult) -> Fitted:
    most = MOST_RAW_ITEMS if objective.student.adapters else _MEAN_ROWS
    recordings = objective.embed(evenly(objective.split.training, most))
    hasher = teacher.with_modality("audio", "text", recordings.mean(axis=0))
    comparison = [
        Comparison(
            task=task.name,
            modality="audio",
            queries=len(task.relevant),
            items=task.relevant.shape[1],
            floats=task.of_floats(),
            training_free=None,
            learned=task.of_codes(hasher.logits),
        )
        for task in objective.tasks()
    ]
    return Fitted.of(hasher, result, comparison, bits_of(hasher, {"audio": recordings}))


def _encoder(teacher: SavedModel, plan: TowerPlan, student: TrainableTower) -> ModelEncoder:
    """The teacher's towers, with the student's audio tower."""
    card = teacher.card
    before: Plans = plans_of(card)
    plans: dict[Modality, TowerPlan] = {}
    for modality in teacher.hasher.modalities:
        if modality in card.towers and modality != "audio":
            key = Modality(modality)
            plans[key] = before.get(key) or TowerPlan(card.encoder)
    plans[Modality.AUDIO] = plan
    adapters = {n: t for n, t in teacher.adapters.items() if not n.startswith("audio.")}
    adapters |= {f"audio.{n}": t for n, t in student.tensors().items()}
    licences = dict.fromkeys([card.licence, licence_of(plan.encoder)])
    return ModelEncoder(
        name="+".join(sorted({plan.encoder for plan in plans.values()})),
        towers={**card.towers, "audio": student.digest()},
        licence="; ".join(licence for licence in licences if licence),
        assembly=plans_to_json(plans),
        adapters=adapters,
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
    recording's species are right. With adapters, recordings are read and encoded again for each
    batch; without, the embeddings of the untrained student are mapped.

    Attributes:
        student: the audio tower, with a map and perhaps adapters.
        split: training and held-out rows.
        module: tower and scale.
        steps_per_epoch: batches.
        warnings: about batches smaller than the settings say.
        data_digest: over embeddings, teacher, and which rows are held out.
    """

    def __init__(
        self,
        student: TrainableTower,
        teacher_digest: str,
        embedded: EmbeddedExamples,
        split: SplitSet,
        config: TrainingConfig,
    ) -> None:
        """Take recordings embedded by the untrained student, and captions by the teacher."""
        self.student, self.split, self._config = student, split, config
        self._item = embedded.item
        self._raw = student.adapters is not None
        windowing = student.encoder.windowing
        self._reader = MediaReader(embedded, windowing, config.augmentation, config.seed)
        self._texts = [n for n, view in split.source.views.items() if view.modality == "text"]
        self.module = _Student(student)
        rows = split.training
        if self._raw:  # one window of each recording per epoch
            rows = rows[np.unique(embedded.item[rows], return_index=True)[1]]
        groups = self._groups(rows)
        enough = len(np.unique(groups)) >= config.batch_size
        self._sampler = Sampler(rows, config.batch_size, config.seed, groups if enough else None)
        self.steps_per_epoch = self._sampler.steps
        self.warnings = self._sampler.warnings
        self.data_digest = digest_of(split.source.digest, teacher_digest, rows.tobytes().hex())

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Map and adapters; the scale, without weight decay."""
        return [
            {"params": list(self.student.named().values())},
            {"params": list(self.module.scale.parameters()), "weight_decay": 0.0},
        ]

    def begin_epoch(self, epoch: int) -> None:
        """Train the adapters from their first epoch on."""
        if self.student.adapters is not None:
            self.student.adapters.set_gradients(epoch >= self._config.lora_from_epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[StudentBatch]:
        """The batches of an epoch, from number `start` on."""
        if not self._raw:
            yield from self._streamed(epoch, start)
            return

        def make(rows: NDArray[np.int64], decoders: Executor) -> StudentBatch:
            items = [int(i) for i in self._item[rows]]
            media = list(decoders.map(lambda item: self._reader.view(item, epoch, 0), items))
            chosen = random_numbers(self._config.seed, epoch, rows, len(self._texts))
            texts = np.empty((len(rows), self.student.dim), dtype=np.float32)
            for number, name in enumerate(self._texts):
                mine = np.flatnonzero(chosen == number)
                texts[mine] = self.split.read(name, rows[mine])
            inputs = self.student.prepare(media)
            return StudentBatch(inputs, torch.from_numpy(texts), self._groups(rows))

        yield from prefetched(self._sampler.batches(epoch, start), make)

    def loss(self, batch: StudentBatch) -> Step:
        """The contrastive loss of both directions."""
        student = self.student(batch.inputs) if self._raw else self._map(batch.inputs)
        groups = torch.from_numpy(batch.groups).to(student.device)
        scale = self.module.scale()
        same = groups[:, None] == groups
        loss = contrastive_loss(student, batch.texts.to(student.device), scale, same)
        return Step(loss, {"contrastive": loss.detach(), "scale": scale.detach()})

    def validate(self) -> dict[str, float] | None:
        """MAP and recall of captions searched with held-out recordings."""
        for task in self.tasks():
            return {"mAP": task.of_floats(), "recall_at_1": recall_at_1(task)}
        return None

    def tasks(self) -> list[Task]:
        """The search for the captions of held-out recordings among those of all species; none if
        too few are held out.
        """
        rows = evenly(self.split.held_out, MOST_RAW_ITEMS if self._raw else MOST_ITEMS)
        if len(rows) < 2:
            return []
        queries = evenly(rows, MOST_QUERIES)
        # Captions of training species are likely wrong answers.
        candidates = np.concatenate([queries, self.split.training])
        _, first = np.unique(self._groups(candidates), return_index=True)
        captions = candidates[np.sort(first)[:MOST_ITEMS]]
        relevant = self._groups(queries)[:, None] == self._groups(captions)
        if not relevant.any():
            return []
        recordings = ("audio", self.embed(queries))
        texts = ("text", self.split.read(self._texts[0], captions))
        return [Task("sounds to words", recordings, texts, relevant)]

    def embed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Embeddings by the current student: float32 [n, dim] of unit norm."""
        if self._raw:
            return self._reader.encoded(rows, self.student.encode)
        with torch.inference_mode():
            mapped: NDArray[np.float32] = (
                self._map(torch.from_numpy(self.split.read("audio", rows))).cpu().numpy()
            )
        return mapped

    def _map(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings of the untrained student, mapped into the teacher's space."""
        assert self.student.projection is not None
        return self.student.project(embeddings.to(self.student.projection.weight.device))

    def _groups(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        assert self.split.source.groups is not None
        return self.split.source.groups[rows]

    def _streamed(self, epoch: int, start: int) -> Iterator[StudentBatch]:
        names = list(self.split.source.views)
        audio = names.index("audio")
        texts = [names.index(name) for name in self._texts]
        for batch in stream(self.split.source, self._sampler, epoch, start):
            chosen = random_numbers(self._config.seed, epoch, batch.rows, len(texts))
            stacked = torch.stack([batch.views[i] for i in texts])
            text = stacked[torch.from_numpy(chosen), torch.arange(len(chosen))]
            yield StudentBatch(batch.views[audio], text, self._groups(batch.rows))


def recall_at_1(task: Task) -> float:
    """Share of the queries whose nearest item, by cosine, is right."""
    nearest = (task.queries[1] @ task.items[1].T).argmax(axis=1)
    return float(task.relevant[np.arange(len(nearest)), nearest].mean())
