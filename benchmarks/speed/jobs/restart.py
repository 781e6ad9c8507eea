"""A job in a fresh process: growth of its memory, and cost of a kill."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from bittern.benchmarks.speed.harness import Report, Table, say
from bittern.benchmarks.speed.process import fresh_command, in_fresh_process, peak_memory

_LOOK_EVERY_S = 0.05
_COMMIT_ITEMS = 16


def measure_restart(source: Path, items: int, folder: Path, weights: Path, report: Report) -> None:
    """A job that is killed halfway and run again, compared with an undisturbed one.

    Args:
        source: a folder of photographs, encoded by `field`.
        items: their number.
        folder: for the archives.
        weights: of random networks; not used for `field`.
        report: collects the results.
    """
    alone, killed = folder / "left-alone", folder / "killed"
    say("a job that is left alone")
    whole = job_alone("field", weights, source, alone)
    say("the same, killed halfway")
    command = fresh_command(__name__, "field", weights, source, killed)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None
    process.stdout.readline()
    while _rows(killed) < items // 2 and process.poll() is None:
        sleep(_LOOK_EVERY_S)
    process.kill()
    process.communicate()
    kept = _rows(killed)
    say("run again")
    rest = job_alone("field", weights, source, killed)
    again = job_alone("field", weights, source, killed)
    repeated = rest["items"]["added"] + rest["items"]["overwritten"] - (items - kept)
    share = 1 - kept / items
    same = _content(alone) == _content(killed)
    table = Table(
        "A job that is killed (SIGKILL) and run again",
        {"": "", "items coded": "", "seconds": ".2f", "against its share": ".2f"},
        [
            ["left alone", items, whole["seconds"], 1.0],
            [
                "run again after a kill",
                items - kept,
                rest["seconds"],
                rest["seconds"] / (whole["seconds"] * share) if share else None,
            ],
            ["run again, nothing missing", 0, again["seconds"]],
        ],
        [
            f"Killed with {kept} of {items} items committed. Rows, codes and metadata afterwards "
            f"{'are' if same else 'ARE NOT'} those of the job that was left alone.",
            "against its share: seconds, divided by those that as many items took alone.",
        ],
    )
    report.add("restart", table, kept=kept, repeated=repeated, same=same)


def job_alone(model: str, weights: Path, source: Path, target: Path) -> dict[str, Any]:
    """`main` in a fresh process: its seconds, growth of memory in bytes, and items by outcome."""
    return in_fresh_process(__name__, model, weights, source, target)


def _rows(archive: Path) -> int:
    from bittern.index.archive import Archive

    if not (archive / "archive.json").is_file():
        return 0
    with Archive.open(archive) as opened:
        return sum(opened.stats().observations.values())


def _content(archive: Path) -> list[dict[str, Any]]:
    from bittern.index.archive import Archive

    with Archive.open(archive) as opened:
        digest = opened.model_records()[0].digest
        batches = list(opened.iter_batches(model=digest))
    return [row for batch in batches for row in batch.to_pylist()]


def main(name: str, weights: str, source: str, target: str) -> None:
    """Encode a source into an archive; everything is loaded before the first item.

    Prints one line when everything is loaded, and one line of JSON at the end.
    """
    from bittern.benchmarks.speed.inputs import loaded_model
    from bittern.index.archive import Archive
    from bittern.service.ingest.embedding import embed_items
    from bittern.service.jobs.description import IndexOptions
    from bittern.service.jobs.indexing import index_source
    from bittern.service.local.archive import LocalArchive
    from bittern.service.sources import read_source

    model = loaded_model(name, Path(weights))
    listed = read_source(source)
    list(embed_items(model.embedder, listed.entries[:1]))
    folder = Path(target).with_suffix(".model")
    if not folder.exists():
        model.saved.save(folder)
    print("loaded", flush=True)
    begun = perf_counter()
    with peak_memory() as peak, Archive.create(target) as archive:
        engine = LocalArchive(archive, load_encoder=lambda name: model.embedder.encoder())
        options = IndexOptions(model=str(folder), commit_items=_COMMIT_ITEMS)
        done = index_source(engine, listed, options)
    found = {
        "seconds": perf_counter() - begun,
        "growth": peak.growth,
        "items": {str(outcome): count for outcome, count in done.items.items()},
    }
    print(json.dumps(found), flush=True)
