"""Small image sets, held in memory as uint8 tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from skipless.data.loading.loader import BatchKey
from skipless.data.loading.seeding import derive_seed
from skipless.display import Record


@dataclass(frozen=True, eq=False, repr=False)
class MemoryImages(Record):
    """Images and labels in memory, normalised batch by batch as they are fetched.

    Attributes:
        images: pixels, 0 to 255.
        labels: class of every image.
        mean: mean of every channel over the *training* images, 0 to 255.
        std: standard deviation of every channel, likewise.
        shift: largest shift in pixels, along both axes; zeros (before normalisation) fill the border. 0 shifts nothing.
        flip: mirror half of the images.

    Example:
        >>> images = torch.full((2, 1, 8, 8), 7, dtype=torch.uint8)
        >>> data = MemoryImages(images, torch.tensor([0, 1]), mean=torch.tensor([5.0]), std=torch.tensor([2.0]))
        >>> pixels, label = data[1]
        >>> pixels.shape, pixels.unique().item(), label.item()
        (torch.Size([1, 8, 8]), 1.0, 1)
    """

    images: UInt8[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    mean: Float[Tensor, " c"]
    std: Float[Tensor, " c"]
    shift: int = 0
    flip: bool = False

    def _summary(self) -> str:
        shape = " x ".join(map(str, self.images.shape[1:]))
        return f"{len(self):,} images of {shape}, shift {self.shift}{', flipped' if self.flip else ''}"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "c h w"], Int64[Tensor, ""]]:
        """Return one normalised image, never augmented, and its label."""
        return self._normalised(self.images[index]), self.labels[index]

    def __getitems__(self, key: BatchKey) -> tuple[Float32[Tensor, "b c h w"], Int64[Tensor, " b"]]:
        """Return a batch; its augmentation is a function of (seed, epoch, index)."""
        images = self.images[key.indices]
        if self.shift or self.flip:
            images = torch.stack(
                [self._augmented(image, key, int(i)) for image, i in zip(images, key.indices, strict=True)]
            )
        return self._normalised(images), self.labels[key.indices]

    def resized(self, size: int) -> "MemoryImages":
        """Return the set with images resized to `size` x `size` (bicubic, antialiased)."""
        if self.images.shape[-2:] == (size, size):
            return self
        pixels = F.interpolate(self.images.float(), size=(size, size), mode="bicubic", antialias=True)
        images = pixels.round_().clamp_(0, 255).byte()
        return type(self)(images, self.labels, self.mean, self.std, self.shift, self.flip)

    def normalised_by(self, mean: Sequence[float], std: Sequence[float]) -> "MemoryImages":
        """Return the same images with another mean and std for each channel, for values in 0 to 1."""
        return replace(self, mean=255 * torch.tensor(mean), std=255 * torch.tensor(std))

    def _normalised(self, pixels: UInt8[Tensor, "*b c h w"]) -> Float32[Tensor, "*b c h w"]:
        return (pixels.float() - self.mean[:, None, None]) / self.std[:, None, None]

    def _augmented(self, image: UInt8[Tensor, "c h w"], key: BatchKey, index: int) -> UInt8[Tensor, "c h w"]:
        """Shift and flip one image. The three random numbers are digits of one hash, without a generator."""
        draw = derive_seed(key.seed, "shift", key.epoch, index)
        choices = 2 * self.shift + 1
        draw, down = divmod(draw, choices)
        draw, right = divmod(draw, choices)
        h, w = image.shape[-2:]
        image = F.pad(image, (self.shift,) * 4)[:, down : down + h, right : right + w]
        return image.flip(-1) if self.flip and draw % 2 else image


def channel_statistics(images: UInt8[Tensor, "n c h w"]) -> tuple[Float32[Tensor, " c"], Float32[Tensor, " c"]]:
    """Return mean and standard deviation of every channel, exactly, from the histograms of the uint8 pixels.

    Example:
        >>> channel_statistics(torch.tensor([0, 2], dtype=torch.uint8).view(2, 1, 1, 1))
        (tensor([1.]), tensor([1.]))
    """
    levels = torch.arange(256, dtype=torch.float64)
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).double()
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ levels
    std = ((share @ levels**2) - mean**2).clamp(min=0).sqrt()
    return mean.float(), std.float()
