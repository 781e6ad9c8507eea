"""Make a golden archive with the code that is imported: a small archive and what it answers.

    cd /tmp && PYTHONPATH=RELEASE python REPOSITORY/tests/golden/make.py REPOSITORY/tests/golden

RELEASE is a checkout of the release whose archive is wanted. Two files are written, named by
package version in a folder of the format version: the archive, and every row, code and some
search answers as that release gave them. Neither is ever made again once it is committed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import bittern.index
from bittern import __version__
from bittern.index.archive import Archive
from bittern.index.models import ModelRecord
from bittern.index.observation import CodedObservation
from bittern.types import Observation

WHERES = (
    "scientificName = 'Botaurus stellaris'",
    "decimalLatitude > 50 AND countryCode = 'NL'",
    "modality = 'audio' AND start_s >= 3",
    "trapNights >= 5",
    "checked",
)
"""Conditions on columns of every type, those of the source's own among them."""


def model(name: str, bits: int) -> ModelRecord:
    """A made-up model."""
    digest = hashlib.sha256(f"golden {name} {bits}".encode()).hexdigest()
    return ModelRecord(f"{name}-{bits}", digest, bits, name, ("text", "image", "audio"))


HERON = model("heron", 64)
RAIL = model("rail", 128)


def code(name: str, bits: int) -> np.ndarray:
    """A code that follows from a name."""
    digest = hashlib.sha512(f"{name} {bits}".encode()).digest()
    return np.frombuffer(digest[: bits // 8], dtype=np.uint8).copy()


def logits(name: str, bits: int) -> np.ndarray:
    """A query that follows from a name, in steps of 1/32 so that every machine adds it alike."""
    values = np.frombuffer(hashlib.shake_128(f"query {name}".encode()).digest(bits), np.uint8)
    return (values.astype(np.float32) - 128) / 32


def photo(name: str, record: ModelRecord, **metadata: Any) -> list[CodedObservation]:
    """A photograph, coded."""
    seen = Observation(name, name, "image", f"pictures/{name}.jpg", "/media", metadata=metadata)
    return [CodedObservation(seen, code(name, record.bits))]


def recording(
    name: str, windows: int, record: ModelRecord, **metadata: Any
) -> list[CodedObservation]:
    """A recording in windows of three seconds, coded and with embeddings."""
    return [
        CodedObservation(
            Observation(
                f"{name}#t={3 * i},{3 * i + 3}",
                name,
                "audio",
                f"sounds/{name}.wav",
                start_s=3.0 * i,
                end_s=3.0 * i + 3,
                metadata=metadata,
            ),
            code(f"{name} {i}", record.bits),
            np.full(4, 0.5, dtype=np.float16),
        )
        for i in range(windows)
    ]


def fill(archive: Archive) -> None:
    """Add, delete and overwrite in several commits, with two models."""
    for record in (HERON, RAIL):
        archive.register_model(record, {"card.json": b"{}\n", "heads/shared.bin": bytes(range(64))})
    names = ("Botaurus stellaris", "Ardea cinerea", "Rallus aquaticus", "Nycticorax nycticorax")
    for batch in range(4):
        archive.add(
            [
                photo(
                    f"photo-{batch}-{i}",
                    HERON,
                    scientificName=names[i % 4],
                    decimalLatitude=51 + i + 0.25,
                    decimalLongitude=-4.5 + batch,
                    countryCode=("NL", "GB")[i % 2],
                    eventDate=f"2024-0{batch + 1}-1{i}",
                    license="CC0-1.0",
                )
                for i in range(6)
            ],
            model=HERON.digest,
        )
    archive.add(
        [
            recording(
                f"night-{i}",
                3,
                HERON,
                trapNights=i + 3,
                checked=i == 2,
                loudness=0.5 * i,
                observer=f"Zoë {i} \N{OWL}",
            )
            for i in range(4)
        ],
        model=HERON.digest,
    )
    archive.delete(["photo-0-1", "photo-2-3", "night-1", "night-3#t=0,3"])
    archive.add(
        [photo("photo-1-1", HERON, scientificName="Ixobrychus minutus")],
        model=HERON.digest,
        on_duplicate="overwrite",
    )
    archive.add([recording("night-0", 2, HERON)], model=HERON.digest, on_duplicate="overwrite")
    both = [photo(f"photo-3-{i}", RAIL) for i in range(3)] + [photo("photo-9-9", RAIL)]
    archive.add([*both, recording("night-2", 4, RAIL)], model=RAIL.digest)


def change(archive: Archive) -> None:
    """Change an archive that was compacted as it was closed; what comes out is not."""
    archive.delete(["photo-0-0", "night-2#t=3,6"])
    archive.add([photo("photo-1-2", HERON)], model=HERON.digest, on_duplicate="overwrite")
    archive.add([photo("last", RAIL, habitat="reed bed")], model=RAIL.digest)


def answers(archive: Archive) -> dict[str, Any]:
    """Every row and code of an archive, and some of its answers, as JSON values."""
    rows = [
        {
            "row": one.row,
            "id": one.id,
            "occurrence_id": one.occurrence_id,
            "modality": one.modality,
            "media": one.media,
            "media_root": one.media_root,
            "start_s": one.start_s,
            "end_s": one.end_s,
            "metadata": dict(sorted(one.metadata.items())),
        }
        for one in archive.list(page_size=10_000).observations
    ]
    return {
        "name": archive.name,
        "models": [record.to_json() for record in archive.model_records()],
        "rows": rows,
        "codes": {record.name: _codes(archive, record) for record in archive.model_records()},
        "wheres": {where: archive.rows(where).tolist() for where in WHERES},
        "searches": [
            {
                "model": record.name,
                "metric": metric,
                "hits": [
                    [hit.observation.id, hit.distance]
                    for hit in archive.search(
                        logits(f"{n}", record.bits), model=record.digest, k=8, metric=metric
                    ).hits
                ],
            }
            for record in archive.model_records()
            for metric in ("asymmetric", "hamming")
            for n in range(2)
        ],
    }


def _codes(archive: Archive, record: ModelRecord) -> dict[str, str]:
    codes: dict[str, str] = {}
    for batch in archive.iter_batches(["id"], model=record.digest):
        for name, value in zip(batch["id"].to_pylist(), batch["code"].to_pylist(), strict=True):
            if value is not None:
                codes[name] = value.hex()
    return codes


def main(golden: Path) -> None:
    """Write the archive and its answers below `golden`."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "golden"
        with Archive.create(path) as archive:
            fill(archive)
        with Archive.open(path, write=True) as archive:
            change(archive)
        with Archive.open(path) as archive:
            expected = answers(archive)
        version = json.loads((path / "archive.json").read_text("utf-8"))["format_version"]
        target = golden / f"format-{version}" / f"bittern-{__version__}.tar.gz"
        print(f"with {bittern.index.__file__}: {target}")
        if target.exists():
            sys.exit(f"{target} exists already")
        target.parent.mkdir(exist_ok=True)
        with tarfile.open(target, "w:gz") as tar:
            tar.add(path, "golden", filter=_anonymous)
    text = json.dumps(expected, ensure_ascii=False, indent=1) + "\n"
    target.with_name(f"bittern-{__version__}.json").write_text(text, "utf-8")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(Path(sys.argv[1]))
