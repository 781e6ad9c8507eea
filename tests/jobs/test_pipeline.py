from __future__ import annotations

import threading
import tracemalloc
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bittern.encoders.base import AudioWindowing, Media, Modality
from bittern.errors import ModelDamagedError
from bittern.index.observation import Fingerprint
from bittern.service.ingest.embedding import NETWORK_BATCH, embed_items
from bittern.service.ingest.items import (
    UNCHANGED,
    Decoded,
    Embedded,
    Loaded,
    PipelineEntry,
    Recheck,
    fingerprint_of,
)
from bittern.service.ingest.prefetch import Bounds, Prefetch
from bittern.service.ingest.report import never, new_stages
from bittern.service.models.model import Embedder
from bittern.types import AddResult, AddStatus, MediaItem
from tests.engine.toy import DIM, ToyEncoder, picture, sound


def embedder_of(encoder: ToyEncoder) -> Embedder:
    return Embedder(encoder.name, lambda name: encoder)


def pictures(count: int) -> list[MediaItem]:
    data = picture("red")
    return [MediaItem(f"p{n}", f"p{n}.png", "image", data=data) for n in range(count)]


STAGE_THREADS = {"bittern-list", "bittern-read", "bittern-store"}


def threads_of_the_pipeline() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name in STAGE_THREADS]


def test_entries_come_out_in_the_order_of_the_listing_whatever_they_are() -> None:
    entries: list[PipelineEntry] = []
    for number, item in enumerate(pictures(40)):
        entries.append(item)
        if number % 3 == 0:
            entries.append(AddResult(f"r{number}", AddStatus.SKIPPED))
        if number % 5 == 0:
            entries.append(MediaItem(f"s{number}", "s.wav", "audio", data=sound("red", "blue")))
        if number % 7 == 0:
            entries.append(MediaItem(f"b{number}", "b.png", "image", data=b"no picture"))
    done = list(embed_items(embedder_of(ToyEncoder()), entries))
    names = [e.item.occurrence_id if e.item else e.result.occurrence_id for e in done if e]  # type: ignore[union-attr]
    assert names == [e.occurrence_id for e in entries if not isinstance(e, Recheck)]
    failed = [e for e in done if e.result is not None and e.result.status == AddStatus.FAILED]
    assert {e.result.reason for e in failed if e.result} == {"UNSUPPORTED_MEDIA"}
    assert not threads_of_the_pipeline()


def test_batches_are_cut_the_same_way_each_time() -> None:
    def batches() -> list[tuple[Modality, int]]:
        encoder = ToyEncoder()
        mixed: list[PipelineEntry] = []
        for number, item in enumerate(pictures(100)):
            mixed.append(item)
            if number % 4 == 0:
                mixed.append(MediaItem(f"s{number}", "s.wav", "audio", data=sound("red", "red")))
        list(embed_items(embedder_of(encoder), mixed))
        return encoder.batches

    assert batches() == batches()


class Counting:
    """Fake items of one megabyte, decoded by nobody; counts how many are alive."""

    def __init__(self, held: int) -> None:
        self.most = 0
        self._alive = 0
        self._lock = threading.Lock()
        self.data = np.zeros(held, np.uint8)

    def read(self, entry: PipelineEntry) -> Loaded:
        assert isinstance(entry, MediaItem)
        return Loaded(entry, b"", None)

    def begin(self, loaded: Loaded) -> Iterator[Decoded]:
        with self._lock:
            self._alive += 1
            self.most = max(self.most, self._alive)
        yield Decoded(self.data)

    def taken(self) -> None:
        with self._lock:
            self._alive -= 1


@pytest.mark.parametrize(
    ("bounds", "most"),
    [
        # Ten items' bytes, one item more for each thread, and the first, which may always go on.
        (Bounds(threads=2, held_bytes=10_000, items=64), 10 + 2 + 1),
        (Bounds(held_bytes=1 << 30, items=8), 8),
    ],
)
def test_however_slow_the_network_only_so_many_items_are_decoded(bounds: Bounds, most: int) -> None:
    count, counting = 10_000, Counting(1_000)
    entries = (MediaItem(f"p{n}", "p", "image", data=b"") for n in range(count))
    seen = 0
    with Prefetch(
        entries, counting.read, counting.begin, new_stages(), lambda: False, bounds
    ) as prefetch:
        for slot in prefetch:
            for _ in prefetch.decoded(slot):
                counting.taken()
            seen += 1
    assert seen == count
    assert 1 < counting.most <= most


def test_of_one_recording_only_so_many_windows_wait() -> None:
    count, waiting, most = 20_000, 0, 0
    lock = threading.Lock()

    def begin(loaded: Loaded) -> Iterator[Decoded]:
        nonlocal waiting, most
        for number in range(count):
            with lock:
                waiting += 1
                most = max(most, waiting)
            yield Decoded(np.zeros(1, np.uint8), number, number + 1)

    night = MediaItem("night", "night.wav", "audio", data=b"")
    bounds = Bounds(windows=8)
    with Prefetch(
        [night], lambda entry: Loaded(night, b"", None), begin, new_stages(), never, bounds
    ) as prefetch:
        taken = []
        for slot in prefetch:
            for window in prefetch.decoded(slot):
                with lock:
                    waiting -= 1
                taken.append(window.start_s)
    assert taken == list(range(count))
    # Eight, and one that is out of the queue and not yet counted as taken.
    assert 1 < most <= 8 + 1


def test_a_listing_is_read_no_faster_than_its_items_are_embedded() -> None:
    taken: list[int] = []

    def listing() -> Iterator[MediaItem]:
        for number, item in enumerate(pictures(10_000)):
            taken.append(number)
            yield item

    stream = embed_items(embedder_of(ToyEncoder()), listing())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(taken) < 200
    assert not threads_of_the_pipeline()


class Deaf(ToyEncoder):
    """Hears nothing, quickly; its windows are those of a real encoder."""

    windowing: AudioWindowing | None = AudioWindowing(48_000, 3.0, 3.0)

    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        rows = np.zeros((len(batch), DIM), np.float32)
        rows[:, 0] = 1
        return rows


def test_an_hour_of_sound_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "night.wav"
    second = np.zeros(48_000, "<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        for _ in range(3600):
            file.writeframesraw(second)
    item = MediaItem("night", "night.wav", "audio", path=path)
    embedder = embedder_of(Deaf())
    embedder.encoder()
    tracemalloc.start()
    try:
        [done] = embed_items(embedder, [item])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(done.embeddings) == 1200
    assert done.fingerprint is not None
    assert done.fingerprint.size == path.stat().st_size
    whole = 3600 * 48_000 * 4
    assert peak < whole / 10


def test_cancelling_ends_with_what_is_embedded() -> None:
    stop = threading.Event()
    done: list[Embedded] = []
    for embedded in embed_items(embedder_of(ToyEncoder()), pictures(500), cancelled=stop.is_set):
        done.append(embedded)
        if len(done) == 20:
            stop.set()
    assert 20 <= len(done) < 100
    assert all(len(e.embeddings) == 1 for e in done)
    assert not threads_of_the_pipeline()


class Broken(ToyEncoder):
    def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
        raise RuntimeError("the card fell off")


def broken_listing() -> Iterator[MediaItem]:
    yield from pictures(3)
    raise OSError("the disk fell off")


def test_errors_of_the_network_and_of_the_listing_end_all_threads() -> None:
    with pytest.raises(RuntimeError, match="card"):
        list(embed_items(embedder_of(Broken()), pictures(100)))
    done: list[Embedded] = []
    with pytest.raises(OSError, match="disk"):
        done.extend(embed_items(embedder_of(ToyEncoder()), broken_listing()))
    assert [len(embedded.embeddings) for embedded in done] == [1, 1, 1]
    assert not threads_of_the_pipeline()


def test_no_item_is_lost_if_the_network_cannot_embed_a_full_batch() -> None:
    class Damaged(ToyEncoder):
        def encode(self, modality: Modality, batch: Sequence[Media]) -> NDArray[np.float32]:
            raise ModelDamagedError("an embedding holds NaN")

    with pytest.raises(ModelDamagedError, match="NaN"):
        list(embed_items(embedder_of(Damaged()), pictures(NETWORK_BATCH)))
    assert not threads_of_the_pipeline()


def test_whatever_a_decoder_raises_only_its_item_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(item: MediaItem, *_: object) -> Iterator[Decoded]:
        if item.occurrence_id == "p1":
            raise ZeroDivisionError("a header that lies")
        yield Decoded(np.zeros((4, 4, 3), np.uint8))

    monkeypatch.setattr("bittern.service.ingest.embedding.decode", explode)
    done = list(embed_items(embedder_of(ToyEncoder()), pictures(3)))
    assert [e.result and e.result.reason for e in done] == [None, "UNREADABLE_MEDIA", None]
    assert "p1.png" in str(done[1].result)


def test_an_unchanged_file_is_recognised_by_its_time_or_its_content(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(picture("red"))
    stat = path.stat()
    item = MediaItem("a", "a.png", "image", path=path)
    same = fingerprint_of(picture("red"))
    lies = Fingerprint("0" * 32, stat.st_size, stat.st_mtime_ns)
    entries: list[PipelineEntry] = [
        Recheck(item, lies, moved=False, changed="renew"),  # time and size are enough
        Recheck(item, lies, moved=True, changed="refuse"),  # in another folder they do not
        Recheck(item, same, moved=False, changed="renew"),
        Recheck(item, fingerprint_of(picture("blue")), moved=False, changed="renew"),
    ]
    done = list(embed_items(embedder_of(ToyEncoder()), entries))
    reasons = [e.result.reason if e.result else "" for e in done]
    assert reasons == [UNCHANGED, "DUPLICATE_OBSERVATION", UNCHANGED, ""]
    assert [e.renews for e in done] == [False, False, False, True]


def test_every_stage_counts_its_work() -> None:
    stages = new_stages()
    items = [*pictures(30), MediaItem("s", "s.wav", "audio", data=sound("red", "blue"))]
    list(embed_items(embedder_of(ToyEncoder()), items, stages))
    assert [stages[name].items for name in ("list", "read", "decode", "network")] == [
        31,
        31,
        32,
        32,
    ]
    assert stages["read"].bytes == 30 * len(picture("red")) + len(sound("red", "blue"))
    assert all(stages[name].busy_s > 0 for name in ("list", "read", "decode", "network"))
