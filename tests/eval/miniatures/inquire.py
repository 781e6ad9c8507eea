"""INQUIRE in miniature, on top of iNat24's: 2 validation queries, 3 test queries.

train.json, train/                   as in `inat24`
inquire_queries_val.csv, inquire_queries_test.csv, inquire_annotations.csv
rerank/validation-00000-of-00001.parquet, rerank/test-00000-of-00001.parquet
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.eval.miniatures import inat24

VAL = {"13": "a young animal", "268": "long necks, more than one"}
TEST = {"7": "a big cat or a small one", "40": "horned, on rocks", "95": "snow, in a storm"}
RELEVANT = {
    "13": ["calf-1", "kitten-1", "greylag-gosling-1", "swallowtail-caterpillar-1"],
    "268": ["giraffes-1"],
    "7": ["kitten-1", "cat-1", "jaguars-1"],
    "40": ["goat-1", "nubian-ibex-1"],
    "95": [],
}
"""Photographs that answer each query; none shows the storm."""
CANDIDATES = {
    "13": ["calf-1", "cow-1", "kitten-1", "cat-1"],
    "268": ["giraffe-1", "giraffes-1", "mute-swans-1", "goat-1"],
    "7": ["jaguars-1", "polar-bear-1", "cow-1", "kitten-1"],
}
"""Four of each query, where there are any; 40 and 95 have none."""
COLUMNS = ("query_id", "query_text", "supercategory", "category", "iconic_group")


def build(folder: Path) -> Path:
    """Fill a folder."""
    inat24.build(folder)
    write_queries(folder / "inquire_queries_val.csv", VAL)
    write_queries(folder / "inquire_queries_test.csv", TEST)
    pairs = [(query, photo) for query, photos in RELEVANT.items() for photo in photos]
    write_annotations(folder, [annotation(query, photo) for query, photo in pairs])
    write_candidates(folder / "rerank/validation-00000-of-00001.parquet", VAL)
    write_candidates(folder / "rerank/test-00000-of-00001.parquet", TEST)
    return folder


def annotation(query: str, photo: str) -> tuple[str, str, str]:
    """A line of `inquire_annotations.csv`."""
    return query, str(inat24.id_of(photo)), inat24.path_of(photo)


def write_queries(path: Path, queries: dict[str, str]) -> None:
    """Write queries with the nameless first column that the published files have."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", *COLUMNS])
        for number, (own, words) in enumerate(queries.items()):
            writer.writerow([number, own, words, "Appearance", "Life Cycle", "Mammals"])


def write_annotations(folder: Path, lines: Sequence[tuple[str, str, str]]) -> None:
    """Write which images are relevant."""
    with (folder / "inquire_annotations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["query_id", "image_id", "image_path"])
        writer.writerows(lines)


def write_candidates(path: Path, queries: dict[str, str]) -> None:
    """Write the candidates of some queries as INQUIRE-Rerank does, pictures included."""
    rows = [
        {
            "image": {
                "bytes": (path.parents[1] / inat24.path_of(photo)).read_bytes(),
                "path": None,
            },
            "query": queries[own],
            "relevant": int(photo in RELEVANT[own]),
            "clip_score": 0.3,
            "inat24_image_id": inat24.id_of(photo),
            "inat24_file_name": inat24.path_of(photo),
        }
        for own in queries
        for photo in CANDIDATES.get(own, [])
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
