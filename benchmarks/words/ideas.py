"""What else was tried on the words benchmark, kept so that it can be measured again.

    python -m bittern.benchmarks words --ideas

The first part is in floats: what a map of glosses or names does to cosine similarity, before
any bit is made. The second is in codes. Every idea sees the training part alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.words.contestants import COSINE, Contestant, Fit, codes
from bittern.benchmarks.words.data import load
from bittern.benchmarks.words.learned import GLOSS, chosen, configured, heads, trained, written
from bittern.benchmarks.words.protocol import Quality, Training, WordsTask, evaluate
from bittern.hashing.aligned import Moments, alignment_map
from bittern.hashing.base import Hasher
from bittern.hashing.training.alignment import WORDS
from bittern.hashing.training.heads import LabelsObjective
from bittern.hashing.training.plans import HybridPlan

OTHER_WORDS = (6, 13, 18)
"""Lexicographer files of artifacts, food and persons: no animal, no plant."""

Rows = NDArray[np.float64]
Move = Callable[[Training], tuple[Rows, Rows]]
"""From the training part, matrices for centred glosses and for centred names."""


def floats(name: str, move: Move) -> Contestant:
    """Cosine of centred glosses and names, after each was multiplied by its matrix."""

    def measure(task: WordsTask, bits: int, seed: int) -> Mapping[str, Quality]:
        del bits, seed
        training = task.training()
        of_glosses, of_names = move(training)
        database = _unit(task.database - training.items.mean(axis=0)) @ of_glosses
        queries = _unit(task.asked - training.queries.mean(axis=0)) @ of_names
        return {COSINE: evaluate(task, -(_unit(queries) @ _unit(database).T))}

    return Contestant(name, measure, coded=False)


def unmoved(training: Training) -> tuple[Rows, Rows]:
    """Nothing is moved: centring alone."""
    identity = np.eye(training.items.shape[1])
    return identity, identity


def whitened(strength: float, *, around_names: bool) -> Move:
    """Whiten what differs within a class: glosses around their mean, or around the name."""

    def move(training: Training) -> tuple[Rows, Rows]:
        glosses, names = _centred(training)
        centres = names if around_names else _means(glosses, training)
        spread = glosses - centres[training.labels]
        covariance = spread.T @ spread / len(spread)
        size = len(covariance)
        covariance += strength * np.trace(covariance) / size * np.eye(size)
        root = np.linalg.cholesky(np.linalg.inv(covariance))
        return root, root

    return move


def to_names(
    ridge: float, *, balanced: bool, targets: Callable[[Rows], Rows] | None = None
) -> Move:
    """The alignment of `bittern.hashing.aligned`: glosses towards the names of their classes."""

    def move(training: Training) -> tuple[Rows, Rows]:
        glosses, names = _centred(training)
        wanted = names if targets is None else targets(names)
        moved = alignment_map(_moments(glosses, wanted, training, balanced), ridge)
        return moved, np.eye(len(moved))

    return move


def to_centroids(ridge: float) -> Move:
    """The other way round: names towards the mean gloss of their class."""

    def move(training: Training) -> tuple[Rows, Rows]:
        glosses, names = _centred(training)
        moments = Moments(names.shape[1])
        moments.add(names, _means(glosses, training))
        moved = alignment_map(moments, ridge)
        return np.eye(len(moved)), moved

    return move


def smoothed(temperature: float) -> Callable[[Rows], Rows]:
    """Names blurred over similar names, as labels are smoothed over a taxonomy."""

    def targets(names: Rows) -> Rows:
        alike = names @ names.T / temperature
        alike = np.exp(alike - alike.max(axis=1, keepdims=True))
        blurred: Rows = alike / alike.sum(axis=1, keepdims=True) @ names
        return blurred

    return targets


def from_other_words(ridge: float, own: float | None) -> Move:
    """An alignment learned on other kinds of words; `own` refines it on the training part."""

    def move(training: Training) -> tuple[Rows, Rows]:
        moved = _other_alignment(ridge)
        if own is not None:
            glosses, names = _centred(training)
            moved = moved @ alignment_map(_moments(glosses @ moved, names, training, True), own)
        return moved, np.eye(len(moved))

    return move


@cache
def _other_alignment(ridge: float) -> Rows:
    other = load(files=OTHER_WORDS)
    training = Training(other.items, other.words.labels, other.queries)
    glosses, names = _centred(training)
    return alignment_map(_moments(glosses, names, training, True), ridge)


def crovca(**settings: object) -> Fit:
    """Supervised CroVCA with other settings than the contestant of that name."""

    def fitted(training: Training, bits: int, seed: int) -> Hasher:
        config = configured(bits, seed).with_overrides(settings)
        with tempfile.TemporaryDirectory() as folder:
            source = written(training, Path(folder) / "set")
            return trained(LabelsObjective, source, config, Path(folder) / "run")

    return fitted


def noisy(share: float, fit: Fit) -> Fit:
    """Three noisy copies of every gloss in the place of one: a cheap other view."""

    def fitted(training: Training, bits: int, seed: int) -> Hasher:
        rng = np.random.default_rng(seed)
        items = np.repeat(training.items, 3, axis=0)
        noise = rng.standard_normal(items.shape) / np.sqrt(items.shape[1])
        items = (items + share * noise).astype(np.float32)
        more = replace(training, items=items, labels=np.repeat(training.labels, 3), texts=())
        return fit(more, bits, seed)

    return fitted


def _centred(training: Training) -> tuple[Rows, Rows]:
    return (
        _unit(training.items - training.items.mean(axis=0)),
        _unit(training.queries - training.queries.mean(axis=0)),
    )


def _means(glosses: Rows, training: Training) -> Rows:
    classes = range(len(training.queries))
    return np.stack([glosses[training.labels == one].mean(axis=0) for one in classes])


def _moments(glosses: Rows, targets: Rows, training: Training, balanced: bool) -> Moments:
    moments = Moments(glosses.shape[1])
    sizes = np.bincount(training.labels)[training.labels]
    moments.add(glosses, targets[training.labels], 1 / sizes if balanced else None)
    return moments


def _unit(rows: NDArray[np.floating]) -> Rows:
    wide = np.asarray(rows, dtype=np.float64)
    scaled: Rows = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return scaled


def _fixed(plan: HybridPlan) -> Fit:
    return chosen((plan,))


def _code(name: str, fit: Fit) -> Contestant:
    return codes(name, fit, query=WORDS, item=GLOSS)


IDEAS: list[Contestant] = [
    floats("centred", unmoved),
    floats("whitened within classes, .1", whitened(0.1, around_names=False)),
    floats("whitened within classes, 1", whitened(1.0, around_names=False)),
    floats("whitened around names, .1", whitened(0.1, around_names=True)),
    floats("whitened around names, 1", whitened(1.0, around_names=True)),
    floats("names to centroids, 1", to_centroids(1.0)),
    floats("names to centroids, 4", to_centroids(4.0)),
    *(
        floats(f"glosses to names, {ridge:g}{how}", to_names(ridge, balanced=balanced))
        for balanced, how in ((False, ", by gloss"), (True, ""))
        for ridge in (0.25, 0.5, 1.0, 2.0, 4.0)
    ),
    *(
        floats(
            f"names smoothed, {temperature:g}",
            to_names(1.0, balanced=True, targets=smoothed(temperature)),
        )
        for temperature in (0.05, 0.1, 0.2)
    ),
    floats("other words alone", from_other_words(1.0, None)),
    floats("other words, then own, 1", from_other_words(1.0, 1.0)),
    floats("other words, then own, 2", from_other_words(1.0, 2.0)),
    *(
        _code(f"aligned, {ridge:g}", _fixed(HybridPlan(ridge, 0.0)))
        for ridge in (0.25, 0.5, 1.0, 2.0, 4.0)
    ),
    _code("CroVCA, 5 epochs", crovca(epochs=5)),
    _code("CroVCA, 60 epochs", crovca(epochs=60)),
    _code("CroVCA, head per side", crovca(heads="per-modality")),
    _code("CroVCA, large", crovca(size="large", epochs=5)),
    _code("CroVCA, rate weight 1", crovca(rate_weight=1.0)),
    _code("CroVCA, head redrawn", crovca(reinitialise_every=5)),
    _code("CroVCA, noisy views", noisy(0.5, heads(LabelsObjective))),
    *(
        _code(
            f"hybrid, {share:g} learned, {ridge:g}, {weights[1]:g}",
            _fixed(HybridPlan(ridge, share, 0.5, weights)),
        )
        for share, ridge, weights in (
            (0.25, 1.0, (1.0, 1.0)),
            (0.25, 2.0, (1.0, 1.0)),
            (0.25, 2.0, (1.0, 0.5)),
            (0.5, 2.0, (1.0, 1.0)),
            (0.25, 4.0, (1.0, 1.0)),
        )
    ),
]
