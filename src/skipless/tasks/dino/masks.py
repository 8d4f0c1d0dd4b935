"""Which patches the student does not see: blocks or single patches, as a function of seed, step and image."""

import math
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from skipless.data.loading.seeding import derive_seed
from skipless.errors import InputError
from skipless.tasks.dino.config import DINOConfig

# The shape of blocks is BEiT's (Bao et al. 2022, Algorithm 1), with the constants of iBOT's published code.
_ASPECT = 0.3  # of a block, height over width, at least; at most its inverse
_ATTEMPTS = 10  # to find a place for a block


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks of images that go through the student together.

    Attributes:
        masked: for each image, whether the student does not see a patch; row by row.
        index: the masked patches among all patches of all images.
        weights: of each of them in the loss: 1 / (masked patches of its image x images).
    """

    masked: Bool[Tensor, "n p"]
    index: Int64[Tensor, " m"]
    weights: Float[Tensor, " m"]

    @classmethod
    def of(cls, masked: Bool[Tensor, "n p"]) -> "Masks":
        """Work out index and weights, on the CPU: a device would have to be waited for."""
        counts = masked.sum(1, keepdim=True).double()
        weights = (1 / (counts * len(masked))).expand(masked.shape)[masked]
        return cls(masked, masked.flatten().nonzero().flatten(), weights)

    def to(self, device: torch.device) -> "Masks":
        """Copy to a device."""
        moved = (self.masked, self.index, self.weights.float() if device.type == "mps" else self.weights)
        return Masks(*(tensor.to(device, non_blocking=True) for tensor in moved))


def draw_masks(
    config: DINOConfig, grid: tuple[int, int], *, seed: int, step: int, rows: range, crops: int
) -> Bool[Tensor, "n p"]:
    """Draw the masks of some images' global crops: all images of the first crop, then all of the second.

    Args:
        config: says how many images are masked, how much of them, and in which shape.
        grid: rows and columns of a crop's patches.
        seed: of the run.
        step: optimizer step, counted from 0.
        rows: places of the images in the batch of the step, over all processes and micro-batches.
        crops: number of global crops of each image.

    Raises:
        InputError: if no patch of so small a grid would be masked.

    Example:
        >>> config = DINOConfig(patch_loss=1.0, mask_share=1.0, mask_ratio=0.5, mask_spread=0.0, mask_shape="random")
        >>> draw_masks(config, (4, 4), seed=0, step=0, rows=range(3), crops=2).sum(1).tolist()
        [8, 8, 8, 8, 8, 8]
    """
    patches = grid[0] * grid[1]
    if (config.mask_ratio + config.mask_spread) * patches < 1:
        raise InputError(
            f"mask_ratio={config.mask_ratio} of {grid[0]} x {grid[1]} patches is less than one: mask more, or give "
            "larger global crops"
        )
    found = np.zeros((crops, len(rows), *grid), dtype=bool)
    for crop in range(crops):
        for place, row in enumerate(rows):
            random = Random(derive_seed(seed, "mask", step, row, crop))
            if random.random() < config.mask_share:
                low, high = config.mask_ratio - config.mask_spread, config.mask_ratio + config.mask_spread
                most = random.uniform(low, high) * patches
                (_mask_blocks if config.mask_shape == "block" else _mask_patches)(random, found[crop, place], most)
    return torch.from_numpy(found.reshape(crops * len(rows), patches))


def _mask_patches(random: Random, mask: np.ndarray, most: float) -> None:
    """Mask single patches, as many as `most` has room for."""
    mask.reshape(-1)[random.sample(range(mask.size), int(most))] = True


def _mask_blocks(random: Random, mask: np.ndarray, most: float) -> None:
    """Mask blocks, which may overlap, until no more fits into `most` patches."""
    room = most
    while room > 0:
        placed = _mask_block(random, mask, room)
        if not placed:
            return
        room -= placed


def _mask_block(random: Random, mask: np.ndarray, room: float) -> int:
    """Mask one block with at most so many patches that were not masked; return their number, 0 if none was found."""
    rows, columns = mask.shape
    smallest = (min(rows, columns) // 3) ** 2
    for _ in range(_ATTEMPTS):
        area = random.uniform(smallest, room)
        root = math.exp(random.uniform(math.log(_ASPECT), -math.log(_ASPECT)) / 2)
        height, width = round(math.sqrt(area) * root), round(math.sqrt(area) / root)
        if height < rows and width < columns:
            top, left = random.randint(0, rows - height), random.randint(0, columns - width)
            block = mask[top : top + height, left : left + width]
            fresh = block.size - int(block.sum())
            if 0 < fresh <= room:
                block[...] = True
                return fresh
    return 0
