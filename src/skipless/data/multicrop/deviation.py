"""Deviation of the fast augmentation from the exact one, with the same parameters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from skipless.data.folder import read_image
from skipless.data.loading.seeding import derive_seed
from skipless.data.multicrop.apply import augment, to_pixels
from skipless.data.multicrop.config import MultiCropConfig
from skipless.data.multicrop.params import CropParams, sample_crop_params
from skipless.display import Record, Table
from skipless.display.axes import bars
from skipless.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, repr=False)
class Deviation(Record):
    """Mean absolute differences between the pixels (0 to 1) of two augmentations.

    Attributes:
        method: what was compared.
        crops: fast against exact crops, averaged over all crops.
        largest: difference of the crop that differs most.
        hue: fast against exact, if only the hue is shifted, by the largest amount of the config.
        hue_effect: exact against no hue shift, as a scale for `hue`.
        blur: fast against exact, if there is only a blur with the largest sigma of the config.
        blur_effect: exact against no blur, as a scale for `blur`.
        n: number of crops.
        seed: seed of the parameters.
    """

    method: str
    crops: float
    largest: float
    hue: float
    hue_effect: float
    blur: float
    blur_effect: float
    n: int
    seed: int

    def _summary(self) -> str:
        return (
            f"crops differ by {self.crops:.3g} on average, {self.largest:.3g} at most; n = {self.n}, seed {self.seed}"
        )

    def tables(self) -> tuple[Table, ...]:
        """A row for each difference, beside what it can be compared with."""
        rows = [
            ("all of the augmentation", f"{self.crops:.3g}", ""),
            ("the crop that differs most", f"{self.largest:.3g}", ""),
            ("hue alone", f"{self.hue:.3g}", f"{self.hue_effect:.3g}"),
            ("blur alone", f"{self.blur:.3g}", f"{self.blur_effect:.3g}"),
        ]
        caption = f"{self.method}; n = {self.n} crops, seed {self.seed}"
        return (Table(("difference", "fast and exact", "with and without"), rows, caption, align="lrr"),)

    def _draw(self, axes: "Axes") -> None:
        effects = {
            "hue": self.hue,
            "hue's effect": self.hue_effect,
            "blur": self.blur,
            "blur's effect": self.blur_effect,
        }
        bars(axes, {"crops": self.crops, "largest": self.largest, **effects}, "mean difference of pixels in 0 to 1")


def measure_deviation(images: Sequence[Path], config: MultiCropConfig | None = None, *, seed: int = 0) -> Deviation:
    """Compare fast and exact crops with the same boxes and factors.

    Args:
        images: image files; one set of crops is made of each.
        config: options of the augmentation; its mode is not used.
        seed: seed of the parameters.

    Raises:
        InputError: if no image is given or one cannot be read.
    """
    config = config or MultiCropConfig()
    if not images:
        raise InputError("no images to measure on; give at least one file")
    rows = []
    for index, file in enumerate(images):
        image = read_image(file)
        random = Random(derive_seed(seed, "crops", 0, index))
        pixels = to_pixels(image)
        for draw in sample_crop_params(random, image.height, image.width, config):
            bare = CropParams(draw.box, draw.size)
            turned = replace(bare, jitter=(("hue", config.jitter[3]),))
            blurred = replace(bare, sigma=config.blur_sigma[1])
            plain = augment(pixels, bare)
            exact = [augment(pixels, one) for one in (draw, turned, blurred)]
            fast = [augment(pixels, one, "fast") for one in (draw, turned, blurred)]
            pairs = [*zip(fast, exact, strict=True), (plain, exact[1]), (plain, exact[2])]
            rows.append([float(np.abs(a - b).mean()) / 255 for a, b in pairs])
    crops, hue, blur, hue_effect, blur_effect = np.mean(rows, 0).tolist()
    return Deviation(
        method="mean absolute difference of pixels in 0 to 1, fast against exact, same draws",
        crops=crops,
        largest=max(row[0] for row in rows),
        hue=hue,
        hue_effect=hue_effect,
        blur=blur,
        blur_effect=blur_effect,
        n=len(rows),
        seed=seed,
    )
