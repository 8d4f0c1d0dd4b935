"""MultiCropConfig: sizes, ranges and probabilities of the multi-crop augmentation, by default DINO's."""

from dataclasses import dataclass
from typing import Literal

from skipless.choices import CropMode as Mode
from skipless.data.config import IMAGENET_MEAN, IMAGENET_STD
from skipless.errors import InputError

GLOBAL_CROPS = 2  # the teacher sees both; only the second one is solarised


@dataclass(frozen=True)
class MultiCropConfig:
    """DINO's augmentation (facebookresearch/dino): two global crops and several local crops of every image.

    Attributes:
        global_size: side of the two global crops in pixels.
        local_size: side of the local crops in pixels.
        local_crops: number of local crops.
        global_scale: range of the share of the image's area that a global crop covers.
        local_scale: range of the share of the image's area that a local crop covers.
        ratio: range of the aspect ratio (width / height) of a crop before resizing; its logarithm is uniform.
        flip: probability of mirroring.
        jitter: strengths of brightness, contrast, saturation and hue (in turns), applied in random order.
        jitter_share: probability of the colour jitter.
        grey: probability of conversion to grey.
        blur: probabilities of a Gaussian blur for the first global, the second global and the local crops.
        blur_sigma: range of the blur's standard deviation in pixels of the crop.
        solarise: probability of solarising the second global crop, which inverts levels from 128 on.
        mean: mean of every channel, for pixels in 0 to 1.
        std: standard deviation of every channel, for pixels in 0 to 1.
        mode: `exact` computes the same as PIL, operation by operation; `fast` approximates it, with one colour matrix
            for jitter and grey (see `skipless.data.multicrop.fast` for its deviation).
        pixels: `float32` gives normalised crops; `uint8` leaves it to the device to normalise them (`normalised`).

    Raises:
        InputError: if a field is out of range; the message names it.

    Example:
        >>> MultiCropConfig(local_crops=6).sizes
        (224, 224, 96, 96, 96, 96, 96, 96)
    """

    global_size: int = 224
    local_size: int = 96
    local_crops: int = 8
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.2, 0.1)
    jitter_share: float = 0.8
    grey: float = 0.2
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.2
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    mode: Mode = "exact"
    pixels: Literal["float32", "uint8"] = "float32"

    def __post_init__(self) -> None:
        for name, least in (("global_size", 1), ("local_size", 1), ("local_crops", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name} {getattr(self, name)} is too small; give at least {least}")
        for name, most in (("global_scale", 1.0), ("local_scale", 1.0), ("ratio", None), ("blur_sigma", None)):
            low, high = getattr(self, name)
            if not (0 < low <= high and (most is None or high <= most)):
                bound = "" if most is None else f" <= {most:g}"
                raise InputError(f"{name} {(low, high)} is no range; give (low, high) with 0 < low <= high{bound}")
        for name in ("flip", "jitter_share", "grey", "blur", "solarise"):
            value = getattr(self, name)
            if not all(0 <= share <= 1 for share in (value if isinstance(value, tuple) else (value,))):
                raise InputError(f"{name} {value} is no probability; give 0 to 1")
        if not (all(0 <= strength <= 1 for strength in self.jitter[:3]) and 0 <= self.jitter[3] <= 0.5):
            raise InputError(
                f"jitter {self.jitter} is out of range; give three strengths in 0 to 1 and turns in 0 to 0.5"
            )
        if not all(deviation > 0 for deviation in self.std):
            raise InputError(f"std {self.std} cannot be divided by; give positive numbers")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of every crop, global crops first."""
        return (self.global_size,) * GLOBAL_CROPS + (self.local_size,) * self.local_crops
