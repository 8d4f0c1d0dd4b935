"""timm's image transforms, for training and for evaluation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from timm.data.auto_augment import AugmentOp, posterize
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.transforms import MaybeToTensor
from timm.data.transforms_factory import create_transform
from torch import Tensor
from torchvision.transforms import Normalize

from skipless.errors import InputError


@dataclass(frozen=True)
class PhotoTransform:
    """timm's transform of a photo, whose conversion to a normalised tensor writes directly into the batch.

    The result equals that of timm's `Compose` bit for bit, without its four copies of an image.

    Attributes:
        size: side of the result in pixels.
        steps: timm's transforms, in order.
    """

    size: int
    steps: tuple[Any, ...]

    def __call__(self, image: Image.Image) -> Float32[Tensor, "3 s s"]:
        """Transform one image."""
        return self.into(torch.empty(3, self.size, self.size), image)

    def into(self, out: Float32[Tensor, "3 s s"], image: Image.Image) -> Float32[Tensor, "3 s s"]:
        """Transform an image and write it into `out`, a row of a batch."""
        current: Any = image
        for step in self.steps:
            if isinstance(step, MaybeToTensor):
                current = out.copy_(torch.from_numpy(np.array(current)).permute(2, 0, 1)).div_(255)
            elif isinstance(step, Normalize):
                mean, std = (torch.as_tensor(values)[:, None, None] for values in (step.mean, step.std))
                current = out.sub_(mean).div_(std)
            else:
                current = step(current)
        return out if current is out else out.copy_(current)

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> "PhotoTransform":
        """Return the same transform with another mean and std for each channel, for values in 0 to 1."""
        chosen = Normalize(torch.tensor(mean), torch.tensor(std))
        return replace(self, steps=tuple(chosen if isinstance(step, Normalize) else step for step in self.steps))


def photo_transform(
    size: int,
    *,
    augmented: bool,
    auto_augment: str,
    color_jitter: float,
    erasing: float,
    interpolation: Literal["bicubic", "bilinear"],
    crop_ratio: float,
) -> PhotoTransform:
    """Return timm's transform; the arguments are those of `ImageConfig`.

    Raises:
        InputError: if timm does not know `auto_augment`.
    """
    try:
        transform: Any = create_transform(
            input_size=(size, size),  # (height, width): a bare number would scale the shorter side alone
            is_training=augmented,
            auto_augment=auto_augment or None,
            color_jitter=color_jitter,
            re_prob=erasing,
            re_mode="pixel",
            re_count=1,
            interpolation=interpolation,
            crop_pct=crop_ratio,
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
        )
    except (AssertionError, ValueError, KeyError) as error:  # how timm refuses an augmentation it does not know
        raise InputError(f"timm cannot build auto_augment {auto_augment!r} ({error}); see its documentation") from error
    for operation in _operations(transform):
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize
    return PhotoTransform(size, tuple(transform.transforms))


def _posterize(image: Image.Image, bits_to_keep: int, **_: Any) -> Image.Image:
    """Posterise as Pillow did before version 13: 0 bits give black, which timm asks for and Pillow now refuses.

    At the paper's magnitude of 9 with a standard deviation of 0.5 this happens to about one image in a thousand.
    """
    return posterize(image, bits_to_keep) if bits_to_keep > 0 else Image.new(image.mode, image.size)


def _operations(transform: Any) -> Iterator[AugmentOp]:
    """Yield timm's single operations, from any level of a policy."""
    if isinstance(transform, AugmentOp):
        yield transform
    elif isinstance(transform, list | tuple):
        for part in transform:
            yield from _operations(part)
    else:
        for name in ("transforms", "policy", "ops"):
            yield from _operations(getattr(transform, name, ()))
