from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bittern
from bittern.errors import QueryError
from bittern.index.archive import Archive
from bittern.query import SearchOptions


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("engine", "warp"),
        ("engine", 1),
        ("engine", ["ivf"]),
        ("recall", 0),
        ("recall", 1.01),
        ("recall", "0.9"),
        ("recall", True),
        ("recall", float("nan")),
        ("recall", None),
        ("threads", 0),
        ("threads", 1025),
        ("threads", 1.5),
        ("threads", "2"),
        ("threads", True),
        ("gpu_memory", 0),
        ("gpu_memory", 1e9),
        ("gpu_memory", "4GiB"),
        ("build", 0),
        ("build", "no"),
    ],
)
def test_an_option_that_cannot_be_is_refused_with_its_name(field: str, value: Any) -> None:
    with pytest.raises(QueryError, match=f"^{field} must be") as refused:
        SearchOptions(**{field: value})
    assert refused.value.field == field


def test_the_removed_graph_engine_is_answered_with_the_engine_to_use() -> None:
    with pytest.raises(QueryError, match="use engine 'ivf'"):
        SearchOptions(engine="graph")  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    given: dict[str, Any] = {
        "recall": np.float32(0.5),
        "threads": np.int64(2),
        "gpu_memory": np.uint32(3),
    }
    options = SearchOptions(**given)
    assert options == SearchOptions(recall=0.5, threads=2, gpu_memory=3)
    assert [type(v) for v in (options.recall, options.threads, options.gpu_memory)] == [
        float,
        int,
        int,
    ]


@pytest.mark.parametrize("search", ["ivf", {"recall": 0.9}, 0.9, SearchOptions])
def test_what_are_no_options_is_refused_where_an_archive_is_opened(
    search: Any, tmp_path: Path
) -> None:
    Archive.create(tmp_path / "a").close()
    for opened in (bittern.open, Archive.open):
        with pytest.raises(QueryError, match=r"search must be SearchOptions") as refused:
            opened(tmp_path / "a", search=search)
        assert refused.value.field == "search"
