"""Several media of one occurrence stay what they are, in whatever order their rows come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bittern.service.ingest.report import JobReport
from bittern.service.jobs.description import JobSpec
from bittern.types import AddStatus, OnDuplicate
from tests.engine.toy import picture, sound
from tests.jobs.toy_job import Counted, run, save_model, stored

COLOURS = {"a.png": "red", "b.png": "blue", "c.png": "green", "d.png": "red"}


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    for number, (name, colour) in enumerate(COLOURS.items()):
        (tmp_path / name).write_bytes(picture(colour, jitter=number))
    (tmp_path / "e.wav").write_bytes(sound("red", "blue"))
    model = save_model(tmp_path / "model")
    return JobSpec("index", str(tmp_path / "a"), str(tmp_path / "m.csv"), model=str(model))


@pytest.fixture
def index(spec: JobSpec, tmp_path: Path) -> Callable[..., tuple[JobReport, int]]:
    """Index a manifest of these rows of one occurrence: the report, and what was embedded."""

    def do(*media: str, **changes: OnDuplicate) -> tuple[JobReport, int]:
        rows = [f"{name},o1" for name in media]
        (tmp_path / "m.csv").write_text("\n".join(["media,occurrenceID", *rows]))
        encoder = Counted()
        return run(replace(spec, **changes), encoder), encoder.coded  # type: ignore[arg-type]

    return do


def contents(spec: JobSpec) -> dict[str, str]:
    """Names of media by their ids; each name must be there once."""
    found = {row["observation"].occurrence_id: row["observation"].media for row in stored(spec)}
    assert len(set(found.values())) == len(found)
    return found


@pytest.mark.parametrize("order", ["b a", "b a c", "c a b", "b c a", "c b a", "b", "c b"])
@pytest.mark.parametrize("policy", ["skip", "overwrite"])
def test_rows_in_another_order_are_the_same_media(
    spec: JobSpec, index: Callable[..., tuple[JobReport, int]], order: str, policy: OnDuplicate
) -> None:
    index("a.png", "b.png", "c.png")
    before = stored(spec)
    report, coded = index(*(f"{name}.png" for name in order.split()), on_duplicate=policy)
    status = AddStatus.SKIPPED if policy == "skip" else AddStatus.OVERWRITTEN
    assert report.items[status] == report.done == len(order.split())
    assert coded == (0 if policy == "skip" else report.done)
    assert stored(spec) == before


def test_a_recording_among_them_keeps_its_windows(
    spec: JobSpec, index: Callable[..., tuple[JobReport, int]]
) -> None:
    index("a.png", "e.wav")
    before = stored(spec)
    assert index("e.wav", "a.png")[0].items[AddStatus.SKIPPED] == 2
    assert stored(spec) == before


def test_one_that_changed_and_moved_is_coded_again_under_its_id(
    spec: JobSpec, index: Callable[..., tuple[JobReport, int]], tmp_path: Path
) -> None:
    index("a.png", "b.png")
    (tmp_path / "b.png").write_bytes(picture("green"))
    report, coded = index("b.png", "a.png")
    assert (report.items[AddStatus.OVERWRITTEN], coded) == (1, 1)
    assert contents(spec) == {"o1": "a.png", "o1#media=b.png": "b.png"}


@pytest.mark.parametrize("policy", ["skip", "overwrite"])
def test_a_new_one_before_the_others_keeps_each_of_them_once(
    spec: JobSpec, index: Callable[..., tuple[JobReport, int]], policy: OnDuplicate
) -> None:
    index("a.png", "b.png")
    index("c.png", "a.png", "b.png", on_duplicate=policy)
    wanted = {"o1": "c.png", "o1#media=a.png": "a.png", "o1#media=b.png": "b.png"}
    assert contents(spec) == wanted
    assert index("c.png", "a.png", "b.png")[1] == 0
    assert index("b.png", "c.png", "a.png")[1] == 0
    assert contents(spec) == wanted


def test_an_occurrence_whose_only_file_was_renamed_stays_one(
    spec: JobSpec, index: Callable[..., tuple[JobReport, int]], tmp_path: Path
) -> None:
    index("a.png")
    (tmp_path / "a.png").rename(tmp_path / "z.png")
    report, _ = index("z.png")
    assert report.skipped == {"UNCHANGED": 1}
    assert index("b.png")[0].items[AddStatus.OVERWRITTEN] == 1
    assert contents(spec) == {"o1": "b.png"}


def test_files_of_the_same_size_and_time_differ_by_their_names(
    spec: JobSpec, index: Callable[..., tuple[JobReport, int]], tmp_path: Path
) -> None:
    import os

    from PIL import Image

    for name, colour in (("x.bmp", "red"), ("y.bmp", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / name)
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    index("x.bmp")
    assert index("y.bmp")[0].items[AddStatus.OVERWRITTEN] == 1
    assert contents(spec) == {"o1": "y.bmp"}


def test_under_the_policy_error_all_of_them_fail(
    spec: JobSpec, index: Callable[..., tuple[JobReport, int]]
) -> None:
    index("a.png", "b.png")
    before = stored(spec)
    assert index("b.png", "a.png", on_duplicate="error")[0].failed == 2
    assert stored(spec) == before
