"""The state of an archive, as plain values to compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bittern.index.archive import Archive
from bittern.index.checksums import stored_files
from bittern.index.table_versions import TableVersion


def state(archive: Archive) -> dict[str, Any]:
    """The content of an archive and its search results, without its generation."""
    models = archive.model_records()
    observations = archive.list(page_size=10_000).observations
    codes: dict[str, dict[str, bytes]] = {}
    hits: dict[str, list[tuple[int, float]]] = {}
    for record in models:
        codes[record.digest] = {}
        for batch in archive.iter_batches(["id"], model=record.digest):
            for row in batch.to_pylist():
                if row["code"] is not None:
                    codes[record.digest][row["id"]] = row["code"]
        found = archive.search(
            np.zeros(record.bits // 8, np.uint8), model=record.digest, k=10_000, metric="hamming"
        ).hits
        hits[record.digest] = [(hit.observation.row, hit.distance) for hit in found]
    return {
        "models": [(record.digest, record.state) for record in models],
        "observations": [
            (o.row, o.id, o.media, o.start_s, tuple(sorted(o.metadata.items())))
            for o in observations
        ],
        "codes": codes,
        "hits": hits,
        "rows": {
            kind: archive.rows(f"modality = '{kind}'").tolist() for kind in ("image", "audio")
        },
    }


def newest_files(path: Path) -> list[Path]:
    """The data files and deletion files that an archive's newest version needs."""
    store = path / "store"
    newest = TableVersion.open(store, stored_files(store).newest)
    return [path / key for keys in newest.fragments.values() for key in keys]


def newest_manifest(path: Path) -> Path:
    """The manifest of an archive's newest version: LanceDB counts their names down."""
    return min((path / "store/observations.lance/_versions").glob("*.manifest"))
