"""Small sets of embeddings, and an objective with dropout that needs no files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.hashing.hashcoder import HashCoder
from bittern.hashing.losses import cross_view_loss
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_sets import EmbeddingSet, EmbeddingWriter, View
from bittern.hashing.training.objective import Step

DIM = 12
CLASSES = 6
SMALL = TrainingConfig(bits=16, batch_size=16, epochs=3, seed=3, validation_share=0.1, device="cpu")


def embeddings(rows: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Text and image embeddings around class centres, and the classes."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((CLASSES, DIM))
    labels = random.integers(0, CLASSES, rows)
    text = centres[labels] + 0.1 * random.standard_normal((rows, DIM))
    image = 2.0 - centres[labels] + 0.1 * random.standard_normal((rows, DIM))
    return text, image, labels


def make_set(folder: Path, rows: int = 120, *, seed: int = 0, **options: Any) -> EmbeddingSet:
    """A set with a text and an image view; `labels` and `groups` as the writer takes them."""
    text, image, labels = embeddings(rows, seed)
    views = {"caption": View("text", DIM), "photo": View("image", DIM, "float32")}
    groups = labels if options.get("groups") else None
    with EmbeddingWriter(folder, views, encoder="toy", **options) as writer:
        for start in range(0, rows, 50):
            some = slice(start, start + 50)
            kind = options.get("labels")
            several = [[int(c), CLASSES] for c in labels[some]]
            writer.append(
                {"caption": text[some], "photo": image[some]},
                {"single": labels[some], "multi": several, None: None}[kind],
                None if groups is None else groups[some],
            )
    return EmbeddingSet.open(folder)


class Toy:
    """Two noisy views of random items, with dropout, straight from memory."""

    data_digest = "toy"
    warnings: Sequence[str] = ()

    def __init__(self, config: TrainingConfig, steps: int = 7, bits: int = 8) -> None:
        self.config, self.steps_per_epoch = config, steps
        self.begun: list[int] = []
        self.values: list[float] = []
        self.after_epochs: list[dict[str, torch.Tensor]] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.coder = HashCoder(DIM, bits)
            self.module = torch.nn.Sequential(torch.nn.Dropout(0.2), self.coder)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.module.parameters())}]

    def begin_epoch(self, epoch: int) -> None:
        self.begun.append(epoch)

    def batches(self, epoch: int, start: int = 0) -> Iterator[torch.Tensor]:
        for step in range(start, self.steps_per_epoch):
            random = torch.Generator().manual_seed(1000 * epoch + step)
            yield torch.randn(self.config.batch_size, DIM, generator=random)

    def loss(self, batch: torch.Tensor) -> Step:
        views = [self.module(batch), self.module(batch)]
        loss = cross_view_loss(views)
        return Step(loss.total, {"alignment": loss.alignment.detach()}, views)

    def validate(self) -> dict[str, float] | None:
        self.after_epochs.append(weights(self.module))
        return {"value": self.values.pop(0)} if self.values else None


def weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
