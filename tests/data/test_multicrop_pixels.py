"""Pixels: every operation beside PIL's and torchvision's, and the fast choice beside the exact one."""

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as F
from PIL import Image, ImageFilter, ImageOps
from reference import multicrop as published

from skipless.data.multicrop import MultiCropConfig, measure_deviation, normalised
from skipless.data.multicrop.apply import augment, to_pixels
from skipless.data.multicrop.blur import gaussian_blur_
from skipless.data.multicrop.colour import colour_jitter_, to_grey_
from skipless.data.multicrop.fast import colour_matrix, sampled_gaussian_blur_
from skipless.data.multicrop.params import Box, CropParams, sample_crop_params
from skipless.data.multicrop.planes import LEVELS, crop_and_resize, pixel_scale_of
from skipless.errors import InputError


def noise(height: int = 160, width: int = 200) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def photo(height: int = 150, width: int = 200) -> Image.Image:
    """Smooth shapes with some grain: what a photo is to these operations."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / a + y / b) for a, b in ((9, 23), (31, 7), (13, 17))]
    grain = np.random.default_rng(1).normal(0, 6, (height, width, 3))
    return Image.fromarray((128 + 110 * np.stack(waves, -1) + grain).clip(0, 255).astype(np.uint8))


IMAGES = {"noise": noise, "photo": photo, "greyish": lambda: photo().convert("L").convert("RGB")}


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
@pytest.mark.parametrize(
    ("name", "amounts"),
    [
        *((name, (0.0, 0.6, 0.83, 1.0, 1.17, 1.4)) for name in ("brightness", "contrast", "saturation")),
        ("hue", (-0.5, -0.1, -0.03, 0.0, 0.001, 0.05, 0.1)),
    ],
)
def test_jitter_gives_pils_levels(image, name: str, amounts: tuple[float, ...]) -> None:
    for amount in amounts:
        expected = published.planes(published.jittered(image(), name, amount))
        np.testing.assert_array_equal(colour_jitter_(published.planes(image()), ((name, amount),)), expected)


def test_every_colour_has_pils_hue() -> None:
    """Every third level of every channel, and the extremes: all sectors, all borders between them."""
    steps = np.array([*range(0, 255, 3), 255], np.uint8)
    colours = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), -1).reshape(len(steps), -1, 3))
    for turns in (-0.07, 0.1):
        expected = published.planes(F.adjust_hue(colours, turns))
        np.testing.assert_array_equal(colour_jitter_(published.planes(colours), (("hue", turns),)), expected)


@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES)
def test_grey_and_solarise_give_pils_levels(image) -> None:
    np.testing.assert_array_equal(to_grey_(published.planes(image())), published.planes(F.to_grayscale(image(), 3)))
    solarised = LEVELS.solarise_(published.planes(image()))
    np.testing.assert_array_equal(solarised, published.planes(ImageOps.solarize(image())))


def test_blur_gives_pils_levels() -> None:
    """At sigmas as they are drawn; where float32 sums meet a tie, one level apart."""
    random, apart = Random(0), []
    for sigma in [random.uniform(0.1, 2) for _ in range(20)] + [3.3]:
        expected = published.planes(noise(64, 80).filter(ImageFilter.GaussianBlur(sigma)))
        difference = np.abs(gaussian_blur_(published.planes(noise(64, 80)), sigma) - expected)
        assert difference.max() <= 2, sigma
        apart.append((difference > 0).mean())
    assert np.mean(apart) < 0.005


def test_blur_is_pils_up_to_the_border_of_tiny_crops() -> None:
    for size in (1, 2, 5):
        expected = published.planes(noise(size, size).filter(ImageFilter.GaussianBlur(1.7)))
        np.testing.assert_array_equal(gaussian_blur_(published.planes(noise(size, size)), 1.7), expected)


@pytest.mark.parametrize("image", [photo, noise], ids=["photo", "noise"])
@pytest.mark.parametrize("box", [Box(3, 5, 120, 150), Box(0, 0, 40, 33), Box(10, 20, 96, 96), Box(7, 9, 1, 2)], ids=str)
def test_resizing_is_pils_within_two_levels(image, box: Box) -> None:
    for flip in (False, True):
        ours = crop_and_resize(to_pixels(image()), CropParams(box, 96, flip=flip)).float().numpy()
        expected = published.resized(image(), box, 96)
        difference = np.abs(ours - published.planes(ImageOps.mirror(expected) if flip else expected))
        assert difference.max() <= 2
        assert difference.mean() < 0.01


def test_whole_crops_are_the_published_ones() -> None:
    config, image = MultiCropConfig(global_size=64, local_size=32), photo()
    means = []
    for seed in range(6):
        for draw in sample_crop_params(Random(seed), image.height, image.width, config):
            expected = published.planes(published.augmented(image, draw))
            means.append(np.abs(augment(to_pixels(image), draw) - expected).mean())
    # Solarising a level of 127 for 128 does no harm; a hue that jumps with one level of an almost grey pixel little.
    assert max(means) < 0.5
    assert np.mean(means) < 0.05


def test_normalising_is_torchvisions() -> None:
    config, image = MultiCropConfig(), photo(40, 40)
    expected = F.normalize(F.to_tensor(image), list(config.mean), list(config.std))
    ours = torch.from_numpy(pixel_scale_of(config).convert_(published.planes(image)))
    torch.testing.assert_close(ours, expected, atol=2e-6, rtol=0)
    levels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    torch.testing.assert_close(normalised(levels, config), expected, atol=2e-6, rtol=0)


def test_the_fast_map_is_the_composed_operations_where_nothing_is_clipped() -> None:
    """Brightness, contrast, saturation and grey are affine in PIL, too, up to rounding to levels at every step."""
    soft = Image.fromarray((np.array(photo()) // 4 + 90).astype(np.uint8))
    box = Box(0, 0, soft.height, soft.width)
    jitter = (("contrast", 0.7), ("saturation", 1.2), ("brightness", 1.1))
    for draw in (CropParams(box, 64, jitter=jitter), CropParams(box, 64, jitter=jitter[::-1], grey=True)):
        fast, exact = (augment(to_pixels(soft), draw, mode) for mode in ("fast", "exact"))
        assert np.abs(fast - exact).max() < 4
        assert np.abs(fast - exact).mean() < 1.5  # PIL cuts off after each of three or four operations


def test_the_fast_hue_turns_the_way_that_pils_does() -> None:
    red = np.array([200.0, 50.0, 50.0])
    turned = colour_matrix((("hue", 1 / 3),), False, red)[0] @ red
    assert turned.argmax() == 1
    assert colour_matrix((("hue", 0.25),), False, red)[0] @ np.ones(3) == pytest.approx(1)


def test_the_fast_blur_is_a_gaussian() -> None:
    spot = np.zeros((3, 41, 41), np.float32)
    spot[:, 20, 20] = 1
    profile = sampled_gaussian_blur_(spot, 1.5)[0].sum(0)
    assert profile.sum() == pytest.approx(1, abs=1e-5)
    assert (profile * (np.arange(41) - 20) ** 2).sum() == pytest.approx(1.5**2, rel=0.05)


def test_fast_units_agree() -> None:
    config, image = MultiCropConfig(mode="fast"), to_pixels(photo())
    unit = pixel_scale_of(config)
    for draw in sample_crop_params(Random(3), 150, 200, replace(config, global_size=48, local_size=32, solarise=1)):
        levels = augment(image, draw, "fast")
        assert levels.min() > -0.01
        assert levels.max() < 255.01
        np.testing.assert_allclose(augment(image, draw, "fast", unit), unit.convert_(levels), atol=1e-4)


def test_the_fast_deviation_is_measured(tmp_path: Path) -> None:
    photo().save(tmp_path / "a.png")
    config = MultiCropConfig(global_size=48, local_size=32, local_crops=2)
    deviation = measure_deviation([tmp_path / "a.png"], config, seed=4)
    assert deviation.n == 4
    assert deviation.seed == 4
    assert 0 < deviation.crops <= deviation.largest < 0.3
    assert 0 < deviation.hue < 2 * deviation.hue_effect
    assert 0 < deviation.blur < 0.2 * deviation.blur_effect
    with pytest.raises(InputError, match="at least one file"):
        measure_deviation([])
