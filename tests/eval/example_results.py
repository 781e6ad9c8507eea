"""Results of a run as they could be: two tasks, three groups, a dozen systems, real media."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

import bittern
from bittern.benchmarks.eval.results import (
    ClassScore,
    Comparison,
    GroupSummary,
    Results,
    Row,
    Score,
    ShownHit,
    ShownQuery,
    TaskSummary,
)
from bittern.benchmarks.eval.tasks import Protocol

SAMPLE = Path(bittern.__file__).parent / "sample"
MEASURES = ("AP_minR@50", "AP_hits@50", "nDCG@50", "Recall@50", "P_H2")
PICTURES, SOUNDS = "text→image", "text→audio"
_FLOATS = (("float32", 4.0), ("float16", 2.0), ("int8", 1.0))
_CODES = (
    ("Hashing-Baseline", 0.42, 10),
    ("ITQ", 0.44, 10),
    ("random projection", 0.36, 10),
    ("learned", 0.52, 1),
    ("supervised", 0.55, 1),
)
_QUANTIZERS = (("PQ", 0.47), ("OPQ", 0.49))


def example_results() -> Results:
    """The same at every call."""
    rng = np.random.default_rng(0)
    rows = [
        row
        for task, hard in ((PICTURES, 0.0), (SOUNDS, 0.12))
        for group, harder in (("all", 0.0), ("seen", -0.04), ("novel", 0.07))
        for row in _rows(rng, task, group, hard + harder)
    ]
    classes = _classes(rng, rows)
    return Results(
        suite="field",
        about="Species names against photographs and recordings of the sample archive.",
        command="bittern eval field --model field --bits 32,64,128,256 --output RUN",
        protocol={**Protocol().to_json(), "main": MEASURES[0]},
        measures=list(MEASURES),
        models=[
            {"name": "field", "digest": "9f" * 32, "encoder": "field", "licence": "Apache-2.0"}
        ],
        digests={"data": "ab" * 32, "relevance": "cd" * 32, "embeddings of items": "ef" * 32},
        machine={
            "cpu": "Example Processor",
            "cores": 2,
            "memory_gib": 23.5,
            "load_before": None,
            "threads": {"torch": 2, "faiss": 2},
            "python": "3.11.7",
            "versions": {"numpy": "2.4.6", "torch": "2.15.0", "faiss-gpu": "1.15.1"},
            "date": "2026-11-23",
            "seconds": 81.25,
        },
        tasks=[
            TaskSummary(
                PICTURES,
                "field",
                list(MEASURES),
                1,
                85,
                85,
                None,
                _groups(0.031),
                ["3 queries without an item."],
            ),
            TaskSummary(
                SOUNDS,
                "field",
                list(MEASURES),
                1,
                26,
                148,
                100,
                _groups(0.055),
                [],
                ["A recording counts by its best window."],
            ),
        ],
        rows=rows,
        comparisons=_comparisons(),
        classes=classes,
        shown=[*_shown_pictures(), *_shown_sounds(), _shown_texts()],
        notes=["Training and test classes share genera: see the protocol."],
    )


def _groups(chance: float) -> list[GroupSummary]:
    return [
        GroupSummary("all", 60, 24, 1.42, chance),
        GroupSummary("seen", 45, 18, 1.4, chance + 0.004),
        GroupSummary("novel", 15, 6, 1.5, chance + 0.05),
    ]


def _figures(rng: np.random.Generator, level: float, tied: bool) -> dict[str, Score]:
    found = {}
    for number, name in enumerate(MEASURES):
        at = float(np.clip(level + 0.03 * number, 0.01, 0.99))
        wide = 0.03 + 0.01 * float(rng.random())
        tie = 0.02 * float(rng.random()) if tied else 0.0
        nowhere = name == "P_H2" and not tied
        found[name] = (
            Score(*[math.nan] * 6)
            if nowhere
            else Score(
                at + tie / 3, at, at + tie, at - tie, at - wide, at + wide, 0.004 if tied else None
            )
        )
    return found


def _rows(rng: np.random.Generator, task: str, group: str, hard: float) -> list[Row]:
    queries, clusters = {"all": (60, 24), "seen": (45, 18), "novel": (15, 6)}[group]
    rows = []
    for name, size in _FLOATS:
        level = 0.61 - hard - 0.004 * (4 - size)
        rows.append(
            Row(
                task, group, "field", name, "cosine", None, 384 * size, 0, 1, queries,
                clusters, 0.4 * size + 0.3, _figures(rng, level, tied=False),
            )
        )  # fmt: skip
    for bits in (32, 64, 128, 256):
        gain = 0.06 * math.log2(bits / 32)
        for name, level, draws in _CODES:
            for metric, less in (("symmetric", 0.03), ("asymmetric", 0.0)):
                at = 0.75 * (level + gain) - less - hard
                figures = _figures(rng, at, tied=metric == "symmetric")
                time = 0.02 + bits / 4000 * (2.2 if metric == "asymmetric" else 1.0)
                rows.append(
                    Row(task, group, "field", name, metric, bits, bits / 8, 0, draws, queries,
                        clusters, time, figures)
                )  # fmt: skip
        for name, level in _QUANTIZERS:
            rows.append(
                Row(
                    task, group, "field", name, "asymmetric", bits, bits / 8, 0, 1, queries,
                    clusters, 0.05 + bits / 1500,
                    _figures(rng, 0.75 * (level + gain) - hard, tied=False),
                )
            )  # fmt: skip
    rows.append(
        Row(task, group, "field", "learned", "asymmetric", 256, 32.0, 100, 1, queries, clusters,
            0.31, _figures(rng, 0.6 - hard, tied=False))
    )  # fmt: skip
    return rows


def _comparisons() -> list[Comparison]:
    return [
        Comparison(
            task, "all", MEASURES[0], family, a, b, d, d - 0.03, d + 0.03, p, min(1.0, 3 * p)
        )
        for task in (PICTURES, SOUNDS)
        for family, a, b, d, p in (
            (
                "baseline",
                "supervised 256 asymmetric",
                "Hashing-Baseline 256 asymmetric",
                0.08,
                0.0001,
            ),
            ("baseline", "learned 256 asymmetric", "Hashing-Baseline 256 asymmetric", 0.06, 0.012),
            ("float", "learned 256 asymmetric", "float32 cosine", -0.09, 0.0002),
            ("distance", "ITQ 256 asymmetric", "ITQ 256 symmetric", 0.03, 0.2),
        )
    ]


def _classes(rng: np.random.Generator, rows: list[Row]) -> list[ClassScore]:
    labels = ["float32 cosine", "supervised 256 asymmetric", "ITQ 256 asymmetric"]
    assert set(labels) <= {row.label for row in rows}
    names = sorted({line["vernacularName"] for line in manifest()})[:24]
    pictures = [
        ClassScore(
            PICTURES, name, "novel" if i % 4 == 0 else "seen", 1 + i % 3,
            {label: float(rng.beta(2 + i / 8, 2)) for label in labels},
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    sounds = [
        ClassScore(SOUNDS, f"kind {i}", "", 2, {label: float(rng.beta(2, 3)) for label in labels})
        for i in range(300)
    ]
    return [*pictures, *sounds]


def manifest() -> list[dict[str, str]]:
    """Rows of the sample's manifest."""
    with (SAMPLE / "manifest.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _hits(kind: str, label: str, rest: int) -> list[ShownHit]:
    lines = [line for line in manifest() if line["type"] == kind]
    right = [line for line in lines if line["label"] == label][:2]
    wrong = [line for line in lines if line["label"] != label][5 : 5 + rest]
    order = [*right[:1], *wrong[:1], *right[1:], *wrong[1:]]
    return [
        ShownHit(
            rank=rank,
            id=line["occurrenceID"],
            relevant=line in right,
            distance=41.0 + 3 * rank,
            modality="image" if kind == "StillImage" else "audio",
            media=str(SAMPLE / line["media"]),
            start_s=None if kind == "StillImage" else 0.0,
            end_s=None if kind == "StillImage" else 3.0,
            caption=" · ".join(filter(None, (line["vernacularName"], line["scientificName"]))),
            credit=f"{line['rightsHolder']}, {line['license']}",
        )
        for rank, line in enumerate(order, 1)
    ]


def _shown_pictures() -> list[ShownQuery]:
    return [
        ShownQuery(
            PICTURES, f"q-{name}", f"a photo of {name}", "", "supervised 256 asymmetric", value, 2,
            _hits("StillImage", name, 6),
        )
        for name, value in (("bee", 0.83), ("cow", 0.5))
    ]  # fmt: skip


def _shown_sounds() -> list[ShownQuery]:
    media = str(SAMPLE / "audio" / "cricket-1.ogg")
    hits = _hits("Sound", "cricket", 4)
    return [
        ShownQuery(SOUNDS, "q-cricket", "the sound of a cricket", "", "ITQ 256 asymmetric", 0.7, 2,
                   hits),
        ShownQuery(SOUNDS, "q-cricket-1", "", media, "ITQ 256 asymmetric", 0.75, 2, hits[:3]),
    ]  # fmt: skip


def _shown_texts() -> ShownQuery:
    texts = ("A heron heard more often than it is seen.", "A small tern.", "A wading bird.")
    hits = [
        ShownHit(rank, f"gloss-{rank}", rank == 1, 20.0 + rank, "text", "", text=text)
        for rank, text in enumerate(texts, 1)
    ]
    return ShownQuery(PICTURES, "q-bittern", "bittern", "", "ITQ 256 asymmetric", 1.0, 1, hits)
