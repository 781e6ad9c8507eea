"""Items are embedded once, however often a run is interrupted."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import disk_usage

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from bittern.benchmarks.eval.embeddings.encoding import embed_items
from bittern.benchmarks.eval.embeddings.shards import ShardedRows
from bittern.benchmarks.eval.tasks import Items
from bittern.encoders.base import Media, Modality
from bittern.errors import (
    InvalidInputError,
    LimitExceededError,
    MediaError,
    UnsupportedModalityError,
)
from bittern.types import MediaItem
from tests.engine.toy import COLOURS, ToyEncoder, picture
from tests.eval.embedding_toys import (
    Counting,
    embedder,
    images,
    recordings,
    shard_files,
    small_shards,
    texts,
)

SAMPLE = Path(__file__).parents[2] / "bittern" / "sample"


@pytest.fixture(autouse=True)
def _shards_of_four() -> Iterator[None]:
    with small_shards(4):
        yield


def everything(rows: ShardedRows) -> NDArray[np.float32]:
    return np.concatenate([tile for _, tile in rows.tiles(3)])


class InterruptionError(Exception):
    """What interrupts a run."""


def stop() -> None:
    raise InterruptionError


def test_each_picture_is_one_row_as_the_tower_gives_it(tmp_path: Path) -> None:
    encoder = Counting()
    rows = embed_items(embedder(encoder), images(10), tmp_path)
    alone = [embed_items(embedder(encoder), _one(10, n), tmp_path / "alone") for n in range(10)]
    np.testing.assert_allclose(everything(rows), np.concatenate([everything(a) for a in alone]))
    assert rows.owners.tolist() == list(range(10))
    assert np.isnan(rows.spans).all()


def _one(count: int, position: int) -> Items:
    items = images(count)
    return Items(["one"], "image", [items.contents[position]], np.zeros(1, np.int32), "image")


def test_windows_of_a_recording_stand_together_with_their_spans(tmp_path: Path) -> None:
    items = recordings(("red",), ("green", "blue"), ("blue", "red", "green"), ("red",), ("blue",))
    rows = embed_items(embedder(Counting()), items, tmp_path)
    assert rows.owners.tolist() == [0, 1, 1, 2, 2, 2, 3, 4]
    assert rows.spans[:6].tolist() == [[0, 1], [0, 1], [1, 2], [0, 1], [1, 2], [2, 3]]


def test_texts_are_embedded_as_they_are_given(tmp_path: Path) -> None:
    encoder = Counting()
    rows = embed_items(embedder(encoder), texts("red", "blue", "green", "red blue", "x"), tmp_path)
    wanted = ToyEncoder().encode(Modality.TEXT, ["red", "blue", "green", "red blue", "x"])
    assert np.array_equal(everything(rows), wanted)


def test_a_second_run_embeds_nothing(tmp_path: Path) -> None:
    first = embed_items(embedder(Counting()), images(10), tmp_path)
    encoder = Counting()
    again = embed_items(embedder(encoder), images(10), tmp_path)
    assert encoder.layout == 0
    assert np.array_equal(everything(first), everything(again))
    assert first.digest == again.digest


def test_names_of_items_do_not_matter_to_what_is_found_again(tmp_path: Path) -> None:
    embed_items(embedder(Counting()), images(10), tmp_path)
    items = images(10)
    other = Items([f"other{n}" for n in range(10)], "image", items.contents, items.classes, "query")
    encoder = Counting()
    embed_items(embedder(encoder), other, tmp_path)
    assert encoder.layout == 0


def test_a_longer_set_shares_the_shards_of_a_shorter_one(tmp_path: Path) -> None:
    embed_items(embedder(Counting()), images(8), tmp_path)
    encoder = Counting()
    embed_items(embedder(encoder), images(11), tmp_path)
    assert encoder.layout == 3


def test_the_same_shard_twice_in_a_set_is_embedded_once(tmp_path: Path) -> None:
    items = images(4)
    twice = Items(
        [f"i{n}" for n in range(8)],
        "image",
        [items.contents[n % 4] for n in range(8)],
        np.zeros(8, np.int32),
        "image",
    )
    encoder = Counting()
    done: list[int] = []
    rows = embed_items(embedder(encoder), twice, tmp_path, on_items=done.append)
    assert encoder.layout == 4
    assert done == [0, 0, 1, 2, 3, 4, 4, 8]
    assert rows.owners.tolist() == list(range(8))


def test_other_weights_have_shards_of_their_own(tmp_path: Path) -> None:
    one = embed_items(embedder(ToyEncoder()), images(3), tmp_path)
    other = embed_items(embedder(ToyEncoder(salt="2")), images(3), tmp_path)
    assert one.digest != other.digest
    assert len(shard_files(tmp_path)) == 2


def test_a_changed_file_costs_its_shard_alone(tmp_path: Path) -> None:
    items = _files(tmp_path / "media", 12)
    before = embed_items(embedder(Counting()), items, tmp_path / "cache")
    (tmp_path / "media" / "5.png").write_bytes(picture("blue", size=(50, 50)))
    encoder = Counting()
    after = embed_items(embedder(encoder), items, tmp_path / "cache")
    assert encoder.layout == 4
    assert before.digest != after.digest
    differ = (everything(before) != everything(after)).any(axis=1)
    assert np.flatnonzero(differ).tolist() == [5]


def test_a_file_whose_time_alone_changed_is_embedded_again(tmp_path: Path) -> None:
    items = _files(tmp_path / "media", 4)
    embed_items(embedder(Counting()), items, tmp_path / "cache")
    os.utime(tmp_path / "media" / "1.png", ns=(0, 123_456_789))
    encoder = Counting()
    embed_items(embedder(encoder), items, tmp_path / "cache")
    assert encoder.layout == 4


def _files(folder: Path, count: int) -> Items:
    folder.mkdir()
    names = [f"{n}.png" for n in range(count)]
    for number, name in enumerate(names):
        (folder / name).write_bytes(picture(list(COLOURS)[number % 3], jitter=number))
    media = [MediaItem(name, name, "image", path=folder / name) for name in names]
    return Items(names, "image", media, np.zeros(count, np.int32), "image")


@pytest.mark.parametrize("at", range(5))
def test_a_run_that_breaks_off_goes_on_and_repeats_one_shard_at_the_most(
    tmp_path: Path, at: int
) -> None:
    """18 pictures, batches of 4 or less; see the next one for what lies between shards."""
    whole = embed_items(embedder(Counting()), images(18), tmp_path / "whole")
    broken = Counting(at, stop)
    with pytest.raises(InterruptionError):
        embed_items(embedder(broken), images(18), tmp_path / "cache")
    goes_on = Counting()
    rows = embed_items(embedder(goes_on), images(18), tmp_path / "cache")
    assert goes_on.layout + broken.layout == 18
    assert np.array_equal(everything(rows), everything(whole))


@pytest.mark.parametrize("after", [1, 3, 4, 5, 8, 9])
def test_a_run_that_breaks_off_after_any_item_ends_with_the_same_bits(
    tmp_path: Path, after: int
) -> None:
    items = recordings(*[("red", "blue", "green")[: 1 + n % 3] for n in range(10)])
    whole = embed_items(embedder(Counting()), items, tmp_path / "whole")

    def interrupt(done: int) -> None:
        if done >= after:
            raise KeyboardInterrupt

    broken = Counting()
    with pytest.raises(KeyboardInterrupt):
        embed_items(embedder(broken), items, tmp_path / "cache", on_items=interrupt)
    goes_on = Counting()
    rows = embed_items(embedder(goes_on), items, tmp_path / "cache")
    assert np.array_equal(everything(rows), everything(whole))
    assert np.array_equal(rows.spans, whole.spans)
    windows = [1 + n % 3 for n in range(10)]
    # A shard is kept once it is written, which is after its last item was reported.
    kept = (after - 1) // 4 * 4
    assert goes_on.layout == sum(windows[kept:])


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-m", "tests.eval.test_embeddings_encoding", str(tmp_path)],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    encoder = Counting()
    rows = embed_items(embedder(encoder), images(18), tmp_path)
    assert encoder.layout == 18 - 8
    assert len(rows) == 18


def test_progress_begins_with_what_the_cache_has_and_ends_with_everything(tmp_path: Path) -> None:
    embed_items(embedder(Counting()), images(8), tmp_path)
    done: list[int] = []
    embed_items(embedder(Counting()), images(11), tmp_path, on_items=done.append)
    assert done == [4, 8, 8, 9, 10, 11, 11]


def test_items_that_cannot_be_read_end_the_run_by_name_once_the_rest_is_done(
    tmp_path: Path,
) -> None:
    items = images(12, broken=(1, 2, 9))
    with pytest.raises(MediaError, match=r"3 of 12 .*'p1': .*'p9': .*--missing skip"):
        embed_items(embedder(Counting()), items, tmp_path)
    encoder = Counting()
    rows = embed_items(embedder(encoder), items, tmp_path, missing="skip")
    assert encoder.layout == 0
    assert [position for position, _ in rows.failed] == [1, 2, 9]
    assert all(sentence for _, sentence in rows.failed)
    assert rows.owners.tolist() == [0, 3, 4, 5, 6, 7, 8, 10, 11]


def test_a_shard_in_which_everything_fails_has_no_rows(tmp_path: Path) -> None:
    rows = embed_items(
        embedder(Counting()), images(5, broken=(0, 1, 2, 3)), tmp_path, missing="skip"
    )
    assert rows.owners.tolist() == [4]
    assert everything(rows).shape == (1, 12)


def test_a_cut_photograph_of_the_sample_fails_alone(tmp_path: Path) -> None:
    photographs = sorted(SAMPLE.rglob("*.webp"))[:3]
    data = [_jpeg(path) for path in photographs]
    data[1] = data[1][: len(data[1]) // 2]
    names = [path.name for path in photographs]
    media = [MediaItem(n, n, "image", data=d) for n, d in zip(names, data, strict=True)]
    items = Items(names, "image", media, np.zeros(3, np.int32), "image")
    rows = embed_items(embedder(Counting()), items, tmp_path, missing="skip")
    assert rows.owners.tolist() == [0, 2]
    assert names[1] in rows.failed[0][1]


def _jpeg(path: Path) -> bytes:
    buffer = io.BytesIO()
    with Pillow.open(path) as opened:
        opened.convert("RGB").save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_file_that_is_not_there_fails_and_is_tried_again_once_it_is(tmp_path: Path) -> None:
    items = _files(tmp_path / "media", 3)
    content = (tmp_path / "media" / "1.png").read_bytes()
    (tmp_path / "media" / "1.png").unlink()
    rows = embed_items(embedder(Counting()), items, tmp_path / "cache", missing="skip")
    assert [position for position, _ in rows.failed] == [1]
    (tmp_path / "media" / "1.png").write_bytes(content)
    assert len(embed_items(embedder(Counting()), items, tmp_path / "cache")) == 3


class Faulty(ToyEncoder):
    """Gives something useless for pictures that are green."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value

    def encode(self, modality: Modality, batch: list[Media]) -> NDArray[np.float32]:  # type: ignore[override]
        rows = super().encode(modality, batch)
        rows[[n for n, item in enumerate(batch) if np.asarray(item)[0, 0, 1] > 128]] = self._value
        return rows


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_an_embedding_that_is_no_use_fails_its_item(tmp_path: Path, value: float) -> None:
    rows = embed_items(embedder(Faulty(value)), images(6), tmp_path, missing="skip")
    assert [position for position, _ in rows.failed] == [1, 4]
    assert "image tower of 'toy'" in rows.failed[0][1]
    with pytest.raises(MediaError, match="'p1'"):
        embed_items(embedder(Faulty(value)), images(6), tmp_path)


def test_an_empty_text_fails_alone(tmp_path: Path) -> None:
    rows = embed_items(embedder(Counting()), texts("red", " ", "blue"), tmp_path, missing="skip")
    assert rows.owners.tolist() == [0, 2]
    assert rows.failed == ((1, "it is an empty text"),)


def test_a_missing_tower_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModalityError):
        embed_items(embedder(ToyEncoder([Modality.TEXT])), images(1), tmp_path)


def test_a_recording_among_photographs_is_refused(tmp_path: Path) -> None:
    items = images(2)
    mixed = Items(
        items.ids, "image", [items.contents[0], recordings(("red",)).contents[0]], items.classes, ""
    )
    with pytest.raises(InvalidInputError, match="audio"):
        embed_items(embedder(Counting()), mixed, tmp_path)


def test_what_the_disk_cannot_hold_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    encoder = Counting()
    with pytest.raises(LimitExceededError, match="another disk"):
        embed_items(embedder(encoder), images(4), tmp_path)
    assert encoder.layout == 0


def test_a_file_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InvalidInputError, match="cannot be the cache"):
        embed_items(embedder(Counting()), images(1), tmp_path / "cache")


def test_no_items_are_no_rows(tmp_path: Path) -> None:
    rows = embed_items(embedder(Counting()), images(0), tmp_path)
    assert len(rows) == 0
    assert list(rows.tiles()) == []
    assert rows.read(np.empty(0, np.int64)).shape == (0, 12)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":  # a run that is killed in its third shard
    with small_shards(4):
        embed_items(embedder(Counting(2, _die)), images(18), Path(sys.argv[1]))
