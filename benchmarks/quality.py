"""How well a model ranks: float embeddings against codes of several lengths and hashers.

Everything is embedded once by the product's pipeline, then hashed and ranked in memory; at
the end an archive is asked the same questions, to show that its rankings are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bittern.benchmarks.agreement import agreement_with_archive
from bittern.benchmarks.scoring import TOP, Score, ceiling, chance, code_scores, float_score
from bittern.benchmarks.speed.collection import SAMPLE, Collection, embed_manifest
from bittern.benchmarks.speed.models import model_of
from bittern.benchmarks.speed.report import Report, Table, say
from bittern.benchmarks.tasks import Task, tasks
from bittern.encoders.base import Modality
from bittern.hashing.saved import SavedModel
from bittern.hashing.training_free import Kind

BITS = (64, 128, 256)
KINDS: tuple[Kind, ...] = ("itq", "pca", "lsh")
COLUMNS = ("codes", "metric", "mAP", "±", "mAP 2+", f"P@{TOP}", f"hit@{TOP}", "ties")
NOTES = (
    "mAP: over the full ranking, as trec_eval's map. ±: its standard error over the queries.",
    f"mAP 2+: over the queries with two or more relevant items only. P@{TOP} divides by {TOP}.",
    "Equal distances are ordered by row, as in an archive; ties: mAP had they fallen worst, best.",
    "Chance: the expectation over all orders, in closed form. Ceiling: a perfect ranking.",
    "A recording counts once, by its best window. *: the hasher that `bittern index` takes.",
)


def run(manifest: Path = SAMPLE, encoder: str = "field") -> Report:
    """Measure every direction that the encoder and the manifest allow.

    Args:
        manifest: with a column `label`.
        encoder: of the catalogue.

    Raises:
        ManifestError, SourceNotFoundError, WeightsMissingError: something is missing.
    """
    collection = embed_manifest(manifest, encoder)
    embedder, media = collection.embedder, collection.embeddings
    taken = {bits: model_of(embedder, media, bits) for bits in BITS}
    models = [
        taken[bits] if kind_of(taken[bits]) == kind else model_of(embedder, media, bits, kind)
        for kind in KINDS
        for bits in BITS
    ]
    models += [model for model in taken.values() if kind_of(model) not in KINDS]
    found = list(tasks(collection))
    tables, values = [], {}
    for task in found:
        scores = [float_score(task)]
        for model in models:
            scores += code_scores(task, model)
        scores += [chance(task), ceiling(task)]
        tables.append(_table(task, scores, {bits: kind_of(m) for bits, m in taken.items()}))
        values[task.name] = {"queries": len(task.queries), "scores": scores}
    if tables:
        tables[-1] = replace(tables[-1], notes=NOTES)
    say("asking an archive the same questions")
    agreed = agreement_with_archive(collection, taken[max(BITS)], found)
    values["archive"] = agreed.to_json()
    return Report("quality", _size(collection, manifest), [*tables, agreed.table()], values)


def kind_of(model: SavedModel) -> str:
    """Which method its hasher comes from."""
    return str(model.card.hasher["kind"])


def _size(collection: Collection, manifest: Path) -> str:
    parts = []
    for modality in (Modality.IMAGE, Modality.AUDIO):
        items = collection.items(modality)
        if items:
            classes = len(set(items.labels.tolist()))
            parts.append(
                f"{len(items)} {modality} items ({len(items.owners)} observations, "
                f"{classes} labels)"
            )
    return (
        f"{manifest}: {', '.join(parts)}; {collection.failed} unusable; "
        f"encoder {collection.embedder.name}"
    )


def _table(task: Task, scores: Sequence[Score], taken: Mapping[int, str]) -> Table:
    rows: list[list[str]] = []
    for score, before in zip(scores, [scores[0], *scores], strict=False):
        if score["hasher"] != before["hasher"] and score["hasher"] != "ceiling":
            rows.append([""] * len(COLUMNS))
        rows.append(_row(score, taken))
    title = f"{task.name}: {len(task.queries)} queries, {len(task.items)} items"
    return Table(title, COLUMNS, rows)


def _row(score: Score, taken: Mapping[int, str]) -> list[str]:
    name = str(score["hasher"])
    if score["bits"]:
        star = "*" if taken[score["bits"]] == name else ""
        name = f"{name}-{score['bits']}{star}"
    ties = ""
    if "map_worst_ties" in score:
        ties = f"{_number(score['map_worst_ties'])} {_number(score['map_best_ties'])}"
    return [
        name,
        score["metric"],
        _number(score["map"]),
        _number(score.get("map_standard_error")),
        _number(score["map_several"]),
        _number(score[f"p@{TOP}"]),
        _number(score[f"hit@{TOP}"]),
        ties,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
