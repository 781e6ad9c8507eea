from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bittern.encoders.augmentation import (
    PICTURE_SETS,
    SOUND_SETS,
    PictureAugmentation,
    PicturePlan,
    SoundAugmentation,
    SoundPlan,
    picture_augmentation,
    sound_augmentation,
    view_generator,
    view_seed,
)
from bittern.encoders.base import Audio, Image
from bittern.errors import InvalidInputError

RATE = 8_000


def picture(height: int = 40, width: int = 60, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def window(samples: int = 2 * RATE, seed: int = 0, level: float = 0.3) -> Audio:
    noise = np.random.default_rng(seed).standard_normal(samples)
    return np.clip(level * noise, -1, 1).astype(np.float32)


def plans(name: str, count: int) -> list[PicturePlan]:
    augmentation = PICTURE_SETS[name]
    assert augmentation is not None
    return [augmentation.draw(300, 400, view_generator(1, 0, i, 0)) for i in range(count)]


def share(chosen: list[bool]) -> float:
    return sum(chosen) / len(chosen)


def energy(audio: Audio, low: float, high: float) -> float:
    """Energy between two frequencies in Hz."""
    power = np.abs(np.fft.rfft(audio.astype(np.float64))) ** 2
    hertz = np.fft.rfftfreq(len(audio), 1 / RATE)
    return float(power[(hertz >= low) & (hertz <= high)].sum())


# Seeds


def test_views_differ_in_seed_epoch_item_and_view() -> None:
    numbers = [(s, e, i, v) for s in (0, 1) for e in (0, 1) for i in (0, 1) for v in (0, 1)]
    first = {int(view_generator(*four).integers(1 << 63)) for four in numbers}
    assert len(first) == len(numbers)


@pytest.mark.parametrize("numbers", [(-1, 0, 0, 0), (0, 0, 1 << 32, 0), (0, 0, 0, -5)])
def test_numbers_that_no_seed_can_hold_are_refused(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(InvalidInputError, match="whole number from 0"):
        view_seed(*numbers)


# Pictures


@pytest.mark.parametrize("name", PICTURE_SETS)
def test_the_same_seed_gives_the_same_view(name: str) -> None:
    augment = picture_augmentation(name, 32)
    for item in range(10):
        again = augment(picture(), view_generator(7, 2, item, 1))
        assert np.array_equal(augment(picture(), view_generator(7, 2, item, 1)), again)


@pytest.mark.parametrize("name", ["published", "plants"])
def test_views_depend_neither_on_order_nor_on_threads(name: str) -> None:
    augment = picture_augmentation(name, 32)

    def view(item: int) -> Image:
        return augment(picture(seed=item), view_generator(3, 0, item, 0))

    alone = [view(item) for item in range(24)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(view, reversed(range(24))))[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_views_neither_read_nor_move_the_global_state() -> None:
    augment = picture_augmentation("published", 32)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = augment(picture(), view_generator(0, 0, 0, 0))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert np.array_equal(augment(picture(), view_generator(0, 0, 0, 0)), one)


@pytest.mark.parametrize("name", ["published", "plants"])
def test_a_picture_is_never_changed_and_may_be_read_only(name: str) -> None:
    image = picture()
    image.setflags(write=False)
    before = image.copy()
    augment = picture_augmentation(name, 32)
    views = [augment(image, view_generator(0, 0, item, 0)) for item in range(30)]
    assert np.array_equal(image, before)
    assert len({view.tobytes() for view in views}) == 30


@pytest.mark.parametrize("name", ["published", "plants"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (2, 3), (700, 500)])
def test_pictures_of_any_shape_become_views_of_one_size(name: str, shape: tuple[int, int]) -> None:
    augment = picture_augmentation(name, 24)
    for item in range(12):
        view = augment(picture(*shape), view_generator(0, 0, item, 0))
        assert view.shape == (24, 24, 3)
        assert view.dtype == np.uint8
        assert view.flags.c_contiguous


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (30, 4000), (300, 400)])
def test_crops_lie_within_the_picture(shape: tuple[int, int]) -> None:
    augmentation = PictureAugmentation()
    for item in range(200):
        top, left, height, width = augmentation.draw(*shape, view_generator(0, 0, item, 0)).crop
        assert 0 <= top < top + height <= shape[0]
        assert 0 <= left < left + width <= shape[1]


def test_crops_keep_two_fifths_of_the_picture_or_more() -> None:
    areas = [plan.crop[2] * plan.crop[3] / (300 * 400) for plan in plans("published", 500)]
    assert min(areas) > 0.39
    assert np.quantile(areas, 0.05) < 0.5
    assert max(areas) > 0.9


def test_the_published_set_has_the_published_probabilities() -> None:
    drawn = plans("published", 4000)  # four standard errors are at most 0.032
    assert share([p.flip for p in drawn]) == pytest.approx(0.5, abs=0.032)
    assert share([bool(p.jitter) for p in drawn]) == pytest.approx(0.8, abs=0.026)
    assert share([p.greyscale for p in drawn]) == pytest.approx(0.2, abs=0.026)
    assert share([p.blur is not None for p in drawn]) == pytest.approx(0.1, abs=0.019)
    assert share([p.solarize is not None for p in drawn]) == pytest.approx(0.1, abs=0.019)
    assert not any(p.affine or p.posterize for p in drawn)


def test_plants_are_never_blurred_greyed_or_solarized() -> None:
    drawn = plans("plants", 2000)
    assert not any(p.blur or p.greyscale or p.solarize for p in drawn)
    assert share([p.affine is not None for p in drawn]) == pytest.approx(0.5, abs=0.045)
    assert share([p.posterize is not None for p in drawn]) == pytest.approx(0.2, abs=0.036)
    assert share([bool(p.jitter) for p in drawn]) == pytest.approx(0.8, abs=0.036)


def test_a_fifth_of_the_views_are_grey_in_their_pixels() -> None:
    augment = picture_augmentation("published", 16)
    views = [augment(picture(20, 20), view_generator(5, 0, item, 0)) for item in range(500)]
    grey = [bool((v == v[:, :, :1]).all()) for v in views]
    assert share(grey) == pytest.approx(0.2, abs=0.072)


def test_jitter_changes_all_four_in_any_order_within_its_limits() -> None:
    jitters = [p.jitter for p in plans("published", 400) if p.jitter]
    assert len({tuple(name for name, _ in jitter) for jitter in jitters}) == 24
    for jitter in jitters:
        amounts = dict(jitter)
        assert -0.2 <= amounts.pop("hue") <= 0.2
        assert all(0.6 <= amount <= 1.4 for amount in amounts.values())
        assert set(amounts) == {"brightness", "contrast", "saturation"}


def plain(**changes: object) -> PicturePlan:
    return PicturePlan(crop=(0, 0, 32, 32), flip=False, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({}, lambda before, after: (before == after).all()),
        ({"solarize": 128}, lambda b, a: (a == np.where(b < 128, b, 255 - b)).all()),
        ({"posterize": 4}, lambda b, a: (a == b & 0xF0).all()),
        ({"blur": 2.0}, lambda b, a: a.std() < 0.5 * b.std()),
        ({"jitter": (("brightness", 0.6),)}, lambda b, a: a.mean() < 0.65 * b.mean()),
    ],
)
def test_an_operation_does_what_its_plan_says(
    changes: dict[str, object], holds: Callable[[Image, Image], bool]
) -> None:
    image = picture(32, 32)
    assert holds(image, PictureAugmentation(size=32).apply(image, plain(**changes)))


def test_a_flip_mirrors_left_and_right() -> None:
    image = picture(32, 32)
    view = PictureAugmentation(size=32).apply(image, PicturePlan((0, 0, 32, 32), flip=True))
    assert np.array_equal(view, image[:, ::-1])


def test_affine_maps_leave_no_black_corners() -> None:
    bright = np.full((64, 64, 3), 200, dtype=np.uint8)
    augmentation = PictureAugmentation(size=64, affine_p=1.0, jitter_p=0.0)
    for item in range(20):
        assert augmentation(bright, view_generator(0, 0, item, 0)).min() >= 199


def test_none_returns_the_picture_itself() -> None:
    image = picture()
    assert picture_augmentation("none")(image, view_generator(0, 0, 0, 0)) is image


@pytest.mark.parametrize("name", PICTURE_SETS)
def test_what_is_no_picture_is_refused(name: str) -> None:
    for wrong in (picture().astype(np.float32), picture()[:, :, 0], picture()[:0]):
        with pytest.raises(InvalidInputError, match="must be a picture"):
            picture_augmentation(name)(wrong, view_generator(0, 0, 0, 0))  # type: ignore[arg-type]


def test_an_unknown_set_is_refused_with_the_names_of_the_known() -> None:
    with pytest.raises(InvalidInputError, match="published, plants, none"):
        picture_augmentation("strong")
    with pytest.raises(InvalidInputError, match="masking, masking-noise, none"):
        sound_augmentation("strong")


@pytest.mark.parametrize("size", [0, 7, 100_000])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(InvalidInputError, match="out of range"):
        picture_augmentation("published", size)


# Sounds


@pytest.mark.parametrize("name", SOUND_SETS)
@pytest.mark.parametrize("samples", [1, 2, 997, 2 * RATE])
def test_a_window_keeps_its_length_and_stays_within_full_scale(name: str, samples: int) -> None:
    augment = sound_augmentation(name, RATE)
    for item in range(10):
        view = augment(window(samples, level=1.0), view_generator(0, 0, item, 0))
        assert view.shape == (samples,)
        assert view.dtype == np.float32
        assert np.isfinite(view).all()
        assert np.abs(view).max() <= 1.0


@pytest.mark.parametrize("name", ["masking", "masking-noise"])
def test_sound_views_depend_neither_on_order_nor_on_threads(name: str) -> None:
    augment = sound_augmentation(name, RATE)

    def view(item: int) -> Audio:
        return augment(window(seed=item), view_generator(3, 0, item, 0))

    alone = [view(item) for item in range(16)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(view, reversed(range(16))))[::-1]
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert len({v.tobytes() for v in alone}) == 16


def test_a_window_is_never_changed_and_may_be_read_only() -> None:
    audio = window()
    audio.setflags(write=False)
    before = audio.copy()
    sound_augmentation("masking-noise", RATE)(audio, view_generator(0, 0, 0, 0))
    assert np.array_equal(audio, before)


@pytest.mark.parametrize("name", SOUND_SETS)
def test_a_silent_window_stays_silent(name: str) -> None:
    silent = np.zeros(RATE, dtype=np.float32)
    for item in range(20):
        assert not sound_augmentation(name, RATE)(silent, view_generator(0, 0, item, 0)).any()


@pytest.mark.parametrize("shift", [0, 1, 1234, 2 * RATE - 1])
def test_a_time_shift_is_circular(shift: int) -> None:
    audio = window(level=0.1)
    view = SoundAugmentation(RATE).apply(audio, SoundPlan(shift=shift))
    assert np.array_equal(view[shift:], audio[: len(audio) - shift])
    assert np.array_equal(view[:shift], audio[len(audio) - shift :])


@pytest.mark.parametrize("band", [(1000.0, 1500.0), (0.0, 300.0), (3500.0, 4000.0)])
def test_a_band_is_taken_out_and_the_rest_is_left(band: tuple[float, float]) -> None:
    audio = window(level=0.1)
    low, high = band
    view = SoundAugmentation(RATE).apply(audio, SoundPlan(bands=(band,)))
    assert energy(view, low, high) < 1e-8 * energy(audio, low, high)
    for kept in ((0.0, low - 60.0), (high + 60.0, RATE / 2)):
        assert energy(view, *kept) == pytest.approx(energy(audio, *kept), rel=1e-4)


def test_no_band_comes_back_when_a_view_is_too_loud() -> None:
    loud = np.sign(np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)).astype(np.float32)
    plan = SoundPlan(bands=((500.0, 1500.0),), gain_db=6.0)
    view = SoundAugmentation(RATE).apply(loud, plan)
    assert energy(view, 500, 1500) < 1e-8 * energy(loud, 500, 1500)
    assert 0.999 < np.abs(view).max() <= 1.0


def test_a_stretch_is_silenced_with_soft_edges_and_the_rest_is_left() -> None:
    audio = window(level=0.1)
    view = SoundAugmentation(RATE).apply(audio, SoundPlan(silences=((4000, 800),)))
    assert not view[4000:4800].any()
    assert np.array_equal(view[:3960], audio[:3960])
    assert np.array_equal(view[4840:], audio[4840:])
    assert np.abs(view[3960:4000]).sum() > 0


def test_noise_has_the_requested_level_below_the_sound() -> None:
    audio = window(level=0.1)
    plan = SoundPlan(noise_db=20.0, noise_seed=9)
    added = SoundAugmentation(RATE).apply(audio, plan) - audio
    assert np.std(added) / np.std(audio) == pytest.approx(0.1, rel=0.05)


def test_masks_stay_within_their_shares() -> None:
    masking = SOUND_SETS["masking"]
    assert masking is not None
    for item in range(300):
        plan = masking.draw(10_000, view_generator(0, 0, item, 0))
        assert all(s >= 0 and s + n <= 10_000 and n <= 1_000 for s, n in plan.silences)
        assert all(0 <= low <= high <= 24_000.001 for low, high in plan.bands)
        assert -6 <= plan.gain_db <= 6
        assert plan.noise_db is None


@pytest.mark.parametrize("name", SOUND_SETS)
def test_what_is_no_window_is_refused(name: str) -> None:
    damaged = window()
    damaged[5] = np.nan
    for wrong in (window()[:0], window().astype(np.float64), window().reshape(2, -1), damaged):
        with pytest.raises(InvalidInputError):
            sound_augmentation(name, RATE)(wrong, view_generator(0, 0, 0, 0))  # type: ignore[arg-type]
