"""INQUIRE-Rerank by itself: its Parquet files hold the pictures, so 1.9 GB do for its task.

Columns: ``image`` (with the file's ``bytes``), ``query``, ``relevant``, ``inat24_image_id``, and
``inat24_file_name``, ``inat24_species_name``, ``license``, ``rights_holder`` where they are there.
Pictures are read when they are asked for, a row group at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bittern.benchmarks.eval.layouts import place, wrong_layout
from bittern.benchmarks.eval.suites.inat24_columns import Numbers
from bittern.benchmarks.eval.suites.inquire_files import CANDIDATES, Queries, by_text, plain
from bittern.benchmarks.eval.suites.inquire_matching import Pairs, other_queries
from bittern.benchmarks.eval.tasks import IMAGE, Items
from bittern.errors import LayoutError, QrelsError
from bittern.text import agreeing
from bittern.types import MediaItem

MAX_ROWS = 1_000_000
"""Most lines of all files."""
MAX_GROUP_BYTES = 1 << 30
"""Largest row group, unpacked: one is in memory at a time."""
_NEEDED = ("query", "relevant", "inat24_image_id")
_ABOUT = {
    "inat24_species_name": "scientificName",
    "rights_holder": "rightsHolder",
    "license": "license",
}
_FILE = "inat24_file_name"
_INT64 = 1 << 63


class Pictures:
    """The pictures, one for each image id.

    Args:
        shards: the files.
        where: int64 [n, 3], file, row group, and row in it, of each picture.
        rows: what else is known of each: columns of the files.
    """

    def __init__(
        self, shards: Sequence[Path], where: NDArray[np.int64], rows: Sequence[dict[str, Any]]
    ) -> None:
        self._shards, self._where, self._rows = shards, where, rows
        self._lock = Lock()
        self._group: tuple[int, int] = (-1, -1)
        self._pictures: Any = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int, /) -> MediaItem:
        shard, group, row = self._where[number].tolist()
        own = self._rows[number]
        metadata = {term: str(own[column]) for column, term in _ABOUT.items() if own.get(column)}
        return MediaItem(
            occurrence_id=str(own["inat24_image_id"]),
            media=str(own.get(_FILE) or own["inat24_image_id"]),
            modality=IMAGE,
            data=self._bytes(shard, group, row),
            metadata=metadata,
        )

    def _bytes(self, shard: int, group: int, row: int) -> bytes:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._lock:
            if self._group != (shard, group):
                self._pictures = None
                try:
                    with pq.ParquetFile(self._shards[shard]) as file:
                        self._pictures = file.read_row_group(group, columns=["image"]).column(0)
                except (pa.ArrowException, OSError) as error:
                    raise _unreadable(self._shards[shard], error) from error
                self._group = (shard, group)
            picture = self._pictures[row].as_py()
        # What has no bytes is an empty file, refused where it is decoded, by its name.
        return bytes((picture or {}).get("bytes") or b"")


def read_pictures(
    data: Path, queries: Queries, unknown: Literal["error", "skip"]
) -> tuple[Items, Pairs, Pairs, list[str]]:
    """What is ranked, what of it is relevant, what is given, and sentences on what is left out.

    Args:
        data: the data folder, with the files in `CANDIDATES`' folder.
        queries: as published.
        unknown: whether lines of queries that there are not end the run.

    Raises:
        LayoutError: a file cannot be used.
        QrelsError: lines of unknown queries, unless these are left out.
    """
    shards = sorted(place(data, CANDIDATES).glob("*.parquet"))
    if not shards:
        raise _wrong(place(data, CANDIDATES), "no file that ends with .parquet")
    numbers = {own: number for number, own in enumerate(queries.ids)}
    ids = by_text(queries)
    images: dict[int, int] = {}
    where: list[tuple[int, int, int]] = []
    rows: list[dict[str, Any]] = []
    given: list[tuple[int, int]] = []
    relevant: list[bool] = []
    lost: list[str] = []
    asked, not_asked = queries.are_asked, 0
    for number, shard in enumerate(shards):
        for group, row, line in _lines(shard):
            query = ids.get(plain(str(line["query"])))
            if query is None:
                lost.append(f"{shard.name}, row group {group}, row {row}")
                continue
            if not asked[numbers[query]]:
                not_asked += 1
                continue
            image = line["inat24_image_id"]
            if image not in images:
                images[image] = len(images)
                where.append((number, group, row))
                rows.append(line)
            given.append((numbers[query], images[image]))
            relevant.append(bool(line["relevant"]))
            if len(given) > MAX_ROWS:
                raise LayoutError(f"{shard.parent} has more than {MAX_ROWS:,} rows", field="data")
    lines = len(given) + len(lost) + not_asked
    if lost and queries.partial:
        told = [other_queries(len(lost), lines, "candidates")]
    else:
        told = _told(lost, lines, unknown)
    pairs = np.array(given, np.int64).reshape(-1, 2)
    chosen = np.array(relevant, np.bool_)
    items = Items(
        Numbers(np.fromiter(images, np.int64, len(images))),
        IMAGE,
        Pictures(shards, np.array(where, np.int64).reshape(-1, 3), rows),
        np.full(len(images), -1, np.int32),
        IMAGE,
    )
    return items, _pairs(pairs[chosen]), _pairs(pairs), told


def _lines(shard: Path) -> list[tuple[int, int, dict[str, Any]]]:
    """Row group, row in it, and what is said of it, all but the picture."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines: list[tuple[int, int, dict[str, Any]]] = []
    try:
        with pq.ParquetFile(shard) as file:
            schema = file.schema_arrow
            picture = schema.field("image").type if "image" in schema.names else pa.null()
            pictures = pa.types.is_struct(picture) and picture.get_field_index("bytes") >= 0
            if not pictures or not set(_NEEDED) <= set(schema.names):
                raise _wrong(shard, "columns " + ", ".join(schema.names[:20]))
            if file.metadata.num_rows > MAX_ROWS:
                raise LayoutError(f"{shard} has more than {MAX_ROWS:,} rows", field="data")
            columns = [c for c in (*_NEEDED, _FILE, *_ABOUT) if c in schema.names]
            for group in range(file.metadata.num_row_groups):
                size = file.metadata.row_group(group).total_byte_size
                if size > MAX_GROUP_BYTES:
                    raise LayoutError(
                        f"{shard}: row group {group} takes {size:,} bytes, more than "
                        f"{MAX_GROUP_BYTES:,}; take {CANDIDATES.origin}",
                        field="data",
                    )
                read = file.read_row_group(group, columns=columns).to_pylist()
                lines.extend((group, row, line) for row, line in enumerate(read))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(shard, error) from error
    for group, row, line in lines:
        image = line["inat24_image_id"]
        if not isinstance(image, int) or not 0 <= image < _INT64:
            raise _wrong(shard, f"image id '{image}' in row group {group}, row {row}")
    return lines


def _pairs(both: NDArray[np.int64]) -> Pairs:
    once = np.unique(both, axis=0)
    return Pairs(once[:, 0], once[:, 1])


def _told(lost: Sequence[str], lines: int, unknown: Literal["error", "skip"]) -> list[str]:
    if not lost:
        return []
    told = (
        f"{len(lost):,} of {lines:,} candidates {agreeing(len(lost), 'is', 'are')} of unknown "
        f"queries (the first: {lost[0]})"
    )
    if unknown == "error":
        raise QrelsError(
            f"{told}; queries and candidates have to be of the same release of INQUIRE; leave "
            "these lines out with --unknown skip"
        )
    return [told]


def _wrong(path: Path, got: str) -> LayoutError:
    expected = "columns image (with bytes), " + ", ".join(_NEEDED)
    return wrong_layout(path, expected, got, f"take {CANDIDATES.origin}")


def _unreadable(shard: Path, error: Exception) -> LayoutError:
    return LayoutError(
        f"{shard} cannot be read as Parquet ({error}); take {CANDIDATES.origin}", field="data"
    )
