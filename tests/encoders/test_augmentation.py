from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bittern.encoders.augmentation import (
    PICTURE_SETS,
    PictureSet,
    crop,
    picture_view,
    silenced,
    sound_view,
    view_generator,
    with_gain,
    without_bands,
)
from bittern.encoders.base import Audio, Image

RATE = 8_000


def only(**probabilities: float) -> PictureSet:
    return PictureSet(**{"flip": 0.0, "jitter": 0.0, **probabilities})


NEVER = only()


def picture(height: int = 40, width: int = 60, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def window(samples: int = 2 * RATE, seed: int = 0, level: float = 0.3) -> Audio:
    noise = np.random.default_rng(seed).standard_normal(samples)
    return np.clip(level * noise, -1, 1).astype(np.float32)


def energy(audio: Audio, low: float, high: float) -> float:
    """Energy between two frequencies in Hz."""
    power = np.abs(np.fft.rfft(audio.astype(np.float64))) ** 2
    hertz = np.fft.rfftfreq(len(audio), 1 / RATE)
    return float(power[(hertz >= low) & (hertz <= high)].sum())


def photograph_view(name: str) -> Callable[[int], Image]:
    return lambda item: picture_view(
        picture(seed=item), PICTURE_SETS[name], view_generator(3, 0, item, 0), side=32
    )


def recording_view(item: int) -> Audio:
    return sound_view(window(seed=item), RATE, view_generator(3, 0, item, 0))


VIEWS = [*map(photograph_view, PICTURE_SETS), recording_view]


def test_views_differ_in_seed_epoch_item_and_view() -> None:
    numbers = [(s, e, i, v) for s in (0, 1) for e in (0, 1) for i in (0, 1) for v in (0, 1)]
    first = {int(view_generator(*four).integers(1 << 63)) for four in numbers}
    assert len(first) == len(numbers)


@pytest.mark.parametrize("view", VIEWS)
def test_views_depend_neither_on_order_nor_on_threads(view: Callable[[int], Image]) -> None:
    alone = [view(item) for item in range(24)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(view, reversed(range(24))))[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert len({one.tobytes() for one in alone}) == 24


def test_views_neither_read_nor_move_the_global_state() -> None:
    view = photograph_view("published")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = view(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(view(0), one)


def test_media_are_never_changed_and_may_be_read_only() -> None:
    image, audio = picture(), window()
    before = image.copy(), audio.copy()
    image.setflags(write=False)
    audio.setflags(write=False)
    for item in range(30):
        for chosen in PICTURE_SETS.values():
            picture_view(image, chosen, view_generator(0, 0, item, 0), side=16)
        sound_view(audio, RATE, view_generator(0, 0, item, 0))
    assert np.array_equal(image, before[0])
    assert np.array_equal(audio, before[1])


@pytest.mark.parametrize("name", PICTURE_SETS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (700, 500)])
def test_pictures_of_any_shape_become_views_of_one_size(name: str, shape: tuple[int, int]) -> None:
    for item in range(12):
        generator = view_generator(0, 0, item, 0)
        view = picture_view(picture(*shape), PICTURE_SETS[name], generator, side=24)
        assert view.shape == (24, 24, 3)
        assert view.dtype == np.uint8
        assert view.flags.c_contiguous


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (30, 4000), (300, 400)])
def test_crops_lie_within_the_picture(shape: tuple[int, int]) -> None:
    for item in range(200):
        for side, length in zip(crop(*shape, view_generator(0, 0, item, 0)), shape, strict=True):
            assert 0 <= side.start < side.stop <= length


def test_crops_keep_two_fifths_of_the_picture_or_more() -> None:
    crops = [crop(300, 400, view_generator(1, 0, item, 0)) for item in range(500)]
    areas = [(r.stop - r.start) * (c.stop - c.start) / (300 * 400) for r, c in crops]
    assert min(areas) > 0.39
    assert np.quantile(areas, 0.05) < 0.5
    assert max(areas) > 0.9


def test_the_sets_have_the_published_probabilities() -> None:
    published, plants = PICTURE_SETS["published"], PICTURE_SETS["plants"]
    assert published == PictureSet(flip=0.5, jitter=0.8, greyscale=0.2, blur=0.1, solarize=0.1)
    assert plants == PictureSet(flip=0.5, jitter=0.8, affine=0.5, posterize=0.2)


def test_a_fifth_of_the_views_are_grey() -> None:
    views = [
        picture_view(
            picture(20, 20), PICTURE_SETS["published"], view_generator(5, 0, i, 0), side=16
        )
        for i in range(500)
    ]
    grey = [bool((v == v[:, :, :1]).all()) for v in views]
    assert np.mean(grey) == pytest.approx(0.2, abs=0.072)


@pytest.mark.parametrize(
    ("always", "holds"),
    [
        (NEVER, lambda before, after: (before == after).all()),
        (only(flip=1.0), lambda b, a: (a == b[:, ::-1]).all()),
        (
            PictureSet(0.0, 0.0, solarize=1.0),
            lambda b, a: (a == np.where(b < 128, b, 255 - b)).all(),
        ),
        (only(posterize=1.0), lambda b, a: (a == b & 0xF0).all()),
        (only(greyscale=1.0), lambda b, a: (a == a[:, :, :1]).all()),
        (only(blur=1.0), lambda b, a: a.std() < b.std()),
        (only(jitter=1.0), lambda b, a: (a != b).any()),
    ],
)
def test_an_operation_does_what_its_name_says(
    always: PictureSet, holds: Callable[[Image, Image], bool]
) -> None:
    image = picture(300, 400)
    for item in range(5):
        before, after = (
            picture_view(image, chosen, view_generator(0, 0, item, 0), side=32)
            for chosen in (NEVER, always)
        )
        assert holds(before, after)


def test_affine_maps_leave_no_black_corners() -> None:
    bright = np.full((64, 64, 3), 200, dtype=np.uint8)
    for item in range(20):
        view = picture_view(
            bright, PictureSet(jitter=0.0, affine=1.0), view_generator(0, 0, item, 0)
        )
        assert view.min() >= 199


@pytest.mark.parametrize("samples", [1, 2, 997, 2 * RATE])
def test_a_window_keeps_its_length_and_stays_within_full_scale(samples: int) -> None:
    for item in range(10):
        view = sound_view(window(samples, level=1.0), RATE, view_generator(0, 0, item, 0))
        assert view.shape == (samples,)
        assert view.dtype == np.float32
        assert np.isfinite(view).all()
        assert np.abs(view).max() <= 1.0


def test_a_silent_window_stays_silent() -> None:
    silent = np.zeros(RATE, dtype=np.float32)
    assert not any(sound_view(silent, RATE, view_generator(0, 0, i, 0)).any() for i in range(20))


@pytest.mark.parametrize("band", [(1000.0, 1500.0), (0.0, 300.0), (3500.0, 4000.0)])
def test_a_band_is_removed_and_the_rest_is_kept(band: tuple[float, float]) -> None:
    audio = window(level=0.1)
    low, high = band
    view = without_bands(audio, [band], RATE)
    assert energy(view, low, high) < 1e-8 * energy(audio, low, high)
    for kept in ((0.0, low - 60.0), (high + 60.0, RATE / 2)):
        assert energy(view, *kept) == pytest.approx(energy(audio, *kept), rel=1e-4)


def test_no_band_comes_back_when_a_view_is_too_loud() -> None:
    loud = np.sign(np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)).astype(np.float32)
    view = with_gain(without_bands(loud, [(500.0, 1500.0)], RATE), 6.0)
    assert energy(view, 500, 1500) < 1e-8 * energy(loud, 500, 1500)
    assert 0.999 < np.abs(view).max() <= 1.0


def test_a_stretch_is_silenced_with_soft_edges_and_the_rest_is_kept() -> None:
    audio = window(level=0.1)
    view = silenced(audio, 4000, 800, 40)
    assert not view[4000:4800].any()
    assert np.array_equal(view[:3960], audio[:3960])
    assert np.array_equal(view[4840:], audio[4840:])
    assert np.abs(view[3960:4000]).sum() > 0
