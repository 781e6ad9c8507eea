"""A student: an audio tower and a linear map that learn where a teacher puts captions."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.encoders.assembly import TowerPlan
from bittern.encoders.towers import TrainableTower
from bittern.hashing.losses import Scale, contrastive_loss
from bittern.hashing.saved import SavedModel
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.objective import Step
from bittern.hashing.training.sampling import Sampler
from bittern.hashing.training.streaming import EmbeddingBatch, stream
from bittern.service.training.embedding import Embeddings
from bittern.service.training.media import Reader, prefetched
from bittern.service.training.probing import Part, draw, evenly
from bittern.service.training.raw import MOST_RAW_ITEMS
from bittern.service.training.request import (
    digest_of,
)
from bittern.service.training.validating import MOST_ITEMS, MOST_QUERIES, Task

_AT_A_TIME = 32


@dataclass(frozen=True)
class Distillation:
    """All that takes part.

    Attributes:
        teacher: the model whose space is taught.
        student: the audio tower, with a map and perhaps adapters.
        plan: of that tower.
        embedded: recordings by the bare student, captions by the teacher.
        part: which rows are trained on.
        config: the settings.
    """

    teacher: SavedModel
    student: TrainableTower
    plan: TowerPlan
    embedded: Embeddings
    part: Part
    config: TrainingConfig

    def texts(self, rows: NDArray[np.int64], epoch: int) -> torch.Tensor:
        """The teacher's embedding of one caption of each row, drawn: float32 [n, dim]."""
        names = [n for n, v in self.part.source.views.items() if v.modality == "text"]
        chosen = draw(self.config.seed, epoch, rows, len(names))
        found = np.empty((len(rows), self.teacher.card.dim), dtype=np.float32)
        for number, name in enumerate(names):
            here = np.flatnonzero(chosen == number)
            found[here] = self.part.read(name, rows[here])
        return torch.from_numpy(found)

    def groups(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """int32 [n]."""
        assert self.part.source.groups is not None
        return self.part.source.groups[rows]

    @property
    def raw(self) -> bool:
        """Whether recordings must be read again, since the tower changes."""
        return self.student.adapters is not None

    def reader(self) -> Reader:
        """Of the recordings."""
        windowing = self.student.encoder.windowing
        return Reader(self.embedded, windowing, self.config.augmentation, self.config.seed)

    def embed(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Recordings as the student puts them now: float32 [n, dim] of unit norm."""
        if not self.raw:
            bare = torch.from_numpy(self.part.read("audio", rows))
            with torch.inference_mode():
                mapped: NDArray[np.float32] = self.map(bare).cpu().numpy()
            return mapped
        told, reader, out = self.embedded.rows, self.reader(), []
        for start in range(0, len(rows), _AT_A_TIME):
            some = rows[start : start + _AT_A_TIME]
            out.append(
                self.student.encode(
                    [reader.read(int(told.item[r]), int(told.window[r])) for r in some]
                )
            )
        return np.concatenate(out)

    def map(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings of the bare student into the teacher's space, on the map's device."""
        linear = self.student.projection
        assert linear is not None
        with torch.autocast(linear.weight.device.type, enabled=False):
            mapped = linear(embeddings.to(linear.weight.device).float())
        return torch.nn.functional.normalize(mapped, dim=-1)

    def task(self) -> Task | None:
        """Held-out recordings that ask for their captions among those of all species."""
        most = MOST_RAW_ITEMS if self.raw else MOST_ITEMS
        rows = evenly(self.part.held_out, most)
        if len(rows) < 2:
            return None
        asking = evenly(rows, MOST_QUERIES)
        # Captions of the species trained on stand among the answers: they are what tempts.
        candidates = np.concatenate([asking, self.part.training])
        _, first = np.unique(self.groups(candidates), return_index=True)
        answers = candidates[np.sort(first)[:MOST_ITEMS]]
        return Task(
            "sounds to words",
            ("audio", self.embed(asking)),
            ("text", self.part.read("text-1", answers)),
            self.groups(asking)[:, None] == self.groups(answers),
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
        inputs: float32 [n, dim] of the bare student, or what its tower takes.
        texts: float32 [n, dim] of the teacher.
        groups: int32 [n].
    """

    inputs: Any
    texts: torch.Tensor
    groups: NDArray[np.int32]


class DistillObjective:
    """The student's map, and its adapters where it has some, as an `Objective`.

    Species stand in a batch once where there are enough of them to fill one; where they repeat,
    their captions are equally right.

    Attributes:
        module: tower and scale.
        steps_per_epoch: batches.
        data_digest: over embeddings, teacher, and which rows are held out.
    """

    def __init__(self, distillation: Distillation) -> None:
        self.of = distillation
        config, part = distillation.config, distillation.part
        self.module = _Student(distillation.student)
        self._epoch = 1
        self._reader = distillation.reader()
        rows = part.training
        if distillation.raw:  # a recording once an epoch, one window of it
            rows = rows[np.unique(distillation.embedded.rows.item[rows], return_index=True)[1]]
        groups = distillation.groups(rows)
        enough = len(np.unique(groups)) >= config.batch_size
        self._sampler = Sampler(rows, config.batch_size, config.seed, groups if enough else None)
        self.steps_per_epoch = self._sampler.steps
        self.data_digest = digest_of(
            part.source.summary.digest, distillation.teacher.card.digest, rows.tobytes().hex()
        )

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Map and adapters; the scale, which no decay should draw to 1."""
        tower = list(self.of.student.named().values())
        return [
            {"params": tower},
            {"params": list(self.module.scale.parameters()), "weight_decay": 0.0},
        ]

    def begin_epoch(self, epoch: int) -> None:
        """Let gradients reach the adapters, or not yet."""
        self._epoch = epoch
        if self.of.student.adapters is not None:
            self.of.student.adapters.set_gradients(epoch >= self.of.config.lora_from_epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[StudentBatch]:
        """The batches of an epoch, from number `start` on."""
        if self.of.raw:
            return prefetched(self._plans(epoch, start), self._read_in(epoch))
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
        """MAP and recall of captions asked for by held-out recordings."""
        task = self.of.task()
        if task is None or not task.relevant.any():
            return None
        return {"mAP": task.of_floats(), "recall_at_1": recall_at_1(task)}

    def _streamed(self, epoch: int, start: int) -> Iterator[StudentBatch]:
        names = list(self.of.part.source.views)
        audio = names.index("audio")
        texts = [i for i, name in enumerate(names) if name != "audio"]
        batch: EmbeddingBatch
        for batch in stream(self.of.part.source, self._sampler, epoch, start):
            chosen = draw(self.of.config.seed, epoch, batch.rows, len(texts))
            stacked = torch.stack([batch.views[i] for i in texts])
            text = stacked[torch.from_numpy(chosen), torch.arange(len(chosen))]
            yield StudentBatch(batch.views[audio], text, self.of.groups(batch.rows))

    def _plans(self, epoch: int, start: int) -> Iterator[NDArray[np.int64]]:
        for buffer in self._sampler.epoch(epoch, start):
            yield from buffer.rows[buffer.batches]

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
