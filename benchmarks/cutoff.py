"""Whether a relevance cut-off knows when there is nothing to find, and what it lets through.

Three kinds of query are asked, described in `bittern.benchmarks.cutoff_outcomes`. On the words
(`benchmarks.words`) the cut-off was chosen among contenders; the sample archive and a million
synthetic codes check it. The reference queries are `bittern.service.reference_texts`; queries from
elsewhere are WordNet's names of artifacts, persons and abstractions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.cutoff_outcomes import Asked, Outcome, at_rates, contenders, weights_of
from bittern.benchmarks.speed.collection import SAMPLE, Collection, embed_manifest
from bittern.benchmarks.speed.models import model_of
from bittern.benchmarks.speed.report import Report, Table, say
from bittern.benchmarks.tasks import tasks
from bittern.benchmarks.words import data
from bittern.benchmarks.words.contestants import Fit, training_free
from bittern.benchmarks.words.learned import GLOSS, plain_hybrid
from bittern.benchmarks.words.protocol import ITEM, QUERY, WordsTask, split
from bittern.encoders import wordnet
from bittern.hashing.base import Hasher
from bittern.hashing.codes import pack
from bittern.hashing.training.alignment import WORDS
from bittern.index.relevance import SAMPLE_ROWS, Cutoff
from bittern.service.reference_texts import REFERENCE_TEXTS

SEEDS = 3
BITS = (64, 256)
METRICS = ("asymmetric", "hamming")
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Of the calibration curve; the named cut-offs are among them."""
SAMPLES = (64, 256, 1024, SAMPLE_ROWS)
ELSEWHERE = {"artifact": (6,), "person": (18,), "abstract": (7, 9, 10, 12, 26)}
"""Lexicographer files, none of which has animals or plants."""
ELSEWHERE_EACH = 200
CODES: Mapping[str, tuple[Fit, str, str]] = {
    "Hashing-Baseline": (training_free("pca"), QUERY, ITEM),
    "HB + CroVCA": (plain_hybrid, WORDS, GLOSS),
}
"""How codes of the words are made (training-free, and a hybrid), and both sides' modalities."""
FIELD_BITS = 256
SYNTHETIC_ROWS, SYNTHETIC_BITS, CENTRES = 1_000_000, 256, 2_000
NOISES = (0.1, 0.3)
"""Shares of a row's bits that differ from its centre's."""
SYNTHETIC_QUERIES = 50
_BLOCK_ROWS = 1 << 16
Curve = dict[float, Outcome]
"""By false-alarm rate."""


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        seeds: splits of the words, numbered from 0.
        bits: code lengths of the words.
        rows: synthetic codes.
        manifest: of the sample archive.
        folder: with WordNet's `data.noun`; found or fetched if none is given.
    """

    seeds: int = SEEDS
    bits: Sequence[int] = BITS
    rows: int = SYNTHETIC_ROWS
    manifest: Path = SAMPLE
    folder: Path | None = None


@dataclass
class OnWords:
    """Figures of the words, means over the splits; keys are kinds of code.

    Attributes:
        curves: of the product's cut-off.
        contenders: by kind of code and contender.
        samples: what a sample of so many rows says of the whole, at 5%.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    contenders: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    samples: dict[str, dict[int, Outcome]] = field(default_factory=dict)


def run(settings: Settings) -> Report:
    """Measure the cut-off on words, on the sample archive and on synthetic codes.

    Raises:
        SourceNotFoundError, InvalidInputError, WeightsMissingError: the data cannot be had.
        CodeError: unusable bits.
    """
    texts = elsewhere_texts(settings.folder)
    words = on_words(settings, texts)
    say("asking the sample archive")
    checks = on_manifest(embed_manifest(settings.manifest, "field"), texts)
    for noise in NOISES:
        say(f"drawing {settings.rows:,} codes")
        name = f"{settings.rows:,} codes, {noise:.0%} flipped"
        checks[name] = at_rates(synthetic(settings.rows, noise), RATES)
    named = {c.rate for c in Cutoff}
    tables = [
        _contenders_table(words.contenders),
        _curves_table("Words, by false-alarm rate asked for", words.curves, RATES),
        _samples_table(words.samples),
        _curves_table(
            "Checks: neither contender nor rates were chosen on these", checks, sorted(named)
        ),
    ]
    return Report("cutoff", _size(settings, len(texts)), tables, _values(words, checks))


def elsewhere_texts(folder: Path | None = None) -> list[str]:
    """Names that are no animal's and no plant's, nor among the reference texts."""
    path = wordnet.find_nouns(folder, data.cache_folder())
    rng = np.random.default_rng(0)
    found: list[str] = []
    for files in ELSEWHERE.values():
        names = [", ".join(synset.words) for synset in wordnet.read_nouns(path, files)]
        names = [n for n in names if not set(n.split(", ")) & set(REFERENCE_TEXTS)]
        found += [names[i] for i in rng.choice(len(names), ELSEWHERE_EACH, replace=False)]
    return found


def on_words(settings: Settings, texts: Sequence[str]) -> OnWords:
    """Every kind of code of the words, by both metrics."""
    words = data.load(settings.folder)
    embedded = data.embed((*texts, *REFERENCE_TEXTS), data.cache_folder())
    unrelated = _Texts(embedded[: len(texts)], embedded[len(texts) :])
    found = OnWords()
    for kind, (fit, *sides) in CODES.items():
        for bits in settings.bits:
            say(f"{kind}, {bits} bits, {settings.seeds} splits")
            logits = []
            for seed in range(settings.seeds):
                task = split(words, seed)
                hasher = fit(task.training(), bits, seed)
                logits.append(_Logits.of(task, hasher, sides, unrelated))
            for metric in METRICS:
                _measure(found, f"{kind} {bits} {metric}", [one.asked(metric) for one in logits])
    return found


def on_manifest(collection: Collection, texts: Sequence[str]) -> dict[str, Curve]:
    """The directions that the sample's labels allow; texts are the queries from elsewhere.

    The reference texts stand for recordings' reference queries too: there are no others.
    """
    model = model_of(collection.embedder, collection.embeddings, FIELD_BITS)
    elsewhere, references = collection.texts(texts), collection.texts(REFERENCE_TEXTS)
    found = {}
    for task in tasks(collection):
        asked = Asked(
            codes=pack(model.hasher.logits(task.items.embeddings, str(task.target))),
            present=weights_of(model.hasher.logits(task.queries, str(task.asked)), "asymmetric"),
            relevant=task.relevant[:, task.items.owners],
            elsewhere=weights_of(model.hasher.logits(elsewhere, "text"), "asymmetric"),
            references=weights_of(model.hasher.logits(references, "text"), "asymmetric"),
        )
        found[f"{task.name}, {len(asked.codes)} rows"] = at_rates(asked, RATES)
    return found


def synthetic(rows: int, noise: float) -> Asked:
    """Codes around centres, some centres softened as queries, and random queries elsewhere."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 256, (CENTRES, SYNTHETIC_BITS // 8), dtype=np.uint8)
    of = rng.integers(0, CENTRES, rows)
    blocks = []
    for start in range(0, rows, _BLOCK_ROWS):
        block = of[start : start + _BLOCK_ROWS]
        flips = rng.random((len(block), SYNTHETIC_BITS), dtype=np.float32) < noise
        blocks.append(centres[block] ^ np.packbits(flips, axis=1, bitorder="little"))
    signs = np.unpackbits(centres[:SYNTHETIC_QUERIES], axis=1, bitorder="little") * 2.0 - 1.0
    soft = signs + 0.8 * rng.standard_normal(signs.shape)
    unrelated = rng.standard_normal((SYNTHETIC_QUERIES * 4 + len(REFERENCE_TEXTS), SYNTHETIC_BITS))
    weights = weights_of(unrelated, "asymmetric")
    return Asked(
        codes=np.concatenate(blocks),
        present=weights_of(soft, "asymmetric"),
        relevant=of[None, :] == np.arange(SYNTHETIC_QUERIES)[:, None],
        elsewhere=weights[: SYNTHETIC_QUERIES * 4],
        references=weights[SYNTHETIC_QUERIES * 4 :],
    )


@dataclass(frozen=True)
class _Texts:
    """Embeddings of queries that nothing answers, float32 [n, dim] each."""

    elsewhere: NDArray[np.float32]
    references: NDArray[np.float32]


@dataclass(frozen=True)
class _Logits:
    """One split under one hasher; float32 [n, bits] each."""

    database: NDArray[np.float32]
    queries: NDArray[np.float32]
    elsewhere: NDArray[np.float32]
    references: NDArray[np.float32]
    relevant: NDArray[np.bool_]

    @classmethod
    def of(cls, task: WordsTask, hasher: Hasher, sides: Sequence[str], texts: _Texts) -> _Logits:
        query, item = sides
        return cls(
            database=hasher.logits(task.database, item),
            queries=hasher.logits(task.asked, query),
            elsewhere=hasher.logits(texts.elsewhere, query),
            references=hasher.logits(texts.references, query),
            relevant=task.relevant,
        )

    def asked(self, metric: str) -> Asked:
        return Asked(
            codes=pack(self.database),
            present=weights_of(self.queries, metric),
            relevant=self.relevant,
            elsewhere=weights_of(self.elsewhere, metric),
            references=weights_of(self.references, metric),
        )


def _measure(found: OnWords, name: str, splits: Sequence[Asked]) -> None:
    curves = [at_rates(asked, RATES) for asked in splits]
    found.curves[name] = {rate: _mean([curve[rate] for curve in curves]) for rate in RATES}
    compared = [contenders(asked) for asked in splits]
    found.contenders[name] = {
        contender: {
            key: float(np.mean([one[contender][key] for one in compared]))
            for key in compared[0][contender]
        }
        for contender in compared[0]
    }
    rate = Cutoff.USUAL.rate
    found.samples[name] = {
        rows: _mean([at_rates(a, (rate,), a.background(rows))[rate] for a in splits])
        for rows in SAMPLES
    }


def _mean(outcomes: Sequence[Outcome]) -> Outcome:
    return Outcome(*np.mean([list(asdict(one).values()) for one in outcomes], axis=0).tolist())


def _contenders_table(figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    keys = ("auc_elsewhere", "auc_gone", "present", "gone", "precision", "recall")
    rows: list[list[str]] = []
    for kind, contestants in figures.items():
        rows += [[], [kind]]
        for name, values in contestants.items():
            rows.append([f"  {name}", *(f"{values[key]:.3f}" for key in keys)])
    return Table(
        "Words: what tells queries with an answer from those without",
        ["", "AUC elsewhere", "AUC gone", "present", "gone", "precision", "recall"],
        [row if len(row) != 1 else row + [""] * len(keys) for row in rows[1:]],
        [
            "AUC: chance that a present query's best hit stands out more than that of a query from",
            "elsewhere, or of one whose answers are gone. Then, with each threshold set in",
            "hindsight so that 5% of the queries from elsewhere pass: what else passes.",
        ],
    )


def _curves_table(title: str, curves: Mapping[str, Curve], rates: Sequence[float]) -> Table:
    rows: list[list[str]] = []
    for name, curve in curves.items():
        rows += [[""] * 8] if rows else []
        for rate in rates:
            cells = [f"{value:.3f}" for value in asdict(curve[rate]).values()]
            rows.append([name, f"{rate:g}", *cells])
    return Table(
        title,
        ["", "rate", "elsewhere", "gone", "present", "precision", "recall", "hits"],
        rows,
        [
            "rate: asked for. elsewhere: share of unrelated queries answered, which it promises.",
            "gone, present: share answered of queries whose answers were taken out, and are there.",
            "precision, recall: of what present queries get. hits: that a present query gets.",
        ],
    )


def _samples_table(samples: Mapping[str, Mapping[int, Outcome]]) -> Table:
    rows = [
        [name, *(f"{by_rows[count].elsewhere:.3f}" for count in SAMPLES)]
        for name, by_rows in samples.items()
    ]
    return Table(
        "Words: unrelated queries answered at a rate of 0.05, by rows of the sample",
        ["", *(f"{count:,}" for count in SAMPLES)],
        rows,
    )


def _values(words: OnWords, checks: Mapping[str, Curve]) -> dict[str, Any]:
    def plain(curves: Mapping[str, Mapping[Any, Outcome]]) -> dict[str, Any]:
        return {
            name: {str(key): asdict(one) for key, one in curve.items()}
            for name, curve in curves.items()
        }

    return {
        "words": plain(words.curves),
        "contenders": words.contenders,
        "samples": plain(words.samples),
        "checks": plain(checks),
    }


def _size(settings: Settings, elsewhere: int) -> str:
    return (
        f"WordNet's animals and plants, {settings.seeds} splits, "
        f"{', '.join(map(str, settings.bits))} bits; {elsewhere} queries from elsewhere; "
        f"{settings.manifest}; {settings.rows:,} synthetic codes; {len(REFERENCE_TEXTS)} "
        f"reference texts, samples of up to {SAMPLE_ROWS:,} codes"
    )
