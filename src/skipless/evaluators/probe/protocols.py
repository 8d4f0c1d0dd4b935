"""Named protocols of dense linear probing, with every number that a result depends on."""

from dataclasses import dataclass
from typing import Literal

from skipless.errors import InputError, did_you_mean
from skipless.evaluators.probe.heads import HeadOptimizer

_EIGHT_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


@dataclass(frozen=True)
class DenseProtocol:
    """How a linear segmentation head is trained, and how its learning rate is chosen.

    Features are computed once for each image, so no protocol has random crops or flips.

    Attributes:
        name: name of the protocol.
        optimizer: optimizer of the heads, with the grid of learning rates.
        image_size: side in pixels that pictures are resized to, ignoring their aspect ratio; rounded to whole patches.
        batch_size: number of images in a batch.
        epochs: number of passes over the training images; None if `iterations` is given.
        iterations: number of steps; None if `epochs` is given.
        loss_size: side in pixels that logits are bilinearly resized to before the loss; None computes the loss on
            patches.
        pixels_per_cell: in each cell of the loss grid, a square of this many pixels a side is sampled from the mask by
            nearest neighbour. Their class distribution is the cell's target.
        patches_per_image: number of patches of each image that are sampled anew in each epoch; None takes all.
        choose_at: how learning rates are compared: by mIoU at the size of the mask (`pixel`), or with the prediction of
            each patch for all of its pixels (`patch`), which is cheaper. Reported scores are always at the mask's size.
    """

    name: str
    optimizer: HeadOptimizer
    image_size: int
    batch_size: int
    epochs: int | None
    iterations: int | None = None
    loss_size: int | None = None
    pixels_per_cell: int = 1
    patches_per_image: int | None = None
    choose_at: Literal["pixel", "patch"] = "pixel"

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.iterations is None) or (self.epochs or self.iterations or 0) < 1:
            raise InputError(f"epochs={self.epochs}, iterations={self.iterations}: give one of them, at least 1")
        if min(self.batch_size, self.image_size, self.pixels_per_cell, self.loss_size or 1) < 1:
            raise InputError(f"protocol {self.name!r}: sizes must be at least 1")
        if self.patches_per_image is not None and (self.loss_size is not None or self.patches_per_image < 1):
            raise InputError("patches_per_image needs loss_size=None, and at least one patch")
        if self.choose_at not in ("pixel", "patch"):
            raise InputError(f"choose_at={self.choose_at!r}: choose from pixel, patch")

    def steps(self, images: int) -> int:
        """Number of training steps, given the number of training images."""
        return self.iterations or (self.epochs or 0) * -(-images // self.batch_size)


PROTOCOLS = {
    # Section 6.2.1 states a linear classifier, a sweep over learning rates, and 30 epochs. The rest is our reading: a
    # 1x1 head, AdamW, and what is common in papers of the time (pictures of 448, logits and masks compared at 100 x
    # 100).
    "paper": DenseProtocol(
        name="paper",
        optimizer=HeadOptimizer(_EIGHT_RATES, schedule="cosine"),
        image_size=448,
        batch_size=32,
        epochs=30,
        loss_size=100,
    ),
    # DINOv2's linear segmentation: BatchNorm and a 1x1 head, AdamW at 1e-3, 40,000 steps at 512 pixels, multiscale over
    # the last four blocks; whole pictures instead of crops. Batch, decay and warm-up as in mmsegmentation's configs.
    "dinov2": DenseProtocol(
        name="dinov2",
        optimizer=HeadOptimizer((1e-3,), weight_decay=1e-4, schedule="linear", warmup=1500 / 40_000, batch_norm=True),
        image_size=512,
        batch_size=16,
        epochs=None,
        iterations=40_000,
        loss_size=512,
    ),
    # Ours, for many blocks and models. The loss compares each patch with the class distribution of its pixels. Each
    # epoch takes 32 of 196 patches, because neighbouring ones are nearly redundant. Rates are compared on patches.
    "patch": DenseProtocol(
        name="patch",
        optimizer=HeadOptimizer(_EIGHT_RATES, schedule="cosine"),
        image_size=224,
        batch_size=16,
        epochs=30,
        pixels_per_cell=8,
        patches_per_image=32,
        choose_at="patch",
    ),
}
"""Probing protocols by name. They are our reading of the paper's, DINOv2's, and a fast one on patches."""


def protocol_named(name: str) -> DenseProtocol:
    """The protocol of a name; change its fields with `dataclasses.replace`.

    Raises:
        InputError: if there is no such protocol.

    Example:
        >>> protocol_named("paper").epochs
        30
    """
    if name not in PROTOCOLS:
        near = did_you_mean(name, PROTOCOLS)
        raise InputError(f"no probing protocol {name!r}; {near}there are {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
