"""Builds the models that ship with the package: ``python -m bittern.service.ship``.

`field` has hybrid codes of 64, 128 and 256 bits: training-free bits, and learned ones that were
trained without media. They are built once, so codes are the same in every archive and on every
machine (docs/decisions/0003). This takes some minutes.

A word, a simulated picture and a simulated sound of a concept predict each other's code (CroVCA,
arXiv 2510.27584, across modalities as in arXiv 2601.22783). The training-free bits serve queries
for other concepts. Numbers and settings: docs/background/learned-codes.md.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bittern.encoders import field
from bittern.encoders.base import Modality
from bittern.encoders.catalogue import CATALOGUE
from bittern.encoders.field.concepts import load_concepts, unit
from bittern.encoders.field.networks import BATCH as TEXT_BATCH
from bittern.encoders.field.networks import MiniLM
from bittern.encoders.field_build.simulated import Simulator, audio_rows, image_rows
from bittern.encoders.field_build.vocabulary import (
    KNOWN_IMAGES,
    TEMPLATES,
    Concept,
    Vocabulary,
    vocabulary,
)
from bittern.hashing.hashcoder import HashCoder
from bittern.hashing.hashers import HybridHasher
from bittern.hashing.learned import LearnedHasher
from bittern.hashing.losses import alignment, coding_rate
from bittern.hashing.saved_model import SavedModel, Story
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.loop import train
from bittern.hashing.training.objective import Step
from bittern.hashing.training_free import fit
from bittern.service.models.fitting import SHIPPED, model_name
from bittern.service.models.model import catalogue_encoder

Embed = Callable[[Sequence[str]], NDArray[np.float32]]

GROUPS = {"image": 64, "audio": 64, "relative": 32, "kin": 96}
"""Concepts of a batch by group."""
BARE = 0.7
"""Share of captions that are only the word."""
STEPS_PER_EPOCH = 160
LEARNED_BITS = {64: 32, 128: 64, 256: 96}
"""Number of learned bits."""
_IMAGES, _RELATIVES, _SOUNDS = 16, 3, 3
"""Simulated items per class."""


@dataclass(frozen=True)
class Batch:
    """Embeddings of some concepts.

    Attributes:
        texts: float32 [B, dim], a caption of each concept.
        images: float32 [i, dim], pictures of visible concepts.
        sounds: float32 [s, dim].
        seen: int64 [i], the concept of each picture, ascending.
        heard: int64 [s], the concept of each sound, ascending.
    """

    texts: torch.Tensor
    images: torch.Tensor
    sounds: torch.Tensor
    seen: torch.Tensor
    heard: torch.Tensor


class SimulatedSet:
    """Captions, simulated pictures and simulated sounds of every concept.

    Attributes:
        texts: float32 [t, dim], embeddings of all captions.
        images: float32 [n, dim].
        sounds: float32 [m, dim].
        groups: by group (`Concept.group`) the concepts' rows.
    """

    def __init__(self, words: Vocabulary, simulator: Simulator, embed: Embed, seed: int) -> None:
        """Embed the captions and draw the media; takes minutes.

        Args:
            words: the concepts.
            simulator: draws media.
            embed: texts in, float32 [n, dim] of unit norm out.
            seed: of the media.
        """
        rng = np.random.default_rng(seed)
        concepts = words.concepts.values()
        seen = sorted({number for c in concepts for number in c.images})
        copies = [_IMAGES if number < KNOWN_IMAGES else _RELATIVES for number in seen]
        heard = sorted({number for c in concepts for number in c.sounds})
        image_classes = np.repeat(seen, copies)
        sound_classes = np.repeat(heard, _SOUNDS)
        self.images = simulator.images(image_classes.tolist(), rng)
        self.sounds = simulator.sounds(sound_classes.tolist(), rng)
        bare = list(dict.fromkeys(caption for c in concepts for caption in c.captions))
        worded = [template.format(word) for template in TEMPLATES for word in bare]
        self.texts = embed([*bare, *worded])
        self._bare = len(bare)
        number_of = {word: number for number, word in enumerate(bare)}
        images_of, sounds_of = _rows_by(image_classes), _rows_by(sound_classes)
        self.groups: dict[str, list[ConceptRows]] = {group: [] for group in GROUPS}
        for concept in concepts:
            self.groups[concept.group].append(_rows(concept, number_of, images_of, sounds_of))

    def batch(self, rng: np.random.Generator) -> Batch:
        """Draw concepts, and for each of them a caption, a picture and a sound."""
        chosen = [
            members[i]
            for group, count in GROUPS.items()
            if (members := self.groups[group])
            for i in rng.choice(len(members), min(count, len(members)), replace=False)
        ]
        texts = [self._caption(rows, rng) for rows in chosen]
        seen = [i for i, rows in enumerate(chosen) if len(rows.images)]
        heard = [i for i, rows in enumerate(chosen) if len(rows.sounds)]
        images = [rng.choice(chosen[i].images) for i in seen]
        sounds = [rng.choice(chosen[i].sounds) for i in heard]
        return Batch(
            torch.from_numpy(self.texts[texts]),
            torch.from_numpy(self.images[images]),
            torch.from_numpy(self.sounds[sounds]),
            torch.tensor(seen),
            torch.tensor(heard),
        )

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of all embeddings."""
        state = hashlib.sha256()
        for array in (self.texts, self.images, self.sounds):
            state.update(np.ascontiguousarray(array).tobytes())
        return state.hexdigest()

    def _caption(self, rows: ConceptRows, rng: np.random.Generator) -> int:
        word = int(rng.choice(rows.captions))
        if rng.random() < BARE:
            return word
        return word + self._bare * (1 + int(rng.integers(len(TEMPLATES))))


@dataclass(frozen=True)
class ConceptRows:
    """Rows of a concept's captions, pictures and sounds; int64."""

    captions: NDArray[np.int64]
    images: NDArray[np.int64]
    sounds: NDArray[np.int64]


def _rows_by(classes: NDArray[np.int64]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for row, number in enumerate(classes.tolist()):
        found.setdefault(number, []).append(row)
    return found


def _rows(
    concept: Concept,
    number_of: dict[str, int],
    images_of: dict[int, list[int]],
    sounds_of: dict[int, list[int]],
) -> ConceptRows:
    captions = [number_of[caption] for caption in concept.captions]
    images = [row for number in sorted(concept.images) for row in images_of[number]]
    sounds = [row for number in sorted(concept.sounds) for row in sounds_of[number]]
    return ConceptRows(*(np.array(x, dtype=np.int64) for x in (captions, images, sounds)))


class ConceptObjective:
    """One head for all modalities, trained to give all views of a concept one code.

    See `bittern.hashing.training.objective.Objective`.
    """

    steps_per_epoch = STEPS_PER_EPOCH
    warnings: Sequence[str] = ()

    def __init__(self, source: SimulatedSet, config: TrainingConfig) -> None:
        self.source, self.config = source, config
        self.data_digest = source.digest
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.module = HashCoder(source.texts.shape[1], config.bits, config.size)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The head."""
        return [{"params": list(self.module.parameters())}]

    def begin_epoch(self, epoch: int) -> None:
        """Nothing changes between epochs."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, each with its own generator."""
        for step in range(start, self.steps_per_epoch):
            yield self.source.batch(np.random.default_rng([self.config.seed, epoch, step]))

    def loss(self, batch: Batch) -> Step:
        """Alignment of each pair of modalities of a concept, and coding rates."""
        device = next(self.module.parameters()).device
        shown = (batch.texts, batch.images, batch.sounds)
        texts, images, sounds = (self.module(x.to(device)) for x in shown)
        both = torch.isin(batch.seen, batch.heard)
        also = torch.isin(batch.heard, batch.seen)
        pairs = [
            (texts[batch.seen], images),
            (texts[batch.heard], sounds),
            (images[both], sounds[also]),
        ]
        aligned = torch.stack([alignment(pair) for pair in pairs]).mean()
        rate = torch.stack([coding_rate(z) for z in (texts, images, sounds)]).mean()
        parts = {"alignment": aligned.detach(), "rate": rate.detach()}
        logits = [z.detach() for z in (texts, images, sounds)]
        return Step(aligned + self.config.rate_weight * rate, parts, logits)

    def validate(self) -> dict[str, float] | None:
        """Nothing is held out: the settings are fixed."""
        return None

    def hasher(self) -> LearnedHasher:
        """The current head, for all modalities."""
        return LearnedHasher.from_modules(
            {str(modality): self.module for modality in Modality},
            settings={"trained_on": "simulated media", "data": self.data_digest},
        )


def simulated_set(seed: int = 0) -> SimulatedSet:
    """The training set of the heads, from the encoder's packages.

    Raises:
        WeightsMissingError: a package is not installed.
    """
    words = vocabulary()
    simulator = Simulator(image_rows(), audio_rows(), words.relatives)
    tower, mean = MiniLM(batch=TEXT_BATCH), load_concepts().tensors["text.mean"]
    return SimulatedSet(words, simulator, lambda texts: unit(tower.encode(texts) - mean), seed)


def train_hybrid(source: SimulatedSet, bits: int, seed: int, run_folder: Path) -> HybridHasher:
    """Train the learned bits, after the training-free ones.

    Args:
        source: see `simulated_set`.
        bits: 64, 128 or 256.
        seed: of the head, the batches and the rotation.
        run_folder: for checkpoints and logs.
    """
    learned = LEARNED_BITS[bits]
    config = TrainingConfig(bits=learned, heads="shared", seed=seed, device="cpu")
    objective = ConceptObjective(source, config)
    train(objective, config, run_folder)
    basis = [Modality.AUDIO, Modality.IMAGE]
    free = fit("pca", field.calibration(), bits - learned, seed=seed, basis=basis)
    return HybridHasher([free, objective.hasher()], [1.0, 1.0], {"media": "none"})


def described(hasher: HybridHasher, source: SimulatedSet, seed: int) -> SavedModel:
    """The saved model that ships."""
    encoder = catalogue_encoder("field")
    return SavedModel.describe(
        model_name("field", hasher.bits),
        hasher,
        encoder="field",
        towers={str(m): encoder.digests[m] for m in Modality},
        licence=CATALOGUE["field"].licence,
        story=Story(
            data={"media": "none", "simulated": source.digest},
            training={"seed": seed, "learned_bits": LEARNED_BITS[hasher.bits]},
        ),
    )


def main() -> None:
    """Train the models and write a folder for each."""
    parser = argparse.ArgumentParser(prog="python -m bittern.service.ship", description=__doc__)
    known = sorted(LEARNED_BITS)
    parser.add_argument("--bits", type=int, nargs="+", default=known, choices=known)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the models")
    options = parser.parse_args()
    source = simulated_set()
    for bits in options.bits:
        with tempfile.TemporaryDirectory() as run:
            hasher = train_hybrid(source, bits, options.seed, Path(run) / "run")
        saved = described(hasher, source, options.seed)
        folder = options.out / saved.card.name
        shutil.rmtree(folder, ignore_errors=True)
        saved.save(folder)
        print(f"{folder}: {saved.card.digest}")


if __name__ == "__main__":
    main()
