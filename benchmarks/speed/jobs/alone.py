"""The pipeline in a process of its own: how far its memory grows, and what a kill costs.

    python -m bittern.benchmarks.speed.jobs.alone MODEL WEIGHTS SOURCE ARCHIVE

Prints one JSON line when everything is loaded, and one when the source is coded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter

from bittern.benchmarks.speed.memory import peak_memory


def main(name: str, weights: str, source: str, place: str) -> None:
    """Code a source into an archive, from the second item on with everything loaded."""
    from bittern.benchmarks.speed.jobs.models import loaded_model
    from bittern.index.archive import Archive
    from bittern.service.engine import Engine
    from bittern.service.ingest.embedding import embed_items
    from bittern.service.jobs.indexing import IndexOptions, index_source
    from bittern.service.sources import read_source

    begun = perf_counter()
    model = loaded_model(name, Path(weights))
    listed = read_source(source)
    list(embed_items(model.embedder, listed.entries[:1]))
    folder = Path(place).with_suffix(".model")
    if not folder.exists():
        model.saved.save(folder)
    print(json.dumps({"loaded_s": perf_counter() - begun}), flush=True)
    begun = perf_counter()
    with peak_memory() as peak, Archive.create(place) as archive:
        engine = Engine(archive, load_encoder=lambda name: model.embedder.encoder())
        options = IndexOptions(model=str(folder), commit_items=16)
        report = index_source(engine, listed, options)
    print(
        json.dumps(
            {
                "seconds": perf_counter() - begun,
                "growth": peak.growth,
                "items": {str(k): v for k, v in report.items.items()},
                "observations": report.observations,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
