"""A job in a fresh process: growth of its memory, and cost of a kill.

    python -m bittern.benchmarks.speed.jobs.restart MODEL WEIGHTS SOURCE ARCHIVE

Prints one line when everything is loaded, and one line of JSON at the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from bittern.benchmarks.speed.harness import Report, Table, say
from bittern.benchmarks.speed.process import in_fresh_process, peak_memory

MODULE = "bittern.benchmarks.speed.jobs.restart"
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
    whole = in_fresh_process(MODULE, "field", weights, source, alone)
    say("the same, killed halfway")
    command = [sys.executable, "-m", MODULE, "field", str(weights), str(source), str(killed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    assert process.stdout is not None
    process.stdout.readline()
    while _rows(killed) < items // 2 and process.poll() is None:
        sleep(_LOOK_EVERY_S)
    process.kill()
    process.communicate()
    kept = _rows(killed)
    say("run again")
    rest = in_fresh_process(MODULE, "field", weights, source, killed)
    again = in_fresh_process(MODULE, "field", weights, source, killed)
    coded = rest["items"]["added"] + rest["items"]["overwritten"]
    share = 1 - kept / items
    against = f"{rest['seconds'] / (whole['seconds'] * share):.2f}" if share else ""
    same = _content(alone) == _content(killed)
    table = Table(
        "A job that is killed (SIGKILL) and run again",
        ["", "items coded", "seconds", "against its share"],
        [
            ["left alone", str(items), f"{whole['seconds']:.1f}", "1.00"],
            ["run again after a kill", str(items - kept), f"{rest['seconds']:.1f}", against],
            ["run again, nothing missing", "0", f"{again['seconds']:.2f}", ""],
        ],
        [
            f"Killed with {kept} of {items} items committed. Rows, codes and metadata afterwards "
            f"{'are' if same else 'ARE NOT'} those of the job that was left alone.",
            "against its share: seconds, divided by those that as many items took alone.",
        ],
    )
    value = {
        "alone_s": whole["seconds"],
        "items": items,
        "kept": kept,
        "rest_s": rest["seconds"],
        "repeated": coded - (items - kept),
        "again_s": again["seconds"],
        "same": same,
    }
    report.add("restart", table, value)


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
    """Encode a source into an archive; everything is loaded before the first item."""
    from bittern.benchmarks.speed.models import loaded_model
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


if __name__ == "__main__":
    main(*sys.argv[1:])
