from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bittern.benchmarks.eval.suites.ssw60 import SSW60
from bittern.benchmarks.eval.tasks import Protocol, Task
from bittern.errors import LayoutError, QrelsError
from bittern.types import MediaItem
from tests.eval.conftest import Miniatures
from tests.eval.miniatures import relevant, replace_text

ALL = frozenset({"text", "image", "audio"})


@pytest.fixture
def data(miniatures: Miniatures, tmp_path: Path) -> Path:
    return Path(shutil.copytree(miniatures("ssw60"), tmp_path / "data"))


def tasks(data: Path, towers: frozenset[str] = ALL, **options: Any) -> dict[str, Task]:
    return {task.name: task for task in SSW60().tasks(data, Protocol(**options), towers)}


GOOSE, DUCK, OWL, HARRIER = (f"images_inat/{73_542 + n}" for n in (0, 1, 2, 4))
MIRRORED_DUCK, CHICKENS = (f"images_nabirds/{n:032x}" for n in (0, 1))
HEARD_GOOSE, HEARD_DUCK, HEARD_OWL, HEARD_CHICKEN = (
    f"audio_ml/{45_516_191 + n}" for n in (0, 2, 4, 6)
)


def test_recordings_are_answered_by_photographs_of_their_species(data: Path) -> None:
    task = tasks(data)["audio→image"]
    assert relevant(task) == {
        HEARD_GOOSE: [GOOSE],
        HEARD_DUCK: [DUCK, MIRRORED_DUCK],
        HEARD_OWL: [OWL],
        HEARD_CHICKEN: [CHICKENS],
    }
    assert len(task.items) == 6


def test_photographs_are_answered_by_recordings_of_their_species(data: Path) -> None:
    task = tasks(data)["image→audio"]
    assert relevant(task) == {
        GOOSE: [HEARD_GOOSE],
        DUCK: [HEARD_DUCK],
        OWL: [HEARD_OWL],
        MIRRORED_DUCK: [HEARD_DUCK],
        CHICKENS: [HEARD_CHICKEN],
    }
    assert any(HARRIER in sentence for sentence in task.left_out)


def test_names_are_answered_by_recordings_and_by_photographs(data: Path) -> None:
    by_name = tasks(data)
    assert relevant(by_name["text→audio"]) == {
        "Graylag_Goose": [HEARD_GOOSE],
        "Mallard": [HEARD_DUCK],
        "Tawny_Owl": [HEARD_OWL],
        "Red_Junglefowl": [HEARD_CHICKEN],
    }
    assert by_name["text→audio"].queries.contents[0] == ("The sound of Graylag Goose",)
    assert by_name["text→image"].queries.contents[0] == ("a photo of Graylag Goose",)
    assert by_name["text→image"].relevance.counts.tolist() == [1, 2, 1, 1, 1]


def test_media_are_read_where_the_tables_say(data: Path) -> None:
    task = tasks(data)["audio→image"]
    for position in range(len(task.items)):
        item = task.items.contents[position]
        assert isinstance(item, MediaItem)
        assert item.path is not None
        with Image.open(item.path) as picture:
            assert picture.format == "JPEG"
    assert isinstance(item, MediaItem)
    assert item.metadata["vernacularName"] == "Red Junglefowl"
    assert item.metadata["genus"] == "Gallus"
    assert item.metadata["rightsHolder"] == "Kim Gull"
    query = task.queries.contents[0]
    assert isinstance(query, MediaItem)
    assert query.path is not None
    assert query.path.read_bytes()[:4] == b"RIFF"


@pytest.mark.parametrize(
    ("towers", "names"),
    [
        ({"text", "image"}, {"text→image"}),
        ({"text", "audio"}, {"text→audio"}),
        ({"image", "audio"}, {"audio→image", "image→audio"}),
        ({"text"}, set()),
    ],
)
def test_tasks_need_their_towers(data: Path, towers: set[str], names: set[str]) -> None:
    assert set(tasks(data, frozenset(towers))) == names


def test_photographs_can_be_those_of_one_data_set(data: Path) -> None:
    assert [*tasks(data, database="nabirds")["text→image"].items.ids] == [MIRRORED_DUCK, CHICKENS]
    inat = tasks(data, database="inat:test")["text→image"]
    assert [*inat.items.ids] == [GOOSE, DUCK, OWL, HARRIER]
    assert any("inat" in note for note in inat.notes)


def test_another_split_can_be_searched_with_queries_of_the_test_split(data: Path) -> None:
    task = tasks(data, database="both:train")["audio→image"]
    assert relevant(task) == {HEARD_CHICKEN: ["images_inat/73545"]}
    assert any("train split is searched" in note for note in task.notes)


def test_the_training_split_is_fitted_on_if_the_protocol_says_so(data: Path) -> None:
    assert tasks(data)["audio→image"].training is None
    training = tasks(data, fit_on="training")["audio→image"].training
    assert training is not None
    assert [*training.items.ids] == ["images_inat/73545", f"images_nabirds/{2:032x}"]
    assert training.queries.modality == "audio"
    assert training.queries.classes.tolist() == [1, 2, 3]


def test_the_photograph_that_the_release_lacks_is_no_error(data: Path) -> None:
    (sentence,) = [t for t in tasks(data)["text→image"].left_out if "NABirds" in t]
    assert sentence.startswith(
        "1 NABirds photograph that the tables list is not in the release; it is left out "
        "(images_nabirds/"
    )


def test_labels_that_no_species_has_are_refused_or_left_out(data: Path) -> None:
    replace_text(data / "audio_ml.csv", "45516195,2,test", "45516195,60,test")
    with pytest.raises(QrelsError, match=r"audio_ml\.csv: 1 of 7 labels .* 60 \(line 6\)"):
        tasks(data)
    task = tasks(data, unknown="skip")["text→audio"]
    assert HEARD_OWL not in task.items.ids
    assert any("not in taxa.csv" in line for line in task.left_out)


def test_a_table_that_is_no_text_is_refused(data: Path) -> None:
    (data / "images_inat.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    with pytest.raises(LayoutError, match=r"images_inat\.csv"):
        tasks(data)


def test_what_is_missing_for_every_model_is_refused_before_any_is_loaded(data: Path) -> None:
    SSW60().check(data, Protocol())
    (data / "images_nabirds.csv").unlink()
    SSW60().check(data, Protocol(database="inat"))
    with pytest.raises(LayoutError, match="lacks 1 of "):
        SSW60().check(data, Protocol())
    (data / "audio_ml.csv").unlink()
    with pytest.raises(LayoutError, match=r"audio_ml\.csv"):
        SSW60().check(data, Protocol(database="inat"))


def test_recordings_need_not_be_there_for_models_that_hear_nothing(data: Path) -> None:
    (data / "audio_ml.csv").unlink()
    (data / "audio_ml").rename(data / "elsewhere")
    SSW60().check(data, Protocol())
    assert set(tasks(data, frozenset({"text", "image"}))) == {"text→image"}
    with pytest.raises(LayoutError, match="audio_ml"):
        tasks(data)


def test_notes_say_prompts_and_how_recordings_are_queries(
    data: Path,
) -> None:
    notes = {name: " ".join(task.notes) for name, task in tasks(data).items()}
    assert "the mean of its windows" in notes["audio→image"]
    assert "the mean of its windows" not in notes["image→audio"]
    assert "'The sound of {common}'" in notes["text→audio"]
    assert "'a photo of {common}'" in notes["text→image"]
