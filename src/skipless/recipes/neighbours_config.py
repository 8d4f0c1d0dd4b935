"""How a teacher is evaluated on the way: the description that a recipe holds of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NeighboursConfig:
    """On how many images the teacher is evaluated by k-NN.

    Attributes:
        train: labelled training images at most, spread evenly over the set.
        val: validation images at most.
        k: neighbours; as many as there are training images, if these are fewer.
        batch_size: images that go through the model at once.
    """

    train: int = 10000
    val: int = 2000
    k: int = 20
    batch_size: int = 128
