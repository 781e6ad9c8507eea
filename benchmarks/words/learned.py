"""Learned contestants: heads trained on (class name, gloss) pairs, aligned codes, and hybrids.

All of them are fitted by what `bittern train` fits with, on an embedding set in a temporary
folder. What a method has to choose it chooses on training classes that it holds out itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bittern.benchmarks.words.contestants import Contestant, Fit, codes
from bittern.benchmarks.words.protocol import Training
from bittern.hashing.hashcoder import LearnedHasher
from bittern.hashing.hashers import Hasher, HybridHasher
from bittern.hashing.training.alignment import WORDS
from bittern.hashing.training.choosing import choose_plan
from bittern.hashing.training.config import TrainingConfig
from bittern.hashing.training.embedding_writer import EmbeddingWriter
from bittern.hashing.training.embeddings import EmbeddingSet, View
from bittern.hashing.training.heads import HeadObjective, LabelsObjective, PairsObjective
from bittern.hashing.training.hybrid import fit_hybrid
from bittern.hashing.training.loop import train
from bittern.hashing.training.plans import ALIGNED_PLANS, PLANS, HybridPlan
from bittern.hashing.training_free import fit as fit_training_free

GLOSS = "gloss"
EPOCHS = 20
"""As in the published figures for these words; the papers train 5 epochs on larger sets."""
PLAIN_WEIGHT = 0.5
"""Of a training-free bit in the plain hybrid; a learned bit counts 1."""
_BYTE = 8

Heads = Callable[[EmbeddingSet, TrainingConfig], HeadObjective]
_LEARNED_ONLY = (HybridPlan(learned_share=1.0),)


def written(training: Training, folder: Path) -> EmbeddingSet:
    """The training part as an embedding set: names, glosses, and the class of each gloss."""
    dim = training.items.shape[1]
    views = {WORDS: View(WORDS, dim, "float32"), GLOSS: View(GLOSS, dim, "float32")}
    with EmbeddingWriter(folder, views, labels="single") as writer:
        names = training.queries[training.labels]
        writer.append({WORDS: names, GLOSS: training.items}, training.labels)
    return EmbeddingSet.open(folder)


def configured(bits: int, seed: int) -> TrainingConfig:
    """The settings of all learned contestants."""
    return TrainingConfig(
        bits=bits, epochs=EPOCHS, heads="shared", seed=seed, validation_share=0.0, device="cpu"
    )


def heads(objective: Heads) -> Fit:
    """CroVCA (arXiv 2510.27584): a HashCoder shared by names and glosses.

    Both are centred on the mean of their own side, each training pair once.
    """

    def fitted(training: Training, bits: int, seed: int) -> Hasher:
        with tempfile.TemporaryDirectory() as folder:
            source = written(training, Path(folder) / "set")
            return trained(objective, source, configured(bits, seed), Path(folder) / "run")

    return fitted


def trained(
    objective: Heads, source: EmbeddingSet, config: TrainingConfig, run: Path
) -> LearnedHasher:
    """The heads that an objective comes to."""
    made = objective(source, config)
    train(made, config, run, plots=False)
    return LearnedHasher.from_modules(made.heads(), made.means())


def plain_hybrid(training: Training, bits: int, seed: int) -> Hasher:
    """Hashing-Baseline bits beside supervised CroVCA bits, with nothing chosen.

    A quarter of 256 bits is learned, half of any other length, as first tried for these words.
    """
    count = bits // (4 if bits >= 256 else 2) // _BYTE * _BYTE
    clouds = {WORDS: training.queries, GLOSS: training.items}
    free = fit_training_free("pca", clouds, bits - count, seed=seed, basis=[GLOSS])
    learned = heads(LabelsObjective)(training, count, seed)
    return HybridHasher([free, learned], [PLAIN_WEIGHT, 1.0])


def chosen(plans: tuple[HybridPlan, ...]) -> Fit:
    """Aligned and learned bits; of several plans, the one that is best on held-out classes."""

    def fitted(training: Training, bits: int, seed: int) -> Hasher:
        config = configured(bits, seed)
        with tempfile.TemporaryDirectory() as folder:
            source = written(training, Path(folder) / "set")
            possible = tuple(dict.fromkeys(_in_bytes(plan, bits) for plan in plans))
            plan = possible[0]
            if len(possible) > 1:
                trials = choose_plan(source, config, Path(folder) / "choice", plans=possible)
                plan = trials[0].plan
            run = Path(folder) / "run"
            return fit_hybrid(source, config, plan, run, plots=False)[0]

    return fitted


def _in_bytes(plan: HybridPlan, bits: int) -> HybridPlan:
    """The plan with the share that it comes to at this length, so that equal plans are one."""
    share = plan.learned_bits(bits) / bits
    weights = plan.weights if 0 < share < 1 else (1.0, 1.0)
    return replace(plan, learned_share=share, weights=weights)


LEARNED: list[Contestant] = [
    codes("CroVCA pairs", heads(PairsObjective), query=WORDS, item=GLOSS),
    codes("CroVCA supervised", heads(LabelsObjective), query=WORDS, item=GLOSS),
    codes("aligned CroVCA", chosen(_LEARNED_ONLY), query=WORDS, item=GLOSS),
    codes("HB + CroVCA", plain_hybrid, query=WORDS, item=GLOSS),
    codes("aligned", chosen(ALIGNED_PLANS), query=WORDS, item=GLOSS),
    codes("hybrid", chosen(PLANS), query=WORDS, item=GLOSS),
]
